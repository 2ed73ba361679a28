"""What an engine has put into its target folder so far, by looking at every file that is in it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from agent_reporter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

LARGE_FILE_BYTES = 1 << 20
"""A file of this size or more may have been given its full size before its content."""
_BLOCK_BYTES = 512


def checked_target(folder: str) -> Path:
    """`folder` as a target, which need not be there yet; raises ConfigurationError for what can be none."""
    if not folder:
        raise ConfigurationError("--target is empty. Name the folder that is restored to, or leave it out.")
    path = Path(folder)
    try:
        is_something_else = not stat.S_ISDIR(path.stat().st_mode)
    except (OSError, ValueError):  # it may not be there yet, or be for the engine's user alone
        is_something_else = "\0" in folder
    if is_something_else:
        raise ConfigurationError(
            f"--target {folder} is not a folder. Name the folder that is restored to, or leave it out."
        )
    return path


class Walk:
    """One walk through a folder, which counts what was changed since the engine's start.

    All counts can be read while it goes on: they only grow. Symbolic links are counted, not followed, and
    what is mounted below the folder is not entered.
    """

    def __init__(self, folder: Path, since_ns: int) -> None:
        """`since_ns`, of the wall clock, is compared to ctimes: engines set mtimes to what they were."""
        self._folder = folder
        self._since_ns = since_ns
        self._is_over = threading.Event()
        self.files = 0
        """All that is not a folder."""
        self.bytes = 0
        """Sizes of the regular files. The links of one file share its size."""
        self.bytes_on_disk = 0
        """The same, but of large files no more than is on the disk."""
        self.unreadable_folders = 0
        self.mounted_folders = 0
        """Those that were not entered, as they are of another file system."""

    def run(self) -> None:
        """Walk. Blocks for as long as that takes, or until `end` is called in another thread."""
        try:
            device = self._folder.stat().st_dev
        except FileNotFoundError:
            return
        except OSError:
            self.unreadable_folders += 1
            return
        folders = [str(self._folder)]
        while folders and not self._is_over.is_set():
            folder = folders.pop()
            try:
                folders += self._look_into(folder, device)
            except (FileNotFoundError, NotADirectoryError):
                continue  # it was taken away meanwhile
            except OSError:
                self.unreadable_folders += 1

    def end(self) -> None:
        """End the walk where it is."""
        self._is_over.set()

    def _look_into(self, folder: str, device: int) -> list[str]:
        """Count the files in `folder`; returns its folders."""
        folders = []
        with os.scandir(folder) as entries:
            for entry, found in _stats(entries):
                if self._is_over.is_set():
                    break
                if not stat.S_ISDIR(found.st_mode):
                    self._count(found)
                elif found.st_dev == device:
                    folders.append(entry.path)
                else:
                    self.mounted_folders += 1
        return folders

    def _count(self, file: os.stat_result) -> None:
        if file.st_ctime_ns < self._since_ns:
            return
        self.files += 1
        if stat.S_ISREG(file.st_mode):
            size = on_disk = file.st_size
            if size >= LARGE_FILE_BYTES:
                on_disk = min(size, file.st_blocks * _BLOCK_BYTES)
            self.bytes += size // max(1, file.st_nlink)
            self.bytes_on_disk += on_disk // max(1, file.st_nlink)


def _stats(entries: Iterator[os.DirEntry[str]]) -> Iterator[tuple[os.DirEntry[str], os.stat_result]]:
    """`entries` with what they are, but for those that are taken away meanwhile."""
    for entry in entries:
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield entry, found
