"""Failures that repeat themselves take few lines in the log. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_reporter.logs import PRIORITIES

if TYPE_CHECKING:
    from structlog.typing import EventDict

FOLD_SECONDS = 60.0
FOLD_ROOM = 256
REASONS = ("why", "problem", "exception")
"""What makes a failure the same as another one, beside its name."""


@dataclass(slots=True)
class _Window:
    end: float
    summary: EventDict
    times: int = 0


class Folder:
    """Decides which events are written, so that a failure that repeats itself takes few lines.

    A failure is written when it comes first. When it comes again within `seconds`, for whatever restore, it
    is counted, and the count follows as `log.folded` when they are over. Only events from `warning` on that
    name a reason are folded. At most `room` failures are remembered; beyond, the oldest one's time ends.
    """

    def __init__(self, seconds: float = FOLD_SECONDS, room: int = FOLD_ROOM) -> None:
        self._seconds = seconds
        self._room = room
        self._windows: dict[int, _Window] = {}
        """By what is the same, in the order in which they end."""

    def take(self, event: EventDict, now: float) -> list[EventDict]:
        """What is to be written after `event` came at `now`, in seconds."""
        lines = self.ended(now)
        reasons = _reasons(event)
        if not reasons or PRIORITIES.get(event["level"], 0) > PRIORITIES["warning"]:
            return [*lines, event]
        name = str(event["event"])
        same = hash((name, event["level"], *reasons.items()))
        if same in self._windows:
            self._windows[same].times += 1
            return lines
        if len(self._windows) >= self._room:
            lines += self._end_first()
        summary = {"event": "log.folded", "level": event["level"], "folded": name[:200]}
        self._windows[same] = _Window(now + self._seconds, {**summary, **_last_lines(reasons)})
        return [*lines, event]

    def ended(self, now: float) -> list[EventDict]:
        """What is to be written about the failures whose time is over at `now`."""
        lines: list[EventDict] = []
        while self.seconds_left(now) == 0:
            lines += self._end_first()
        return lines

    def end_all(self) -> list[EventDict]:
        """What is to be written when nothing more will come."""
        lines: list[EventDict] = []
        while self._windows:
            lines += self._end_first()
        return lines

    def seconds_left(self, now: float) -> float | None:
        """Seconds from `now` until there may be something to write; None if that needs an event first."""
        first = next(iter(self._windows.values()), None)
        return None if first is None else max(0.0, first.end - now)

    def _end_first(self) -> list[EventDict]:
        window = self._windows.pop(next(iter(self._windows)))
        return [{**window.summary, "times": window.times}] if window.times else []


def _reasons(event: EventDict) -> dict[str, str]:
    """Why it happened, in words that are the same for every restore."""
    reasons = {name: str(event[name]) for name in REASONS if name in event}
    if "restore_id" in event:
        this_restore = re.compile(rf"(?<!\w){re.escape(str(event['restore_id']))}(?!\w)")
        reasons = {name: this_restore.sub("*", reason) for name, reason in reasons.items()}
    return reasons


def _last_lines(reasons: dict[str, str]) -> dict[str, str]:
    """Of a traceback the last line tells most; and what is remembered has to be short."""
    return {name: reason.rstrip().rpartition("\n")[2][:200] for name, reason in reasons.items()}
