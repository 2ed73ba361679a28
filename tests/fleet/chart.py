"""A chart of the load as a PNG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.canvas import BLUE, GREY, INK, ORANGE, RED, Canvas
from tests.fleet.agents import TICKS
from tests.fleet.scenarios import CALM, MOST_AT_RECOVERY, MOST_IN_OUTAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fleet.scenarios import Figures

WIDTH, PANEL, MARGIN = 1_000, 150, 24
ROOM = 26
"""Above each panel, for its name."""


def draw(results: Sequence[Figures]) -> bytes:
    """One panel below the other, all in times the steady load; the limits as lines, the recovery as an upright one."""
    canvas = Canvas(WIDTH + 2 * MARGIN, len(results) * (PANEL + ROOM) + MARGIN)
    for number, figures in enumerate(results):
        _panel(canvas, number * (PANEL + ROOM) + ROOM, figures)
    return canvas.png()


def _panel(canvas: Canvas, top: int, figures: Figures) -> None:
    most = max(2.0, *figures.load)
    bottom = top + PANEL

    def height(load: float) -> int:
        return round(load / most * (PANEL - 4))

    def column(second: float) -> int:
        return MARGIN + round(second * TICKS / len(figures.load) * WIDTH)

    canvas.box(MARGIN, bottom, WIDTH, 1, INK)
    for number in range(WIDTH):
        begin = number * len(figures.load) // WIDTH
        end = max((number + 1) * len(figures.load) // WIDTH, begin + 1)
        tall = height(max(figures.load[begin:end]))
        canvas.box(MARGIN + number, bottom - tall, 1, tall, BLUE)
    recovers = column(figures.scenario.recovers_at)
    canvas.box(MARGIN, bottom - height(1.0), WIDTH, 1, GREY)
    if figures.scenario.has_outage:
        canvas.box(column(CALM), bottom - height(MOST_IN_OUTAGE), recovers - column(CALM), 2, ORANGE)
    canvas.box(recovers, bottom - height(MOST_AT_RECOVERY), MARGIN + WIDTH - recovers, 2, RED)
    canvas.box(recovers, top, 1, PANEL, INK)
    drained = "" if figures.drained_after is None else f", 99% drained in {figures.drained_after:.0f} s"
    words = f"{figures.scenario.name}: at most {figures.at_recovery:.2f} x at recovery{drained}"
    canvas.text(MARGIN, top - 14, words)
