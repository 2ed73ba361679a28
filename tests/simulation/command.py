"""The command: seeds in parallel, a table of what they saw, and of a failure all it takes to understand it."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain, count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from tests.simulation.plan import plan_of
from tests.simulation.shrink import shrunk
from tests.simulation.world import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.simulation.world import Outcome

FAILED_SEEDS = Path(__file__).parent / "failed_seeds.txt"
CHUNK = 20
LAST_EVENTS = 40

INTERESTING = (
    "kill", "power loss", "kill at a call", "restore resumed", "leaves",
    "finish durable", "finish not durable", "dead letter", "ended elsewhere",
    "stop asked", "stop asked during backoff", "stop in time", "stop erased", "stopped",
    "net refused", "net lost", "net dropped", "net answer_lost", "net late", "net twice", "net slow", "net cut", "net status",
    "applied late", "answer 400", "answer 401", "answer 403", "answer 404", "answer 405", "answer 409", "answer 413",
    "answer 429", "answer 500", "answer 501", "answer 502", "answer 503", "answer 504",
    "disk full", "disk broken", "disk readonly", "disk short", "disk slow", "spool unusable",
    "clock jump", "token ends", "quiet time",
)  # fmt: skip
"""What a simulation that is not idle comes to."""


@dataclass
class Sum:
    """What some seeds came to."""

    seeds: int = 0
    failed: list[tuple[int, str, str]] = field(default_factory=list)
    """Seed, check, and what happened."""
    seen: Counter[str] = field(default_factory=Counter)
    """In how many seeds each thing happened."""
    virtual: float = 0.0
    real: float = 0.0
    """Seconds of one core."""

    def add(self, other: Sum) -> None:
        self.seeds += other.seeds
        self.failed += other.failed
        self.seen += other.seen
        self.virtual += other.virtual
        self.real += other.real


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns 1 if an invariant does not hold for some seed."""
    asked = _arguments(arguments)
    if asked.seed is not None:
        return _one(asked.seed, trace=asked.trace, shrinks=asked.shrink)
    first = int(time.time()) if asked.fresh else asked.first
    print(f"those that once failed, then {asked.seeds} seeds from {first} on", flush=True)
    total = Sum()
    began = time.monotonic()
    seeds = chain(failed_seeds(), range(first, first + asked.seeds))
    for part in _parts(seeds, began + 60 * asked.minutes, asked.jobs):
        total.add(part)
        for seed, check, what in part.failed:
            print(f"seed {seed}: {check}: {what[:500]}", flush=True)
        if total.failed and not asked.keep_going:
            break
    _tell(total, time.monotonic() - began)
    if not total.failed:
        return 0
    print(f"first failing seed: {min(total.failed)[0]}")
    if not asked.no_shrink:
        _explain(run(plan_of(min(total.failed)[0])))
    return 1


def failed_seeds() -> list[int]:
    """Seeds that once failed: they are run before all others."""
    lines = FAILED_SEEDS.read_text(encoding="utf-8").splitlines()
    return [int(line.split()[0]) for line in lines if line and line[0] != "#"]


def run_seeds(seeds: Iterable[int]) -> Sum:
    """Run each of them."""
    total = Sum()
    began = time.process_time()
    for seed in seeds:
        outcome = run(plan_of(seed))
        total.seeds += 1
        total.virtual += outcome.virtual
        total.seen.update(outcome.seen.keys())
        total.failed += [(seed, check, what) for check, what in outcome.violations[:1]]
    total.real = time.process_time() - began
    return total


def _parts(seeds: Iterable[int], until: float, jobs: int) -> Iterator[Sum]:
    numbers = iter(seeds)
    chunks = iter(lambda: list(islice(numbers, CHUNK)), [])
    if jobs == 1:
        for chunk in chunks:
            yield run_seeds(chunk)
            if time.monotonic() > until:
                return
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        running = [pool.apply_async(run_seeds, (chunk,)) for chunk in islice(chunks, 2 * jobs)]
        while running:
            yield running.pop(0).get()
            if time.monotonic() <= until:
                running += [pool.apply_async(run_seeds, (chunk,)) for chunk in islice(chunks, 1)]


def _one(seed: int, *, trace: bool, shrinks: bool) -> int:
    outcome = run(plan_of(seed))
    if shrinks and outcome.violations:
        outcome = shrunk(outcome)
    if trace:
        for event in outcome.trace:
            print(*event)
    if outcome.violations:
        _describe(outcome)
    print(f"seed {seed}: trace {outcome.trace_hash}, {outcome.virtual:.1f} virtual seconds")
    return 1 if outcome.violations else 0


def _explain(outcome: Outcome) -> None:
    if outcome.violations:
        print("shrunk:")
        _describe(shrunk(outcome))
    print(f"again: python -m tests.simulation --seed {outcome.plan.seed} --trace [--shrink]")


def _describe(outcome: Outcome) -> None:
    plan = outcome.plan
    print(f"  settings {plan.settings}")
    print(
        f"  strict {plan.strict}, spelling {plan.spelling}, reads {plan.reads}, events {plan.events}, "
        f"takes over {plan.takes_over}, stays {plan.stays}"
    )
    for script in plan.scripts:
        print(f"  {script}")
    for happening in plan.happenings:
        print(f"  {happening}")
    where = next(
        (n for n, event in zip(count(), outcome.trace) if event[1] == "VIOLATION"), len(outcome.trace)
    )
    for event in outcome.trace[max(0, where - LAST_EVENTS) : where + 1]:
        print("   ", *event)
    for check, what in outcome.violations[:3]:
        print(f"  violated: {check}: {what[:800]}")


def _tell(total: Sum, elapsed: float) -> None:
    real = max(total.real, 1e-9)
    print(f"{total.seeds} seeds, {len(total.failed)} violations, in {elapsed:.1f} s")
    print(
        f"{total.virtual:.0f} virtual seconds in {real:.1f} s of processor: {total.virtual / real:.0f} times as "
        f"fast, {1_000 * real / max(1, total.seeds):.1f} ms a seed"
    )
    print("seeds that saw:")
    width = max(map(len, INTERESTING)) + 2
    cells = [f"{name:<{width}}{total.seen[name]:>6}" for name in INTERESTING]
    for first in range(0, len(cells), 3):
        print("  " + "   ".join(cells[first : first + 3]))


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many seeds")
    parser.add_argument("--minutes", type=float, default=10.0, help="stop after so many")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="N", help="the first seed")
    parser.add_argument("--fresh", action="store_true", help="begin with a seed that the clock says")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--keep-going", action="store_true", help="go on after a failure")
    parser.add_argument("--no-shrink", action="store_true", help="after a failure, only name its seed")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happens")
    parser.add_argument("--shrink", action="store_true", help="with --seed: make a failure small")
    return parser.parse_args(arguments)
