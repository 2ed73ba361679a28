"""What happens to a fleet, and how much load it may make of it."""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import format_datetime
from functools import partial
from typing import TYPE_CHECKING

from tests.fleet.agents import TICKS
from tests.fleet.conversation import BUSY, DONE, LOST, Outcome, at
from tests.fleet.simulation import Fleet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agent_reporter.settings import Settings

    Changes = dict[float, Callable[[Fleet, float], None]]

CALM = 30.0
"""Seconds of the steady load at the beginning."""
AFTERWARDS = 360.0
"""Seconds that are looked at after the recovery."""
MOST_IN_OUTAGE = 1.1
MOST_AT_RECOVERY = 1.5
"""Times the steady load, in any second."""
DRAINED_WITHIN = 300.0
"""Seconds until 99% have told what is newest."""
CAPACITY = 2.0
"""Times the steady load: beyond that, in any tick, the control plane answers 503."""
MINUTE = 60.0


@dataclass(frozen=True)
class Scenario:
    """Something that happens to all agents at once."""

    name: str
    changes: Changes
    recovers_at: float
    has_outage: bool = True
    is_drained: bool = True
    """Whether there is something to drain afterwards."""


def _during(name: str, mood: Outcome, minutes: float, meanwhile: Changes | None = None) -> Scenario:
    end = CALM + minutes * MINUTE

    def begin(fleet: Fleet, now: float) -> None:
        fleet.change(now, mood)

    def recover(fleet: Fleet, now: float) -> None:
        fleet.change(now, DONE)
        fleet.recover()

    return Scenario(name, {CALM: begin, **(meanwhile or {}), end: recover}, end)


def _restart(fleet: Fleet, now: float) -> None:
    fleet.restart(now)


def _restart_and_recover(fleet: Fleet, now: float) -> None:
    fleet.restart(now)
    fleet.recover()


def _refuse_tokens(fleet: Fleet, now: float) -> None:
    fleet.refuse_tokens(now)


def _refuse_tokens_and_recover(fleet: Fleet, now: float) -> None:
    fleet.refuse_tokens(now)
    fleet.recover()


def _age_tokens(fleet: Fleet, now: float) -> None:
    fleet.age_tokens(now, life=10 * MINUTE)


def _date(seconds: float) -> str:
    return format_datetime(at(seconds), usegmt=True)


SCENARIOS = (
    _during("503 for 30 minutes", BUSY, 30),
    _during("503 with Retry-After: 0 for 3 minutes", Outcome(503, "0"), 3),
    _during("503 with Retry-After: 120 for 30 minutes", Outcome(503, "120"), 30),
    # It ends when those who take it as 300 seconds have just been told to wait once more.
    _during("503 with Retry-After: 3600 for 25.5 minutes", Outcome(503, "3600"), 25.5),
    _during("503 with one date for all, in 2 minutes", Outcome(503, _date(CALM + 2 * MINUTE)), 2),
    _during("503 with one date for all, in 30 minutes", Outcome(503, _date(CALM + 30 * MINUTE)), 30),
    _during("no answers for 30 minutes", LOST, 30),
    _during("503 for 3 minutes, and all restart in it", BUSY, 3, {CALM + MINUTE: _restart}),
    _during("503 for 3 minutes, and all tokens end in it", BUSY, 3, {CALM + MINUTE: _refuse_tokens}),
    Scenario("all restart at once", {CALM: _restart_and_recover}, CALM, has_outage=False),
    Scenario("all tokens are refused at once", {CALM: _refuse_tokens_and_recover}, CALM, has_outage=False),
    Scenario(
        "all tokens are of the same age",
        {CALM: _age_tokens},
        CALM + 5 * MINUTE,
        has_outage=False,
        is_drained=False,
    ),
)


@dataclass(frozen=True)
class Figures:
    """What a fleet made of a scenario. Load is in times the steady one, the most in any second."""

    scenario: Scenario
    agents: int
    steady: float
    """Requests a second."""
    load: list[float]
    """Of each second that begins with a tick."""
    in_outage: float | None
    mean_in_outage: float | None
    at_recovery: float
    sign_ins: float
    """The most in a second."""
    drained_after: float | None
    """Seconds until 99% had told what is newest; infinite if they never had."""

    @property
    def misses(self) -> list[str]:
        """The targets that are missed."""
        missed = []
        if self.in_outage is not None and self.in_outage > MOST_IN_OUTAGE:
            missed.append("load in the outage")
        if self.at_recovery > MOST_AT_RECOVERY:
            missed.append("load at recovery")
        if self.drained_after is not None and self.drained_after > DRAINED_WITHIN:
            missed.append("time to drain")
        return missed


def play(
    scenario: Scenario,
    agents: int,
    settings: Settings,
    *,
    capacity: float = CAPACITY,
    seed: int = 0,
    **how: bool,
) -> tuple[Figures, Fleet]:
    """Let it happen to so many agents. `capacity` is in times the steady load; `how` is for the fleet."""
    planned = agents * (1 / settings.report_interval + 1 / settings.stop_poll_interval)
    seconds = scenario.recovers_at + AFTERWARDS
    fleet = Fleet(agents, settings, seconds=seconds, capacity=capacity * planned, seed=seed, **how)
    fleet.run({moment: partial(change, fleet) for moment, change in scenario.changes.items()})
    return _figures(scenario, agents, settings, fleet), fleet


def _figures(scenario: Scenario, agents: int, settings: Settings, fleet: Fleet) -> Figures:
    # Each look by an agent's id is one request, and each restore is read besides, less often.
    reads = settings.stop_poll_interval / settings.idle_poll_interval
    ticks = [calls + looks * reads for calls, looks in zip(fleet.calls, fleet.looks, strict=True)]
    seconds = _each_second(ticks)
    begin, end = int(CALM * TICKS), int(scenario.recovers_at * TICKS)
    steady = sum(ticks[5 * TICKS : begin]) / (CALM - 5)
    load = [second / steady for second in seconds]
    in_outage = load[begin - TICKS + 1 : end - TICKS + 1] if scenario.has_outage else None
    return Figures(
        scenario,
        agents,
        steady,
        load,
        in_outage=max(in_outage) if in_outage else None,
        mean_in_outage=sum(in_outage) / len(in_outage) if in_outage else None,
        at_recovery=max(load[end - TICKS + 1 :]),
        sign_ins=max(_each_second(fleet.sign_ins)),
        drained_after=_drained_after(fleet, scenario.recovers_at) if scenario.is_drained else None,
    )


def _each_second(ticks: Iterable[float]) -> list[float]:
    """The sum of each second that begins with a tick."""
    found, total, ring = [], 0.0, [0.0] * TICKS
    for number, tick in enumerate(ticks):
        total += tick - ring[number % TICKS]
        ring[number % TICKS] = tick
        if number >= TICKS - 1:
            found.append(total)
    return found


def _drained_after(fleet: Fleet, recovered_at: float) -> float:
    everybody = len(fleet.drained) + fleet.behind
    enough = -(-everybody * 99 // 100)
    if len(fleet.drained) < enough:
        return float("inf")
    return sorted(fleet.drained)[enough - 1] - recovered_at
