"""A JSON Patch (RFC 6902) from an engine -> what it changes, or a refusal that says what is wrong with it.

The rules are those of "Update a restore": `add` and `replace` only, six paths in either spelling, and three
scenarios.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from agent_reporter.daemon.refusals import RefusedError
from agent_reporter.model.amendment import Amendment
from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.model.error_log import ErrorRecord, Errors
from agent_reporter.model.state import RestoreState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_T = TypeVar("_T")

MAX_SENTENCES = 20
"""As many sentences as one refusal carries."""
MAX_SENTENCE = 300
MAX_RECORDS = 10_000
"""Records of a list that are looked at: as many as `max_errors` can be. The count is exact in any case."""

_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?([Zz]|[+-][0-9]{2}:?[0-9]{2})"
)
"""RFC 3339, and seconds may be lacking."""
STATES = tuple(state.value for state in RestoreState if state is not RestoreState.START_REQUESTED)
"""What an engine can say of its restore."""


def read_patch(body: bytes) -> Amendment:
    """What a patch changes. A request to stop is one whose state is STOP_REQUESTED, and holds nothing else.

    Raises RefusedError (400) with a sentence for each thing that is wrong with the first operation that is
    not right: there may be half a million of them.
    """
    changes: dict[str, Any] = {}
    for number, told in enumerate(_operations(body)):
        operation = _Operation(f"Operation {number}")
        name, value = operation.read(told)
        if operation.wrong:
            raise _invalid(*operation.wrong)
        if name in changes:
            raise _invalid(f"{name} is changed more than once.")
        changes[name] = value
    if not changes:
        raise RefusedError(400, "A patch is an array of at least one operation.")
    if changes.get("state") is RestoreState.STOP_REQUESTED and len(changes) > 1:
        raise RefusedError(400, "A request to stop stands alone in its patch.")
    return Amendment(**changes)


def _operations(body: bytes) -> list[object]:
    try:
        told = json.loads(body.decode())
    except (ValueError, RecursionError) as problem:
        raise _invalid(f"A patch is an array of operations, in JSON: {problem}."[:MAX_SENTENCE]) from None
    if not isinstance(told, list):
        raise _invalid("A patch is an array of operations.")
    return told


def _invalid(*sentences: str) -> RefusedError:
    return RefusedError(400, "The patch is not valid.", [*sentences])


@dataclass(slots=True)
class _Operation:
    """Reads one operation, and collects a sentence for each thing that is wrong with it.

    What is read is of use only if there is none: what is wrong is read as if it were not there.
    """

    called: str
    wrong: list[str] = field(default_factory=list)

    def read(self, told: object) -> tuple[str, object]:
        """Which field is changed, and to what."""
        if not isinstance(told, dict):
            return self._refuse("", "has to be an object", ("", None))
        path = told.get("path")
        if not isinstance(path, str) or path not in _FIELDS:
            return self._refuse("path", f"has to be one of {', '.join(_FIELDS)}", ("", None))
        if told.get("op") not in ("add", "replace"):
            self._refuse(f"{path}.op", "has to be add or replace", None)
        self._refuse_others(told, path, "op", "path", "value")
        name, read = _FIELDS[path]
        if "value" not in told:
            return self._refuse(f"{path}.value", "is missing", (name, None))
        return name, read(self, told["value"], f"{path}.value")

    def state(self, value: object, place: str) -> RestoreState | None:
        if isinstance(value, str) and value in STATES:
            return RestoreState(value)
        return self._refuse(place, f"has to be one of {', '.join(STATES)}", None)

    def time(self, value: object, place: str) -> datetime | None:
        if not isinstance(value, str) or not _TIME.fullmatch(value):
            return self._refuse(place, "has to be a time in RFC 3339, with a zone", None)
        try:
            moment = datetime.fromisoformat(value.upper())
        except ValueError:
            return self._refuse(place, "is no time that there is", None)
        try:
            return moment.astimezone(UTC)
        except OverflowError:  # an hour before or after all years
            return self._refuse(place, "lies outside of the years 1 to 9999 in UTC", None)

    def count(self, value: object, place: str) -> int:
        if type(value) is int and 0 <= value <= MAX_COUNT:
            return value
        return self._refuse(place, f"has to be a whole number from 0 to {MAX_COUNT}", 0)

    def errors(self, value: object, place: str) -> Errors | None:
        if not isinstance(value, dict):
            return self._refuse(place, "has to be an object", None)
        self._refuse_others(value, place, "count", "reason", "diagnostics", "list")
        records = value.get("list", [])
        if not isinstance(records, list):
            records = self._refuse(f"{place}.list", "has to be an array", [])
        return Errors(
            self.count(value.get("count"), f"{place}.count"),
            self._text(value, "reason", place),
            "" if value.get("diagnostics") is None else self._text(value, "diagnostics", place),
            self._records(records, f"{place}.list"),
        )

    def _records(self, told: list[object], place: str) -> tuple[ErrorRecord, ...]:
        """The first records, up to one that is wrong."""
        records, right = [], len(self.wrong)
        for number, each in enumerate(told[:MAX_RECORDS]):
            records.append(self._record(each, f"{place}.{number}"))
            if len(self.wrong) > right:
                break
        return tuple(records)

    def _record(self, told: object, place: str) -> ErrorRecord:
        if not isinstance(told, dict):
            return self._refuse(place, "has to be an object", ErrorRecord("", ""))
        self._refuse_others(told, place, "index", "path", "type", "exception")
        self.count(told.get("index", 0), f"{place}.index")
        path, type_ = self._text(told, "path", place), self._text(told, "type", place)
        exception = told.get("exception")
        if exception is None:
            return ErrorRecord(path, type_)
        place = f"{place}.exception"
        if not isinstance(exception, dict):
            return self._refuse(place, "has to be an object, or null", ErrorRecord("", ""))
        self._refuse_others(exception, place, "code", "description", "details")
        code = exception.get("code", 0)
        if type(code) is not int or abs(code) > MAX_COUNT:
            code = self._refuse(f"{place}.code", f"has to be a whole number of at most {MAX_COUNT}", 0)
        description = self._text(exception, "description", place)
        return ErrorRecord(path, type_, code, description, self._text(exception, "details", place))

    def _text(self, document: Mapping[str, object], name: str, place: str) -> str:
        value = document.get(name, "")
        if not isinstance(value, str):
            return self._refuse(f"{place}.{name}", "has to be text", "")
        if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
            return self._refuse(f"{place}.{name}", "has half of a character in it, which no UTF-8 has", "")
        return value

    def _refuse_others(self, document: Mapping[str, object], place: str, *names: str) -> None:
        for name in sorted(document.keys() - names):
            self._refuse(f"{place}.{name}", "is not known here", None)

    def _refuse(self, place: str, why: str, instead: _T) -> _T:
        """Note a sentence; returns `instead`, to be read on with."""
        if len(self.wrong) < MAX_SENTENCES:
            self.wrong.append(f"{self.called}{place and ', '}{place}: {why}."[:MAX_SENTENCE])
        return instead


_FIELDS: Mapping[str, tuple[str, Callable[[_Operation, object, str], object]]] = {
    "/state": ("state", _Operation.state),
    "/started-time": ("started_time", _Operation.time),
    "/started_time": ("started_time", _Operation.time),
    "/ended-time": ("ended_time", _Operation.time),
    "/ended_time": ("ended_time", _Operation.time),
    "/errors": ("errors", _Operation.errors),
    "/files_restores": ("files_restored", _Operation.count),
    "/files_restored": ("files_restored", _Operation.count),
    "/bytes-restored": ("bytes_restored", _Operation.count),
    "/bytes_restored": ("bytes_restored", _Operation.count),
}
"""The paths of the protocol, in either spelling: the field of each, and how its value is read."""
