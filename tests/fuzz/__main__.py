"""Fuzz what reads bytes from outside: `python -m tests.fuzz --minutes 10`.

Prints how much was tried, and what was found: an input that fails is made small, and printed as bytes that go
into `failed_inputs.txt`. The exit status is 1 if anything was found.
"""

from __future__ import annotations

import argparse
import sys
import time

from rich.console import Console
from rich.table import Table

from tests.fuzz.fuzzing import Found, search
from tests.fuzz.targets import TARGETS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="for all targets together (default: 5)")
    parser.add_argument(
        "--target",
        action="append",
        default=[],
        metavar="NAME",
        help=f"only those with this in their names; may be repeated: {', '.join(TARGETS)}",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    wanted = args.target or [""]
    chosen = [each for each in TARGETS.values() if any(part in each.name for part in wanted)]
    if not chosen:
        parser.error(f"no target has this in its name: {' '.join(args.target)}")
    begun = time.monotonic()
    results = []
    for target in chosen:
        found = search(target, args.seed, args.minutes * 60 / len(chosen))
        results.append(found)
        print(f"{target.name}: {found.executions:,} executions", file=sys.stderr)
        for failure in found.failures.values():
            print(f"{target.name}: {failure.what}\n  at {failure.place}\n  {failure.data!r}", file=sys.stderr)
    show(results)
    failures = sum(len(found.failures) for found in results)
    total = sum(found.executions for found in results)
    print(f"{total:,} executions in {time.monotonic() - begun:.0f} s, {failures} failures")
    return 1 if failures else 0


def show(results: list[Found]) -> None:
    """Print the table."""
    caption = "branches: taken, of those in the target's own modules; kept: inputs that went new ways"
    table = Table(caption=caption)
    for column in ("target", "executions", "a second", "branches", "kept", "failures"):
        table.add_column(column, justify="left" if column == "target" else "right")
    for found in results:
        taken, there = found.branches.of_all()
        table.add_row(
            found.target.name,
            f"{found.executions:,}",
            f"{found.executions / max(found.seconds, 0.001):,.0f}",
            f"{taken} of {there}",
            f"{len(found.corpus):,}",
            str(len(found.failures)),
        )
    Console(width=None if sys.stdout.isatty() else 110, highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
