"""Files that hold one secret: read only if others cannot read them too."""

from __future__ import annotations

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
        with path.open("rb") as file:
            mode = stat.S_IMODE(path.stat().st_mode)
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as problem:
        raise SignInError(f"{path} cannot be read: {problem.strerror}. Put the secret there.") from None
    if mode & stat.S_IRWXO:
        raise SignInError(f"{path} is open to other users (mode {mode:04o}). Run: chmod o-rwx {path}")
    secret = content.decode("ascii", "replace").strip()
    if not secret or len(content) > MAX_SECRET_BYTES or not secret.isascii() or not secret.isprintable():
        raise SignInError(f"{path} does not hold one line of printable ASCII. Put the secret alone there.")
    conceal(secret)
    return secret
