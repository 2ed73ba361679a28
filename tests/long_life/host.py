"""The host on which one process lives for a month: its disk, its way out, its clock, and what befalls them.

It is the simulation's, but that it forgets what is over: nothing of it grows by itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from agent_reporter.clock import SystemClock
from tests.simulation.control_plane import ControlPlane
from tests.simulation.disk import Disk
from tests.simulation.loop import PROCESS, Process, VirtualLoop
from tests.simulation.network import Network
from tests.simulation.plan import NetFault, plan_of

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from agent_reporter.reference.restores import Restore
    from tests.simulation.network import Request
    from tests.simulation.world import World

BEGINNING = datetime(2026, 3, 1, tzinfo=UTC)
HOUR = 3_600.0
DAY = 24 * HOUR
SECRET = "/secret/password"

OUTAGES = (
    NetFault(0.0, 0.0, "all", "status", status=503, retry_after="7200"),
    NetFault(0.0, 0.0, "all", "status", status=429, retry_after="date:5400", body="html"),
    NetFault(0.0, 0.0, "patch", "status", status=500, body="json", applied=True),
    NetFault(0.0, 0.0, "all", "refused"),
    NetFault(0.0, 0.0, "all", "lost"),
)
LONG_OUTAGE = OUTAGES[0]
HICCUPS = (
    NetFault(0.0, 0.0, "patch", "answer_lost", chance=0.5),
    NetFault(0.0, 0.0, "all", "dropped", chance=0.5),
    NetFault(0.0, 0.0, "all", "cut", chance=0.5),
    NetFault(0.0, 0.0, "read", "status", status=404, chance=0.3),
    NetFault(0.0, 0.0, "all", "slow", delay=8.0, chance=0.5),
    NetFault(0.0, 0.0, "all", "status", status=502, body="huge", chance=0.5),
    NetFault(0.0, 0.0, "patch", "status", status=409, chance=0.5),
    NetFault(0.0, 0.0, "events", "status", status=501, chance=0.5),
    NetFault(0.0, 0.0, "patch", "status", status=403, chance=0.3),
)
DISK_TROUBLES = ("full", "broken", "readonly", "short", "slow")
CLOCK_JUMPS = (-400.0, -3.0, 30.0, 400.0)


class LongLoop(VirtualLoop):
    """A loop that runs for a month: how many steps it may take is counted anew with each look."""

    def alive(self) -> list[asyncio.Handle]:
        """The timers that are still to fire."""
        return [timer for _, _, timer in self._timers if not timer.cancelled()]


class Clock(SystemClock):
    """The host's clock in virtual time, and chance from the seed."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def now(self) -> datetime:
        return self._host.host_time()

    def monotonic(self) -> float:
        return self._host.loop.time()

    def random(self) -> float:
        return self._host.random.random()


class Books:
    """What the network tells of every request; what counts here is how many, and the results that arrived."""

    def __init__(self) -> None:
        self.requests = 0
        self.results = 0

    def sent(self, _request: Request) -> None:
        self.requests += 1

    def applied(self, _request: Request, before: Restore, after: Restore) -> None:
        self.results += after.is_final and not before.is_final

    def arrived(self, *_: object) -> None:
        """It is all one here."""

    answered = unanswered = arrived


class Ears(logging.Handler):
    """Whoever listens to the events: they are made and said as for a journal, and failures of ours noted."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.failures: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        event = str(record.msg)
        if "reporter.loop_failed" in event or "reporter.ended_badly" in event or "result_not_kept" in event:
            self.failures.append(event[-1_500:])


class Host:
    """Stands where `tests.simulation.seams` has a world."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loop = LongLoop()  # type: ignore[abstract]  # what has to do with files is left out
        self.disk = Disk(self.random, lambda *_: None)
        self.boot = "boot"
        self.ledger = Books()
        plan = replace(plan_of(0), strict=False, spelling="both", reads=200, events=200)
        self.control_plane = ControlPlane(plan, self.loop.time)
        self.network = Network(cast("World", self))
        self.skew = timedelta(0)
        self.processes: set[int] = set()
        """Those that live, beside the one of the long life."""
        self._context = contextvars.copy_context()
        self._next_pid = 2_000

    # What the seams and the network ask of a world.

    def host_time(self) -> datetime:
        return BEGINNING + self.skew + timedelta(seconds=self.loop.time())

    def thread_delay(self) -> float:
        return self.random.random() * (4.0 if "slow" in self.disk.troubles else 0.002)

    def is_process_alive(self, pid: int) -> bool:
        return pid in self.processes

    # Processes.

    def process(self, name: str) -> Process:
        """A new one, that lives until it is killed."""
        self._next_pid += 1
        self.processes.add(self._next_pid)
        return Process(name, self._next_pid)

    def run_in(self, process: Process, run: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it as the process does."""
        return self.loop.create_task(run, name=process.name, context=_context_of(process))

    def call_in(self, process: Process, call: Callable[[], object]) -> None:
        """Have the process make one call, and die."""
        try:
            _context_of(process).run(call)
        finally:
            self.disk.release(process)
            self.processes.discard(process.pid)

    def later(self, delay: float, call: Callable[..., object], *args: object) -> None:
        """Call it later, outside of all processes."""
        self.loop.call_later(delay, call, *args, context=self._context)

    # What befalls it, each again and again for as long as it lasts.

    async def lose_tokens(self) -> None:
        """Each hour the token ends, and there is another at once, or some time later."""
        while True:
            await asyncio.sleep(HOUR)
            self.control_plane.door.replace()

    async def suffer_outages(self) -> None:
        """Now and then nothing gets through for hours, and once for a whole day."""
        for number in range(1_000_000):
            await asyncio.sleep(self.random.uniform(0.5, 1.5) * DAY)
            is_long = number == 3
            fault = LONG_OUTAGE if is_long else self.random.choice(OUTAGES)
            await self._suffer(fault, DAY if is_long else self.random.uniform(0.2, 4.0) * HOUR)

    async def suffer_hiccups(self) -> None:
        """Every hour or so something goes wrong for some minutes."""
        while True:
            await asyncio.sleep(self.random.uniform(0.2, 1.5) * HOUR)
            await self._suffer(self.random.choice(HICCUPS), self.random.uniform(5.0, 300.0))

    async def suffer_disk(self) -> None:
        """Now and then the disk is full, or worse, for an hour."""
        while True:
            await asyncio.sleep(self.random.uniform(0.3, 1.3) * DAY)
            trouble = self.random.choice(DISK_TROUBLES)
            self.disk.troubles.append(trouble)
            await asyncio.sleep(HOUR if trouble == "full" else self.random.uniform(10.0, 600.0))
            self.disk.troubles.remove(trouble)

    async def set_clock(self) -> None:
        """The wall clock is set, there and back."""
        while True:
            await asyncio.sleep(self.random.uniform(0.2, 1.0) * DAY)
            jump = timedelta(seconds=self.random.choice(CLOCK_JUMPS))
            self.skew += jump
            await asyncio.sleep(HOUR)
            self.skew -= jump

    async def _suffer(self, fault: NetFault, seconds: float) -> None:
        self.network.faults.append(fault)
        await asyncio.sleep(seconds)
        self.network.faults.remove(fault)


def _context_of(process: Process) -> contextvars.Context:
    context = contextvars.copy_context()
    context.run(PROCESS.set, process)
    return context
