"""Requests that are not done, as the protocol answers them: a status, and a body that says why."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


class RefusedError(Exception):
    """A request is answered with an error status. `str()` is the sentence for the client.

    `retry_after` is in how many seconds to come again, None if that would not help. `closes` is whether the
    connection is closed, as the rest of the request is not read.
    """

    def __init__(
        self,
        status: int,
        message: str,
        errors: Sequence[str] = (),
        *,
        retry_after: int | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.errors = errors
        self.retry_after = retry_after
        self.closes = closes

    def body(self) -> bytes:
        """The fault document of the protocol."""
        return json.dumps({"message": str(self), **({"errors": self.errors} if self.errors else {})}).encode()
