"""A page of the control plane's events -> the restores that are to stop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping

STOP_REQUEST = "restore_stop_request"
PAGE_SIZE = 100
MAX_MARKER = 256
"""Characters. A longer id is none: it would make a URL that no server takes."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """What one page of events tells a watcher. `marker` is the id of its last event, None if it had none."""

    stop_requests: frozenset[str]
    marker: str | None
    is_full: bool
    """Whether there may be more after it."""


def read_page(document: Mapping[str, Any], restore_id: str | None = None) -> EventPage:
    """Read a page; raises MalformedError if it is none. A single event that makes no sense is passed over.

    `restore_id` is whose events were asked for, for control planes that do not repeat it in each event.
    """
    events = document.get("events")
    if not isinstance(events, list):
        raise MalformedError("a page of events has to hold an array 'events'")
    stops = set()
    marker = None
    for event in events:
        if not isinstance(event, dict):
            continue
        if isinstance(event.get("id"), str | int) and len(text := str(event["id"])) <= MAX_MARKER:
            marker = text
        if event.get("event") == STOP_REQUEST:
            restore = event.get("restore")
            named = restore.get("id") if isinstance(restore, dict) else None
            stops.add(named if isinstance(named, str) else restore_id)
    return EventPage(frozenset(stop for stop in stops if stop), marker, len(events) >= PAGE_SIZE)
