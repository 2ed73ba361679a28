"""A real daemon for some minutes, with restores coming and going, and a look at its process each second."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_reporter import Settings
from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.server import PROJECT
from agent_reporter.settings import DaemonUse
from tests.long_life.crowd import Crowd
from tests.long_life.daemon_process import TOKEN, DaemonProcess
from tests.long_life.growth import Trend, trend
from tests.long_life.readings import Reading, left_over, read

WARM_UP = 1 / 3
WARM_UP_RESTORES, WARM_UP_SECONDS = 1_500, 75.0
"""What is remembered of restores that are over, and for a minute of events, has reached its bounds by then."""
JUDGED_RESTORES = 3_000
"""With fewer in all, nothing can be said of the memory: it goes on until there were as many."""
LONGEST = 10.0
"""Times the minutes that were asked for, at most."""
BOUNDS = {"own memory, KiB": 2_000.0}
"""For 1,000 restores: one that is not forgotten takes several times as much. What the allocator spreads over in the
first minutes is about half of it; whether an object is left over is what `days` looks at. All else is judged at
rest: not one more may be there then."""
REST_SECONDS = 60.0
"""For the last restores to be over."""
LEAST_LOOKS, REST_LOOKS = 4, 30
"""Once a second, for connections to be closed and threads to end."""
FAULTS: tuple[str | dict[str, Any], ...] = (
    {"status": 503, "headers": {"Retry-After": "1"}},
    {"slow": 0.3},
    "apply_then_drop",
    "truncate",
)


@dataclass
class Figures:
    """What became of it."""

    restores: int = 0
    warm_up: int = 0
    seconds: float = 0.0
    trends: list[Trend] = field(default_factory=list)
    """For each restore that was begun."""
    before: Reading | None = None
    after: Reading | None = None
    """At rest."""
    troubles: list[str] = field(default_factory=list)

    @property
    def grown(self) -> list[Trend]:
        """What grows."""
        return [each for each in self.trends if 1_000 * each.slope > BOUNDS.get(each.name, float("inf"))]

    @property
    def left(self) -> list[str]:
        """What is still there at rest that was not at the beginning."""
        if self.before is None or self.after is None:
            return []
        return left_over(self.before, self.after)


class Soak:
    """One daemon, one control plane, and a crowd of engines."""

    def __init__(self, directory: Path, server: ReferenceServer, at_once: int, seed: int) -> None:
        self.figures = Figures()
        self._server = server
        self._at_once = at_once
        self._chance = random.Random(seed)
        self._daemon = DaemonProcess(directory)
        settings = Settings(
            project_id=PROJECT,
            socket=self._daemon.socket,
            spool_dir=directory / "spool-of-engines",
            daemon=DaemonUse.ALWAYS,
            drain_timeout=20.0,
        )
        self._crowd = Crowd(server, self._daemon.socket, settings, self._chance)
        self._is_over = False
        self._looks: list[tuple[int, int, Reading, int]] = []
        """Restores begun, restores open, what the system says, and files in the spool."""
        self._begun_in_warm_up = 0

    async def run(self, seconds: float, *, judges_memory: bool) -> Figures:
        """Play it all."""
        begun = 0.0

        def is_over() -> bool:
            so_far = time.monotonic() - begun
            is_enough = not judges_memory or len(self._crowd.begun) >= JUDGED_RESTORES
            return so_far > seconds and (is_enough or so_far > LONGEST * seconds)

        async with self._daemon.running(self._server.url):
            async with self._crowd.connected():
                await self._crowd.go_each_way()
            self.figures.before = await self._at_rest()
            begun = time.monotonic()
            around = [
                asyncio.create_task(each)
                for each in (self._look_each_second(begun), self._come_and_go_away(), self._misbehave())
            ]
            async with self._crowd.connected():
                await asyncio.gather(*(self._crowd.come_and_go(is_over) for _ in range(self._at_once)))
            self._is_over = True
            self.figures.seconds = time.monotonic() - begun
            await asyncio.gather(*around)
            self._server.faults.clear()
            self.figures.after = await self._at_rest(self.figures.before)
        self._judge()
        if judges_memory and self.figures.restores < JUDGED_RESTORES:
            self.figures.troubles.append(f"{self.figures.restores} restores are too few to judge memory by")
        return self.figures

    # --- what goes on around --------------------------------------------------------------------------------

    async def _look_each_second(self, start: float) -> None:
        while not self._is_over:
            await asyncio.sleep(1.0)
            if time.monotonic() - start < WARM_UP_SECONDS:
                self._begun_in_warm_up = len(self._crowd.begun)
            is_open, reading = await self._daemon.open_restores(), read(self._daemon.pid)
            in_spool = len(self._daemon.spool_files())
            self._looks.append((len(self._crowd.begun), is_open, reading, in_spool))

    async def _come_and_go_away(self) -> None:
        """The control plane, every some seconds."""
        server = self._server
        while not self._is_over:
            await asyncio.sleep(self._chance.uniform(2.0, 5.0))
            seconds = self._chance.uniform(0.3, 1.0)
            if self._chance.random() < 0.25:
                await self._go_away(seconds)
            else:
                server.add_fault(self._chance.choice(FAULTS), for_seconds=seconds)
                await asyncio.sleep(seconds)

    async def _go_away(self, seconds: float) -> None:
        self._crowd.is_there.clear()
        await self._server.stop()
        await asyncio.sleep(seconds)
        await self._server.start()
        self._crowd.is_there.set()

    async def _misbehave(self) -> None:
        while not self._is_over:
            await asyncio.sleep(0.1)
            await self._crowd.misbehave()

    # --- at rest ------------------------------------------------------------------------------------------

    async def _at_rest(self, before: Reading | None = None) -> Reading:
        """Once no restore is open and nobody is connected: also the control plane hangs up, and comes back.

        Until nothing is left over from `before`, or what is left over will not go.
        """
        try:
            async with asyncio.timeout(REST_SECONDS):
                while await self._daemon.open_restores():  # noqa: ASYNC110 - another process, which tells nobody
                    await asyncio.sleep(0.2)
        except TimeoutError:
            self.figures.troubles.append(f"{await self._daemon.open_restores()} restores are still open")
        await self._server.stop()
        readings = [read(self._daemon.pid)]
        while len(readings) < REST_LOOKS:
            await asyncio.sleep(1.0)
            readings.append(read(self._daemon.pid))
            if not left_over(before or readings[0], readings[-1]) and len(readings) >= LEAST_LOOKS:
                break
        await self._server.start()
        return readings[-1]

    # --- the end ------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        figures, crowd = self.figures, self._crowd
        figures.restores = len(crowd.begun)
        figures.troubles += [*crowd.troubles, *self._daemon.complaints]
        states = Counter(self._server.document(each)["state"] for each in crowd.begun)
        for state in ("start_requested", "preparing", "in_progress", "stop_requested"):
            if states[state]:
                figures.troubles.append(f"{states[state]} restores are {state} for ever")
        if left := self._daemon.spool_files():
            figures.troubles.append(f"{len(left)} files are left in the spool: {left[:5]}")
        least = min(max(WARM_UP_RESTORES, self._begun_in_warm_up), 2 * figures.restores // 3)
        figures.warm_up = max(int(figures.restores * WARM_UP), least)
        looks = [look for look in self._looks if look[0] > figures.warm_up]
        begun, is_open = [look[0] for look in looks], [look[1] for look in looks]
        measures = {
            "own memory, KiB": [look[2].own for look in looks],
            "resident, KiB": [look[2].resident for look in looks],
            "descriptors": [look[2].descriptors.total() for look in looks],
            "threads": [look[2].threads for look in looks],
            "spool files": [look[3] for look in looks],
        }
        figures.trends = [trend(name, values, is_open, 0.0, begun) for name, values in measures.items()]


async def soak(seconds: float, at_once: int, seed: int, *, judges_memory: bool = True) -> Figures:
    """Have a daemon work for so long; `judges_memory` goes on until there is something to say of it."""
    # A short path, for the socket.
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        async with ReferenceServer(directory / "control-plane", token=TOKEN) as server:
            return await Soak(directory, server, at_once, seed).run(seconds, judges_memory=judges_memory)
