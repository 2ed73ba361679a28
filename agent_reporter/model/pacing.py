"""When calls are made, so that those of a whole fleet do not come together.

What happens to all agents in one moment, as a restart does or a token that none of them may use any more, is
spread over some intervals of reporting. Plain functions of time and chance; all durations are seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

SPREAD_INTERVALS = 5.0
"""Over so many intervals a call is spread that a whole fleet would make at once.

A start costs up to four requests (a sign-in, `startup`, a read, a patch) where an interval has one or two:
over five intervals that is less than half of them on top.
"""
SPREAD_OF_LIFE = 0.1
"""Tokens that were got in one moment are renewed within so much of their life."""
RENEWAL_MARGIN = 300.0
"""A token is renewed this long before it expires, or at nine tenths of its life if that is later."""
SHORTEST_LIFE = 60.0
"""A token is used so long at least, unless it is refused: clocks differ, lifetimes may be nonsense."""


def spread(interval: float, random: float) -> float:
    """How long to wait with what a whole fleet may be about to do. `random` is a number from 0 up to 1."""
    return random * SPREAD_INTERVALS * interval


def pause(now: float, retry_at: float, next_telling: float, *, urgent: bool) -> float:
    """How long a delivery waits with its next request.

    Not even what is urgent comes before the retry; a retry of mere progress does not come before its tick.
    """
    if now < retry_at:
        return retry_at - now
    return 0.0 if urgent else max(0.0, next_telling - now)


def seconds_left(not_before: datetime | None, now: datetime, longest: float) -> float:
    """Until the next try. A wall clock that was set back does not make it longer than it can be."""
    if not_before is None:
        return 0.0
    return min(max((not_before - now).total_seconds(), 0.0), longest)


def next_look(due: float, interval: float, now: float) -> float:
    """When to look for stop requests again, after the look that was due at `due` and has ended now."""
    return max(due + interval, now)


def look_timeout(request_timeout: float, interval: float) -> float:
    """How long a look for stop requests waits for its answer: only the next look is held up by it."""
    return min(request_timeout, 2 * interval)


def token_life(left: float, random: float) -> float:
    """After how long a token is renewed that expires in `left`. `random` is a number from 0 up to 1."""
    longest = max(left * 0.9, left - RENEWAL_MARGIN)
    return max(SHORTEST_LIFE, longest * (1.0 - SPREAD_OF_LIFE * random))
