"""JSON from outside, read strictly: the right type or MalformedError, never another exception."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import MalformedError

if TYPE_CHECKING:
    from collections.abc import Mapping


MAX_COUNT = 2**63 - 1
"""The most that is counted: control planes keep counts in 64 bits."""


def parse_object(body: bytes | str) -> dict[str, Any]:
    """The JSON object in `body`; raises MalformedError for other JSON, no JSON, or bottomless JSON."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as problem:
        raise MalformedError(f"not JSON: {problem}") from problem
    if not isinstance(document, dict):
        raise MalformedError(f"a JSON object is wanted, not {type(document).__name__}")
    return document


def text_of(document: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """The string at `key`; null and absence give the default, and an error where there is none."""
    value = document.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise MalformedError(f"{key!r} has to be text, not {type(value).__name__}")
    return value


def count_of(document: Mapping[str, Any], key: str, default: int | None = 0) -> int:
    """The integer from 0 to MAX_COUNT at `key`.

    Null and absence give the default, or an error if that is None.
    """
    value = document.get(key)
    if value is None and default is not None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_COUNT:
        raise MalformedError(f"{key!r} has to be a count, not {value!r:.40}")
    return value


def optional_count_of(document: Mapping[str, Any], key: str) -> int | None:
    """Like `count_of`, with None for null and absence."""
    return None if document.get(key) is None else count_of(document, key)


def object_of(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The JSON object at `key`; null and absence give an empty one."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise MalformedError(f"{key!r} has to be an object, not {type(value).__name__}")
    return value
