"""One delivery on virtual time, with an engine, a control plane and a clock that a test owns."""

from __future__ import annotations

import asyncio
import json
import selectors
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import wraps
from typing import TYPE_CHECKING, Any, cast

from agent_reporter.clock import SystemClock
from agent_reporter.delivery import Delivery
from agent_reporter.keeper import Keeper
from agent_reporter.means import Means
from agent_reporter.model.record import Record
from agent_reporter.model.state import RestoreState
from agent_reporter.model.verdict import Answer
from agent_reporter.settings import Settings
from tests.builders import DESTINATION, START, a_report

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from agent_reporter.control_plane.client import ControlPlane
    from agent_reporter.model.client import Facts
    from agent_reporter.model.exchange import Ending, Exchange
    from agent_reporter.model.patch import Operations
    from agent_reporter.model.report import Report
    from agent_reporter.spool import Entry

INTERVAL = 2.0
"""Seconds between two patches of progress."""
CHANCE = 0.5
"""What the clock draws, always: so the first retry comes after half a second, the second after one."""
SETTINGS = Settings(
    endpoint=DESTINATION.endpoint,
    project_id=DESTINATION.project_id,
    agent_id="agent",
    report_interval=INTERVAL,
    retention=1_000.0,
    drain_timeout=0.05,  # real seconds, for the threads that wait for a delivery
)
LONGEST = 1e6
"""Virtual seconds: a test that takes longer hangs."""
REAL_BOUND = 5.0
"""Real seconds that the loop waits for another thread where no timer is set."""
_FIELDS = {
    "/started-time": "started_time",
    "/ended-time": "ended_time",
    "/files_restores": "files_restored",
    "/bytes-restored": "bytes_restored",
}


class _Jumping(selectors.SelectSelector):
    """Where there is nothing to do but to wait, time jumps to the end of the wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            ready = super().select(REAL_BOUND)
            assert ready, "everybody waits, and nothing is left that could wake anybody"
            return ready
        self.now += timeout
        assert self.now < LONGEST, "this takes too long"
        return super().select(0)


class _VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def on_virtual_time(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run the coroutine of a test on virtual time, from its second 0 on."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=_VirtualLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def seconds() -> float:
    """Since the test began."""
    return asyncio.get_running_loop().time()


class VirtualClock(SystemClock):
    """The clock of the loop, as a wall clock too, which can be set."""

    def __init__(self) -> None:
        self.skew = timedelta(0)

    def now(self) -> datetime:
        return START + self.skew + timedelta(seconds=self.monotonic())

    def monotonic(self) -> float:
        return seconds()

    def random(self) -> float:
        return CHANCE


@dataclass
class Engine:
    """Where reports come from: it states what a test has it state."""

    report: Report
    is_live: bool = True
    knows_of_stop: bool = False
    settled: list[Ending | None] = field(default_factory=list)
    stops: int = 0
    """How often it was told to stop."""
    asked: list[float] = field(default_factory=list)
    """When it was asked for its newest report."""
    on_asked: Callable[[], None] = lambda: None
    restore_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.restore_id = self.report.restore_id

    @property
    def awaits_stop(self) -> bool:
        return self.is_live and not self.knows_of_stop

    def take_report(self) -> Report:
        self.asked.append(seconds())
        self.on_asked()
        return self.report

    def request_stop(self) -> None:
        self.stops += 1

    def settle(self, ending: Ending | None) -> None:
        self.settled.append(ending)

    def states(self, **changes: Any) -> Report:
        """State something new."""
        self.report = replace(self.report, revision=self.report.revision + 1, **changes)
        self.is_live = self.is_live and not self.report.is_final
        return self.report

    def ends(self, state: RestoreState = RestoreState.COMPLETED, **changes: Any) -> Report:
        """State a result."""
        ended = START + timedelta(seconds=seconds())
        return self.states(state=state, ended_time=ended, **changes)


@dataclass(frozen=True)
class Call:
    """One request as it reached the control plane."""

    time: float
    told: dict[str, Any] | None
    """What a patch told, by field; None for a read."""
    facts: Facts | None = None

    @property
    def kind(self) -> str:
        """`read`, the state that was told, or `progress`."""
        return "read" if self.told is None else self.told.get("state", "progress")


@dataclass
class Plane:
    """A control plane that takes everything, but for what `answers` says of the next requests."""

    document: dict[str, Any]
    answers: list[Answer | Exception | None] = field(default_factory=list)
    """None is the answer that it would give anyway."""
    always: Answer | Exception | None = None
    """What it answers to everything else, if not that."""
    takes: float = 0.0
    """Seconds that each request takes."""
    calls: list[Call] = field(default_factory=list)
    renewed: list[int] = field(default_factory=list)
    """The statuses that a new token was asked for after."""
    sign_in: Exception | None = None
    is_daemon: bool = False
    before_answer: Callable[[], object] = lambda: None

    async def read_restore(self, _restore_id: str) -> Answer:
        return await self._answer(Call(seconds(), None))

    async def update_restore(self, _restore_id: str, operations: Operations, facts: Facts | None) -> Answer:
        told = {_FIELDS.get(each["path"], each["path"][1:]): each["value"] for each in operations}
        return await self._answer(Call(seconds(), told, facts))

    async def renew_token(self, answer: Answer) -> None:
        self.renewed.append(answer.status)
        if self.sign_in is not None:
            raise self.sign_in

    async def _answer(self, call: Call) -> Answer:
        self.calls.append(call)
        answer = self.answers.pop(0) if self.answers else self.always
        await asyncio.sleep(self.takes)
        self.before_answer()
        if isinstance(answer, Exception):
            raise answer
        if answer is not None:
            return answer
        if call.told is None:
            return Answer(200, json.dumps(self.document).encode())
        self.document.update(call.told)
        return Answer(204)

    @property
    def kinds(self) -> list[str]:
        return [call.kind for call in self.calls]

    @property
    def timed(self) -> list[tuple[float, str]]:
        return [(round(call.time, 3), call.kind) for call in self.calls]


class Scene:
    """A delivery with all that is around it."""

    def __init__(
        self,
        report: Report | None = None,
        *,
        exchange: Exchange | None = None,
        since: datetime | None = None,
        entry: Entry | None = None,
        is_live: bool = True,
        hold: float = 0.0,
        plane: Plane | None = None,
        **settings: Any,
    ) -> None:
        first = report or a_report()
        self.clock = VirtualClock()
        self.engine = Engine(first, is_live)
        self.plane = plane or Plane({"state": "start_requested"})
        self.means = Means(
            replace(SETTINGS, **settings),
            self.clock,
            cast("ControlPlane", self.plane),
            asyncio.Semaphore(1),
        )
        record = Record(DESTINATION, first, undelivered_since=since)
        if exchange is not None:
            record = replace(record, exchange=exchange)
        self.keeper = Keeper(entry, record, self.clock)
        self.delivery = Delivery(self.engine, self.keeper, self.means, hold=hold)

    @property
    def answers(self) -> dict[str, int]:
        return dict(self.means.tally.answers)

    @asynccontextmanager
    async def delivering(self) -> AsyncIterator[asyncio.Task[None]]:
        """The delivery runs for as long as the block lasts; what it raises, the block raises."""
        task = asyncio.create_task(self.delivery.run())
        try:
            yield task
        finally:
            if not task.done():
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if not task.cancelled():
            task.result()

    async def until_over(self) -> None:
        """Deliver to the end."""
        async with self.delivering() as task:
            await task


async def until(second: float) -> None:
    """Let time pass, until just after everything of that second."""
    await asyncio.sleep(max(0.0, second - seconds()) + 1e-4)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)
