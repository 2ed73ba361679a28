"""What a program is played on: a host of its own, a control plane that is there for all, and a tracer."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.crash.faults import Fault, Point
from tests.crash.tracer import mark_of
from tests.endtoend.agent import Agent, Ended, ended, make_agent

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_reporter.reference import ReferenceServer
    from tests.crash.truth import Untruth

LOOK_SECONDS = 0.02
"""Between two looks at something of another process that cannot be waited for."""
SETTINGS = {"drain_timeout": "60", "report_interval": "0.05", "stop_poll_interval": "5"}


@dataclass
class Stage:
    """One play of a program, with a fault at one call or without any."""

    directory: Path
    server: ReferenceServer
    point: Point | None
    settings: dict[str, str]
    agent: Agent = field(init=False)

    def __post_init__(self) -> None:
        self.directory.mkdir()
        self.agent = make_agent(self.directory / "host", self.server.url, **(SETTINGS | self.settings))

    @property
    def is_killed(self) -> bool:
        return self.point is not None and self.point.fault is Fault.KILL

    def new_restore(self, letter: str, **how: Any) -> str:
        """Its id ends in `letter`, by which the tracer names its files."""
        return self.server.start_restore(restore_id=f"{str(uuid.uuid4())[:-1]}{letter}", **how)

    def mend(self) -> None:
        """End a fault that lasts: somebody has put a sound disk in, or freed some."""
        mark_of(self._log).touch()

    @property
    def _log(self) -> Path:
        return self.directory / "calls"

    async def start_traced(self, *words: str, **options: Any) -> asyncio.subprocess.Process:
        """Start `agent-reporter`, to meet the fault of this play."""
        point = "" if self.point is None else self.point.encode()
        tracer = [sys.executable, "-m", "tests.crash.tracer", str(self._log), str(self.agent.spool), point]
        program = [sys.executable, "-m", "agent_reporter.cli.main", *words]
        return await self.agent.start_other(*tracer, "--", *program, **options)

    async def do_traced(self, *words: str, **options: Any) -> Ended:
        return await ended(await self.start_traced(*words, **options))

    def calls(self) -> list[dict[str, Any]]:
        """The calls that the tracer saw, once the program has ended."""
        if not self._log.exists():
            return []
        return [json.loads(line) for line in self._log.read_text().splitlines()]

    @property
    def has_hit(self) -> bool:
        return any(call["hit"] for call in self.calls())


@dataclass(frozen=True, slots=True)
class Played:
    """What became of one play."""

    program: str
    point: Point | None
    has_hit: bool
    untruths: list[Untruth]
    seconds: float
    calls: list[dict[str, Any]]


async def until(is_so: Callable[[], bool], *, within: float = 180.0) -> bool:
    """Whether something of another process becomes so within that time."""
    try:
        async with asyncio.timeout(within):
            while not is_so():  # noqa: ASYNC110 - what is waited for is another process's
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError:
        return is_so()
    return True


def named(word: str) -> list[int]:
    """The processes that have `word` on their command lines."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # none, or gone since
        if process.name.isdecimal() and word.encode() in words:
            found.append(int(process.name))
    return found


def children(process: int) -> list[int]:
    """The processes that `process` started with its first thread."""
    return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


def copy_renamed(
    source: Path, target: Path, names: dict[str, str], rewrite: Callable[[bytes], bytes]
) -> None:
    """Copy a spool, with other restores in the place of those that it holds."""
    for path in source.rglob("*"):
        name = str(path.relative_to(source))
        content = b"" if path.is_dir() else path.read_bytes()
        for old, new in names.items():
            name = name.replace(old, new)
        if path.is_dir():
            (target / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            continue
        (target / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        (target / name).touch(mode=0o600)
        (target / name).write_bytes(rewrite(content))
