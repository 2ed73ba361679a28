"""A JSON Patch (RFC 6902) from an engine -> what it changes, or a refusal that says what is wrong with it.

The rules are those of "Update a restore": `add` and `replace` only, six paths in either spelling, and three
scenarios.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from agent_reporter.daemon.refusals import RefusedError
from agent_reporter.model.amendment import Amendment
from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.model.error_log import ErrorRecord, Errors
from agent_reporter.model.state import RestoreState

MAX_SENTENCES = 20
"""As many sentences as one refusal carries."""
MAX_RECORDS = 10_000
"""Records of a list that are looked at: as many as `max_errors` can be. The count is exact in any case."""

_FIELDS = {
    "/state": "state",
    "/started-time": "started_time",
    "/started_time": "started_time",
    "/ended-time": "ended_time",
    "/ended_time": "ended_time",
    "/errors": "errors",
    "/files_restores": "files_restored",
    "/files_restored": "files_restored",
    "/bytes-restored": "bytes_restored",
    "/bytes_restored": "bytes_restored",
}

Count = Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)]
Code = Annotated[int, Field(strict=True, ge=-MAX_COUNT, le=MAX_COUNT)]
Text = Annotated[str, Field(strict=True)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Exception(_Strict):
    code: Code = 0
    description: Text = ""
    details: Text = ""


class _Record(_Strict):
    index: Count = 0
    path: Text = ""
    type: Text = ""
    exception: _Exception | None = None


def _first_records(told: object) -> object:
    return told[:MAX_RECORDS] if isinstance(told, list) else told


class _Errors(_Strict):
    count: Count
    reason: Text = ""
    diagnostics: Text | None = None
    list: Annotated[tuple[_Record, ...], Field(fail_fast=True), BeforeValidator(_first_records)] = ()


class _Operation(_Strict):
    op: Literal["add", "replace"]


class _State(_Operation):
    path: Literal["/state"]
    value: Literal[
        "queued",
        "preparing",
        "in_progress",
        "stop_requested",
        "completed",
        "completed_with_errors",
        "failed",
        "stopped",
    ]


def _is_told_in_utc(moment: datetime) -> datetime:
    """`moment`, if UTC has it: an hour before or after all years, there is none."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("lies outside of the years 1 to 9999 in UTC") from None


class _Time(_Operation):
    path: Literal["/started-time", "/started_time", "/ended-time", "/ended_time"]
    value: Annotated[AwareDatetime, Field(strict=True), AfterValidator(_is_told_in_utc)]


class _Count(_Operation):
    path: Literal["/files_restores", "/files_restored", "/bytes-restored", "/bytes_restored"]
    value: Count


class _ErrorsValue(_Operation):
    path: Literal["/errors"]
    value: _Errors


_Known = Annotated[_State | _Time | _Count | _ErrorsValue, Field(discriminator="path")]
_PATCH: TypeAdapter[tuple[_State | _Time | _Count | _ErrorsValue, ...]] = TypeAdapter(
    # Only the first operation that is wrong is described: there may be half a million of them.
    Annotated[tuple[_Known, ...], Field(fail_fast=True)]
)


def read_patch(body: bytes) -> Amendment:
    """What a patch changes. A request to stop is one whose state is STOP_REQUESTED, and holds nothing else.

    Raises RefusedError (400) with a sentence for each thing that is wrong.
    """
    try:
        operations = _PATCH.validate_json(body)
    except ValidationError as problem:
        raise RefusedError(400, "The patch is not valid.", list(_sentences(problem))) from None
    if not operations:
        raise RefusedError(400, "A patch is an array of at least one operation.")
    changes: dict[str, Any] = {}
    for operation in operations:
        field = _FIELDS[operation.path]
        if field in changes:
            raise RefusedError(400, "The patch is not valid.", [f"{field} is changed more than once."])
        changes[field] = _value(operation)
    if changes.get("state") is RestoreState.STOP_REQUESTED and len(changes) > 1:
        raise RefusedError(400, "A request to stop stands alone in its patch.")
    return Amendment(**changes)


def _value(operation: _State | _Time | _Count | _ErrorsValue) -> object:
    if isinstance(operation, _State):
        return RestoreState(operation.value)
    if isinstance(operation, _ErrorsValue):
        return _errors(operation.value)
    return operation.value


def _errors(told: _Errors) -> Errors:
    return Errors(told.count, told.reason, told.diagnostics or "", tuple(map(_record, told.list)))


def _record(told: _Record) -> ErrorRecord:
    known = told.exception or _Exception()
    return ErrorRecord(told.path, told.type, known.code, known.description, known.details)


def _sentences(problem: ValidationError) -> list[str]:
    errors = problem.errors(include_url=False, include_context=False, include_input=False)
    return [_sentence(error["loc"], error["msg"]) for error in errors[:MAX_SENTENCES]]


def _sentence(place: tuple[int | str, ...], message: str) -> str:
    """Where it is wrong, as a person would name it, and what is."""
    if not place:
        return f"A patch is an array of operations: {message}."
    where = ".".join(str(part) for part in place[1:])
    return f"Operation {place[0]}{f', {where}' if where else ''}: {message}."[:300]
