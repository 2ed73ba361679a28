"""What a seed makes happen, all of it thought up before the first step, so that a failure can be shrunk.

A plan is a list of restores, each with what its engine does, and a list of happenings around them. To take
an element away gives a plan again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

FINALS = ("completed", "completed_with_errors", "failed", "stopped")
RETRY_AFTER = (
    None, None, None, "0", "1", "5", "30", "120", "300", "99999999999", "-5", "soon", "", "1.5",
    "date:20", "date:90", "date:-60", "date:900000",
)  # fmt: skip
STATUSES = (
    200, 202, 301, 307, 400, 401, 403, 404, 405, 408, 409, 409, 409, 413, 425, 429, 429, 500, 500, 501, 502, 503, 503,
    503, 504,
)  # fmt: skip
LIVES = 6
"""Of the process: what is decided for each of so many; later ones are like the last."""
WEEK = 7 * 86_400.0
BODIES = ("json", "none", "html", "half", "array", "wrong", "huge")


@dataclass(frozen=True)
class NetFault:
    """Requests that match, from a moment on, for some seconds, meet this; `times` of them at most."""

    at: float
    seconds: float
    what: str
    """`all`, `patch`, `read`, `events`, `state`, `result`, `counters` or `sign_in`."""
    kind: str
    """`refused`, `lost`, `dropped`, `answer_lost`, `late`, `twice`, `slow`, `cut` or `status`."""
    times: int = 1_000_000
    chance: float = 1.0
    delay: float = 0.0
    status: int = 503
    retry_after: str | None = None
    body: str = "none"
    applied: bool = False


@dataclass(frozen=True)
class DiskFault:
    """The disk is `full`, `broken`, `readonly`, `short` or `slow` for some seconds."""

    at: float
    seconds: float
    kind: str


@dataclass(frozen=True)
class Kill:
    """The process is killed, `calls` system calls after a moment, or after a restore begins to finish."""

    at: float
    calls: int
    power: bool
    """Whether it is the machine that goes."""
    in_finish: int | None = None
    """The restore, where it is armed by that."""


@dataclass(frozen=True)
class StopAsked:
    """The control plane takes a stop request for a restore."""

    at: float
    restore: int
    in_window: bool = False
    """Between a read of ours and what follows it, from that moment on."""


@dataclass(frozen=True)
class ClockJump:
    """The wall clock of the host is set."""

    at: float
    seconds: float


@dataclass(frozen=True)
class TokenEnds:
    """The token is taken no more; a new one is to be had `after` seconds later."""

    at: float
    after: float
    between: str
    """What the file holds until then: `old`, `none` or `garbage`."""


@dataclass(frozen=True)
class EndsElsewhere:
    """Somebody else reports an end of a restore."""

    at: float
    restore: int
    state: str


@dataclass(frozen=True)
class Leaves:
    """The process is asked to leave in good order: it drains, and what is left stays in the spool."""

    at: float


Happening = NetFault | DiskFault | Kill | StopAsked | ClockJump | TokenEnds | EndsElsewhere | Leaves


@dataclass(frozen=True)
class Step:
    """What an engine does, and how long it waits before."""

    pause: float
    what: str
    """`queued`, `preparing`, `start`, `progress`, `advance`, `errors` or `nonsense`."""
    amount: int = 0
    files: int = 0


@dataclass(frozen=True)
class Script:
    """One restore as its engine does it."""

    begins: float
    steps: tuple[Step, ...]
    end: str
    """`leave`, `raise`, `cancelled`, `interrupted`, or a state that `finish` is called with."""
    finish_in_thread: bool
    on_stop: str
    """`asks`, `raises`, `waits`, `callback` or `ignores`: how it learns of a stop."""
    stop_takes: float
    """Seconds from there to its end."""
    own_process: bool
    """The engine is a process of its own, that may outlive the reporter."""
    outlives: float
    """So many seconds, then."""
    resumed: tuple[bool, ...]
    """Whether it is started again after each kill, by count."""


@dataclass(frozen=True)
class Plan:
    """Everything that a seed decides before the first step."""

    seed: int
    settings: dict[str, Any]
    strict: bool
    spelling: str
    reads: int
    """What reads are answered with: 200, or a refusal."""
    events: int
    """The same for looks for events."""
    agent_password: bool
    takes_over: tuple[bool, ...]
    stays: tuple[bool, ...]
    """Whether each life of the process waits for its deliveries when its engines are done."""
    restarts_after: tuple[float, ...]
    scripts: tuple[Script, ...]
    happenings: tuple[Happening, ...]

    @property
    def good_at(self) -> float:
        """When the last fault is over."""
        ends = [0.0]
        for each in self.happenings:
            match each:
                case NetFault() | DiskFault():
                    ends.append(each.at + each.seconds)
                case TokenEnds():
                    ends.append(each.at + each.after)
                case _:
                    ends.append(each.at)
        return max(ends)

    def smaller(self) -> Iterator[Plan]:
        """Every plan with something taken away, the largest pieces first."""
        if len(self.scripts) > 1:
            for index in range(len(self.scripts)):
                yield self._without_script(index)
        size = len(self.happenings)
        piece = size
        while piece:
            for first in range(0, size, piece):
                yield replace(self, happenings=self.happenings[:first] + self.happenings[first + piece :])
            piece //= 2
        for number, script in enumerate(self.scripts):
            piece = len(script.steps)
            while piece:
                for first in range(0, len(script.steps), piece):
                    steps = script.steps[:first] + script.steps[first + piece :]
                    scripts = list(self.scripts)
                    scripts[number] = replace(script, steps=steps)
                    yield replace(self, scripts=tuple(scripts))
                piece //= 2

    def _without_script(self, index: int) -> Plan:
        happenings: list[Happening] = []
        for each in self.happenings:
            if isinstance(each, StopAsked | EndsElsewhere):
                if each.restore == index:
                    continue
                happenings.append(replace(each, restore=each.restore - (each.restore > index)))
            elif isinstance(each, Kill) and each.in_finish is not None:
                if each.in_finish != index:
                    happenings.append(replace(each, in_finish=each.in_finish - (each.in_finish > index)))
            else:
                happenings.append(each)
        scripts = self.scripts[:index] + self.scripts[index + 1 :]
        return replace(self, scripts=scripts, happenings=tuple(happenings))


def plan_of(seed: int) -> Plan:
    """The plan of a seed."""
    chance = Random(seed)
    horizon = chance.choice((15.0, 40.0, 40.0, 90.0))
    scripts = tuple(_script(chance, horizon) for _ in range(chance.choice((1, 1, 1, 2, 2, 3))))
    think_up = chance.choice((_bad_day, _bad_day, _bad_day, _one_trouble, _stop_in_trouble))
    happenings = sorted(think_up(chance, horizon, len(scripts)), key=lambda each: each.at)
    return Plan(
        seed=seed,
        settings={
            "progress": chance.choice(("auto", "auto", "auto", "counters", "with_state", "final_only")),
            "path_spelling": chance.choice(("authority", "document", "auto", "auto")),
            "agent": chance.random() < 0.7,
            "report_interval": chance.choice((0.5, 1.0, 1.0, 2.0)),
            "idle_poll_interval": chance.choice((10.0, 30.0, 30.0)),
            "retry_cap": chance.choice((10.0, 60.0, 60.0)),
            "retry_after_cap": chance.choice((40.0, 300.0)),
            "drain_timeout": chance.choice((1.0, 10.0)),
            "max_errors": chance.choice((0, 3, 60, 500)),
            "concurrency": chance.choice((1, 2, 20, 20)),
            "when_refused": chance.choice(("continue", "stop")),
            "retention": chance.choice((200.0, WEEK, WEEK, WEEK)),
        },
        strict=chance.random() < 0.2,
        spelling=chance.choice(("both", "both", "both", "authority", "document")),
        reads=chance.choice((200,) * 12 + (404, 405, 501)),
        events=chance.choice((200,) * 10 + (404, 501)),
        agent_password=chance.random() < 0.15,
        takes_over=tuple(chance.random() < 0.7 for _ in range(LIVES)),
        stays=tuple(chance.random() < 0.7 for _ in range(LIVES)),
        restarts_after=tuple(chance.choice((0.0, 0.5, 3.0, 20.0, 90.0)) for _ in range(LIVES)),
        scripts=scripts,
        happenings=tuple(happenings),
    )


def _bad_day(chance: Random, horizon: float, restores: int) -> list[Happening]:
    """Everything at once."""
    happenings: list[Happening] = [
        _net_fault(chance, horizon) for _ in range(chance.choice((0, 1, 2, 3, 4, 6, 8)))
    ]
    if chance.random() < 0.15:
        happenings.append(_outage(chance, horizon))
    if chance.random() < 0.45:
        happenings += [_disk_fault(chance, horizon) for _ in range(chance.choice((1, 1, 2, 3)))]
    if chance.random() < 0.5:
        happenings += [_kill(chance, horizon, restores) for _ in range(chance.choice((1, 1, 1, 2, 3)))]
    for number in range(restores):
        if chance.random() < 0.4:
            happenings.append(StopAsked(chance.uniform(0, horizon), number, chance.random() < 0.4))
        if chance.random() < 0.05:
            happenings.append(EndsElsewhere(chance.uniform(0, horizon), number, chance.choice(FINALS)))
    if chance.random() < 0.2:
        happenings += [_clock_jump(chance, horizon) for _ in range(chance.choice((1, 1, 2)))]
    if chance.random() < 0.25:
        happenings += [_token_end(chance, horizon) for _ in range(chance.choice((1, 1, 2)))]
    if chance.random() < 0.15:
        happenings.append(Leaves(chance.uniform(0, horizon)))
    return happenings


def _one_trouble(chance: Random, horizon: float, restores: int) -> list[Happening]:
    """Nothing at all, or one kind of trouble, and all else in order: then much can be expected."""
    match chance.randrange(6):
        case 0:
            return []
        case 1:
            return [_kill(chance, horizon, restores)]
        case 2:
            return [_net_fault(chance, horizon) for _ in range(2)]
        case 3:
            return [_disk_fault(chance, horizon), _kill(chance, horizon, restores)]
        case 4:
            return [_clock_jump(chance, horizon), _outage(chance, horizon)]
        case _:
            return [StopAsked(chance.uniform(0, horizon), number) for number in range(restores)]


def _stop_in_trouble(chance: Random, horizon: float, restores: int) -> list[Happening]:
    """Patches fail, and nothing else does: a stop gets through."""
    at = chance.uniform(0, horizon * 0.7)
    fault = replace(_outage(chance, horizon), at=at, what="patch", seconds=chance.choice((20.0, 60.0, 300.0)))
    stop = StopAsked(at + chance.uniform(0, horizon - at), chance.randrange(restores))
    return [fault, stop]


def _script(chance: Random, horizon: float) -> Script:
    steps: list[Step] = []
    steps += [
        Step(_pause(chance), what, chance.choice((0, 10**6)), chance.choice((0, 500)))
        for what in ("queued", "preparing", "start")
        if chance.random() < 0.6
    ]
    spent = sum(step.pause for step in steps)
    while spent < horizon * 0.9 and len(steps) < 60:
        what = chance.choices(
            ("progress", "advance", "errors", "quiet", "nonsense", "preparing"), (10, 4, 3, 1.5, 0.5, 0.3)
        )[0]
        pause = chance.uniform(8, 20) if what == "quiet" else _pause(chance)
        what = "advance" if what == "quiet" else what
        steps.append(Step(pause, what, int(chance.paretovariate(0.4)) % 10**9, chance.choice((0, 1, 7))))
        spent += pause
    if chance.random() < 0.1:
        steps = steps[: chance.randint(0, 3)]
    end = chance.choice(("leave", "leave", "leave", "raise", "cancelled", "interrupted", *FINALS))
    return Script(
        begins=chance.choice((0.0, 0.0, 0.3, 5.0)),
        steps=tuple(steps),
        end=end,
        finish_in_thread=chance.random() < 0.5,
        on_stop=chance.choice(("asks", "raises", "raises", "waits", "callback", "ignores")),
        stop_takes=chance.choice((0.0, 0.2, 2.0, 15.0)),
        own_process=chance.random() < 0.4,
        outlives=chance.choice((0.0, 3.0, 30.0)),
        resumed=tuple(chance.random() < 0.5 for _ in range(LIVES)),
    )


def _pause(chance: Random) -> float:
    return chance.choice((0.0, 0.05, 0.4, 1.0, 1.7, 3.0, 6.0)) * chance.uniform(0.5, 1.0)


def _net_fault(chance: Random, horizon: float) -> NetFault:
    kind = chance.choices(
        ("refused", "lost", "dropped", "answer_lost", "late", "twice", "slow", "cut", "status"),
        (1, 1, 1, 2, 2, 0.5, 1, 1, 5),
    )[0]
    status = chance.choice(STATUSES)
    return NetFault(
        at=chance.uniform(0, horizon),
        seconds=chance.choice((0.5, 3.0, 10.0, 10.0, 40.0)),
        what=chance.choice(
            (
                "all",
                "all",
                "patch",
                "patch",
                "read",
                "events",
                "state",
                "result",
                "result",
                "counters",
                "sign_in",
            )
        ),
        kind=kind,
        # Refusals for good are told of seldom, and once: else nothing but them would be seen.
        times=1 if status in {403, 404, 405} else chance.choice((1, 1, 2, 3, 10, 1_000_000)),
        chance=chance.choice((0.3, 1.0, 1.0)),
        delay=chance.choice((0.0, 0.3, 2.0, 9.0, 11.0, 30.0)),
        status=status,
        retry_after=chance.choice(RETRY_AFTER),
        body=chance.choice(BODIES),
        applied=chance.random() < 0.4,
    )


def _outage(chance: Random, horizon: float) -> NetFault:
    return NetFault(
        at=chance.uniform(0, horizon),
        seconds=chance.choice((60.0, 300.0, 900.0)),
        what=chance.choice(("all", "patch")),
        kind=chance.choice(("status", "refused", "lost")),
        status=chance.choice((429, 500, 503)),
        retry_after=chance.choice(RETRY_AFTER),
    )


def _clock_jump(chance: Random, horizon: float) -> ClockJump:
    jump = chance.choice((-86_400.0, -400.0, -30.0, -3.0, 3.0, 30.0, 400.0, 86_400.0))
    return ClockJump(chance.uniform(0, horizon), jump)


def _token_end(chance: Random, horizon: float) -> TokenEnds:
    between = chance.choice(("old", "old", "none", "garbage"))
    return TokenEnds(chance.uniform(0, horizon), chance.choice((0.0, 1.0, 5.0, 40.0)), between)


def _disk_fault(chance: Random, horizon: float) -> DiskFault:
    kind = chance.choice(("full", "full", "broken", "readonly", "short", "slow"))
    return DiskFault(chance.uniform(0, horizon), chance.choice((1.0, 8.0, 30.0)), kind)


def _kill(chance: Random, horizon: float, restores: int) -> Kill:
    in_finish = chance.randrange(restores) if chance.random() < 0.4 else None
    calls = chance.choice((0, 0, 1, 2, 5, 12, 40)) if in_finish is None else chance.randint(0, 24)
    at = chance.uniform(0, horizon) if in_finish is None else 0.0
    return Kill(at, calls, chance.random() < 0.4, in_finish)
