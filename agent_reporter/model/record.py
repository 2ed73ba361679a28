"""What one file of the spool holds: a report, where its delivery stands, and whose it is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import MalformedError
from agent_reporter.model.client import Client
from agent_reporter.model.documents import object_of, parse_object, text_of
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.model.report import Report
from agent_reporter.model.times import format_time, parse_optional_time

if TYPE_CHECKING:
    from collections.abc import Mapping
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
    client: Client | None = None
    """Whoever reports this restore to the daemon; None where there is no daemon between."""

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
        return {"format": FORMAT, **self._facts(), "report": self.report.to_document()}

    def changes_since(self, before: Record | None) -> dict[str, Any]:
        """What `with_changes` needs to make this record of `before`: all of it if there is no `before`.

        It is a flat JSON object; several that are merged in order are the changes of all of them.
        """
        if before is None:
            return {**self._facts(), **self.report.to_document()}
        facts = {} if self._has_facts_of(before) else self._facts()
        if self.undelivered_since != before.undelivered_since:
            facts["undelivered_since"] = _optional_time(self.undelivered_since)
        changes = {**facts, **self.report.changes_since(before.report)}
        return {**changes, "revision": self.report.revision} if changes else {}

    @classmethod
    def with_changes(cls, before: Record | None, changes: Mapping[str, Any]) -> Record:
        """The record that `changes` make of `before`; raises MalformedError if they make none."""
        document = {**({} if before is None else before.changes_since(None)), **changes}
        return cls._of(document, document)

    def _has_facts_of(self, other: Record) -> bool:
        """Whether all is the same that changes rarely."""
        return (self.destination, self.exchange, self.engine, self.client) == (
            other.destination,
            other.exchange,
            other.engine,
            other.client,
        )

    def _facts(self) -> dict[str, Any]:
        return {
            "endpoint": self.destination.endpoint,
            "project_id": self.destination.project_id,
            "exchange": self.exchange.to_document(),
            "engine": None if self.engine is None else self.engine.to_document(),
            "undelivered_since": _optional_time(self.undelivered_since),
            "client": None if self.client is None else self.client.to_document(),
        }

    @classmethod
    def decode(cls, content: bytes) -> Record:
        """Read the bytes of a file; raises MalformedError for anything that `encode` did not write."""
        document = parse_object(content)
        if document.get("format") != FORMAT:
            raise MalformedError(f"format {document.get('format')!r:.20} is not one this version reads")
        return cls._of(document, object_of(document, "report"))

    @classmethod
    def _of(cls, document: Mapping[str, Any], report: Mapping[str, Any]) -> Record:
        engine, client = object_of(document, "engine"), object_of(document, "client")
        return cls(
            destination=Destination(text_of(document, "endpoint"), text_of(document, "project_id")),
            report=Report.from_document(report),
            exchange=Exchange.from_document(object_of(document, "exchange")),
            engine=ProcessIdentity.from_document(engine) if engine else None,
            undelivered_since=parse_optional_time(document.get("undelivered_since")),
            client=Client.from_document(client) if client else None,
        )


def _optional_time(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)
