"""What the project wants to reach, and what was measured: a table at the end of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.benchmarks.rounds import NOT_INSTALLED

if TYPE_CHECKING:
    from collections.abc import Sequence

_MIN_WIDTH = 140


class UntrueError(Exception):
    """What was measured did not do what it should have: its figures mean nothing."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One figure with its target: at most `limit`, or at least, if `is_floor`; None if it could not be measured."""

    what: str
    beside: str
    """What it was measured beside, in the same run."""
    value: float | None
    limit: float
    unit: str = "x"
    """`x` is a ratio."""
    is_floor: bool = False

    @property
    def is_met(self) -> bool | None:
        """None if it could not be measured."""
        if self.value is None:
            return None
        return self.value >= self.limit if self.is_floor else self.value <= self.limit

    @property
    def target(self) -> str:
        """As a person reads it."""
        return f"{'at least' if self.is_floor else 'at most'} {self.limit:g} {self.unit}"


def print_goals(goals: Sequence[Goal]) -> None:
    """Print a row for each."""
    table = Table(title="targets", title_justify="left")
    for heading in ("what", "beside", "measured", "target", ""):
        table.add_column(heading, justify="right" if heading == "measured" else "left")
    said = {True: "met", False: "NOT met", None: NOT_INSTALLED}
    for goal in goals:
        measured = "" if goal.value is None else f"{goal.value:.4g} {goal.unit}"
        table.add_row(goal.what, goal.beside, measured, goal.target, said[goal.is_met])
    console = Console()
    console.width = max(console.width, _MIN_WIDTH)
    console.print(table)
