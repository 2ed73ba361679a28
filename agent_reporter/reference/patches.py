"""A JSON Patch (RFC 6902) of a restore: what it changes, or why it is refused. Pure.

The rules are those of "Update a restore": `add` and `replace` only, six paths only, three scenarios only.
"""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from agent_reporter.reference import checks
from agent_reporter.reference.exchange import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent_reporter.reference.checks import Check

CONTENT_TYPE: Final = "application/json-patch+json"


class State(StrEnum):
    """A state of a restore, as the protocol spells it."""

    START_REQUESTED = "start_requested"
    QUEUED = "queued"
    PREPARING = "preparing"
    IN_PROGRESS = "in_progress"
    STOP_REQUESTED = "stop_requested"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    STOPPED = "stopped"


FINAL_STATES: Final = (State.COMPLETED, State.COMPLETED_WITH_ERRORS, State.FAILED, State.STOPPED)
PATCHABLE_STATES: Final = tuple(state for state in State if state is not State.START_REQUESTED)
"""`start_requested` is what a new restore is: no scenario names it."""


class Field(StrEnum):
    """What of a restore a patch may change."""

    STATE = "state"
    STARTED_TIME = "started_time"
    ENDED_TIME = "ended_time"
    ERRORS = "errors"
    FILES_RESTORED = "files_restored"
    BYTES_RESTORED = "bytes_restored"


class Spelling(StrEnum):
    """Which spelling of the paths is taken."""

    BOTH = "both"
    AUTHORITY = "authority"
    DOCUMENT = "document"


_AUTHORITY: Final[Mapping[str, Field]] = {
    "/state": Field.STATE,
    "/started-time": Field.STARTED_TIME,
    "/ended-time": Field.ENDED_TIME,
    "/errors": Field.ERRORS,
    "/files_restores": Field.FILES_RESTORED,
    "/bytes-restored": Field.BYTES_RESTORED,
}
_DOCUMENT: Final[Mapping[str, Field]] = {f"/{field}": field for field in Field}

PATHS: Final[Mapping[Spelling, Mapping[str, Field]]] = MappingProxyType(
    {
        Spelling.BOTH: {**_AUTHORITY, **_DOCUMENT},
        Spelling.AUTHORITY: _AUTHORITY,
        Spelling.DOCUMENT: _DOCUMENT,
    }
)
"""For each spelling, the paths it takes. Two of the six are the same in both."""

_EXCEPTION: Final = checks.object_of(
    {}, {"code": checks.is_integer, "description": checks.is_text, "details": checks.is_text}
)
_RECORD: Final = checks.object_of(
    {},
    {
        "index": checks.is_count,
        "path": checks.is_text,
        "type": checks.is_text,
        "exception": checks.nullable(_EXCEPTION),
    },
)
_ERRORS: Final = checks.object_of(
    {"count": checks.is_count},
    {
        "reason": checks.is_text,
        "diagnostics": checks.nullable(checks.is_text),
        "list": checks.array_of(_RECORD),
    },
)
_VALUES: Final[Mapping[Field, Check]] = {
    Field.STATE: checks.one_of(*map(str, PATCHABLE_STATES)),
    Field.STARTED_TIME: checks.is_time,
    Field.ENDED_TIME: checks.is_time,
    Field.ERRORS: _ERRORS,
    Field.FILES_RESTORED: checks.is_count,
    Field.BYTES_RESTORED: checks.is_count,
}


def read_patch(
    patch: object, spelling: Spelling = Spelling.BOTH, *, strict: bool = False
) -> dict[Field, Any]:
    """What `patch` changes, each field with its new value as it was sent.

    Raises RefusedError (400) with a sentence for everything that is wrong. Read strictly, the three
    scenarios hold counters, times and errors only beside the state that the agent reports, and a request
    to stop stands alone (`protocol.md`, decision 5).
    """
    if not isinstance(patch, list) or not patch:
        raise RefusedError(400, "A patch is an array of at least one operation.")
    paths = PATHS[spelling]
    checks.refuse_if_any("The patch is not valid.", _faults_of_operations(patch, paths))
    changes = {paths[operation["path"]]: operation["value"] for operation in patch}
    checks.refuse_if_any("The patch changes a field more than once.", _repetitions(patch, paths))
    if strict:
        checks.refuse_if_any("The patch is none of the three scenarios.", _strict_faults(changes))
    return changes


def fields_touched(patch: object) -> frozenset[Field]:
    """The fields that `patch` names in either spelling, whatever else may be wrong with it."""
    operations = patch if isinstance(patch, list) else []
    named = (operation.get("path") for operation in operations if isinstance(operation, dict))
    paths = PATHS[Spelling.BOTH]
    return frozenset(paths[path] for path in named if isinstance(path, str) and path in paths)


def _faults_of_operations(patch: list[Any], paths: Mapping[str, Field]) -> Iterator[str]:
    operation_check = checks.object_of(
        {"op": checks.one_of("add", "replace"), "path": checks.one_of(*paths), "value": _anything}
    )
    for index, operation in enumerate(patch):
        name = f"Operation {index}"
        faults = list(operation_check(operation, name))
        if faults:
            yield from faults
        else:
            path = operation["path"]
            yield from _VALUES[paths[path]](operation["value"], path)


def _repetitions(patch: list[Any], paths: Mapping[str, Field]) -> Iterator[str]:
    counts = Counter(paths[operation["path"]] for operation in patch)
    return (f"{field} is changed {count} times." for field, count in counts.items() if count > 1)


def _strict_faults(changes: Mapping[Field, Any]) -> Iterator[str]:
    others = [field for field in changes if field is not Field.STATE]
    if Field.STATE not in changes:
        yield from (f"{field} may only be reported beside a state." for field in others)
    elif changes[Field.STATE] == State.STOP_REQUESTED:
        yield from (f"{field} may not stand beside a request to stop." for field in others)


def _anything(_value: object, _name: str) -> Iterator[str]:
    """Any value: which one is right depends on the path."""
    return iter(())
