"""A failing plan, made as small as it will go while the same check still fails."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.simulation.world import run

if TYPE_CHECKING:
    from tests.simulation.plan import Plan
    from tests.simulation.world import Outcome


def shrunk(outcome: Outcome, seconds: float = 30.0) -> Outcome:
    """The smallest outcome that is found in so much real time."""
    check = outcome.violations[0][0]
    until = time.monotonic() + seconds
    while (smaller := _smaller(outcome.plan, check, until)) is not None:
        outcome = smaller
    return outcome


def _smaller(plan: Plan, check: str, until: float) -> Outcome | None:
    for candidate in plan.smaller():
        if time.monotonic() > until:
            return None
        outcome = run(candidate)
        if any(name == check for name, _ in outcome.violations):
            return outcome
    return None
