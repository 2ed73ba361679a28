"""Files that are whole or not there, also after a power cut: written aside, synced, renamed, synced again."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700


def replace_file(path: Path, content: bytes) -> None:
    """Make `content` the content of `path`, durably; on OSError the old content stays.

    But for one case: if the new content is there and its directory cannot be synced, it is not durable.
    """
    aside = draft_of(path)
    try:
        descriptor = os.open(
            aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE
        )
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            write_whole(file.fileno(), content)
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        with suppress(OSError):
            aside.unlink()
        raise
    sync_directory(path.parent)


def draft_of(path: Path) -> Path:
    """Where the new content of `path` is written aside; left behind if that is cut short."""
    return path.with_name(f".{path.name}.new")


def make_directory(directory: Path) -> None:
    """Make `directory`, for its owner only, and whatever is missing above it, durably."""
    if directory.is_dir():
        return
    if directory.parent != directory:
        make_directory(directory.parent)
    with suppress(FileExistsError):
        directory.mkdir(mode=PRIVATE_DIRECTORY)
    sync_directory(directory.parent)


def write_whole(descriptor: int, content: bytes) -> None:
    """Write all of `content`, however little a single write takes."""
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def sync_directory(directory: Path) -> None:
    """Make renames and removals in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Reserve:
    """Disk space kept for one last file, for when the restore itself has filled the disk up.

    Its blocks are allocated beforehand, so that writing into it needs no space.
    """

    __slots__ = ("_directory", "_name", "size")

    def __init__(self, directory: Path, name: str, size: int) -> None:
        self._directory = directory
        self._name = name
        self.size = size
        """Bytes."""
        with suppress(OSError):  # a full disk already, or a file system without reservations: go without
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            path = self._path
            descriptor = os.open(path, flags, PRIVATE_FILE)
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError:
                if os.fstat(descriptor).st_size < size:  # else it is that of a process before, and good
                    path.unlink()
                raise
            finally:
                os.close(descriptor)

    @property
    def _path(self) -> Path:
        """Made anew each time: a path takes six times what its name takes, and a reserve lives long."""
        return self._directory / self._name

    def spend(self, content: bytes, target: Path) -> None:
        """Make `content` the content of `target` out of the reserve; raises OSError if that fails too."""
        if len(content) > self.size or not self._path.exists():
            raise OSError(errno.ENOSPC, f"no reserve for {len(content)} bytes")
        descriptor = os.open(self._path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            write_whole(file.fileno(), content)
            file.truncate(len(content))
            os.fsync(file.fileno())
        self._path.replace(target)
        sync_directory(target.parent)

    def release(self) -> None:
        """Give the space back."""
        with suppress(OSError):
            self._path.unlink()
