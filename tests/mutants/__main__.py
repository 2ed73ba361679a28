"""Mistakes made on purpose, and how many of them the tests find: `python -m tests.mutants [ROOM...]`.

Needs `pip install -e '.[mutants]'`. The exit status is 1 if a room is under its target.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.mutants.rooms import ROOMS
from tests.mutants.working import KILLED, NOT_TRIED, ROOT, Mutant, mutants, prepare, try_again, try_all

if TYPE_CHECKING:
    from collections.abc import Mapping

TARGET = 0.95
HEAD = (
    "Mutants of the bodies of functions and methods, texts and log lines among them. Not mutated: properties "
    "and other decorated functions, defaults of fields, and tables of a module."
)


def main() -> int:
    """Try the mutants of the rooms that are named, or of all."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument(
        "rooms", nargs="*", metavar="ROOM", help=f"of {', '.join(room.name for room in ROOMS)}"
    )
    parser.add_argument("--jobs", type=int, default=2, help="mutants that are tried at once")
    parser.add_argument("--directory", type=Path, default=ROOT / "build" / "mutants")
    parser.add_argument("--resume", action="store_true", help="go on where an interrupted run was")
    parser.add_argument("--show", action="store_true", help="only show what was found so far")
    args = parser.parse_args()
    if unknown := set(args.rooms) - {room.name for room in ROOMS}:
        parser.error(f"no such room: {', '.join(sorted(unknown))}")
    rooms = [room for room in ROOMS if not args.rooms or room.name in args.rooms]
    begun = time.monotonic()
    for room in () if args.show else rooms:
        directory = args.directory / room.name
        if not args.resume:
            shutil.rmtree(directory, ignore_errors=True)
        prepare(room, directory)
        try_all(directory, args.jobs)
        try_again(room, directory)
    is_good = show({room.name: list(mutants(args.directory / room.name)) for room in rooms})
    print(f"{time.monotonic() - begun:.0f} seconds")
    return 0 if is_good else 1


def show(rooms: Mapping[str, list[Mutant]]) -> bool:
    """Print what was found, by module and room; returns whether every room reaches the target."""
    console = Console(width=132, highlight=False)
    for mutant in chain(*rooms.values()):
        if mutant.verdict not in {KILLED, NOT_TRIED}:
            console.print(f"{mutant.name}: {mutant.reason or mutant.verdict}", markup=False, soft_wrap=True)
            console.print(f"    - {mutant.was}\n    + {mutant.becomes}", markup=False, soft_wrap=True)
    table = Table(
        title=HEAD,
        caption=f"score: killed of those that were tried and are not equivalent; at least {TARGET:.0%}",
    )
    for name in ("module or room", "mutants", "killed", "survived", "equivalent", "not tried", "score"):
        table.add_column(name, justify="left" if name == "module or room" else "right", no_wrap=True)
    good = []
    for room, found in rooms.items():
        for module in sorted({mutant.module for mutant in found}):
            _row(table, module, [mutant for mutant in found if mutant.module == module])
        good.append(_row(table, f"all of {room}", found))
        table.add_section()
    console.print(table)
    return bool(good) and all(good)


def _row(table: Table, name: str, found: list[Mutant]) -> bool:
    count = Counter("equivalent" if mutant.reason else mutant.verdict for mutant in found)
    killed, equivalent, not_tried = count[KILLED], count["equivalent"], count[NOT_TRIED]
    score = killed / max(1, len(found) - equivalent - not_tried)
    survived = len(found) - killed - equivalent - not_tried
    cells = (len(found), killed, survived, equivalent, not_tried, f"{score:.1%}")
    table.add_row(name, *map(str, cells))
    return bool(found) and score >= TARGET and not not_tried


if __name__ == "__main__":
    sys.exit(main())
