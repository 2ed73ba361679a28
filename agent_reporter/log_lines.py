"""An event as a line of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from agent_reporter.model.showing import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""Of each level, as syslog counts them."""

_KEY_VALUE = structlog.processors.KeyValueRenderer(
    key_order=["timestamp", "level", "event"], drop_missing=True, repr_native_str=False
)


def in_one_line(event: Mapping[str, object]) -> str:
    """An event takes one line, and no text from outside steers the terminal."""
    return str(_KEY_VALUE(None, "", {key: printable(str(value)) for key, value in event.items()}))
