"""A restore: how it starts, what a patch makes of it, and how it is shown. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from agent_reporter.reference import checks
from agent_reporter.reference.exchange import RefusedError
from agent_reporter.reference.patches import FINAL_STATES, Field, State

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NO_ERRORS: Final[Mapping[str, Any]] = MappingProxyType(
    {"count": 0, "reason": "", "diagnostics": "", "list": []}
)
PUBLISHED_CONFLICT: Final = (
    "Modifying a restore that is already in a state of ['completed', 'completed_with_errors', 'failed', "
    "'stopped'] is not allowed."
)
"""The words of the 409 as the protocol publishes them."""

PENDING_STATES: Final = (State.START_REQUESTED, State.STOP_REQUESTED)
"""States that ask something of the agent: it is told again when it comes up."""

_SELECTION: Final = checks.array_of(
    checks.object_of({"type": checks.one_of("file", "folder"), "path": checks.is_text})
)
_START: Final = checks.object_of(
    {"backup_id": checks.is_name, "destination_agent_id": checks.is_name},
    {
        "destination_path": checks.nullable(checks.is_text),
        "overwrite_files": checks.is_flag,
        "encrypted_password_hex": checks.nullable(checks.is_text),
        "inclusions": _SELECTION,
        "exclusions": _SELECTION,
    },
)


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for when a restore was started. The password to the backup is not kept."""

    backup_id: str
    agent_id: str
    destination_path: str | None = None
    overwrite_files: bool = False
    inclusions: list[dict[str, str]] = field(default_factory=list)
    exclusions: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Restore:
    """Everything the control plane knows of one restore.

    `request_id` names the request to start it, `stop_request_id` the request to stop it while that stands.
    `total_bytes` is the size of what is restored, None while unknown: the protocol has no way to say it.
    `erased_stops` counts the standing stop requests that a patch with another state has overwritten.
    """

    id: str
    project_id: str
    request_id: str
    request: Request
    state: str = State.START_REQUESTED.value
    started_time: str | None = None
    ended_time: str | None = None
    files_restored: int = 0
    bytes_restored: int = 0
    errors: Mapping[str, Any] = field(default_factory=lambda: NO_ERRORS)
    total_bytes: int | None = None
    stop_request_id: str | None = None
    erased_stops: int = 0

    @property
    def is_final(self) -> bool:
        """Whether the restore has ended: nothing changes it any more."""
        return self.state in FINAL_STATES


@dataclass(frozen=True, slots=True)
class Happening:
    """What an event will tell: its kind, and what it says beside the ids and the time."""

    kind: str
    details: Mapping[str, Any] = field(default_factory=dict)


def read_request(document: Any) -> Request:
    """The body of "Start a restore"; raises RefusedError (400) for another document."""
    checks.insist(_START, document, "The restore")
    return Request(
        backup_id=document["backup_id"],
        agent_id=document["destination_agent_id"],
        destination_path=document.get("destination_path"),
        overwrite_files=document.get("overwrite_files", False),
        inclusions=document.get("inclusions", []),
        exclusions=document.get("exclusions", []),
    )


def patched(restore: Restore, changes: Mapping[Field, Any], stop_request_id: str) -> Restore:
    """What `changes` make of `restore`; raises RefusedError (409) when it has ended.

    Everything is taken as it was sent: counters may go down, and a state other than `stop_requested`
    overwrites a standing stop request, as the real control plane does. `stop_request_id` names the request
    to stop if the changes are one, and none stands yet.
    """
    if restore.is_final:
        raise RefusedError(409, PUBLISHED_CONFLICT)
    values: dict[str, Any] = {field.value: value for field, value in changes.items()}
    if Field.ERRORS in changes:
        values["errors"] = {**NO_ERRORS, **changes[Field.ERRORS]}
    state = changes.get(Field.STATE)
    if state == State.STOP_REQUESTED:
        values["stop_request_id"] = restore.stop_request_id or stop_request_id
    elif state is not None:
        values["stop_request_id"] = None
        values["erased_stops"] = restore.erased_stops + _erases_a_stop(restore, state)
    return replace(restore, **values)


def happenings(before: Restore, after: Restore, changes: Mapping[Field, Any]) -> Iterator[Happening]:
    """The events of a patch: one for a new state, and one for counters while the restore goes on.

    A repeated request to stop is told again, under the same request id: the first event may be gone.
    """
    if Field.STATE in changes and (after.state != before.state or after.state == State.STOP_REQUESTED):
        yield from happenings_of_state(after)
    if not after.is_final and not changes.keys().isdisjoint({Field.BYTES_RESTORED, Field.FILES_RESTORED}):
        yield Happening("restore_progress", _progress(after))


def happenings_of_state(restore: Restore) -> Iterator[Happening]:
    """What is told of a restore that comes into the state it is in, or has to be told of it again."""
    match restore.state:
        case State.START_REQUESTED:
            yield Happening("restore_start_request", _start(restore))
        case State.IN_PROGRESS:
            yield Happening("restore_in_progress")
        case State.STOP_REQUESTED:
            yield Happening("restore_stop_request", {"request_id": restore.stop_request_id})
        case State.COMPLETED | State.COMPLETED_WITH_ERRORS:
            yield Happening("restore_completed")
        case State.FAILED:
            yield Happening("restore_failed")
        case State.STOPPED:
            yield Happening("restore_stopped")


def document(restore: Restore, origin: str) -> dict[str, Any]:
    """The document of "Read a restore", with links that begin with `origin`."""
    request, project_id = restore.request, restore.project_id
    return {
        "project_id": project_id,
        "id": restore.id,
        "backup": {"id": request.backup_id, "links": links(origin, project_id, "backups", request.backup_id)},
        "destination_agent": {
            "id": request.agent_id,
            "links": links(origin, project_id, "agents", request.agent_id),
        },
        "destination_path": request.destination_path,
        "overwrite_files": request.overwrite_files,
        "inclusions": request.inclusions,
        "exclusions": request.exclusions,
        "state": restore.state,
        "started_time": restore.started_time,
        "ended_time": restore.ended_time,
        "errors": {key: value for key, value in errors_document(restore, origin).items() if key != "list"},
        "files_restored": restore.files_restored,
        "bytes_restored": restore.bytes_restored,
        "links": links(origin, project_id, "restores", restore.id),
    }


def errors_document(restore: Restore, origin: str) -> dict[str, Any]:
    """The errors of a restore with the list of them, and links that begin with `origin`."""
    return {**restore.errors, "links": links(origin, restore.project_id, "restores", restore.id, "errors")}


def address(restore: Restore, origin: str) -> str:
    """Where `restore` can be read."""
    return _url(origin, restore.project_id, "restores", restore.id)


def links(origin: str, *segments: str) -> list[dict[str, str]]:
    """The links of a document, which begin with `origin`: where the document itself is."""
    return [{"href": _url(origin, *segments), "rel": "self"}]


def _start(restore: Restore) -> dict[str, Any]:
    request = restore.request
    return {
        "request_id": restore.request_id,
        "restore": {
            "id": restore.id,
            "backup": {"id": request.backup_id},
            "destination_path": request.destination_path,
            "overwrite_files": request.overwrite_files,
            "inclusions": request.inclusions,
            "exclusions": request.exclusions,
        },
    }


def _progress(restore: Restore) -> dict[str, int]:
    known = {"bytes_completed": restore.bytes_restored}
    if restore.total_bytes is not None:
        known["bytes_remaining"] = max(0, restore.total_bytes - restore.bytes_restored)
        known["total_bytes"] = restore.total_bytes
    return known


def _erases_a_stop(restore: Restore, state: str) -> bool:
    return restore.state == State.STOP_REQUESTED and state not in FINAL_STATES


def _url(origin: str, *segments: str) -> str:
    return "/".join([origin, "v2", *(quote(segment, safe="") for segment in segments)])
