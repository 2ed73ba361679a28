"""Fifty restores at once, an outage, and a daemon that is killed again and again: `python -m tests.daemon.fifty`.

Engines in Python, `run` with restic, and shell scripts with curl report to one daemon. In the middle the
control plane is away, and the daemon is killed with SIGKILL three times. At the end each record at the control
plane is held against what its engine wrote down itself. The exit status is 1 if one is not true, or if
anything is left in a spool or in the journal.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.daemon.host_crowd import Options, Outcome, crowd
from tests.daemon.host_plan import Times

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.daemon.host_crowd import Restore


async def play(directory: Path, options: Options) -> Outcome:
    async with crowd(directory, options) as people:
        return await people.play()


def show(outcome: Outcome, console: Console) -> None:
    """The tables, and whatever is not true."""
    console.print(_by_kind(outcome.restores), _totals(outcome))
    for restore in outcome.restores:
        for untruth in restore.untruths:
            console.print(
                f"restore {restore.id} ({restore.course.kind}, {restore.directory.name}): {untruth}"
            )
    for trouble in outcome.troubles:
        console.print(trouble)
    console.print("Every record is true." if outcome.is_true else "NOT every record is true.")


def _by_kind(restores: list[Restore]) -> Table:
    table = Table(title=f"{len(restores)} restores at once")
    for column in ("restores of", "expected end"):
        table.add_column(column)
    for column in ("count", "true", "stop known within", "oldest result"):
        table.add_column(column, justify="right")
    kinds: dict[str, list[Restore]] = {}
    for restore in sorted(restores, key=lambda each: each.course.kind):
        kinds.setdefault(restore.course.kind, []).append(restore)
    for kind, alike in kinds.items():
        end = alike[0].course.end
        reasons = " or ".join(sorted(filter(None, end.reasons)))
        table.add_row(
            kind,
            f"{end.state}, {reasons}" if reasons else end.state,
            str(len(alike)),
            str(sum(not restore.untruths for restore in alike)),
            _most(restore.stop_seconds for restore in alike),
            _most(restore.age for restore in alike),
        )
    return table


def _totals(outcome: Outcome) -> Table:
    table = Table(title="In all")
    table.add_column("what")
    table.add_column("figure", justify="right")
    stops = [each.stop_seconds for each in outcome.restores if each.stop_seconds is not None]
    true = sum(not restore.untruths for restore in outcome.restores)
    rows = {
        "records that are true": f"{true} of {len(outcome.restores)}",
        "engine behind run": outcome.engine,
        "the daemon was killed, times": outcome.kills,
        "... was started, times": outcome.starts,
        "the control plane was away, seconds": f"{outcome.outage:g}",
        "the last record was true after that, seconds": f"{outcome.last_true:.1f}",
        "from a stop's request until its engine knew, median": _seconds(statistics.median(stops or [0])),
        "... at most": _seconds(max(stops, default=0.0)),
        "patches that arrived": outcome.patches,
        "... a restore": f"{outcome.patches / len(outcome.restores):.1f}",
        "answers 503": outcome.answers_503,
        "answers that were lost": outcome.lost_answers,
        "requests of deliveries without an answer, refused ones too, at least": outcome.requests.get(
            "no_answer", 0
        ),
        "seconds in all": f"{outcome.seconds:.0f}",
    }
    for what, figure in rows.items():
        table.add_row(what, str(figure))
    return table


def _most(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return _seconds(max(known)) if known else "-"


def _seconds(value: float) -> str:
    return f"{value:.1f} s"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.daemon.fifty", description=__doc__)
    add = parser.add_argument
    add("--restores", type=int, default=50)
    add("--calm", type=float, default=10.0, help="seconds before the outage, at least")
    add("--outage", type=float, default=60.0, help="seconds without the control plane")
    add("--after", type=float, default=5.0, help="seconds after it in which something still happens")
    add("--kills", type=int, default=3, help="SIGKILLs to the daemon, one of them in the outage")
    add("--seed", type=int, default=random.randrange(2**32), help="what all chance is drawn from")
    add("--keep", action="store_true", help="keep the directory, with the logs and spools")
    args = parser.parse_args()
    options = Options(args.restores, Times(args.calm, args.outage, args.after), args.kills, args.seed)
    print(f"seed {args.seed}", flush=True)
    directory = Path(tempfile.mkdtemp(prefix="ar-"))
    try:
        outcome = asyncio.run(play(directory, options))
    finally:
        if not args.keep:
            shutil.rmtree(directory)
    show(outcome, Console(width=120, soft_wrap=True))
    if args.keep:
        print(f"kept in {directory}")
    return 0 if outcome.is_true else 1


if __name__ == "__main__":
    sys.exit(main())
