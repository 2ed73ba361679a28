"""Plant each bug in a copy of the product, and count the seeds in which the simulation finds it.

Prints a table, in the order of the house's invariants. As many seeds as the bug that is hardest to find took are
then run without any bug, and have to find nothing. The exit status is 1 if a bug was not found, or one that is not
there was, or a patch does not apply.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.simulation.planted.hunt import Found, copied, hunt
from tests.simulation.planted.patches import Bug, DoesNotApplyError, bugs

INVARIANTS = {
    1: "results kept",
    2: "forward only",
    3: "stops heeded",
    4: "one true end",
    5: "engine undisturbed",
    6: "requests by the rules",
    7: "token concealed",
    8: "bounded",
}


def main(arguments: list[str] | None = None) -> int:
    """Hunt them all."""
    asked = _arguments(arguments)
    chosen = [bug for bug in bugs() if not asked.only or bug.name in asked.only]
    chosen.sort(key=lambda bug: bug.invariant)
    if unknown := set(asked.only) - {bug.name for bug in chosen}:
        print(f"There is no {', '.join(sorted(unknown))}.")
        return 2
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="planted-") as folder, ThreadPoolExecutor(asked.jobs) as pool:

        def hunted(bug: Bug) -> Found | None:
            try:
                copy = copied(Path(folder) / bug.name, bug)
            except DoesNotApplyError as problem:
                print(problem, file=sys.stderr)
                return None
            found = hunt(copy, asked.first, asked.seeds)
            print(f"{bug.name}: {_seeds(found, asked.first)}", file=sys.stderr)
            return found

        results = list(zip(chosen, pool.map(hunted, chosen), strict=True))
        needed = [found.seed - asked.first + 1 for _, found in results if found and found.seed is not None]
        most = max(needed, default=1)
        control = _without_bugs(copied(Path(folder) / "control"), asked.first, most, asked.jobs, pool)
    _tell(results, asked.first)
    print(f"{len(needed)} of {len(chosen)} bugs found, in {time.monotonic() - began:.0f} s.")
    print(f"Without a bug, {most} seeds find {'something' if control else 'nothing'}.")
    for found in control:
        print(f"  seed {found.seed}: {found.check}: {found.what}")
    return 1 if control or len(needed) < len(chosen) else 0


def _without_bugs(copy: Path, first: int, seeds: int, jobs: int, pool: ThreadPoolExecutor) -> list[Found]:
    size = -(-seeds // jobs)
    parts = [(start, min(size, first + seeds - start)) for start in range(first, first + seeds, size)]
    hunts = pool.map(lambda part: hunt(copy, *part), parts)
    return [found for found in hunts if found.seed is not None]


def _tell(results: list[tuple[Bug, Found | None]], first: int) -> None:
    table = Table(title="Planted bugs, and the seeds in which the simulation finds them")
    for name in ("invariant", "bug", "what it does", "found by"):
        table.add_column(name, overflow="fold")
    for name in ("seeds", "seconds"):
        table.add_column(name, justify="right")
    for bug, found in results:
        table.add_row(
            f"{bug.invariant} {INVARIANTS[bug.invariant]}",
            bug.name,
            bug.purpose,
            "" if found is None else found.check,
            "DOES NOT APPLY" if found is None else _seeds(found, first),
            "" if found is None else f"{found.seconds:.1f}",
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _seeds(found: Found, first: int) -> str:
    return "NOT FOUND" if found.seed is None else str(found.seed - first + 1)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many seeds each bug gets")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="N", help="the first seed")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="bugs that are hunted at once")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="these bugs alone")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
