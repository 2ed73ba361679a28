"""What a patch costs as restores get more, and how old what the control plane shows becomes.

All restores have something new all the time. A clock runs such that they come to equally many patches a second,
however many they are: fast for ten restores, slow for thousands. All that a process does by the clock (patches,
records in the spool, looks for stops) then stays in proportion, as it would with a machine for each number. The
age of the data is measured where the clock runs no faster than a real one.
"""

from __future__ import annotations

import asyncio
import random
import resource
import time
from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from agent_reporter import Reporter
from tests.benchmarks.goals import Goal, UntrueError
from tests.benchmarks.latency import percentile
from tests.benchmarks.lean_server import AGENT, LeanServer, Patch, lean_server
from tests.benchmarks.rates import file_system, until
from tests.benchmarks.rounds import FULL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent_reporter import Job
    from agent_reporter.clock import Waitable
    from tests.benchmarks.rounds import Effort

GROWTH = 1.15
AGE = 1.05
"""Intervals: one, and 50 ms of a second for the way."""
INTERVALS = 2.25
"""That are looked at, at least: each restore is told of twice in two, however its turn lies."""
STATEMENTS = 4
"""Of each restore in an interval."""
OPENED_AT_ONCE = 20


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    restores: tuple[int, ...]
    interval: float
    """Of reporting, in seconds of the clock."""
    rate: float
    """Patches a real second of all restores together."""
    seconds: float
    """Of a real clock that each number is measured for, if that is longer than INTERVALS."""


@dataclass(frozen=True)
class Size:
    """What came of one number of restores."""

    restores: int
    patches: int
    seconds: float
    cpu: float
    """Seconds."""
    ages: list[float]
    """Of what was stated until it was shown, in intervals."""

    @property
    def cpu_a_patch(self) -> float:
        return self.cpu / max(1, self.patches)


def run(effort: Effort) -> list[Goal]:
    """Measure and print."""
    many, few = (10, 100, 1_000, 5_000), (3, 10)
    scale = Scale(many, 1.0, 300.0, 6.0) if effort is FULL else Scale(few, 0.1, 200.0, 0.3)
    _allow_descriptors(2 * max(scale.restores))
    sizes, where = [], ""
    for restores in (
        *scale.restores,
        scale.restores[0],
    ):  # the smallest again, as the machine may have changed
        with lean_server() as server:
            where = file_system(server.directory)
            sizes.append(asyncio.run(_measure(server, scale, restores)))
    least = (sizes[0].cpu_a_patch + sizes[-1].cpu_a_patch) / 2
    table = Table(title=f"Open restores that all have news; the spool is on {where}", title_justify="left")
    for heading in (
        "restores",
        "patches a second",
        "CPU a patch",
        "ratio",
        "age p50",
        "age p99, in intervals",
    ):
        table.add_column(heading, justify="right")
    for size in sizes:
        ages = (f"{percentile(size.ages, hundredths):.2f}" for hundredths in (50, 99))
        cpu, speed = size.cpu_a_patch, size.patches / size.seconds
        table.add_row(
            f"{size.restores:,}", f"{speed:,.0f}", f"{cpu * 1e6:.0f} µs", f"{cpu / least:.2f}", *ages
        )
    Console(width=110).print(table)
    goals = []
    for size in sizes[1:-1]:
        beside = f"{scale.restores[0]} open restores"
        goals.append(
            Goal(f"CPU a patch, {size.restores:,} open restores", beside, size.cpu_a_patch / least, GROWTH)
        )
    for size in sizes[:-1]:
        what = f"age of what the control plane shows, p99, {size.restores:,} open restores"
        goals.append(Goal(what, "the interval of reporting", percentile(size.ages, 99), AGE, "intervals"))
    return goals


class PacedClock:
    """A clock that runs at a speed of its own."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._shown, self._since = time.monotonic(), time.monotonic()

    def run_at(self, speed: float) -> None:
        """From now on run so much faster than a real one."""
        self._shown, self._since = self.monotonic(), time.monotonic()
        self._speed = speed

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.monotonic(), UTC)

    def monotonic(self) -> float:
        return self._shown + (time.monotonic() - self._since) * self._speed

    def random(self) -> float:
        return random.random()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / self._speed)

    async def wait(self, event: Waitable, seconds: float | None) -> bool:
        try:
            async with asyncio.timeout(None if seconds is None else seconds / self._speed):
                await event.wait()
        except TimeoutError:
            return False
        return True


class Statements:
    """States the moment as the bytes that are restored, of all jobs together, and knows when it did."""

    def __init__(self, jobs: Sequence[Job], clock: PacedClock, pause: float) -> None:
        self.moments: list[int] = []
        self._jobs = jobs
        self._clock = clock
        self._pause = pause

    async def go_on(self) -> None:
        while True:
            moment = time.monotonic_ns()
            for job in self._jobs:
                job.progress(bytes_restored=moment)
            self.moments.append(moment)
            await self._clock.sleep(self._pause)


async def _measure(server: LeanServer, scale: Scale, restores: int) -> Size:
    fast = scale.rate * scale.interval / restores
    slow = min(1.0, fast)
    clock = PacedClock(slow)
    settings = server.settings("spool", agent_id=AGENT, report_interval=scale.interval)
    async with Reporter(settings, clock=clock) as reporter:
        jobs: list[Job] = []
        for first in range(0, restores, OPENED_AT_ONCE):
            numbers = range(first, min(restores, first + OPENED_AT_ONCE))
            jobs += await asyncio.gather(*(reporter.open(f"scaling-{number}") for number in numbers))
        for job in jobs:
            job.start()
        await until(lambda: server.counts().patches >= restores)
        statements = Statements(jobs, clock, scale.interval / STATEMENTS)
        stating = asyncio.create_task(statements.go_on())
        clock.run_at(fast)
        seconds = max(scale.seconds, INTERVALS * scale.interval / fast)
        await asyncio.sleep(min(1.0, seconds / 4))
        patches, begun, cpu = server.counts().patches, time.monotonic(), time.process_time()
        await asyncio.sleep(seconds)
        cpu, patches = time.process_time() - cpu, server.counts().patches - patches
        ended = time.monotonic()
        if slow < fast:
            clock.run_at(slow)
            await asyncio.sleep(4 * scale.interval)
            looked_from, looked_to = ended, time.monotonic()
        else:
            looked_from, looked_to = begun, ended
        stating.cancel()
    interval = scale.interval / slow
    ages = _ages(server.patches(), statements.moments, (looked_from, looked_to), interval)
    if len(ages) != restores:
        raise UntrueError(f"of {restores} restores, {restores - len(ages)} were never told of")
    shown = [age / interval for each in ages.values() for age in each]
    if not shown:
        raise UntrueError(f"nothing was stated of {restores} restores while it was looked: run it again")
    return Size(restores, patches, ended - begun, cpu, shown)


def _ages(
    patches: Sequence[Patch], moments: Sequence[int], looked: tuple[float, float], interval: float
) -> dict[str, list[float]]:
    """Seconds until each statement was shown, by restore, of those shown while it was looked at them.

    Of what was not shown then, that counts which was late already.
    """
    known: dict[str, list[tuple[float, int]]] = {}
    for patch in patches:
        if "bytes_restored" in patch.told:
            known.setdefault(patch.restore_id, []).append((patch.moment, patch.told["bytes_restored"]))
    begun, ended = looked
    ages: dict[str, list[float]] = {}
    for restore_id, told in known.items():
        ages[restore_id] = [
            shown - moment / 1e9
            for (_, before), (shown, newest) in pairwise(told)
            if begun <= shown <= ended
            for moment in moments[bisect_right(moments, before) : bisect_right(moments, newest)]
        ]
        newest = max((value for shown, value in told if shown <= ended), default=0)
        late = (ended - moment / 1e9 for moment in moments[bisect_right(moments, newest) :])
        ages[restore_id] += [age for age in late if age > interval]
    return ages


def _allow_descriptors(count: int) -> None:
    """Each open restore has a lock."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (count if hard == resource.RLIM_INFINITY else min(count, hard), hard)
        )
