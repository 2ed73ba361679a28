"""One bomb thrown at one call of a real agent: what it cost, and whether all is well after it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.accounts import Accounts, AgentAccount
from agent_reporter.reference.server import AGENT, PROJECT
from tests.bombs.bombs import Bomb, Call
from tests.bombs.control_plane import Hostile, hostile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PASSWORD = "a-password-that-nobody-else-should-see"
ACCOUNTS = Accounts([AgentAccount(PROJECT, AGENT, PASSWORD)])
TIMES = 2
"""A bomb is thrown so often: what the first one leaves behind, the second one meets."""
REQUEST_SECONDS = 2.0
"""Long enough that an agent shows what it does with a bomb."""
FIRED_WITHIN = 60.0
HEALED_WITHIN = 45.0
MOST_MEMORY = 24 * 1024 * 1024
"""Bytes over the baseline."""
MOST_STALL = 0.1
"""Seconds of a processor that the event loop is held up at most."""


class Kind(StrEnum):
    """Which part of the agent meets the bombs."""

    LIBRARY = "library"
    DAEMON = "daemon"


@dataclass
class Result:
    """What one bomb did."""

    kind: Kind
    call: Call
    bomb: Bomb
    sent: int = 0
    given_up: float = 0.0
    healed: float = 0.0
    memory: int = 0
    stall: float = 0.0
    problems: list[str] = field(default_factory=list)


class Subject:
    """A process of `tests.bombs.subject`."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    async def ask(self, *words: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{' '.join(words)}\n".encode())
        answer = await asyncio.wait_for(self._process.stdout.readline(), 60)
        if not answer:
            raise RuntimeError(f"{words}: the process has ended: {self.log.read_text()[-2_000:]}")
        document: dict[str, Any] = json.loads(answer)
        return document

    def forget_peak(self) -> int:
        """Begin to measure the peak of memory, and return what there is now, in bytes."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")
        return self._memory("VmRSS")

    def peak(self) -> int:
        return self._memory("VmHWM")

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith(name))

    def kill(self) -> None:
        self._process.kill()

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 20)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


@dataclass
class Scene:
    """A good control plane, the hostile one before it, an engine, and whoever reports for it."""

    kind: Kind
    reference: ReferenceServer
    hostile: Hostile
    engine: Subject
    measured: Subject
    socket: Path
    """Where the daemon answers, if there is one."""

    async def play(self, bomb: Bomb, call: Call) -> Result:
        """Throw the bomb, and then let the restore go on to its end."""
        result = Result(self.kind, call, bomb)
        restore_id = self.reference.start_restore()
        await self.measured.ask("rest")
        baseline = self.measured.forget_peak()
        # After a good answer nobody signs in again, or reads what nothing has happened to.
        times = 1 if call in {Call.SIGN_IN, Call.READ} and bomb.lets_through else TIMES
        self.hostile.arm(bomb, call, times)
        await self.engine.ask("begin", restore_id)
        try:
            await self.hostile.wait_for_bursts(times, FIRED_WITHIN)
        except TimeoutError:
            result.problems.append(f"asked {len(self.hostile.bursts)} of {times} times")
        told = await self._end(restore_id, call, result)
        result.stall = (await self.measured.ask("figures"))["stall"]
        result.memory = self.measured.peak() - baseline
        result.sent = max((burst.sent for burst in self.hostile.bursts), default=0)
        result.given_up = max((burst.seconds for burst in self.hostile.bursts), default=0.0)
        self._judge(told, restore_id, result)
        return result

    async def _end(self, restore_id: str, call: Call, result: Result) -> dict[str, Any]:
        """Bring the restore to its end: by a stop where it was stops that were looked for in vain."""
        begun = time.monotonic()
        wanted = "completed"
        if call is Call.EVENTS:
            wanted = "stopped"
            self.reference.request_stop(restore_id)
            try:
                await self.reference.wait_until(
                    lambda: self._state(restore_id) == wanted, within=HEALED_WITHIN
                )
            except TimeoutError:
                result.problems.append("the stop did not come through")
        told = await self.engine.ask("end", restore_id)
        try:
            await self.reference.wait_until(lambda: self._state(restore_id) == wanted, within=HEALED_WITHIN)
        except TimeoutError:
            result.problems.append(f"not {wanted} but {self._state(restore_id)}")
        result.healed = time.monotonic() - begun
        return told

    def _state(self, restore_id: str) -> str:
        return str(self.reference.document(restore_id)["state"])

    def _judge(self, told: dict[str, Any], restore_id: str, result: Result) -> None:
        record = self.reference.document(restore_id)
        if record["bytes_restored"] != told["bytes"]:
            result.problems.append(f"{record['bytes_restored']} bytes told of {told['bytes']}")
        if told["state"] != record["state"]:
            result.problems.append(f"the engine ended as {told['state']}")
        if not told["steps"]:
            result.problems.append("the engine did not go on")
        if not all(burst.is_over for burst in self.hostile.bursts):
            result.problems.append("not given up")
        if self.hostile.asked_elsewhere:
            result.problems.append(f"another origin was asked: {self.hostile.asked_elsewhere[0][:60]!r}")
            self.hostile.asked_elsewhere.clear()
        if any(b"\r\ncookie:" in head.lower() for head, _ in self.hostile.requests):
            result.problems.append("a cookie was sent back")
        self.hostile.requests.clear()
        if result.memory > MOST_MEMORY:
            result.problems.append(f"{result.memory / 1e6:.1f} MB")


@asynccontextmanager
async def open_scene(
    directory: Path,
    kind: Kind,
    *,
    accounts: Accounts = ACCOUNTS,
    token: str = "",
    password: str = PASSWORD,
    settings_of: Callable[[str], dict[str, object]] = lambda _url: {},
    **changes: object,
) -> AsyncIterator[Scene]:
    """Start all that takes part. `changes` are of settings, `settings_of` gives more, of the URL.

    What is None there is not set.
    """
    async with AsyncExitStack() as stack:
        reference = await stack.enter_async_context(
            ReferenceServer(directory / "control-plane", accounts=accounts, token=token)
        )
        front = await stack.enter_async_context(hostile(reference.url))
        sockets = stack.enter_context(tempfile.TemporaryDirectory(prefix="bombs-"))
        secret = directory / "password"
        secret.touch(mode=0o600)
        secret.write_text(password)
        settings: dict[str, object] = {
            "endpoint": front.url,
            "project_id": PROJECT,
            "agent_id": AGENT,
            "agent_password_file": secret,
            "socket": Path(sockets) / "api.sock",
            "report_interval": 0.05,
            "stop_poll_interval": 0.2,
            "idle_poll_interval": 600,
            "request_timeout": REQUEST_SECONDS,
            "retry_base": 0.05,
            "retry_cap": 0.3,
            "retry_after_cap": 0.5,
            "drain_timeout": 1,
            **settings_of(front.url),
            **changes,
        }
        engine_settings = settings | {"daemon": "never", "spool_dir": directory / "spool"}
        measured = None
        if kind is Kind.DAEMON:
            own = settings | {"spool_dir": directory / "daemon-spool"}
            measured = await _start("daemon", directory, own)
            stack.push_async_callback(measured.end)
            await measured.ask("rest")
            engine_settings["daemon"] = "always"
        engine = await _start("engine", directory, engine_settings)
        stack.push_async_callback(engine.end)
        await engine.ask("rest")
        scene = Scene(kind, reference, front, engine, measured or engine, Path(sockets) / "api.sock")
        yield scene


async def _start(mode: str, directory: Path, settings: dict[str, object]) -> Subject:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("AGENT_REPORTER_")
    }
    environment |= {
        f"AGENT_REPORTER_{name.upper()}": str(value) for name, value in settings.items() if value is not None
    }
    log = directory / f"{mode}.log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.bombs.subject", mode),
            env=environment,
            cwd=Path(__file__).parents[2],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
    return Subject(process, log)
