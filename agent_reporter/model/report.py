"""A report: everything that is known of one restore at one moment, immutable."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import MalformedError
from agent_reporter.model.documents import count_of, object_of, optional_count_of, text_of
from agent_reporter.model.error_log import Errors
from agent_reporter.model.state import RestoreState
from agent_reporter.model.times import format_time, parse_optional_time

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Report:
    """The newest truth of a restore, as its engine states it.

    `revision` grows with every report that differs from the one before. `files_restored` and
    `bytes_restored` never go down from one revision to the next. The totals are what the engine expects,
    None where it does not know.
    """

    restore_id: str
    revision: int = 0
    state: RestoreState = RestoreState.START_REQUESTED
    started_time: datetime | None = None
    ended_time: datetime | None = None
    files_restored: int = 0
    bytes_restored: int = 0
    total_files: int | None = None
    total_bytes: int | None = None
    errors: Errors = field(default_factory=Errors)

    @property
    def is_final(self) -> bool:
        """Whether the restore has ended."""
        return self.state.is_final

    def counted(self, files_restored: int, bytes_restored: int) -> Report:
        """The next report, which has these counts where they are higher."""
        # Made anew: this comes with every patch, and `replace` is slow.
        return Report(
            restore_id=self.restore_id,
            revision=self.revision + 1,
            state=self.state,
            started_time=self.started_time,
            ended_time=self.ended_time,
            files_restored=max(files_restored, self.files_restored),
            bytes_restored=max(bytes_restored, self.bytes_restored),
            total_files=self.total_files,
            total_bytes=self.total_bytes,
            errors=self.errors,
        )

    def to_document(self) -> dict[str, Any]:
        """The JSON object that `from_document` reads back."""
        return {name: _encoded(getattr(self, name)) for name in self.__slots__}

    def changes_since(self, before: Report) -> dict[str, Any]:
        """What of `to_document` differs from that of `before`."""
        return {
            name: _encoded(value)
            for name in self.__slots__
            if (value := getattr(self, name)) != getattr(before, name)
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Report:
        """Read what `to_document` wrote; raises MalformedError for anything else."""
        return cls(
            restore_id=text_of(document, "restore_id"),
            revision=count_of(document, "revision", None),
            state=state_of(document),
            started_time=parse_optional_time(document.get("started_time")),
            ended_time=parse_optional_time(document.get("ended_time")),
            files_restored=count_of(document, "files_restored"),
            bytes_restored=count_of(document, "bytes_restored"),
            total_files=optional_count_of(document, "total_files"),
            total_bytes=optional_count_of(document, "total_bytes"),
            errors=Errors.from_document(object_of(document, "errors")),
        )


def _encoded(value: object) -> Any:
    if isinstance(value, RestoreState):
        return value.value
    if isinstance(value, datetime):
        return format_time(value)
    return value.to_document() if isinstance(value, Errors) else value


def state_of(document: Mapping[str, Any]) -> RestoreState:
    """The state a document names; raises MalformedError if it names none."""
    try:
        return RestoreState(text_of(document, "state"))
    except ValueError as problem:
        raise MalformedError(f"{document.get('state')!r:.60} is no state of a restore") from problem
