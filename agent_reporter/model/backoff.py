"""When to try again: full jitter under a cap, with `Retry-After` as a clamped floor."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """How retries spread. All in seconds."""

    base: float = 1.0
    """The first retry waits up to this long."""
    cap: float = 60.0
    """No jitter is longer than this."""
    retry_after_cap: float = 240.0
    """A `Retry-After` of more than this is taken as this."""

    def delay(self, attempt: int, random: float, retry_after: float = 0.0) -> float:
        """Seconds to wait after failure number `attempt`, the first being 1.

        `random` is a number from 0 up to 1. Jitter comes on top of the floor that `retry_after` sets, so
        that agents which were all told the same second do not come back in it together.
        """
        exponent = min(max(attempt, 1) - 1, 32)
        spread = min(self.cap, self.base * 2.0**exponent)
        floor = min(max(retry_after, 0.0), self.retry_after_cap)
        return floor + random * spread
