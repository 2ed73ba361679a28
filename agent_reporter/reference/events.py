"""Pages of events: what a client asks for, and the links from one page to the next. Pure.

`marker` is the id of the last event a client has seen: only newer ones come back. A marker that is no
longer known, since events are transient, counts as none. Links go to the next and the previous page in the
order that was asked for; those of a descending list carry `before` as well, the event that the page ends
before, since no marker can say that.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from agent_reporter.reference import restores
from agent_reporter.reference.exchange import RefusedError
from agent_reporter.reference.times import micros

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_LIMIT: Final = 100
LARGEST_LIMIT: Final = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """Which events a client asks for."""

    marker: str | None = None
    before: str | None = None
    limit: int = DEFAULT_LIMIT
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One event as it is kept. `sequence` orders the events, `id` names them to clients."""

    sequence: int
    id: str
    time: float
    kind: str
    project_id: str
    agent_id: str
    restore_id: str
    details: Mapping[str, Any]


def read_page(query: Mapping[str, str]) -> Page:
    """The page that a query string asks for; raises RefusedError (400) for a bad limit or order."""
    limit, order = query.get("limit", str(DEFAULT_LIMIT)), query.get("sort_dir", "asc")
    if not re.fullmatch("[0-9]{1,4}", limit) or not 1 <= int(limit) <= LARGEST_LIMIT:
        raise RefusedError(400, f"limit has to be a number from 1 to {LARGEST_LIMIT}.")
    if order not in ("asc", "desc"):
        raise RefusedError(400, "sort_dir has to be asc or desc.")
    return Page(query.get("marker") or None, query.get("before") or None, int(limit), order == "desc")


def page_before(page: Page, edge: str | None) -> Page:
    """`page` with its moving edge at the event `edge`: its marker, or in a descending list its `before`."""
    return replace(page, before=edge) if page.descending else replace(page, marker=edge)


def link(rel: str, url: str, page: Page) -> dict[str, str]:
    """The link to `page` of the events at `url`."""
    query: dict[str, str | int] = {"limit": page.limit, "sort_dir": "desc" if page.descending else "asc"}
    if page.marker is not None:
        query["marker"] = page.marker
    if page.before is not None:
        query["before"] = page.before
    return {"href": f"{url}?{urlencode(query)}", "rel": rel}


def document(event: Event, origin: str) -> dict[str, Any]:
    """The event as a client sees it, with links that begin with `origin`."""
    links = restores.links(origin, event.project_id, "restores", event.restore_id)
    restore = {"id": event.restore_id, **event.details.get("restore", {})}
    return {
        "id": event.id,
        "time": micros(event.time),
        "event": event.kind,
        "agent": {"id": event.agent_id},
        **event.details,
        "restore": {**restore, "links": links},
    }
