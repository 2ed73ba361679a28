"""The real loops of a few agents, on virtual time, make the load that the fleet's loops make for them."""

from __future__ import annotations

import asyncio
import json
import selectors
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, cast

import pytest

from agent_reporter.clock import SystemClock
from agent_reporter.deliveries import Deliveries
from agent_reporter.errors import TransportError
from agent_reporter.job import Job
from agent_reporter.keeper import Keeper
from agent_reporter.means import Means
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.record import Record
from agent_reporter.model.report import Report
from agent_reporter.model.verdict import Answer
from agent_reporter.settings import Settings
from tests.fleet.conversation import BUSY, DESTINATION, DONE, LOST, Outcome, at
from tests.fleet.scenarios import Scenario, play

if TYPE_CHECKING:
    from datetime import datetime

    from agent_reporter.control_plane.client import ControlPlane
    from agent_reporter.spool import Spool
    from tests.fleet.simulation import Fleet

SETTINGS = Settings(endpoint="https://backup.example.com", project_id="110011", agent_id="agent")
AGENTS = 40
OUTAGE, RECOVERY, END = 30.0, 120.0, 180.0


class _Jumping(selectors.SelectSelector):
    """Where there is nothing to do but to wait, time jumps to the end of the wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.now += timeout or 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


class VirtualClock(SystemClock):
    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)

    def now(self) -> datetime:
        return at(self.monotonic())

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def random(self) -> float:
        return self._chance.random()


class Calls:
    """The calls of `ControlPlane`, counted by the second and answered by the mood of the moment."""

    is_daemon = False
    agent_id = "agent"
    waits_for_events = False
    events_wait = 0

    def __init__(self) -> None:
        self.mood = DONE
        self.counted: Counter[int] = Counter()

    async def read_restore(self, _restore_id: str) -> Answer:
        return await self._answer(200, json.dumps(Acknowledged().to_document()).encode())

    async def update_restore(self, _restore_id: str, _operations: object, _facts: object) -> Answer:
        return await self._answer(204)

    async def agent_events(self, _marker: str | None) -> Answer:
        return await self._answer(200, b'{"events": []}')

    async def _answer(self, status: int, body: bytes = b"") -> Answer:
        self.counted[int(asyncio.get_running_loop().time())] += 1
        mood = self.mood
        if mood is LOST:
            await asyncio.sleep(SETTINGS.request_timeout)
            raise TransportError("no answer", uncertain=True)
        if mood.status is not None and mood is not DONE:
            return Answer(mood.status, b"", mood.retry_after)
        return Answer(status, body)


async def real_agent(calls: Calls, number: int) -> None:
    clock = VirtualClock(number)
    await clock.sleep(clock.random() * 2)
    turns = asyncio.Semaphore(SETTINGS.concurrency)
    means = Means(SETTINGS, clock, cast("ControlPlane", calls), turns)
    deliveries = Deliveries(means, cast("Spool", None))  # nothing is kept here, and nothing taken over
    report = Report(f"r-{number}")
    job = Job(report, clock.now)
    job.listen(deliveries.begin(job, Keeper(None, Record(DESTINATION, report), clock)))
    job.start()
    try:
        while True:
            job.advance(bytes=1)
            await clock.sleep(0.25)
    finally:
        await deliveries.close()


async def real_agents(mood: Outcome) -> Counter[int]:
    calls = Calls()
    agents = [asyncio.create_task(real_agent(calls, number)) for number in range(AGENTS)]
    await asyncio.sleep(OUTAGE)
    calls.mood = mood
    await asyncio.sleep(RECOVERY - OUTAGE)
    calls.mood = DONE
    await asyncio.sleep(END - RECOVERY)
    for agent in agents:
        agent.cancel()
    await asyncio.gather(*agents, return_exceptions=True)
    return calls.counted


def played(mood: Outcome) -> Scenario:
    def begin(fleet: Fleet, now: float) -> None:
        fleet.change(now, mood)

    def recover(fleet: Fleet, now: float) -> None:
        fleet.change(now, DONE)
        fleet.recover()

    return Scenario("as the real ones", {OUTAGE: begin, RECOVERY: recover}, RECOVERY)


@pytest.mark.parametrize("mood", [BUSY, Outcome(503, "20"), LOST], ids=["503", "Retry-After", "no answer"])
def test_real_loops_make_the_load_that_a_fleet_makes(mood: Outcome) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        real = runner.run(real_agents(mood))
    figures, fleet = play(played(mood), 1_000, SETTINGS)
    reads = SETTINGS.stop_poll_interval / SETTINGS.idle_poll_interval
    ticks = len(fleet.calls) / (figures.scenario.recovers_at + 360)
    for begin, end in ((10, 30), (30, 40), (40, 80), (80, 120), (120, 140), (140, 180)):
        of_real = sum(real[second] for second in range(begin, end)) / AGENTS
        span = slice(int(begin * ticks), int(end * ticks))
        of_played = (sum(fleet.calls[span]) + reads * sum(fleet.looks[span])) / 1_000
        assert of_real == pytest.approx(of_played, rel=0.12), (
            f"requests of an agent in seconds {begin} to {end}"
        )
