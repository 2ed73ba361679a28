"""A real reporter, a real socket, a real control plane; only time runs faster."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

import aiohttp
import pytest

from agent_reporter import Reporter, Settings
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.record import Destination, Record
from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.server import AGENT, PROJECT
from agent_reporter.spool import Spool
from tests.blocking import no_blocking_calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from agent_reporter.clock import Waitable
    from agent_reporter.model.process_identity import ProcessIdentity
    from agent_reporter.model.report import Report
    from agent_reporter.spool import Listed

ELSEWHERE: Final = "elsewhere"
"""The agent that others update a restore as."""
TOKEN: Final = "a-token-that-is-good"
FACTOR: Final = 100.0
"""Seconds of the injected time in one of real time."""
REQUEST_TIMEOUT: Final = 5.0
"""Real seconds, as sockets know no other time: long, unless a test waits for it."""

COUNTERS: Final = ("files_restored", "bytes_restored")
FINAL: Final = ("completed", "completed_with_errors", "failed", "stopped")

_FIELDS: Final = {
    "/state": "state",
    "/errors": "errors",
    "/started-time": "started_time",
    "/started_time": "started_time",
    "/ended-time": "ended_time",
    "/ended_time": "ended_time",
    "/files_restores": "files_restored",
    "/files_restored": "files_restored",
    "/bytes-restored": "bytes_restored",
    "/bytes_restored": "bytes_restored",
}


class FastClock:
    """The reporter's clock, with `factor` seconds in each real one, and chance from a seed."""

    def __init__(self, factor: float = FACTOR, seed: int = 0) -> None:
        self._factor = factor
        self._random = random.Random(seed)
        self._began = datetime.now(UTC)
        self._zero = time.monotonic()

    def now(self) -> datetime:
        return self._began + timedelta(seconds=self.monotonic())

    def timestamp(self) -> float:
        """What the reference server takes for the time of day."""
        return self.now().timestamp()

    def monotonic(self) -> float:
        return (time.monotonic() - self._zero) * self._factor

    def random(self) -> float:
        return self._random.random()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._factor)

    async def wait(self, event: Waitable, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(None if seconds is None else seconds / self._factor):
                await event.wait()
        except TimeoutError:
            return False
        return True


@dataclass(frozen=True)
class Request:
    """One request that arrived, with times in seconds of the injected clock."""

    time: float
    method: str
    path: str
    answer: int | str
    applied: bool
    fault: str | None
    operations: list[dict[str, Any]]

    @property
    def values(self) -> dict[str, Any]:
        """What a patch tells, by field, in whichever spelling it came."""
        return {_FIELDS[operation["path"]]: operation["value"] for operation in self.operations}

    @property
    def paths(self) -> set[str]:
        return {operation["path"] for operation in self.operations}

    @property
    def is_patch(self) -> bool:
        return self.method == "PATCH"

    @property
    def is_read(self) -> bool:
        return self.method == "GET" and not self.path.endswith("/events")

    @property
    def is_poll(self) -> bool:
        return self.method == "GET" and self.path.endswith("/events")


class Rig:
    """One control plane, one spool and one clock; reporters come and go."""

    def __init__(self, directory: Path, clock: FastClock, server: ReferenceServer) -> None:
        self.directory = directory
        self.clock = clock
        self.server = server
        self.token_file = directory / "token"
        self.spool = Spool(directory / "spool")

    def settings(self, **changes: object) -> Settings:
        plain: dict[str, object] = {
            "endpoint": self.server.url,
            "project_id": PROJECT,
            "agent_id": AGENT,
            "token_file": self.token_file,
            "spool_dir": self.spool.directory,
            "request_timeout": REQUEST_TIMEOUT,
            "drain_timeout": 3_000.0,
        }
        return Settings(**(plain | changes))  # type: ignore[arg-type]  # checked when it is made

    def reporter(self, *, takes_over: bool = True, **changes: object) -> Reporter:
        return Reporter(self.settings(**changes), clock=self.clock, takes_over=takes_over)

    @property
    def destination(self) -> Destination:
        return Destination(self.server.url, PROJECT)

    def write_token(self, token: str) -> None:
        """Rotate the token: the server takes this one from now on, and the reporter's file holds it."""
        self.token_file.touch(mode=0o600)
        self.token_file.write_text(token)

    def requests(self, restore_id: str | None = None) -> list[Request]:
        """Every request of our reporters that arrived, or every one about a restore, in order."""
        return [
            Request(
                time=datetime.fromisoformat(each["time"]).timestamp(),
                method=each["method"],
                path=each["path"],
                answer=each["answer"],
                applied=each["applied"],
                fault=each["fault"],
                operations=each["body"] or [],
            )
            for each in self.server.history(restore_id)
            if each["agent_id"] != ELSEWHERE
        ]

    def patches(self, restore_id: str) -> list[Request]:
        return [request for request in self.requests(restore_id) if request.is_patch]

    def applied(self, restore_id: str) -> list[dict[str, Any]]:
        """What each patch told that the control plane carried out."""
        return [patch.values for patch in self.patches(restore_id) if patch.applied]

    def states(self, restore_id: str) -> list[str]:
        """The states that the control plane was told and took, in order."""
        return [values["state"] for values in self.applied(restore_id) if "state" in values]

    async def patch_elsewhere(self, restore_id: str, values: dict[str, Any]) -> int:
        """Have somebody else update the restore; its requests are not among ours."""
        url = f"{self.server.url}/v2/{PROJECT}/restores/{restore_id}"
        headers = {
            "X-Auth-Token": self.token_file.read_text(),
            "X-Agent-Id": ELSEWHERE,
            "Content-Type": "application/json-patch+json",
        }
        patch = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in values.items()]
        async with (
            aiohttp.ClientSession() as session,
            session.patch(url, json=patch, headers=headers) as answer,
        ):
            return answer.status

    async def leave_behind(
        self,
        report: Report,
        *,
        exchange: Exchange | None = None,
        engine: ProcessIdentity | None = None,
        destination: Destination | None = None,
    ) -> None:
        """Put a record into the spool, as a reporter does that dies then."""

        def leave() -> None:
            entry = self.spool.open(report.restore_id)
            where, conversation = destination or self.destination, exchange or Exchange()
            entry.write(Record(where, report, conversation, engine, report.ended_time))
            entry.release()

        await asyncio.to_thread(leave)

    async def waiting(self) -> list[Record]:
        """What the spool holds and is not delivered."""
        return [listed.record for listed in await self._listing() if not listed.dead and listed.record]

    async def dead_letters(self) -> list[Record]:
        return [listed.record for listed in await self._listing() if listed.dead and listed.record]

    async def until_waiting(self, is_so: Callable[[list[Record]], bool]) -> None:
        """Wait until what the spool holds is so."""
        async with asyncio.timeout(5):
            while not is_so(await self.waiting()):  # noqa: ASYNC110 - as in `eventually`
                await asyncio.sleep(0.005)

    async def until_spool_is_empty(self) -> None:
        await self.until_waiting(lambda waiting: not waiting)

    async def _listing(self) -> list[Listed]:
        return await asyncio.to_thread(self.spool.listing)

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until requests have made something so."""
        await self.server.wait_until(is_so)

    async def until_state(self, restore_id: str, state: str) -> None:
        await self.until(lambda: self.server.document(restore_id)["state"] == state)

    async def until_bytes(self, restore_id: str, count: int) -> None:
        await self.until(lambda: self.server.document(restore_id)["bytes_restored"] >= count)

    async def until_read(self, restore_id: str) -> None:
        """Wait for the first contact."""
        await self.until(lambda: any(request.is_read for request in self.requests(restore_id)))

    def assert_truthful(self, restore_id: str) -> None:
        """What may never happen, whatever goes wrong: see the invariants in `house.md`."""
        applied = self.applied(restore_id)
        for counter in COUNTERS:
            told = [values[counter] for values in applied if counter in values]
            assert told == sorted(told), f"{counter} went down"
        told = [values["errors"]["count"] for values in applied if "errors" in values]
        assert told == sorted(told), "the errors went down"
        states = self.states(restore_id)
        assert sum(state in FINAL for state in states) <= 1, f"it ended twice: {states}"
        order = ["queued", "preparing", "in_progress", *FINAL]
        assert states == sorted(states, key=order.index), f"a state went backwards: {states}"


@asynccontextmanager
async def open_rig(
    directory: Path, *, factor: float = FACTOR, seed: int = 0, **server_options: Any
) -> AsyncIterator[Rig]:
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    clock = FastClock(factor, seed)
    token_file = directory / "token"
    async with ReferenceServer(
        directory / "control-plane",
        token_file=token_file,
        now=clock.timestamp,
        pause=clock.sleep,
        **server_options,
    ) as server:
        rig = Rig(directory, clock, server)
        rig.write_token(TOKEN)
        yield rig


class RigMaker(Protocol):
    async def __call__(self, *, factor: float = ..., seed: int = ..., **server_options: Any) -> Rig: ...


@pytest.fixture
async def make_rig(tmp_path: Path) -> AsyncIterator[RigMaker]:
    async with contextlib.AsyncExitStack() as stack:
        made: list[Rig] = []

        async def make(*, factor: float = FACTOR, seed: int = 0, **server_options: Any) -> Rig:
            directory = tmp_path / f"rig-{len(made)}"
            rig = await stack.enter_async_context(
                open_rig(directory, factor=factor, seed=seed, **server_options)
            )
            made.append(rig)
            return rig

        yield make


@pytest.fixture
async def rig(make_rig: RigMaker) -> Rig:
    return await make_rig()


@pytest.fixture(autouse=True)
def _no_blocking_call_in_the_loop() -> Iterator[None]:
    with no_blocking_calls():
        yield


class Log(logging.Handler):
    """The events that the reporter logged."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, dict):
            self.events.append(record.msg)

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == name]

    def assert_no_bug_of_ours(self) -> None:
        assert not self.named("reporter.loop_failed")
        assert not self.named("reporter.ended_badly")


@pytest.fixture(autouse=True)
def log() -> Iterator[Log]:
    log = Log()
    logger = logging.getLogger("agent_reporter")
    before = logger.level
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    yield log
    logger.removeHandler(log)
    logger.setLevel(before)


async def eventually(is_so: Callable[[], bool], *, within: float = 10.0) -> None:
    """Wait for something that no request brings about."""
    async with asyncio.timeout(within):
        while not is_so():  # noqa: ASYNC110 - nobody sets an event for it
            await asyncio.sleep(0.002)
