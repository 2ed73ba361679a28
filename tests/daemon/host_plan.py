"""What becomes of each restore of a crowd, and when: drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random


class Engine(StrEnum):
    LIBRARY = "library"
    RUN = "run"
    CURL = "curl"


class Way(StrEnum):
    """How a restore goes, and how it comes to its end."""

    WHOLE = "runs through"
    WHOLE_IN_THREAD = "runs through, in background"
    ERRORS = "errors on the way"
    GIVES_UP = "gives up"
    STOPS = "stops when asked"
    STOPS_IN_THREAD = "stops when asked, in background"
    STOPS_BY_EVENT = "waits for the event, and stops"
    ENGINE_KILLED = "engine killed, run lives"
    KILLED = "killed"
    LEAVES = "leaves without a word"


class Phase(StrEnum):
    """The parts of the time in which a crowd restores."""

    CALM = "before the outage"
    OUTAGE = "during the outage"
    AFTER = "after the outage"


@dataclass(frozen=True)
class Moment:
    """`part` of the way through a phase, from 0 to 1."""

    phase: Phase
    part: float


@dataclass(frozen=True)
class End:
    """How a restore ends. One of `reasons` is the reason in its record."""

    state: str
    reasons: frozenset[str]


@dataclass(frozen=True)
class Course:
    """One restore. `seconds` is how long its engine restores if nobody intervenes, which is done at `act`."""

    engine: Engine
    way: Way
    seconds: float
    act: Moment | None

    @property
    def end(self) -> End:
        return _ENDS.get((self.engine, self.way)) or _ENDS_OF_ALL[self.way]

    @property
    def kind(self) -> str:
        return f"{self.engine}: {self.way}"


@dataclass(frozen=True)
class Times:
    """How long the phases last at least, in seconds."""

    calm: float
    outage: float
    after: float


STOPPED_WAYS: Final = frozenset({Way.STOPS, Way.STOPS_IN_THREAD, Way.STOPS_BY_EVENT})
DYING_WAYS: Final = frozenset({Way.ENGINE_KILLED, Way.KILLED, Way.LEAVES})
FOREVER: Final = 3_600.0
"""Seconds for which an engine restores that somebody is to end."""

_WAYS: Final = {
    Engine.LIBRARY: (
        Way.WHOLE_IN_THREAD,
        Way.STOPS,
        Way.ERRORS,
        Way.KILLED,
        Way.GIVES_UP,
        Way.STOPS_IN_THREAD,
        Way.WHOLE,
    ),
    Engine.RUN: (Way.WHOLE, Way.STOPS, Way.ERRORS, Way.KILLED, Way.GIVES_UP, Way.ENGINE_KILLED),
    Engine.CURL: (
        Way.WHOLE,
        Way.STOPS_BY_EVENT,
        Way.LEAVES,
        Way.GIVES_UP,
        Way.ERRORS,
        Way.STOPS,
        Way.KILLED,
    ),
}
PARTIAL: Final = "unable_to_process_some_files"
_LOST = frozenset({"engine_lost"})
_LOST_TO_OTHERS = frozenset({"engine_lost", "reporter_lost"})
"""What was left in the spool of a user may be found by another process of the same user, before the daemon
has given up waiting for a result."""
_ENDS_OF_ALL: Final = {
    Way.WHOLE: End("completed", frozenset({""})),
    Way.WHOLE_IN_THREAD: End("completed", frozenset({""})),
    Way.ERRORS: End("completed_with_errors", frozenset({PARTIAL})),
    Way.GIVES_UP: End("failed", frozenset({"engine_error"})),
    Way.STOPS: End("stopped", frozenset({"stop_requested"})),
    Way.STOPS_IN_THREAD: End("stopped", frozenset({"stop_requested"})),
    Way.STOPS_BY_EVENT: End("stopped", frozenset({"stop_requested"})),
    Way.ENGINE_KILLED: End("failed", frozenset({"engine_killed"})),
    Way.KILLED: End("failed", _LOST_TO_OTHERS),
    Way.LEAVES: End("failed", _LOST),
}
_ENDS: Final = {
    (Engine.RUN, Way.GIVES_UP): End("failed", frozenset({"wrong_password"})),
    (Engine.CURL, Way.GIVES_UP): End("failed", frozenset({"disk_broken"})),
    (Engine.CURL, Way.KILLED): End("failed", _LOST),
}
_STOPS_ASKED: Final = (Phase.OUTAGE, Phase.CALM, Phase.AFTER)
_KILLS: Final = (Phase.OUTAGE, Phase.CALM, Phase.AFTER)


def draw_courses(
    chance: random.Random,
    count: int,
    times: Times,
    deaths: tuple[Phase, ...],
    not_by_run: frozenset[Way],
) -> list[Course]:
    """The courses of `count` restores: the engines by turns, and of each all its ways by turns.

    Engines that die do so in one of the phases `deaths`. `not_by_run` are ways that what is run here has not.
    """
    courses: list[Course] = []
    stops = 0
    for number in range(count):
        engine = tuple(Engine)[number % len(Engine)]
        ways = [way for way in _WAYS[engine] if engine is not Engine.RUN or way not in not_by_run]
        way = ways[number // len(Engine) % len(ways)]
        act = None
        if way in STOPPED_WAYS:
            act = Moment(_STOPS_ASKED[stops % len(_STOPS_ASKED)], chance.uniform(0.1, 0.9))
            stops += 1
        elif way in DYING_WAYS:
            act = Moment(chance.choice(deaths), chance.random())
        seconds = FOREVER if act else chance.uniform(times.calm / 2, times.calm + times.outage + times.after)
        courses.append(Course(engine, way, seconds, act))
    return courses


def draw_kills(chance: random.Random, count: int) -> list[Moment]:
    """When the daemon is killed: first of all once during the outage."""
    return [Moment(_KILLS[number % len(_KILLS)], chance.random()) for number in range(count)]
