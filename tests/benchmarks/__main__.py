"""`python -m tests.benchmarks`: times what an engine pays. `--quick` shows that it works, and no figures."""

from __future__ import annotations

import argparse
import sys

from tests.benchmarks import hot_path, parsing, restore
from tests.benchmarks.rounds import FULL, QUICK

GROUPS = {"hot_path": hot_path.run, "parsing": parsing.run, "restore": restore.run}


def main() -> int:
    """Run the groups that are named, or all; the exit status is 1 if one finds something wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of: {', '.join(GROUPS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a few short rounds; the figures mean little")
    args = parser.parse_args()
    if unknown := set(args.groups) - GROUPS.keys():
        parser.error(f"there is no group {', '.join(sorted(unknown))}")
    effort = QUICK if args.quick else FULL
    are_right = [GROUPS[name](effort) for name in args.groups or GROUPS]
    return 0 if all(are_right) else 1


if __name__ == "__main__":
    sys.exit(main())
