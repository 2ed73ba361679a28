"""What an answer of the control plane means for a delivery."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from agent_reporter.errors import MalformedError
from agent_reporter.model.documents import parse_object

MAX_FAULT_TEXT = 500


class Verdict(StrEnum):
    """What is to be done after an answer."""

    DELIVERED = "delivered"
    """The control plane has it."""
    RETRY = "retry"
    """Not now: send what is newest later."""
    RECONCILE = "reconcile"
    """Something is not as we thought: read the restore before anything else."""
    SIGN_IN = "sign_in"
    """The token is not taken: a new one is needed."""
    REJECTED = "rejected"
    """The control plane refuses what this patch says, and will refuse it again."""
    GONE = "gone"
    """The control plane wants to hear nothing of this restore from us."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the control plane, read up to a bound.

    `retry_after` is the header as it came. `signed_with` is the generation of the token the request
    carried, by which a sign-in knows whether that token has been renewed since.
    """

    status: int
    body: bytes = b""
    retry_after: str | None = None
    signed_with: int = 0

    def document(self) -> dict[str, Any]:
        """The JSON object of the body; raises MalformedError if it holds none."""
        return parse_object(self.body)


_VERDICTS = {
    204: Verdict.DELIVERED,
    401: Verdict.SIGN_IN,
    403: Verdict.GONE,
    404: Verdict.GONE,
    405: Verdict.GONE,
    408: Verdict.RETRY,
    409: Verdict.RECONCILE,
    425: Verdict.RETRY,
    429: Verdict.RETRY,
}


def of(status: int) -> Verdict:
    """The verdict on a patch that was answered with `status`.

    Only 204 is success (`protocol.md`): another 2xx comes from something in between, and whether the
    control plane has the patch is found out by reading. A redirect is never followed; it is waited out,
    since it is a mistake in the endpoint or on the way, and the report has to survive it.
    """
    if status in _VERDICTS:
        return _VERDICTS[status]
    if 200 <= status < 300:
        return Verdict.RECONCILE
    if 400 <= status < 500:
        return Verdict.REJECTED
    return Verdict.RETRY


def is_uncertain(status: int) -> bool:
    """Whether a patch that was answered with `status` may have been carried out (decision 2)."""
    return status >= 500 or (200 <= status < 300 and status != 204)


def retry_after_seconds(header: str | None, now: datetime) -> float:
    """Seconds that a `Retry-After` header asks for, in either form; 0 if it asks for nothing readable."""
    if header is None:
        return 0.0
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return 0.0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def said_with(answer: Answer) -> str:
    """What the control plane said with a status, in full; empty if it said nothing."""
    try:
        fault = answer.document()
    except MalformedError:
        return ""
    errors = fault.get("errors")
    parts = [fault.get("message"), *(errors if isinstance(errors, list) else [])]
    return "; ".join(part for part in parts if isinstance(part, str) and part)


def explain(answer: Answer) -> str:
    """The answer in words: the status, and what the control plane said with it, if it said anything."""
    said = said_with(answer)
    return f"HTTP {answer.status}: {said[:MAX_FAULT_TEXT]}" if said else f"HTTP {answer.status}"
