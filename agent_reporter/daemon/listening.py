"""The Unix socket of the local API, where no service manager has made it."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import socket
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from agent_reporter.daemon.door import BACKLOG
from agent_reporter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAX_PATH_BYTES = 107
"""Of a Unix socket: the kernel has 108 bytes, with a NUL at the end."""


def listening_socket(path: Path, mode: int = 0o660, group: str | None = None) -> socket.socket:
    """Make the Unix socket at `path`, of `group` if one is named, and listen on it. Blocks for the disk.

    A socket where nobody answers any more is replaced; whatever else is there stays. Raises
    ConfigurationError that says what is in the way.
    """
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise ConfigurationError(
            f"{path} is too long for a Unix socket, which has at most {_MAX_PATH_BYTES} bytes. "
            "Choose a shorter path."
        )
    gid = -1 if group is None else _gid(group)
    try:
        if not path.parent.exists():
            path.parent.mkdir(parents=True)
            path.parent.chmod(0o755)  # whatever the umask is
        with _only_one_at(path):
            return _bind(path, mode, gid)
    except OSError as problem:
        raise ConfigurationError(
            f"the socket {path} cannot be made: {problem.strerror}. "
            "Check who owns its directory, and whether the daemon's user is in the group of the socket."
        ) from problem


def _bind(path: Path, mode: int, gid: int) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            listening.bind(os.fspath(path))
        except OSError as problem:
            if problem.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path)
            listening.bind(os.fspath(path))
        try:
            # Nobody can connect before it listens, and by then only those can who may.
            os.chown(path, -1, gid)
            path.chmod(mode)
            listening.listen(BACKLOG)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
    except BaseException:
        listening.close()
        raise
    return listening


def _remove_stale(path: Path) -> None:
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise ConfigurationError(f"{path} is there, and is no socket. Move it away, or choose another path.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(0)
        with suppress(ConnectionRefusedError):  # nobody listens
            with suppress(BlockingIOError):  # somebody does, and has a queue before the door
                probe.connect(os.fspath(path))
            raise ConfigurationError(
                f"another daemon runs, and answers at {path}. Stop that one first, or choose another path."
            )
    path.unlink()


@contextmanager
def _only_one_at(path: Path) -> Iterator[None]:
    """Keep another one from taking our socket for stale that is made, and does not listen yet."""
    lock = os.open(
        path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
    )
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigurationError(
                f"another daemon is just starting at {path}. Let that one run, or choose another path."
            ) from None
        yield
    finally:
        os.close(lock)


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise ConfigurationError(
            f"there is no group {group!r}, which the socket should belong to. "
            f"Make it with `groupadd --system {group}`, or name another."
        ) from None
