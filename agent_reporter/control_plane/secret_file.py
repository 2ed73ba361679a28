"""Files that hold one secret: read only if others cannot read them too."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from agent_reporter.errors import SignInError
from agent_reporter.logs import conceal

if TYPE_CHECKING:
    from pathlib import Path

MAX_SECRET_BYTES = 16 * 1024


def read_secret(path: Path) -> str:
    """The secret in `path`, which blocks for the disk; raises SignInError that never quotes the content."""
    try:
        # Not to wait for somebody to write, where there is a pipe in place of the file.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "It is no regular file")
            content = os.read(descriptor, MAX_SECRET_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else problem
        raise SignInError(f"{path} cannot be read: {why}. Put the secret there.") from None
    mode = stat.S_IMODE(status.st_mode)
    if mode & stat.S_IRWXO:
        raise SignInError(f"{path} is open to other users (mode {mode:04o}). Run: chmod o-rwx {path}")
    secret = content.decode("ascii", "replace").strip()
    if not secret or len(content) > MAX_SECRET_BYTES or not secret.isascii() or not secret.isprintable():
        raise SignInError(f"{path} does not hold one line of printable ASCII. Put the secret alone there.")
    conceal(secret)
    return secret
