"""Thirty days in one life on virtual time, with a look every hour at all that could grow."""

from __future__ import annotations

import gc
import logging
import sys
from array import array
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from tests.long_life.containers import place_of, sizes
from tests.long_life.growth import Trend, trend
from tests.long_life.host import DAY, HOUR, SECRET, Ears, Host
from tests.long_life.life import Life
from tests.simulation.seams import installed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.simulation.world import World

LOOKS_A_DAY = int(DAY / HOUR)
WARM_UP = 1 / 3
SHOWN = 10
"""Of the types and of the containers, those that grow fastest."""
SHORT = 15
"""In fewer days much still fills up: then only what grows with the restores is seen, by one in four of them."""
BLOCKS = "memory blocks"
BOUNDS = {"objects": 2.0, BLOCKS: 8.0}
"""What a measure may grow by in a day: chance has some more or less. All others may not grow at all."""
NOTHING = 0.05
"""Less than one in twenty days."""


@dataclass
class Figures:
    """What became of it."""

    days: int
    restores: int
    results: int
    requests: int
    counts: list[Trend]
    types: list[Trend]
    """Of the objects by type, the fastest first."""
    places: list[Trend]
    """Of the containers, the fastest first."""
    in_spool: list[str]
    """Files that are there at the very end."""
    troubles: list[str]

    def bound(self, measure: Trend) -> float:
        """What a measure may grow by in a day."""
        if self.days < SHORT:
            return float("inf") if measure.name == BLOCKS else self.restores / self.days / 4
        return BOUNDS.get(measure.name, NOTHING)

    @property
    def grown(self) -> list[Trend]:
        """What grows."""
        every = (*self.counts, *self.types, *self.places)
        return [each for each in every if each.slope * LOOKS_A_DAY > self.bound(each)]


class Notebook:
    """What was looked at, in room that is taken before the first look: the notes are no growth."""

    def __init__(self, looks: int) -> None:
        self.open = array("q", bytes(8 * looks))
        self._notes: dict[str, array[int]] = {}
        self._looks = looks

    def note(self, look: int, measured: Iterable[tuple[str, int]]) -> None:
        for name, count in measured:
            if name not in self._notes:
                self._notes[name] = array("q", bytes(8 * self._looks))
            self._notes[name][look] = count

    def trends(self) -> list[Trend]:
        """All, the fastest growing first."""
        found = [trend(name, notes, self.open, WARM_UP) for name, notes in self._notes.items()]
        return sorted(found, key=lambda each: -each.slope)


class Days:
    """One run."""

    def __init__(self, days: int, seed: int, restores_a_day: int) -> None:
        self._days = days
        self._looks = days * LOOKS_A_DAY
        self._host = Host(seed)
        self._life = Life(self._host, restores_a_day)
        self._ears = Ears()
        self._lost: list[str] = []
        self._counts = Notebook(self._looks)
        self._types = Notebook(self._looks)
        self._places = Notebook(self._looks)

    def run(self) -> Figures:
        """Live through them."""
        logger = logging.getLogger("agent_reporter")
        level, propagates = logger.level, logger.propagate
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(self._ears)
        gc.collect()
        gc.freeze()  # what is there before is not looked at again and again
        gc.disable()
        try:
            with installed(cast("World", self._host)):
                self._host.loop.run(self._main())
        finally:
            gc.enable()
            gc.unfreeze()
            logger.removeHandler(self._ears)
            logger.propagate = propagates
            logger.setLevel(level)
        return self._figures()

    async def _main(self) -> None:
        host, life = self._host, self._life
        host.disk.make("/secret")
        host.disk.put(SECRET, b"a-password-for-thirty-days")
        happenings = [
            host.loop.create_task(each)
            for each in (
                host.lose_tokens(),
                host.suffer_outages(),
                host.suffer_hiccups(),
                host.suffer_disk(),
                host.set_clock(),
                life.see_others_die(),
            )
        ]
        host.loop.call_at(HOUR, self._look, 0)
        living = host.run_in(life.process, life.live())
        host.loop.call_at(self._looks * HOUR, setattr, life, "over", True)
        await living
        for each in happenings:
            if not each.cancel():
                each.result()

    def _look(self, look: int) -> None:
        host, life = self._host, self._life
        host.loop.steps = 0
        if look + 1 < self._looks:
            host.loop.call_at((look + 2) * HOUR, self._look, look + 1)
        self._clear_up()
        gc.collect()
        blocks = sys.getallocatedblocks()
        kinds = Counter(type(each).__qualname__ for each in gc.get_objects() if type(each) is not array)
        places = sizes(
            [("Reporter", life.reporter), *((place_of(task), task) for task in life.process.tasks)]
        )
        is_open = self._open()
        counts = {
            "objects": kinds.total(),
            BLOCKS: blocks,
            "tasks": len(life.process.tasks),
            "timers": len(host.loop.alive()),
            "descriptors": len(host.disk.descriptors_of(life.process)),
            "spool files": len(host.disk.names("/spool")),
        }
        for notebook, measured in ((self._counts, counts), (self._types, kinds), (self._places, places)):
            notebook.note(look, measured.items())
            notebook.open[look] = is_open

    def _clear_up(self) -> None:
        """Somebody sees to the dead letters, and the control plane forgets what nobody speaks of any more."""
        host, disk = self._host, self._host.disk
        restores = host.control_plane._store.restores
        for name in disk.names("/spool/dead"):
            with suppress(OSError):  # while nothing can be removed
                disk.unlink(f"/spool/dead/{name}")
            host.control_plane.end(name.partition(".")[0], "failed")
        spoken_of = {*self._life.running, *self._life.reporter._all.open}
        spoken_of.update(name.removeprefix(".").partition(".")[0] for name in disk.names("/spool"))
        for restore_id in restores.keys() - spoken_of:
            if not restores[restore_id].is_final:
                self._lost.append(f"{restore_id} is {restores[restore_id].state}, and nobody speaks of it")
            del restores[restore_id]

    def _open(self) -> int:
        """How many restores go on: their engines run, or their results have not arrived."""
        restores = self._host.control_plane._store.restores
        return len(self._life.running | {name for name, each in restores.items() if not each.is_final})

    def _figures(self) -> Figures:
        books = self._host.ledger
        return Figures(
            days=self._days,
            restores=self._life.restores,
            results=books.results,
            requests=books.requests,
            counts=self._counts.trends(),
            types=self._types.trends(),
            places=self._places.trends(),
            in_spool=self._host.disk.names("/spool"),
            troubles=[*self._lost, *self._ears.failures, *self._host.loop.complaints],
        )
