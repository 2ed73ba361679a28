"""`python -m tests.crash`: the real programs, killed or refused at every call on the spool and on a socket.

Prints a row for each program and fault. The exit status is 1 if a record is not true, or anything else is not as promised.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.crash.faults import Fault
from tests.crash.play import points_of, theatre, why_impossible
from tests.crash.programs import PROGRAMS
from tests.crash.truth import Kind

if TYPE_CHECKING:
    from tests.crash.play import Program
    from tests.crash.stage import Played


async def play_all(
    programs: list[Program], faults: list[Fault], at_once: int, every: int, *, kills_at_looks: bool
) -> list[Row]:
    """Play each program without a fault, and with each fault at each call."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="crash-") as folder:
        async with theatre(Path(folder), at_once) as stage:
            for program in programs:
                try:
                    await stage.prepare(program)
                except FileNotFoundError as lacking:
                    print(f"{program.name}: not played: {lacking}")
                    continue
                clean = await stage.play(program, None)
                _tell(clean)
                rows.append(Row(program.name, "none", len(clean.calls), [clean]))
                _tell_row(rows[-1])
                if clean.untruths:
                    continue
                for fault in faults:
                    points = points_of(clean.calls, fault, kills_at_looks=kills_at_looks)[::every]
                    played = await stage.play_all(program, points, _tell)
                    rows.append(Row(program.name, fault, len(points), played))
                    _tell_row(rows[-1])
    return rows


class Row:
    """One program with one fault."""

    def __init__(self, program: str, fault: str, points: int, played: list[Played]) -> None:
        self.program = program
        self.fault = fault
        self.points = points
        self.played = played

    def count(self, kind: Kind) -> int:
        """The plays with such an untruth."""
        return sum(any(untruth.kind is kind for untruth in played.untruths) for played in self.played)


def _tell(played: Played) -> None:
    """Say what was not true, as it comes."""
    if played.untruths:
        print(f"{played.program}: {played.point or 'no fault'}")
        for untruth in played.untruths:
            print(f"    {untruth}")
        sys.stdout.flush()


def _tell_row(row: Row) -> None:
    """Say how far it is: a whole matrix takes an hour."""
    untrue = sum(bool(played.untruths) for played in row.played)
    print(f"{row.program}, {row.fault}: {row.points} calls, {untrue} untrue", file=sys.stderr, flush=True)


def table(rows: list[Row]) -> Table:
    drawn = Table(title="The programs, and a fault at each call of spool and delivery")
    drawn.add_column("program")
    drawn.add_column("fault")
    for column in ("calls", "reached", *Kind, "seconds"):
        drawn.add_column(column, justify="right")
    for row in rows:
        drawn.add_row(
            row.program,
            row.fault,
            str(row.points),
            str(sum(played.has_hit for played in row.played)) if row.fault != "none" else "",
            *(str(row.count(kind)) for kind in Kind),
            f"{sum(played.seconds for played in row.played):.0f}",
        )
    return drawn


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    names = [program.name for program in PROGRAMS]
    parser.add_argument("--program", action="append", choices=names, help="only this one; may be repeated")
    parser.add_argument(
        "--fault", action="append", type=Fault, choices=list(Fault), help="only this one; may be repeated"
    )
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth point")
    parser.add_argument(
        "--changes-only",
        action="store_true",
        help="kill at calls that change something only: killed at another, it leaves what it leaves at the next",
    )
    parser.add_argument("--at-once", type=int, default=3, help="plays at the same time (default: 3)")
    args = parser.parse_args()
    if why := why_impossible():
        print(f"Nothing is played: {why}.")
        return 2
    begun = time.monotonic()
    programs = [program for program in PROGRAMS if not args.program or program.name in args.program]
    faults = args.fault or list(Fault)
    rows = asyncio.run(
        play_all(programs, faults, args.at_once, args.every, kills_at_looks=not args.changes_only)
    )
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table(rows))
    played = [played for row in rows for played in row.played]
    untrue = sum(bool(each.untruths) for each in played)
    print(f"{len(played)} plays, {untrue} with something untrue, in {time.monotonic() - begun:.0f} s.")
    return 1 if untrue else 0


if __name__ == "__main__":
    sys.exit(main())
