"""`python -m tests.long_life days`, and `soak`: whether anything grows in a long life. Exit status 1 if so."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.long_life import days, soak

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.long_life.growth import Trend

MOST_SAID = 50


def main(arguments: list[str] | None = None) -> int:
    """Run one of the two; the exit status is 1 if anything grows, is left over, or went wrong."""
    asked = _arguments(arguments)
    began = time.process_time()
    if asked.what == "days":
        troubles = _live(asked.days, asked.seed, asked.restores_a_day)
    else:
        troubles = _soak(asked.minutes, asked.restores_at_once, asked.seed)
    print(f"{time.process_time() - began:.0f} seconds of one core")
    for trouble in troubles[:MOST_SAID]:
        print(f"wrong: {trouble}")
    if len(troubles) > MOST_SAID:
        print(f"and {len(troubles) - MOST_SAID} more")
    return 1 if troubles else 0


def _live(count: int, seed: int, restores_a_day: int) -> list[str]:
    figures = days.Days(count, seed, restores_a_day).run()
    print(
        f"{figures.days} days in one life, seed {seed}: {figures.restores:,} restores, {figures.results:,} results "
        f"taken, {figures.requests:,} requests"
    )
    shown = [*figures.counts, *figures.types[: days.SHOWN], *figures.places[: days.SHOWN]]
    _show(
        [(f"day {round(part * count):g}", part) for part in (1 / 3, 2 / 3, 1)],
        "a day",
        [(each, days.LOOKS_A_DAY, figures.bound(each)) for each in shown],
    )
    if figures.in_spool:
        print(f"in the spool at the end: {', '.join(figures.in_spool[: days.SHOWN])}")
    grown = [f"{each.name} grows by {each.slope * days.LOOKS_A_DAY:.2f} a day" for each in figures.grown]
    return grown + figures.troubles


def _soak(minutes: float, at_once: int, seed: int) -> list[str]:
    figures = asyncio.run(soak.soak(60 * minutes, at_once, seed))
    print(f"{figures.restores:,} restores in {figures.seconds:.0f} s, after {figures.warm_up:,} to warm up:")
    _show(
        [("first", 0.0), ("middle", 0.5), ("last", 1.0)],
        "in 1,000 restores",
        [(each, 1_000.0, soak.BOUNDS.get(each.name)) for each in figures.trends],
    )
    for name, at_rest in (("before", figures.before), ("after", figures.after)):
        if at_rest is not None:
            count = at_rest.descriptors.total()
            print(
                f"at rest {name} it: {count} descriptors, {at_rest.threads} threads, {at_rest.own:,} KiB own"
            )
    grown = [f"{each.name} grow by {1_000 * each.slope:.1f} in 1,000 restores" for each in figures.grown]
    return grown + [f"at rest there are left {each}" for each in figures.left] + figures.troubles


def _show(
    moments: list[tuple[str, float]], unit: str, rows: Sequence[tuple[Trend, float, float | None]]
) -> None:
    """Each measure at some moments, and its slope with the most that it may be."""
    table = Table(caption="without what the open restores take")
    table.add_column("measure", no_wrap=True)
    for name in (*(moment for moment, _ in moments), unit, "at most"):
        table.add_column(name, justify="right")
    for trend, factor, bound in rows:
        last = len(trend.values) - 1
        values = [f"{trend.values[round(part * last)]:,.0f}" for _, part in moments] if last >= 0 else []
        most = "" if bound is None else f"{bound:g}"
        table.add_row(trend.name, *values, f"{trend.slope * factor:,.2f}", most)
    Console(width=132, highlight=False, markup=False).print(table)


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.long_life", description=__doc__)
    kinds = parser.add_subparsers(dest="what", required=True)
    virtual = kinds.add_parser("days", help="on virtual time, in one process life")
    virtual.add_argument("--days", type=int, default=30)
    virtual.add_argument("--restores-a-day", type=int, default=100, metavar="COUNT")
    real = kinds.add_parser("soak", help="a real daemon, in real time")
    real.add_argument("--minutes", type=float, default=2.0)
    real.add_argument("--restores-at-once", type=int, default=20, metavar="COUNT")
    for each in (virtual, real):
        each.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
