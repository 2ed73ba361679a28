"""What all loops of one process share: settings, time, the control plane, bounds, and what was counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent_reporter.model.backoff import Backoff

if TYPE_CHECKING:
    from agent_reporter.clock import Clock
    from agent_reporter.control_plane.client import ControlPlane
    from agent_reporter.settings import Settings

LOCAL_BACKOFF = Backoff(base=0.2, cap=2.0, retry_after_cap=10.0)
"""Retries towards the daemon of this host, which is away for as long as a restart takes."""
WRITES_AT_ONCE = 16
"""Writes to the spool that are under way together, each in a thread of its own."""


STOP_BUCKETS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Seconds: bounds of the buckets that stops are counted in."""


@dataclass(slots=True)
class Durations:
    """How long something took, counted in buckets."""

    bounds: tuple[float, ...] = STOP_BUCKETS
    counts: Counter[float] = field(default_factory=Counter)
    """By the least bound that it was within, or infinity."""
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.counts[next((bound for bound in self.bounds if seconds <= bound), float("inf"))] += 1
        self.sum += seconds


@dataclass(slots=True)
class Tally:
    """What the deliveries of a process came to since its start, in plain numbers."""

    answers: Counter[str] = field(default_factory=Counter)
    """Requests by what became of them: a verdict's name, `read`, `no_answer` or `no_token`."""
    conflated: int = 0
    """Reports that were never sent by themselves, as a newer one took their place."""
    accepted: int = 0
    """Patches that the daemon took."""
    stops: Durations = field(default_factory=Durations)
    """From when a stop was known in the daemon until its engine had ended."""


@dataclass(slots=True)
class Means:
    """The loops of a process use these.

    `settings` may be replaced while they run, by such of the same control plane and spool: each loop looks
    again at its next turn.
    """

    settings: Settings
    clock: Clock
    control_plane: ControlPlane
    turns: asyncio.Semaphore
    """Bounds the requests in flight."""
    writes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(WRITES_AT_ONCE))
    tally: Tally = field(default_factory=Tally)

    @property
    def backoff(self) -> Backoff:
        """How retries spread."""
        return LOCAL_BACKOFF if self.control_plane.is_daemon else self.settings.backoff

    @property
    def report_interval(self) -> float:
        """Seconds between two reports of progress: less to the daemon, which has its own beside it."""
        return self.settings.report_interval / (2 if self.control_plane.is_daemon else 1)
