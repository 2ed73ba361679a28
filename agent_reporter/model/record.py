"""What one file of the spool holds: a report, where its delivery stands, and whose it is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import MalformedError
from agent_reporter.model.documents import object_of, parse_object, text_of
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.model.report import Report
from agent_reporter.model.times import format_time, parse_optional_time

if TYPE_CHECKING:
    from datetime import datetime

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Destination:
    """The control plane and project that a restore belongs to: a report never goes to another one."""

    endpoint: str
    project_id: str

    def __str__(self) -> str:
        return f"project {self.project_id} at {self.endpoint}"


@dataclass(frozen=True, slots=True)
class Record:
    """A restore as the spool keeps it."""

    destination: Destination
    report: Report
    exchange: Exchange = field(default_factory=Exchange)
    engine: ProcessIdentity | None = None
    undelivered_since: datetime | None = None
    """When the oldest thing that was not acknowledged yet was stated; None if all is acknowledged."""

    def supersede(self, report: Report) -> Record:
        """The record with `report`, unless what it holds is newer or final: a final report stays."""
        if self.report.is_final or report.revision < self.report.revision:
            return self
        return replace(self, report=report)

    def trimmed(self, max_bytes: int) -> Record:
        """The record with as much of its errors as fits into `max_bytes` of a file, and the exact count."""
        record = self
        while len(record.encode()) > max_bytes and (
            record.report.errors.records or record.report.errors.diagnostics
        ):
            errors = record.report.errors
            if errors.records:
                errors = replace(errors, records=errors.records[: len(errors.records) // 2])
            else:
                errors = replace(errors, diagnostics=errors.diagnostics[: len(errors.diagnostics) // 2])
            record = replace(record, report=replace(record.report, errors=errors))
        return record

    def encode(self) -> bytes:
        """The bytes of the file."""
        return json.dumps(self.to_document(), separators=(",", ":")).encode() + b"\n"

    def to_document(self) -> dict[str, Any]:
        """The JSON object of the file."""
        return {
            "format": FORMAT,
            "endpoint": self.destination.endpoint,
            "project_id": self.destination.project_id,
            "report": self.report.to_document(),
            "exchange": self.exchange.to_document(),
            "engine": None if self.engine is None else self.engine.to_document(),
            "undelivered_since": None
            if self.undelivered_since is None
            else format_time(self.undelivered_since),
        }

    @classmethod
    def decode(cls, content: bytes) -> Record:
        """Read the bytes of a file; raises MalformedError for anything that `encode` did not write."""
        document = parse_object(content)
        if document.get("format") != FORMAT:
            raise MalformedError(f"format {document.get('format')!r:.20} is not one this version reads")
        engine = object_of(document, "engine")
        return cls(
            destination=Destination(text_of(document, "endpoint"), text_of(document, "project_id")),
            report=Report.from_document(object_of(document, "report")),
            exchange=Exchange.from_document(object_of(document, "exchange")),
            engine=ProcessIdentity.from_document(engine) if engine else None,
            undelivered_since=parse_optional_time(document.get("undelivered_since")),
        )
