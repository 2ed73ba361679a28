"""What a seed makes happen: all of it thought up before the first step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

from tests.wire.middle import SORTS

KINDS = (
    "refused", "unreachable", "unanswered", "no_name", "slow_name", "one_address",
    "cut_request", "half_closed", "lost", "stale", "slow", "narrow",
    "cut_answer", "bytewise", "middle",
)  # fmt: skip
PATCH_KINDS = ("lost", "slow", "narrow", "bytewise", "cut_request", "cut_answer", "middle")
OF_PATCHES = frozenset({"patch", "state", "result", "counters"})
LIVES = 4
"""What is decided for each of so many lives of the process; later ones are like the last."""


@dataclass(frozen=True)
class Fault:
    """What meets the requests that match, from a moment on, for some seconds, `times` of them at most."""

    at: float
    seconds: float
    kind: str
    what: str = "all"
    """`all`, `patch`, `read`, `events`, `sign_in`, `state`, `result` or `counters`; nothing of a connect."""
    times: int = 1_000_000
    chance: float = 1.0
    delay: float = 0.0
    rate: float = 1_000.0
    """Bytes a second."""
    part: float = 0.5
    """Of the request or the answer, that comes through."""
    how: str = "reset"
    """`reset`, `end` or `silence`."""
    sort: str = ""
    """What stands in between, and is wrong."""

    @property
    def end(self) -> float:
        return self.at + self.seconds

    @property
    def hinders_looks(self) -> bool:
        """Whether looks for stops are concerned as well."""
        return self.what not in OF_PATCHES or self.kind not in PATCH_KINDS


@dataclass(frozen=True)
class ServerRestart:
    """The server is gone, at once, and back later: with its store, or with none, where the restores begin anew."""

    at: float
    seconds: float
    is_emptied: bool

    @property
    def end(self) -> float:
        return self.at + self.seconds


@dataclass(frozen=True)
class TokenEnds:
    """The token is taken no more; a new one is to be had some seconds later."""

    at: float
    seconds: float

    @property
    def end(self) -> float:
        return self.at + self.seconds


@dataclass(frozen=True)
class StopAsked:
    """The control plane takes a stop request."""

    at: float
    restore: int

    @property
    def end(self) -> float:
        return self.at


@dataclass(frozen=True)
class Kill:
    """The process is killed, and started again some seconds later."""

    at: float
    seconds: float

    @property
    def end(self) -> float:
        return self.at + self.seconds


Happening = Fault | ServerRestart | TokenEnds | StopAsked | Kill


@dataclass(frozen=True)
class Step:
    """What an engine does, and how long it waits before."""

    pause: float
    size: int
    files: int
    errors: int


@dataclass(frozen=True)
class Script:
    """One restore as its engine does it."""

    begins: float
    steps: tuple[Step, ...]
    fails: bool
    heeds_stops: bool
    is_resumed: bool
    """Whether it is started again after a kill; else nobody says how it ended."""


@dataclass(frozen=True)
class Plan:
    """Everything that a seed decides before the first step."""

    seed: int
    scripts: tuple[Script, ...]
    happenings: tuple[Happening, ...]
    signs_in: bool
    """By an agent's password; else by a token in a file."""
    has_agent: bool
    token_lifetime: float
    report_interval: float
    retry_cap: float
    drain_timeout: float
    concurrency: int
    stays: tuple[bool, ...]
    """Whether each life of the process waits for its deliveries when its engines are done."""

    @property
    def is_calm(self) -> bool:
        """Nothing is wrong."""
        return all(isinstance(each, StopAsked) for each in self.happenings)

    @property
    def good_at(self) -> float:
        """When the last fault is over."""
        return max((each.end for each in self.happenings), default=0.0)


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    chance = Random(seed)
    horizon = chance.choice((12.0, 30.0, 30.0, 70.0))
    scripts = tuple(_script(chance, horizon) for _ in range(chance.choice((1, 1, 2, 3))))
    think_up = chance.choice(
        (_calm, _one_kind, _one_kind, _stop_in_trouble, _bad_day, _bad_day, _bad_day, _bad_day)
    )
    return Plan(
        seed=seed,
        scripts=scripts,
        happenings=tuple(sorted(think_up(chance, horizon, len(scripts)), key=lambda each: each.at)),
        signs_in=chance.random() < 0.3,
        has_agent=chance.random() < 0.6,
        token_lifetime=chance.choice((86_400.0, 70.0)),
        report_interval=chance.choice((0.5, 1.0, 2.0)),
        retry_cap=chance.choice((10.0, 60.0)),
        drain_timeout=chance.choice((1.0, 10.0)),
        concurrency=chance.choice((1, 20, 20)),
        stays=tuple(chance.random() < 0.7 for _ in range(LIVES)),
    )


def _calm(chance: Random, horizon: float, restores: int) -> list[Happening]:
    return _stops(chance, horizon, restores)


def _one_kind(chance: Random, horizon: float, restores: int) -> list[Happening]:
    """One kind of fault, again and again, and all else in order."""
    kind, sort = _kind(chance), chance.choice(SORTS)
    faults: list[Happening] = [_fault(chance, horizon, kind, sort) for _ in range(chance.choice((3, 5, 8)))]
    return faults + _stops(chance, horizon, restores)


def _stop_in_trouble(chance: Random, horizon: float, restores: int) -> list[Happening]:
    """Patches fail for long, and nothing else does: a stop gets through."""
    fault = _fault(chance, horizon, chance.choice(PATCH_KINDS), chance.choice(SORTS))
    lasting = replace(fault, at=0.3 * fault.at, seconds=60.0, what="patch", times=1_000_000, chance=1.0)
    return [lasting, *(StopAsked(chance.uniform(0, horizon / 2), number) for number in range(restores))]


def _bad_day(chance: Random, horizon: float, restores: int) -> list[Happening]:
    """Everything at once."""
    happenings: list[Happening] = [
        _fault(chance, horizon, _kind(chance), chance.choice(SORTS))
        for _ in range(chance.choice((3, 6, 10, 15)))
    ]
    if chance.random() < 0.3:
        seconds = chance.choice((0.1, 3.0, 20.0))
        happenings.append(ServerRestart(chance.uniform(0, horizon), seconds, chance.random() < 0.25))
    if chance.random() < 0.4:
        happenings.append(TokenEnds(chance.uniform(0, horizon), chance.choice((0.0, 1.0, 15.0))))
    happenings += [
        Kill(chance.uniform(1, horizon), chance.choice((0.1, 2.0, 20.0)))
        for _ in range(chance.choice((0, 0, 1, 2)))
    ]
    return happenings + _stops(chance, horizon, restores)


def _stops(chance: Random, horizon: float, restores: int) -> list[Happening]:
    return [
        StopAsked(chance.uniform(0, horizon), number) for number in range(restores) if chance.random() < 0.4
    ]


def _kind(chance: Random) -> str:
    return "middle" if chance.random() < 0.45 else chance.choice(KINDS)


def _fault(chance: Random, horizon: float, kind: str, sort: str) -> Fault:
    return Fault(
        at=chance.uniform(0, horizon),
        seconds=chance.choice((1.0, 5.0, 10.0, 30.0)),
        kind=kind,
        what=chance.choice(
            (
                "all",
                "all",
                "all",
                "all",
                "patch",
                "patch",
                "state",
                "result",
                "counters",
                "read",
                "events",
                "sign_in",
            )
        ),
        times=chance.choice((1, 2, 3, 5, 1_000_000)),
        chance=chance.choice((0.3, 1.0, 1.0)),
        delay=chance.choice((0.0, 0.05, 1.0, 3.0, 9.5, 12.0)),
        rate=chance.choice((30.0, 200.0, 2_000.0)),
        part=chance.choice((0.0, chance.random(), chance.random(), 0.99, 1.0)),
        how=chance.choice(("reset", "end", "silence")),
        sort=sort if kind == "middle" else "",
    )


def _script(chance: Random, horizon: float) -> Script:
    steps: list[Step] = []
    spent = 0.0
    while spent < horizon * 0.9:
        pause = chance.choice((0.05, 0.5, 1.5, 4.0, 18.0)) * chance.uniform(0.5, 1.0)
        errors = chance.choice((0, 0, 0, 1, 3))
        steps.append(Step(pause, chance.choice((0, 1, 4096, 10**7)), chance.choice((0, 1, 5)), errors))
        spent += pause
    return Script(
        begins=chance.choice((0.0, 0.2, 3.0)),
        steps=tuple(steps),
        fails=chance.random() < 0.15,
        heeds_stops=chance.random() < 0.8,
        is_resumed=chance.random() < 0.7,
    )
