"""Restore ids that can stand in a URL and in a file name."""

from __future__ import annotations

import re

from agent_reporter.errors import InvalidRestoreIdError

_RESTORE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,127}")


def is_restore_id(text: object) -> bool:
    """Whether `text` is a restore id."""
    return isinstance(text, str) and _RESTORE_ID.fullmatch(text) is not None


def checked_restore_id(text: object) -> str:
    """`text`, which is a restore id; raises InvalidRestoreIdError if it is not."""
    if not is_restore_id(text):
        raise InvalidRestoreIdError(text)
    return str(text)
