"""Moments as the protocol writes them. Moments in this package are seconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime


def micros(moment: float) -> str:
    """`2014-10-20T13:11:58.985151Z`: the time of an event or of a request."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def millis(moment: float) -> str:
    """`2014-10-07T02:52:57.416Z`: when a token expires."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
