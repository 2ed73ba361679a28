"""Files that are whole or not there, also after a power cut: written aside, synced, renamed, synced again."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700


def replace_file(path: Path, content: bytes) -> None:
    """Make `content` the content of `path`, durably; on OSError the old content stays."""
    aside = path.with_name(f".{path.name}.new")
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

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self.size = size
        """Bytes."""
        self._descriptor: int | None = None
        with suppress(OSError):  # a full disk already, or a file system without reservations: go without
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
            try:
                os.posix_fallocate(descriptor, 0, size)
            except OSError:
                os.close(descriptor)
                path.unlink()
                raise
            self._descriptor = descriptor

    def spend(self, content: bytes, target: Path) -> None:
        """Make `content` the content of `target` out of the reserve; raises OSError if that fails too."""
        if self._descriptor is None or len(content) > self.size:
            raise OSError(f"no reserve for {len(content)} bytes")
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        write_whole(self._descriptor, content)
        os.ftruncate(self._descriptor, len(content))
        os.fsync(self._descriptor)
        self._path.replace(target)
        self._close()
        sync_directory(target.parent)

    def release(self) -> None:
        """Give the space back."""
        if self._descriptor is not None:
            self._close()
            with suppress(OSError):
                self._path.unlink()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
