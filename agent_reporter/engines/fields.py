"""What engines print as JSON, read without trust: wrong types and absurd numbers count as left out."""

from __future__ import annotations

import json
from typing import Any

from agent_reporter.engines.wording import clean
from agent_reporter.model.documents import MAX_COUNT

MAX_PATH_CHARACTERS = 8192
MAX_MESSAGE_CHARACTERS = 2048


def parse_object(line: str) -> dict[str, Any] | None:
    """The JSON object in `line`; None if it holds none, or one made to exhaust the parser."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def count(value: object) -> int:
    """A counter; what cannot be one is 0."""
    return value if type(value) is int and 0 <= value <= MAX_COUNT else 0


def digits(text: str) -> int:
    """A counter in decimal digits, with commas between them or not; what cannot be one is 0."""
    plain = text.replace(",", "")
    is_number = plain.isascii() and plain.isdecimal() and len(plain) <= len(str(MAX_COUNT))
    return count(int(plain)) if is_number else 0


def text(value: object, limit: int = MAX_MESSAGE_CHARACTERS) -> str:
    """At most `limit` characters that can be encoded, without line ends around them; "" for no string."""
    return clean(value, limit).strip("\n") if isinstance(value, str) else ""


def path(value: object) -> str:
    """A path, cut where no path is that long; "" for no string."""
    return text(value, MAX_PATH_CHARACTERS)
