"""What is true of a play, held against what the control plane was told and what is left on the disk."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from tests.endtoend.agent import values

if TYPE_CHECKING:
    from pathlib import Path

    from agent_reporter.reference import ReferenceServer

FINAL = frozenset({"completed", "completed_with_errors", "failed", "stopped"})
BUGS = ("Traceback", "loop_failed", "api.failed", "ended_badly", "Task exception", "never retrieved")
"""What no message of a program says unless something was not thought of."""


class Kind(StrEnum):
    LOST = "lost"
    FALSE = "false"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Untruth:
    """Something that is not as it was promised."""

    kind: Kind
    what: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.what}"


def lost(what: str) -> Untruth:
    return Untruth(Kind.LOST, what)


def false(what: str) -> Untruth:
    return Untruth(Kind.FALSE, what)


def other(what: str) -> Untruth:
    return Untruth(Kind.OTHER, what)


@dataclass(frozen=True, slots=True)
class End:
    """How a restore ended in truth."""

    state: str
    reason: str = ""
    files: int | None = None
    bytes: int | None = None


def spooled(spool: Path, restore_id: str) -> dict[str, Any] | None:
    """The report that the spool holds of a restore whole, read without any code of the product's."""
    try:
        report: dict[str, Any] = json.loads((spool / f"{restore_id}.json").read_bytes())["report"]
    except (FileNotFoundError, ValueError):
        return None
    return report


def record_untruths(server: ReferenceServer, restore_id: str, end: End) -> list[Untruth]:
    """Whether the record says how the restore ended, and how it came to say so."""
    document = server.document(restore_id)
    found = list(_history_untruths(server, restore_id))
    if document["state"] not in FINAL:
        return [*found, lost(f"the record says {document['state']}, the restore ended as {end.state}")]
    said = End(document["state"], document["errors"]["reason"])
    if said != End(end.state, end.reason):
        found.append(false(f"the record says {said.state} {said.reason}, not {end.state} {end.reason}"))
    counts = {"files_restored": end.files, "bytes_restored": end.bytes}
    found += [
        false(f"the record says {document[name]} {name}, not {count}")
        for name, count in counts.items()
        if count is not None and document[name] != count
    ]
    if not document["ended_time"]:
        found.append(false("the record has no end time"))
    return found


def _history_untruths(server: ReferenceServer, restore_id: str) -> list[Untruth]:
    found = []
    for path in ("/bytes-restored", "/files_restores"):
        told = values(server, restore_id, path)
        if told != sorted(told):
            found.append(false(f"{path} went down: {told}"))
    states = values(server, restore_id, "/state")
    if len(finals := [state for state in states if state in FINAL]) > 1:
        found.append(false(f"more than one end was told: {finals}"))
    refused = [
        request
        for request in server.history(restore_id)
        if request["method"] == "PATCH" and request["fault"] is None and not request["applied"]
    ]
    found += [other(f"a patch was refused: {request['body']} ({request['answer']})") for request in refused]
    if server.erased_stops(restore_id):
        found.append(false("a stop was erased"))
    return found


def spool_untruths(spool: Path, *, may_be: tuple[str, ...] = ()) -> list[Untruth]:
    """Whether the spool is empty, but for names that begin with one of `may_be`."""
    if not spool.exists():
        return []
    left = sorted(str(path.relative_to(spool)) for path in spool.rglob("*") if not path.is_dir())
    return [other(f"{name} is left in the spool") for name in left if not any(map(name.startswith, may_be))]


def message_untruths(program: str, text: str) -> list[Untruth]:
    """Whether what a program said is a message and not a stack trace."""
    if not any(bug in text for bug in BUGS):
        return []
    return [other(f"{program} says: {text.strip()[-700:]}")]
