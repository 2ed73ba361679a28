"""What the control plane is known to have of a restore: by a 204 to our patch, or by reading it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent_reporter.model.documents import count_of, object_of, text_of
from agent_reporter.model.error_log import MAX_TOKEN, clean_text
from agent_reporter.model.report import state_of
from agent_reporter.model.state import RestoreState
from agent_reporter.model.times import format_time, parse_optional_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


MAX_KEPT_TEXT = 500
"""Characters kept of what the other side says in its diagnostics."""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The control plane's side of a restore, as far as it is known.

    `revision` is that of our newest report which it took, 0 if it took none. `records` is how many error
    records it has, None where that is not known, since reading a restore does not show them.
    """

    revision: int = 0
    state: RestoreState = RestoreState.START_REQUESTED
    started_time: datetime | None = None
    ended_time: datetime | None = None
    files_restored: int = 0
    bytes_restored: int = 0
    error_count: int = 0
    records: int | None = 0
    reason: str = ""
    diagnostics: str = ""

    def read(self, document: Mapping[str, Any]) -> Acknowledged:
        """What is known after reading `document`, the control plane's own of this restore.

        Takes both spellings; raises MalformedError for a document without a state or with counters that
        are none. Counters are taken as they are: the read is the truth of that side.
        """
        errors = object_of(document, "errors")
        count = count_of(errors, "count")
        return Acknowledged(
            revision=self.revision,
            state=state_of(document),
            started_time=parse_optional_time(_either(document, "started_time", "started-time")),
            ended_time=parse_optional_time(_either(document, "ended_time", "ended-time")),
            files_restored=count_of(
                {"files_restored": _either(document, "files_restored", "files_restores")}, "files_restored"
            ),
            bytes_restored=count_of(
                {"bytes_restored": _either(document, "bytes_restored", "bytes-restored")}, "bytes_restored"
            ),
            error_count=count,
            records=self.records if count == self.error_count else None,
            reason=clean_text(text_of(errors, "reason", ""), MAX_TOKEN),
            diagnostics=clean_text(text_of(errors, "diagnostics", ""), MAX_KEPT_TEXT),
        )

    def to_document(self) -> dict[str, Any]:
        """The JSON object that `from_document` reads back."""
        return {
            "revision": self.revision,
            "state": self.state.value,
            "started_time": None if self.started_time is None else format_time(self.started_time),
            "ended_time": None if self.ended_time is None else format_time(self.ended_time),
            "files_restored": self.files_restored,
            "bytes_restored": self.bytes_restored,
            "errors": {"count": self.error_count, "reason": self.reason, "diagnostics": self.diagnostics},
            "records": self.records,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Acknowledged:
        """Read what `to_document` wrote; raises MalformedError for anything else."""
        known = cls(error_count=count_of(object_of(document, "errors"), "count")).read(document)
        records = None if document.get("records") is None else count_of(document, "records")
        return replace(known, revision=count_of(document, "revision"), records=records)


def _either(document: Mapping[str, Any], one: str, other: str) -> object:
    return document.get(one) if document.get(one) is not None else document.get(other)
