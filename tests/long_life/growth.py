"""Whether a measure grows: a slope that no single bad day can bend, free of what the open restores take. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Trend:
    """How a measure went."""

    name: str
    values: tuple[float, ...]
    """What it would have been with no restore open."""
    slope: float
    """Its growth from one look to the next, or for each restore."""


def trend(
    name: str,
    measured: Sequence[float],
    opened: Sequence[int],
    warm_up: float = 0.0,
    at: Sequence[float] | None = None,
) -> Trend:
    """The trend of what was `measured` while so many restores were open; the first `warm_up` part counts not.

    `at` says when each look was, in time or in restores; without it they are one apart.
    """
    costs = cost_of_one(measured, opened)
    values = tuple(value - costs * count for value, count in zip(measured, opened, strict=True))
    first = int(len(values) * warm_up)
    return Trend(name, values, slope(values[first:], at and at[first:]))


def cost_of_one(measured: Sequence[float], opened: Sequence[int]) -> float:
    """What one open restore adds, by how the measure moves when their number does between two looks."""
    steps = [
        (after - before) / (more - fewer)
        for before, after, fewer, more in zip(measured, measured[1:], opened, opened[1:], strict=False)
        if more != fewer
    ]
    return median(steps) if steps else 0.0


def slope(values: Sequence[float], at: Sequence[float] | None = None) -> float:
    """The median of the slopes between each value and the one half of the way later (Theil, 1950)."""
    at = at or range(len(values))
    half = len(values) // 2
    steps = [
        (later - value) / (end - begin)
        for value, later, begin, end in zip(values, values[half:], at, at[half:], strict=False)
        if end > begin
    ]
    return median(steps) if steps else 0.0
