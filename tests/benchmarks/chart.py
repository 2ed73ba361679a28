"""Each target and what was measured, as a bar: what is left of the line is within it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.canvas import BLUE, GREY, INK, ORANGE, Canvas

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.goals import Goal

WIDTH, ROW, MARGIN = 1_000, 30, 12
LINE = WIDTH // 2
"""Where the target is."""


def draw(goals: Sequence[Goal]) -> bytes:
    """The file, a row for each goal that was measured."""
    measured = [goal for goal in goals if goal.value is not None]
    canvas = Canvas(WIDTH + 2 * MARGIN, len(measured) * ROW + 2 * MARGIN)
    for number, goal in enumerate(measured):
        top = MARGIN + number * ROW
        canvas.box(MARGIN, top + 14, _length(goal), 10, BLUE if goal.is_met else ORANGE)
        canvas.text(MARGIN, top, f"{goal.what}: {goal.value:.3g} {goal.unit}, {goal.target}")
    canvas.box(MARGIN + LINE, MARGIN, 1, len(measured) * ROW, INK)
    canvas.box(MARGIN, MARGIN, 1, len(measured) * ROW, GREY)
    return canvas.png()


def _length(goal: Goal) -> int:
    value, least = goal.value or 0.0, 1e-9  # a limit may be none at all
    share = goal.limit / max(value, least) if goal.is_floor else value / max(goal.limit, least)
    return max(1, round(min(share, WIDTH / LINE) * LINE))
