"""A request and its answer as plain values, so that everything in between can be a plain function."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_BODY_BYTES: Final = 1_000_000
"""One JSON document of this API is at most 1 MB (`protocol.md`, Limits)."""


class RefusedError(Exception):
    """A request is answered with an error status. `str()` is the sentence for the client."""

    def __init__(self, status: int, message: str, errors: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.errors = list(errors)


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read to its end.

    `names` are the variable parts of the path. `body` is None when the request was larger than
    `MAX_BODY_BYTES`. `origin` is how the client reached us, the front part of every link.
    """

    method: str
    path: str
    names: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = b""
    origin: str = ""

    @property
    def restore_id(self) -> str | None:
        """The restore the path names, if it names one."""
        return self.names.get("restore_id")

    def whole_body(self) -> bytes:
        """The body; raises RefusedError (400) if it was too large to be read."""
        if self.body is None:
            raise RefusedError(400, f"The body is larger than {MAX_BODY_BYTES} bytes.")
        return self.body


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, ready to be written."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def is_success(self) -> bool:
        """Whether the request did what it asked for."""
        return self.status < 400


NO_CONTENT: Final = Answer(204)


def json_answer(status: int, document: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer that carries a JSON document."""
    content = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return Answer(status, content, json.dumps(document).encode())


def refusal(problem: RefusedError) -> Answer:
    """The protocol's error document: a message, and errors where there is more to say."""
    document: dict[str, Any] = {"message": problem.message}
    if problem.errors:
        document["errors"] = problem.errors
    return json_answer(problem.status, document)
