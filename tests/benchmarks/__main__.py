"""`python -m tests.benchmarks`: what an engine and a host pay, beside what people would use instead.

Prints a table for each group, and at the end every target with what was measured. `--quick` shows that it works,
and no figures.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from pathlib import Path

from agent_reporter.model.showing import described
from tests.benchmarks import (
    hot_path,
    idle,
    latency,
    memory,
    parsing,
    rates,
    restore,
    scaling,
    starts,
    traffic,
)
from tests.benchmarks.chart import draw
from tests.benchmarks.goals import UntrueError, print_goals
from tests.benchmarks.rounds import FULL, QUICK

GROUPS = {
    "hot_path": hot_path.run,
    "parsing": parsing.run,
    "restore": restore.run,
    "rates": rates.run,
    "latency": latency.run,
    "starts": starts.run,
    "memory": memory.run,
    "scaling": scaling.run,
    "idle": idle.run,
    "traffic": traffic.run,
}


def main() -> int:
    """Run the groups that are named, or all; the exit status is 1 if one fails, or finds something untrue."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of: {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a few short rounds; the figures mean little")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the targets, as a PNG")
    args = parser.parse_args()
    if unknown := set(args.groups) - GROUPS.keys():
        parser.error(f"there is no group {', '.join(sorted(unknown))}")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed program is not compiled at each start
    goals, untrue = [], []
    for name in args.groups or GROUPS:
        try:
            goals += GROUPS[name](QUICK if args.quick else FULL)
        except UntrueError as problem:
            untrue.append(f"{name}: {problem}")
        except Exception as problem:  # noqa: BLE001 - what the other groups measure is shown all the same
            traceback.print_exc()
            untrue.append(f"{name} failed: {described(problem)}")
    print_goals(goals)
    if args.chart is not None:
        args.chart.write_bytes(draw(goals))
    for each in untrue:
        print(f"untrue: {each}")
    return 1 if untrue else 0


if __name__ == "__main__":
    sys.exit(main())
