"""The text of a program that is a script, to see what it starts."""

from __future__ import annotations

import os
import shutil
import stat

MAX_SCRIPT_BYTES = 1 << 16


def read_script(word: str) -> str | None:
    """The text of the program that `word` starts, or of the file at that path; None if it is no small file.

    A word without a slash is looked up as a shell does. Blocks for as long as it takes to read a small file;
    a pipe or a device is not touched.
    """
    found = word if "/" in word else shutil.which(word)
    if found is None:
        return None
    try:
        descriptor = os.open(found, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        content = os.read(descriptor, MAX_SCRIPT_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return content.decode("utf-8", "replace") if len(content) <= MAX_SCRIPT_BYTES else None
