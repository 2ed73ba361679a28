"""The search: spoil what is known, keep what takes new ways through the code, make small what fails."""

from __future__ import annotations

import signal
import tempfile
import time
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from tests.fuzz.branches import Branches
from tests.fuzz.mutation import mutated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from types import FrameType

    Check = Callable[[bytes], None]
    """A property: raises if it does not hold for these bytes."""

LONGEST_SECONDS = 10.0
"""Of processor time for one input: what takes longer hangs."""
SHRINKING_SECONDS = 20.0
ENDLESS = 1 << 62
MEMORY = Path("/dev/shm")
TRIALS = 3
"""Parts of each size that an input is tried without."""


class Hang(BaseException):
    """An input that is not done with in time."""


@dataclass(frozen=True)
class Target:
    """One reader of what comes from outside."""

    name: str
    modules: Sequence[str]
    """What it consists of, as paths in the package: whose branches are counted."""
    seeds: Callable[[], Sequence[bytes]]
    """What it should be given."""
    open: Callable[[], AbstractContextManager[Check]]
    """The property, with all it needs."""


@dataclass(frozen=True)
class Failure:
    """An input, and what it does."""

    data: bytes
    what: str
    place: str


@dataclass
class Found:
    """What came of a search."""

    target: Target
    branches: Branches
    executions: int = 0
    seconds: float = 0.0
    corpus: list[bytes] = field(default_factory=list)
    failures: dict[str, Failure] = field(default_factory=dict)
    """By the place in the code where they show."""

    def execute(self, check: Check, data: bytes) -> tuple[Failure | None, set[int]]:
        """What `data` does wrong, and the steps that were made for it."""
        failure: list[Failure | None] = []
        start = time.monotonic()
        steps = self.branches.made_by(lambda: failure.append(failure_of(check, data)))
        self.seconds += time.monotonic() - start
        self.executions += 1
        return failure[0], steps


def search(target: Target, seed: int, seconds: float, executions: int = ENDLESS) -> Found:
    """Search for `seconds`, and through so many inputs. The same seed tries the same, as far as it comes."""
    found = Found(target, Branches(target.modules))
    random = Random(f"{seed} {target.name}")
    until = time.monotonic() + seconds
    try:
        with target.open() as plain, _no_hangs(plain) as check:
            for data in _inputs(found, random, target.seeds()):
                _try(found, check, random, data)
                if time.monotonic() > until or found.executions >= executions:
                    break
    except Exception as problem:  # noqa: BLE001 - an end that is not orderly is a finding, too
        found.failures[_place(problem)] = Failure(b"", f"at the end: {problem!r}", _place(problem))
    return found


def _try(found: Found, check: Check, random: Random, data: bytes) -> None:
    failure, steps = found.execute(check, data)
    new = found.branches.new_of(steps)
    if failure is None and new:
        found.corpus.append(_trimmed(found, check, random, data, new))
    if failure is not None and failure.place not in found.failures:
        found.failures[failure.place] = shrunk(check, failure)


def _trimmed(found: Found, check: Check, random: Random, data: bytes, steps: set[int]) -> bytes:
    """`data` without some of what it does not need for `steps`: long inputs are slow, and mostly spoilt in vain."""
    size = len(data) // 2
    while size:
        for _ in range(TRIALS):
            start = random.randrange(len(data))
            shorter = data[:start] + data[start + size :]
            failure, made = found.execute(check, shorter)
            if failure is None and shorter and steps <= made:
                data = shorter
        size //= 2
    return data


def _inputs(found: Found, random: Random, seeds: Sequence[bytes]) -> Iterator[bytes]:
    """The seeds, then what can be made of them, and of what took new ways, the newest most of all."""
    yield from seeds
    found.corpus = found.corpus or list(seeds)
    while True:
        some = random.choice((found.corpus, found.corpus[-20:], seeds))
        yield mutated(random, random.choice(some), found.corpus)


def failure_of(check: Check, data: bytes) -> Failure | None:
    """What `data` does wrong; None if nothing."""
    try:
        check(data)
    except (Exception, Hang) as problem:  # noqa: BLE001 - whatever it is, it is the finding
        return Failure(data, f"{type(problem).__name__}: {str(problem)[:600]}", _place(problem))
    return None


def _place(problem: BaseException) -> str:
    """The kind of exception, and where in the product, and in the property, it was."""
    frames = traceback.extract_tb(problem.__traceback__)
    product = [f for f in frames if "/agent_reporter/" in f.filename and not f.filename.endswith("/rules.py")]
    ours = [f for f in frames if "/tests/fuzz/" in f.filename]
    return " ".join([type(problem).__name__, *(f"{f[-1].name}:{f[-1].lineno}" for f in (product, ours) if f)])


def shrunk(check: Check, failure: Failure) -> Failure:
    """The same failure by as few bytes as are found in some seconds."""
    until = time.monotonic() + SHRINKING_SECONDS
    size = max(1, len(failure.data) // 2)
    while size and time.monotonic() < until:
        shorter = _without_a_part(check, failure, size, until)
        size = size if shorter is not failure else size // 2
        failure = shorter
    return failure


def _without_a_part(check: Check, failure: Failure, size: int, until: float) -> Failure:
    for start in range(0, len(failure.data), size):
        if time.monotonic() > until:
            break
        data = failure.data[:start] + failure.data[start + size :]
        again = failure_of(check, data)
        if again is not None and again.place == failure.place:
            return again
    return failure


@contextmanager
def a_directory() -> Iterator[Path]:
    """A directory for some time: in memory where that can be had, as nothing here is about disks."""
    with tempfile.TemporaryDirectory(prefix="ar-", dir=MEMORY if MEMORY.is_dir() else None) as directory:
        yield Path(directory)


@contextmanager
def _no_hangs(check: Check) -> Iterator[Check]:
    """`check`, with Hang raised where it takes too long. For the main thread."""

    def ring(_number: int, _frame: FrameType | None) -> None:
        raise Hang(f"no end within {LONGEST_SECONDS:g} s of processor time")

    def bounded(data: bytes) -> None:
        signal.setitimer(signal.ITIMER_PROF, LONGEST_SECONDS)
        try:
            check(data)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    before = signal.signal(signal.SIGPROF, ring)
    try:
        yield bounded
    finally:
        signal.signal(signal.SIGPROF, before)
