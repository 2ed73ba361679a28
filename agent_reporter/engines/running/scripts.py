"""The text of a program that is a script, to see what it starts."""

from __future__ import annotations

import shutil
from pathlib import Path

MAX_SCRIPT_BYTES = 1 << 16


def read_script(word: str) -> str | None:
    """The text of the script that a shell would start for `word`; None for anything else, also for long ones.

    Blocks for as long as it takes to read a small file.
    """
    found = shutil.which(word)
    if found is None:
        return None
    try:
        with Path(found).open("rb") as file:
            content = file.read(2)
            if content != b"#!":
                return None
            content += file.read(MAX_SCRIPT_BYTES)
    except OSError:
        return None
    return content.decode("utf-8", "replace") if len(content) <= MAX_SCRIPT_BYTES else None
