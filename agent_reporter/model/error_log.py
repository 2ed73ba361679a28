"""The errors of a restore: counted exactly, recorded up to a bound.

One JSON document of the control plane is at most 1 MB (`protocol.md`, Limits), and memory for a restore is
bounded, so texts are cut, and records are kept only while there is room. The count goes on regardless.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import MalformedError
from agent_reporter.model.documents import count_of, object_of, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_MAX_RECORDS = 500
MAX_RECORDS_BYTES = 880_000
"""Room for the records in one patch: under the 1 MB of a document, with the rest of the patch beside them."""

PARTIAL = "unable_to_process_some_files"
"""The reason token of a restore that left some files out, as the protocol's example spells it."""

MAX_PATH = 4_096
MAX_TOKEN = 128
MAX_DESCRIPTION = 2_048
MAX_DETAILS = 8_192
MAX_DIAGNOSTICS = 8_192


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """One error of one path. `code` is an errno or the engine's own number, 0 where there is none."""

    path: str
    type: str
    code: int = 0
    description: str = ""
    details: str = ""

    @property
    def identity(self) -> tuple[str, str, int]:
        """What makes two records the same error: the same path, type and code."""
        return (self.path, self.type, self.code)

    def to_document(self, index: int) -> dict[str, Any]:
        """The protocol's record. `exception` is null where nothing more is known than path and type."""
        exception = None
        if self.code or self.description or self.details:
            exception = {"code": self.code, "description": self.description, "details": self.details}
        return {"index": index, "path": self.path, "type": self.type, "exception": exception}

    @classmethod
    def from_document(cls, document: object) -> ErrorRecord:
        """Read the protocol's record; raises MalformedError for anything else."""
        if not isinstance(document, dict):
            raise MalformedError(f"an error record has to be an object, not {type(document).__name__}")
        exception = object_of(document, "exception")
        code = exception.get("code") or 0
        if not isinstance(code, int):
            raise MalformedError(f"an error code has to be an integer, not {code!r:.40}")
        return cls(
            path=text_of(document, "path", ""),
            type=text_of(document, "type", ""),
            code=code,
            description=text_of(exception, "description", ""),
            details=text_of(exception, "details", ""),
        )


@dataclass(frozen=True, slots=True)
class Errors:
    """The errors document: the exact count, a reason token, diagnostics, and the records that were kept."""

    count: int = 0
    reason: str = ""
    diagnostics: str = ""
    records: tuple[ErrorRecord, ...] = ()

    def to_document(self, max_records: int | None = None) -> dict[str, Any]:
        """The protocol's `/errors` value, with at most the first `max_records` records."""
        return {
            "count": self.count,
            "reason": self.reason,
            "diagnostics": self.diagnostics,
            "list": [record.to_document(index) for index, record in enumerate(self.records[:max_records])],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Errors:
        """Read the protocol's `/errors` value; raises MalformedError for anything else."""
        records = document.get("list") or []
        if not isinstance(records, list):
            raise MalformedError("'list' of errors has to be an array")
        return cls(
            count=count_of(document, "count"),
            reason=text_of(document, "reason", ""),
            diagnostics=text_of(document, "diagnostics", ""),
            records=tuple(ErrorRecord.from_document(record) for record in records),
        )


class ErrorLog:
    """Collects the errors of one restore within the bounds. Not safe for threads: its owner locks."""

    __slots__ = ("_bytes", "_identities", "_max_records", "_records", "count")

    def __init__(self, max_records: int = DEFAULT_MAX_RECORDS) -> None:
        self.count = 0
        """Every error there was, also those whose record was not kept."""
        self._max_records = max_records
        self._records: list[ErrorRecord] = []
        self._identities: set[tuple[str, str, int]] = set()
        self._bytes = 0

    def add(self, record: ErrorRecord) -> bool:
        """Count `record`, and keep it if it is new and there is room. Returns whether it was kept."""
        self.count += 1
        if len(self._records) >= self._max_records or record.identity in self._identities:
            return False
        size = len(json.dumps(record.to_document(len(self._records)))) + len(", ")
        if self._bytes + size > MAX_RECORDS_BYTES:
            return False
        self._bytes += size
        self._records.append(record)
        self._identities.add(record.identity)
        return True

    def extend(self, errors: Errors) -> None:
        """Go on from the errors of an earlier report."""
        for record in errors.records:
            self.add(record)
        self.count += errors.count - len(errors.records)

    def freeze(self, reason: str = "", diagnostics: str = "") -> Errors:
        """The errors document of this moment."""
        return Errors(self.count, reason, diagnostics, tuple(self._records))


def clean_record(path: str, type_: str, code: int, description: str, details: str) -> ErrorRecord:
    """A record of texts that are cut to their bounds and hold only what UTF-8 can carry."""
    return ErrorRecord(
        path=clean_text(path, MAX_PATH),
        type=clean_text(type_, MAX_TOKEN),
        code=code,
        description=clean_text(description, MAX_DESCRIPTION),
        details=clean_text(details, MAX_DETAILS),
    )


def clean_text(text: str, limit: int) -> str:
    """`text` in at most `limit` characters, with a mark where it was cut, and no lone surrogates."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
