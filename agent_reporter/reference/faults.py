"""Faults: what the server is told to do wrong, to which requests, and how often. Pure but for the clock.

A fault is a JSON object::

    {"match": {"method": "PATCH", "carries": "/state"}, "times": 2, "answer": "apply_then_drop"}

`match` names what a request has to be; all of its members have to fit, and an empty or absent one fits all:

- `method`, `path` (exactly), `path_regex` (found in the path), `restore_id`;
- `carries`: a path, in either spelling, that the request's JSON Patch has to name.

`times` is how many requests meet the fault, 1 unless given; `for_seconds`, in place of it, how long from
now all requests do. The first fault in the queue that matches is the one a request meets.

`answer` is what happens:

- `{"status": 503, "headers": {"Retry-After": "2"}, "body": ...}`: this answer, and nothing is done; a body
  that is a string is sent as it is, any other as JSON, none if it is left out;
- `"drop"`: nothing is done, and the connection is closed without an answer;
- `"apply_then_drop"`: the request is done, and the connection is closed without an answer;
- `{"apply_then_status": {"status": ..., "headers": ..., "body": ...}}`: it is done, and answered so;
- `{"slow": seconds}`: it is done at once, and answered after that time;
- `"truncate"`: it is done, and its answer is cut off in the middle;
- `"trickle"`, or `{"trickle": seconds}`: it is done, and its answer comes one byte a second, or one byte in
  that many seconds.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from agent_reporter.reference import checks
from agent_reporter.reference.exchange import Answer, RefusedError, json_answer
from agent_reporter.reference.patches import PATHS, Spelling, fields_touched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agent_reporter.reference.exchange import Call


class Kind(StrEnum):
    """What a fault does with a request."""

    ANSWER = "answer"
    DROP = "drop"
    APPLY_THEN_DROP = "apply_then_drop"
    APPLY_THEN_STATUS = "apply_then_status"
    SLOW = "slow"
    TRUNCATE = "truncate"
    TRICKLE = "trickle"

    @property
    def applies(self) -> bool:
        """Whether the request is done."""
        return self not in (Kind.ANSWER, Kind.DROP)

    @property
    def answers(self) -> bool:
        """Whether the client is sent anything."""
        return self not in (Kind.DROP, Kind.APPLY_THEN_DROP)


def _is_expression(value: object, name: str) -> Iterator[str]:
    """A regular expression."""
    yield from checks.is_text(value, name)
    if isinstance(value, str):
        try:
            re.compile(value)
        except re.error as problem:
            yield f"{name} is not a regular expression: {problem}."


def _is_header(value: object, name: str) -> Iterator[str]:
    """One line of text."""
    yield from checks.is_text(value, name)
    if isinstance(value, str) and re.search(r"[\r\n\0]", value):
        yield f"{name} has to be one line."


def _is_status(value: object, name: str) -> Iterator[str]:
    """A status that a whole answer may have."""
    yield from checks.is_integer(value, name)
    if isinstance(value, int) and not 200 <= value <= 599:
        yield f"{name} has to be from 200 to 599."


def _is_anything(_value: object, _name: str) -> Iterator[str]:
    """Any JSON value."""
    return iter(())


_CANNED: Final = checks.object_of(
    {"status": _is_status}, {"headers": checks.map_of(_is_header), "body": _is_anything}
)
_FAULTS: Final = checks.array_of(
    checks.object_of(
        {
            "answer": checks.any_of(
                checks.one_of(*map(str, (Kind.DROP, Kind.APPLY_THEN_DROP, Kind.TRUNCATE, Kind.TRICKLE))),
                checks.object_of({"slow": checks.is_duration}),
                checks.object_of({"trickle": checks.is_duration}),
                checks.object_of({"apply_then_status": _CANNED}),
                _CANNED,
                wanted='"drop", "apply_then_drop", "truncate", "trickle", {"trickle": seconds}, {"slow": '
                'seconds}, {"apply_then_status": answer}, or an answer with status, headers and body',
            )
        },
        {
            "match": checks.object_of(
                {},
                {
                    "method": checks.is_name,
                    "path": checks.is_name,
                    "path_regex": _is_expression,
                    "restore_id": checks.is_name,
                    "carries": checks.one_of(*PATHS[Spelling.BOTH]),
                },
            ),
            "times": checks.is_count,
            "for_seconds": checks.is_duration,
        },
    )
)


@dataclass(slots=True)
class Fault:
    """One fault in the queue. It lasts until `times` requests have met it, or until the moment `until`.

    `canned` is the answer of the kinds that have one of their own, `seconds` the pause of `slow`, or that
    before each byte of `trickle`.
    """

    kind: Kind
    document: Mapping[str, Any]
    match: Mapping[str, str] = field(default_factory=dict)
    times: int | None = 1
    until: float | None = None
    canned: Answer | None = None
    seconds: float = 0.0

    def fits(self, call: Call) -> bool:
        """Whether a request is one that this fault is for."""
        return all(_fits(call, key, wanted) for key, wanted in self.match.items())

    def is_over(self, now: float) -> bool:
        """Whether no request meets this fault any more."""
        return self.times == 0 if self.until is None else now >= self.until


class FaultQueue:
    """The faults that are still to come, in order. `now` gives seconds since the epoch."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._faults: list[Fault] = []

    def add(self, documents: Any) -> None:
        """Append faults from a JSON array; raises RefusedError (400), and then appends none of them."""
        self._faults += read_faults(documents, self._now())

    def take(self, call: Call) -> Fault | None:
        """The fault that a request meets, which is counted."""
        self._forget_what_is_over()
        fault = next((fault for fault in self._faults if fault.fits(call)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
        return fault

    def documents(self) -> list[dict[str, Any]]:
        """What is left, in the shape it came in."""
        self._forget_what_is_over()
        return [_left(fault, self._now()) for fault in self._faults]

    def clear(self) -> None:
        """Behave from now on."""
        self._faults.clear()

    def _forget_what_is_over(self) -> None:
        if self._faults:
            now = self._now()
            self._faults = [fault for fault in self._faults if not fault.is_over(now)]


def read_faults(documents: Any, now: float) -> list[Fault]:
    """The faults that a JSON array names; raises RefusedError (400) if it is anything else."""
    checks.insist(_FAULTS, documents, "faults")
    if any("times" in document and "for_seconds" in document for document in documents):
        raise RefusedError(400, "A fault has either times or for_seconds.")
    return [_fault(document, now) for document in documents]


def _fault(document: Mapping[str, Any], now: float) -> Fault:
    kind, canned, seconds = _action(document["answer"])
    lasting = document.get("for_seconds")
    return Fault(
        kind=kind,
        document=document,
        match=document.get("match", {}),
        times=document.get("times", 1) if lasting is None else None,
        until=None if lasting is None else now + lasting,
        canned=canned,
        seconds=seconds,
    )


def _action(answer: str | Mapping[str, Any]) -> tuple[Kind, Answer | None, float]:
    """The kind of a fault, the answer it has of its own, and its seconds."""
    match answer:
        case str():
            return Kind(answer), None, 1.0
        case {"slow": seconds}:
            return Kind.SLOW, None, seconds
        case {"trickle": seconds}:
            return Kind.TRICKLE, None, seconds
        case {"apply_then_status": canned}:
            return Kind.APPLY_THEN_STATUS, _canned(canned), 0.0
        case _:
            return Kind.ANSWER, _canned(answer), 0.0


def _canned(document: Mapping[str, Any]) -> Answer:
    status, headers = document["status"], document.get("headers", {})
    body = document.get("body")
    if body is None:
        return Answer(status, headers)
    if isinstance(body, str):
        return Answer(status, {"Content-Type": "text/plain; charset=utf-8", **headers}, body.encode())
    return json_answer(status, body, headers)


def _left(fault: Fault, now: float) -> dict[str, Any]:
    if fault.until is None:
        return {**fault.document, "times": fault.times}
    return {**fault.document, "for_seconds": fault.until - now}


def _fits(call: Call, key: str, wanted: str) -> bool:
    match key:
        case "method":
            return call.method == wanted.upper()
        case "path":
            return call.path == wanted
        case "path_regex":
            return re.search(wanted, call.path) is not None
        case "restore_id":
            return call.restore_id == wanted
        case _:
            return call.method == "PATCH" and PATHS[Spelling.BOTH][wanted] in fields_touched(_patch(call))


def _patch(call: Call) -> object:
    try:
        return json.loads(call.body or b"null")
    except (ValueError, RecursionError):
        return None
