"""What the daemon tells engines: that a stop was asked for, and that a restore is over.

An event of a restore that goes on is kept for as long as that; one of a restore that is over, for a minute.
So whoever asks late, or with a marker of another daemon's life, still learns of a standing stop request.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent_reporter.model.state import RestoreState
from agent_reporter.model.times import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from agent_reporter.clock import Clock

KEPT_SECONDS = 60.0
KEPT_EVENTS = 10_000
"""Events of restores that are over, kept at most."""
STOP_REQUEST = "restore_stop_request"
ENDS = {
    RestoreState.COMPLETED: "restore_completed",
    RestoreState.COMPLETED_WITH_ERRORS: "restore_completed",
    RestoreState.FAILED: "restore_failed",
    RestoreState.STOPPED: "restore_stopped",
}
"""Under which event a restore ends (`protocol.md`, Events)."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `number` orders the events of one life of the daemon."""

    number: int
    time: datetime
    kind: str
    restore_id: str
    uid: int


class Events:
    """The events of this daemon, and those who wait for one."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._life = f"{int(clock.now().timestamp() * 1000):x}"
        self._number = 0
        self._standing: dict[str, Event] = {}
        self._past: deque[tuple[float, Event]] = deque(maxlen=KEPT_EVENTS)
        self._changed = asyncio.Event()

    def publish(self, kind: str, restore_id: str, uid: int) -> None:
        """Tell `kind` of a restore that goes on."""
        self._standing[restore_id] = self._new(kind, restore_id, uid)
        self._tell()

    def end(self, kind: str, restore_id: str, uid: int) -> None:
        """Tell `kind` of a restore that is over by it."""
        now = self._clock.monotonic()
        if (before := self._standing.pop(restore_id, None)) is not None:
            self._past.append((now, before))
        self._past.append((now, self._new(kind, restore_id, uid)))
        self._tell()

    def past(self, kind: str, restore_id: str, uid: int) -> Event:
        """An event of a restore that has been over for longer than events are kept."""
        return self._new(kind, restore_id, uid)

    def after(
        self, marker: str | None, wanted: Callable[[Event], bool], limit: int, *, descends: bool = False
    ) -> list[Event]:
        """The oldest `limit` events that are wanted and newer than `marker`; an unknown marker is none.

        The newest, if the order `descends`.
        """
        seen = self._seen(marker)
        found = (event for event in self._all() if event.number > seen and wanted(event))
        return sorted(found, key=lambda event: event.number, reverse=descends)[:limit]

    async def wait(
        self,
        marker: str | None,
        wanted: Callable[[Event], bool],
        limit: int,
        seconds: float,
        *,
        descends: bool = False,
    ) -> list[Event]:
        """As `after`, once there is such an event, or none after `seconds`."""
        until = self._clock.monotonic() + seconds
        while not (found := self.after(marker, wanted, limit, descends=descends)):
            left = until - self._clock.monotonic()
            if left <= 0 or not await self._clock.wait(self._changed, left):
                break
        return found

    def document(self, event: Event, agent_id: str | None) -> dict[str, Any]:
        """The event as the protocol shows it."""
        name = self._name(event)
        return {
            "id": name,
            "time": format_time(event.time),
            "event": event.kind,
            "agent": {"id": agent_id},
            "restore": {"id": event.restore_id},
            **({"request_id": name} if event.kind == STOP_REQUEST else {}),
        }

    def _new(self, kind: str, restore_id: str, uid: int) -> Event:
        self._number += 1
        return Event(self._number, self._clock.now(), kind, restore_id, uid)

    def _tell(self) -> None:
        self._changed.set()  # wakes those who wait now
        self._changed = asyncio.Event()

    def _all(self) -> Iterator[Event]:
        oldest = self._clock.monotonic() - KEPT_SECONDS
        while self._past and self._past[0][0] < oldest:
            self._past.popleft()
        yield from self._standing.values()
        yield from (event for _, event in self._past)

    def _name(self, event: Event) -> str:
        return f"{self._life}-{event.number}"

    def _seen(self, marker: str | None) -> int:
        life, _, number = (marker or "").partition("-")
        return int(number) if life == self._life and re.fullmatch("[0-9]{1,19}", number) else 0
