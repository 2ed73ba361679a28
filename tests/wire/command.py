"""The command: seeds one after another, and a table of what they saw."""

from __future__ import annotations

import argparse
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

from tests.wire.middle import SORTS
from tests.wire.plan import KINDS, plan_of
from tests.wire.world import run

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.wire.world import Outcome

LAST_EVENTS = 40
FAULTS = (*(kind for kind in KINDS if kind != "middle"), *SORTS)
HAPPENINGS = ("Kill", "ServerRestart", "TokenEnds", "StopAsked", "stop in time")


@dataclass
class Sum:
    """What some seeds came to."""

    seeds: int = 0
    failed: list[tuple[int, str, str]] = field(default_factory=list)
    """Seed, check, and what happened."""
    seen: Counter[str] = field(default_factory=Counter)
    virtual: float = 0.0
    processor: float = 0.0
    """Seconds."""
    requests: int = 0
    connects: int = 0
    calm_requests: int = 0
    calm_connects: int = 0

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.seeds += 1
        self.failed += [(outcome.plan.seed, *violation) for violation in outcome.violations[:1]]
        self.seen += outcome.seen
        self.virtual += outcome.virtual
        self.requests += outcome.requests
        self.connects += outcome.connects
        if outcome.plan.is_calm:
            self.calm_requests += outcome.requests
            self.calm_connects += outcome.connects


def run_seeds(seeds: Iterable[int], *, minutes: float = 60.0, keeps_going: bool = True) -> Sum:
    """Run each of them, as long as there is time; unless it `keeps_going`, up to the first that fails."""
    total = Sum()
    began, processor = time.monotonic(), time.process_time()
    for seed in seeds:
        total.add(run(plan_of(seed)))
        if time.monotonic() - began > 60 * minutes or (total.failed and not keeps_going):
            break
    total.processor = time.process_time() - processor
    return total


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 1 if an invariant does not hold for some seed."""
    asked = _arguments(arguments)
    if asked.seed is not None:
        return _one(asked.seed, trace=asked.trace)
    began = time.monotonic()
    seeds = range(asked.first, asked.first + asked.seeds)
    total = run_seeds(seeds, minutes=asked.minutes, keeps_going=asked.keep_going)
    _tell(total, time.monotonic() - began)
    for seed, check, what in total.failed:
        print(f"seed {seed}: {check}: {what[:500]}; again: python -m tests.wire --trace --seed {seed}")
    return 1 if total.failed else 0


def _one(seed: int, *, trace: bool) -> int:
    outcome = run(plan_of(seed))
    if trace:
        print(*outcome.plan.happenings, sep="\n")
        for event in outcome.trace:
            print(*event)
    elif outcome.violations:
        where = (n for n, event in zip(count(), outcome.trace) if event[1] == "VIOLATION")
        last = next(where, len(outcome.trace))
        for event in outcome.trace[max(0, last - LAST_EVENTS) : last + 1]:
            print(*event)
    for check, what in outcome.violations[:3]:
        print(f"violated: {check}: {what[:800]}")
    print(f"seed {seed}: trace {outcome.trace_hash}, {outcome.virtual:.1f} virtual seconds")
    return 1 if outcome.violations else 0


def _tell(total: Sum, elapsed: float) -> None:
    processor = max(total.processor, 1e-9)
    print(f"{total.seeds} seeds, {len(total.failed)} violations, in {elapsed:.1f} s")
    print(
        f"{total.virtual:.0f} virtual seconds in {processor:.1f} s of processor: {total.virtual / processor:.0f} times "
        f"as fast, {1_000 * processor / max(1, total.seeds):.0f} ms a seed"
    )
    print(
        f"{total.requests} requests on {total.connects} connections; where nothing was wrong, "
        f"{total.calm_requests} on {total.calm_connects}"
    )
    print("faults made, and what else happened:")
    width = max(map(len, (*FAULTS, *HAPPENINGS))) + 2
    answers = sorted(name for name in total.seen if name.startswith("answer "))
    cells = [f"{name:<{width}}{total.seen[name]:>6}" for name in (*FAULTS, *HAPPENINGS, *answers)]
    for first in range(0, len(cells), 4):
        print("  " + "   ".join(cells[first : first + 4]))


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.wire", description=__doc__)
    parser.add_argument("--seeds", type=int, default=200, help="how many seeds")
    parser.add_argument("--minutes", type=float, default=2.0, help="stop after so many")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="N", help="the first seed")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happens")
    return parser.parse_args(arguments)
