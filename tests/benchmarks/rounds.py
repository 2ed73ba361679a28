"""Measures contestants beside each other, and prints what came of it.

Contestants take turns: each round times every one of them once, so that what else the machine does meets
all of them alike. A round of one contestant lasts about as long as that of any other. The cost of a call is
the median of the rounds, with the loop around the calls taken off; a ratio is the median of the ratios
within each round.
"""

from __future__ import annotations

import gc
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOT_INSTALLED = "not installed"
_FEW_CALLS = 2_000
_MIN_WIDTH = 110


@dataclass(frozen=True, slots=True)
class Contestant:
    """Something to measure: `run` makes so many calls, and returns how many seconds they took.

    None stands for a peer that is not installed.
    """

    name: str
    run: Callable[[int], float] | None


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure."""

    rounds: int
    seconds: float
    """Of one contestant in one round."""


FULL = Effort(rounds=31, seconds=0.03)
QUICK = Effort(rounds=3, seconds=0.005)


@dataclass(frozen=True, slots=True)
class Row:
    """What came of one contestant: nanoseconds a call in each round; none if it is not installed."""

    name: str
    costs: Sequence[float]

    def ratio_to(self, other: Row) -> float | None:
        """How many times as dear as `other`; None if one of them is not installed."""
        if not self.costs or not other.costs:
            return None
        return median(one / two for one, two in zip(self.costs, other.costs, strict=True))


def measure(contestants: Sequence[Contestant], effort: Effort) -> list[Row]:
    """Let them take turns, and return a row for each."""
    present = [(one.name, one.run) for one in contestants if one.run is not None]
    calls = {name: _calls_in(effort.seconds, run) for name, run in present}
    costs: dict[str, list[float]] = {name: [] for name, _ in present}
    for _ in range(effort.rounds):
        gc.collect()
        gc.disable()
        try:
            loop = _empty_loop(calls[present[0][0]])
            for name, run in present:
                costs[name].append((run(calls[name]) / calls[name] - loop) * 1e9)
        finally:
            gc.enable()
    return [Row(one.name, costs.get(one.name, ())) for one in contestants]


def print_rows(title: str, rows: Sequence[Row]) -> None:
    """Print a table, with each cost as a multiple of the first row's."""
    table = Table(title=title, title_justify="left")
    table.add_column("call")
    for heading in ("ns per call", "slowest round", "ratio"):
        table.add_column(heading, justify="right")
    for row in rows:
        if row.costs:
            ratio = f"{row.ratio_to(rows[0]) or 0:.1f}"
            table.add_row(row.name, f"{median(row.costs):.0f}", f"{max(row.costs):.0f}", ratio)
        else:
            table.add_row(row.name, NOT_INSTALLED)
    console = Console()
    console.width = max(console.width, _MIN_WIDTH)
    console.print(table)


def _calls_in(seconds: float, run: Callable[[int], float]) -> int:
    run(_FEW_CALLS)  # the first calls are slower
    return max(_FEW_CALLS, round(seconds / (run(_FEW_CALLS) / _FEW_CALLS)))


def _empty_loop(calls: int) -> float:
    begun = time.perf_counter()
    for _ in range(calls):
        pass
    return (time.perf_counter() - begun) / calls
