"""Times as the protocol writes them: RFC 3339, UTC, microseconds."""

from __future__ import annotations

from datetime import UTC, datetime

from agent_reporter.errors import MalformedError


def format_time(moment: datetime) -> str:
    """`2014-10-20T13:11:58.985151Z`, for a `moment` with a time zone."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def parse_time(text: object) -> datetime:
    """The moment an RFC 3339 text names; raises MalformedError for anything else."""
    if not isinstance(text, str):
        raise MalformedError(f"{text!r:.60} is not a time: RFC 3339 text is wanted")
    try:
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as problem:
        raise MalformedError(f"{text!r:.60} is not an RFC 3339 time") from problem


def parse_optional_time(text: object) -> datetime | None:
    """Like `parse_time`, with None for null."""
    return None if text is None else parse_time(text)
