"""A disk in memory that forgets what was not synced, and the system calls of spool and tokens on it.

    killed process     its descriptors and locks go; all that it wrote stays
    power loss         of each file what was synced stays, and perhaps what was not; of the directories
                       what was synced, and of the changes after that a part, in their order

Each call may be the one at which the process is killed, or fail as the day has it: `full`, `broken`,
`readonly`, or take little at a time (`short`). A `slow` disk is slow in `seams`, where threads are.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path, PosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn, Self

from agent_reporter.model.record import Record
from tests.simulation.loop import PROCESS, Killed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from tests.simulation.loop import Process

DEVICE = 1


class Inode:
    """A file or a directory."""

    __slots__ = ("content", "is_directory", "mode", "names", "number", "owner", "reserved", "synced")

    def __init__(self, number: int, *, is_directory: bool = False) -> None:
        self.number = number
        self.is_directory = is_directory
        self.mode = 0o600
        self.content = b""
        self.synced = b""
        """What is left of the content after a power loss, at least."""
        self.names: dict[str, Inode] = {}
        self.reserved = 0
        """Bytes that are allocated: they can be written on a full disk."""
        self.owner: Descriptor | None = None
        """Who has it locked."""


class Descriptor:
    """An open file."""

    __slots__ = ("inode", "path", "position", "process")

    def __init__(self, inode: Inode, path: str, process: Process | None) -> None:
        self.inode = inode
        self.path = path
        self.process = process
        self.position = 0


Change = tuple[Inode, str, Inode | None]


class Disk:
    """Directories that are made and never removed, files in them, and what of that is durable."""

    def __init__(self, random: Random, note: Callable[..., None]) -> None:
        self.troubles: list[str] = []
        """What is wrong with the disk right now."""
        self.failures = 0
        """Calls that failed."""
        self.calls = 0
        self.killer: Callable[[], bool] = lambda: False
        """Asked before each call of a process: whether it is killed there."""
        self.check_content: Callable[[str, bytes], None] = lambda _path, _content: None
        self._random = random
        self._note = note
        self._number = 0
        self._root = self._new(is_directory=True)
        self._directories: dict[str, Inode] = {"/": self._root}
        self._durable: dict[Inode, dict[str, Inode]] = {self._root: {}}
        self._pending: list[tuple[Change, ...]] = []
        """Changes of directories that are not durable yet, in their order."""
        self._open: dict[int, Descriptor] = {}
        self._next_descriptor = 100

    # What the world does and asks.

    def release(self, process: Process) -> None:
        """The process is gone: so are its descriptors and locks."""
        for number, descriptor in list(self._open.items()):
            if descriptor.process is process:
                self._forget(number)

    def descriptors_of(self, process: Process) -> list[str]:
        return [each.path for each in self._open.values() if each.process is process]

    def lose_power(self) -> None:
        """Forget what was not synced: all of it, or some."""
        kept = self._random.randint(0, len(self._pending))
        for changes in self._pending[:kept]:
            self._settle(changes)
        self._pending.clear()
        for directory, names in self._durable.items():
            directory.names = dict(names)
        self._directories = {"/": self._root}
        self._find_directories("", self._root)
        for inode in self._files():
            if inode.content != inode.synced:
                inode.content = self._random.choice(
                    (inode.synced, inode.content, b"", inode.content[: len(inode.content) // 2])
                )
                inode.synced = inode.content
            inode.owner = None

    def records(self, directory: str, *, durable: bool = False) -> dict[str, Record]:
        """The records in a directory by file name; of those that are `durable`, whatever else is lost."""
        inode = self._directories.get(directory)
        if inode is None or (durable and not self._is_durable(directory)):
            return {}
        names = self._durable.get(inode, {}) if durable else inode.names
        found = {}
        for name, file in names.items():
            if file.is_directory or ".json" not in name or name[0] == ".":
                continue
            try:
                found[name] = Record.decode(file.synced if durable else file.content)
            except ValueError:
                continue
        return found

    def names(self, directory: str) -> list[str]:
        inode = self._directories.get(directory)
        return [] if inode is None else sorted(n for n, file in inode.names.items() if not file.is_directory)

    def has_reserve(self, path: str) -> bool:
        """Whether a disk that is full, and nothing worse, has room allocated in a file."""
        inode = self._look_up(path)
        return set(self.troubles) == {"full"} and inode is not None and inode.reserved > 0

    def is_owned(self, path: str) -> bool:
        """Whether somebody holds the lock of a file."""
        inode = self._look_up(path)
        return inode is not None and inode.owner is not None

    def put(self, path: str, content: bytes) -> None:
        """Somebody else puts a file there, durably."""
        directory, name = self._place(path)
        file = self._new()
        file.content = file.synced = content
        directory.names[name] = file
        self._durable[directory][name] = file

    def make(self, path: str) -> None:
        """Somebody else makes a directory, durably."""
        directory, name = self._place(path)
        made = self._new(is_directory=True)
        directory.names[name] = made
        self._durable[directory][name] = made
        self._durable[made] = {}
        self._directories[path] = made

    # System calls, as `os` and `Path` spell them.

    def open(self, path: object, flags: int, mode: int = 0o777) -> int:
        name_of = str(path)
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        self._call("open", name_of, writes=bool(writes))
        inode = self._look_up(name_of)
        if inode is None:
            if not flags & os.O_CREAT:
                _fail(errno.ENOENT, name_of)
            directory, name = self._place(name_of)
            inode = self._new()
            inode.mode = mode
            self._change((directory, name, inode))
        if flags & os.O_DIRECTORY and not inode.is_directory:
            _fail(errno.ENOTDIR, name_of)
        if flags & os.O_TRUNC:
            inode.content = b""
        self._next_descriptor += 1
        self._open[self._next_descriptor] = Descriptor(inode, name_of, PROCESS.get())
        return self._next_descriptor

    def close(self, number: int) -> None:
        self._call("close", self._of(number).path)
        self._forget(number)

    def write(self, number: int, content: memoryview | bytes) -> int:
        descriptor = self._of(number)
        self._call("write", descriptor.path, writes=True)
        piece, inode = bytes(content), descriptor.inode
        if "full" in self.troubles and descriptor.position + len(piece) > inode.reserved:
            if descriptor.position or len(piece) < 2:
                self._refuse(errno.ENOSPC, descriptor.path)
            piece = piece[: len(piece) // 2]
        if "short" in self.troubles:
            piece = piece[: max(1, len(piece) // 3)]
        before = inode.content
        end = descriptor.position + len(piece)
        inode.content = before[: descriptor.position] + piece + before[end:]
        descriptor.position = end
        return len(piece)

    def read(self, number: int, size: int) -> bytes:
        descriptor = self._of(number)
        self._call("read", descriptor.path)
        piece = descriptor.inode.content[descriptor.position : descriptor.position + size]
        descriptor.position += len(piece)
        return piece

    def fsync(self, number: int) -> None:
        descriptor = self._of(number)
        self._call("fsync", descriptor.path, writes=True)
        inode = descriptor.inode
        if not inode.is_directory:
            self.check_content(descriptor.path, inode.content)
            inode.synced = inode.content
            return
        left = []
        for changes in self._pending:
            # Of a rename between two directories, this one's part alone: more is not promised anywhere.
            self._settle(tuple(change for change in changes if change[0] is inode))
            if rest := tuple(change for change in changes if change[0] is not inode):
                left.append(rest)
        self._pending = left

    def ftruncate(self, number: int, size: int) -> None:
        descriptor = self._of(number)
        self._call("ftruncate", descriptor.path, writes=True)
        descriptor.inode.content = descriptor.inode.content[:size].ljust(size, b"\0")

    def fstat(self, number: int) -> Any:
        return _stat(self._of(number).inode)

    def posix_fallocate(self, number: int, offset: int, size: int) -> None:
        descriptor = self._of(number)
        self._call("fallocate", descriptor.path, writes=True)
        if "full" in self.troubles:
            self._refuse(errno.ENOSPC, descriptor.path)
        descriptor.inode.reserved = offset + size

    def flock(self, number: int, _operation: int) -> None:
        descriptor = self._of(number)
        self._call("flock", descriptor.path)
        if descriptor.inode.owner not in {None, descriptor}:
            _fail(errno.EWOULDBLOCK, descriptor.path)
        descriptor.inode.owner = descriptor

    def fdopen(self, number: int, *_: object, **__: object) -> OpenFile:
        return OpenFile(self, number)

    def scandir(self, path: object) -> Listing:
        self._call("scandir", str(path))
        inode = self._directories.get(str(path))
        if inode is None:
            _fail(errno.ENOENT, str(path))
        return Listing([SimpleNamespace(name=name) for name in inode.names])

    def stat(self, path: str) -> Any:
        self._call("stat", path)
        inode = self._look_up(path)
        if inode is None:
            _fail(errno.ENOENT, path)
        return _stat(inode)

    def mkdir(self, path: str) -> None:
        self._call("mkdir", path, writes=True)
        if path in self._directories:
            _fail(errno.EEXIST, path)
        directory, name = self._place(path)
        if "full" in self.troubles:
            self._refuse(errno.ENOSPC, path)
        made = self._new(is_directory=True)
        self._durable[made] = {}
        self._directories[path] = made
        self._change((directory, name, made))

    def unlink(self, path: str) -> None:
        self._call("unlink", path, writes=True)
        directory, name = self._place(path)
        if name not in directory.names:
            _fail(errno.ENOENT, path)
        self._change((directory, name, None))

    def rename(self, path: str, target: str) -> None:
        self._call("rename", path, writes=True)
        directory, name = self._place(path)
        if name not in directory.names:
            _fail(errno.ENOENT, path)
        there, called = self._place(target)
        self._change((directory, name, None), (there, called, directory.names[name]))

    # Inside.

    def _call(self, name: str, path: str, *, writes: bool = False) -> None:
        process = PROCESS.get()
        if process is not None:
            if not process.is_alive or self.killer():
                raise Killed
            self.calls += 1
            self._note("disk", name, path)
        if self.troubles and path.startswith("/spool"):
            if "broken" in self.troubles and name != "close" and self._random.random() < 0.5:
                self._refuse(errno.EIO, path)
            if writes and "readonly" in self.troubles:
                self._refuse(errno.EROFS, path)

    def _refuse(self, number: int, path: str) -> NoReturn:
        self.failures += 1
        _fail(number, path)

    def _new(self, *, is_directory: bool = False) -> Inode:
        self._number += 1
        return Inode(self._number, is_directory=is_directory)

    def _of(self, number: int) -> Descriptor:
        process = PROCESS.get()
        if process is not None and not process.is_alive:
            raise Killed
        if number not in self._open:
            _fail(errno.EBADF, str(number))
        return self._open[number]

    def _forget(self, number: int) -> None:
        descriptor = self._open.pop(number)
        if descriptor.inode.owner is descriptor:
            descriptor.inode.owner = None

    def _place(self, path: str) -> tuple[Inode, str]:
        parent, _, name = path.rpartition("/")
        directory = self._directories.get(parent or "/")
        if directory is None:
            _fail(errno.ENOENT, path)
        return directory, name

    def _look_up(self, path: str) -> Inode | None:
        if path in self._directories:
            return self._directories[path]
        parent, _, name = path.rpartition("/")
        directory = self._directories.get(parent or "/")
        return None if directory is None else directory.names.get(name)

    def _change(self, *changes: Change) -> None:
        for directory, name, inode in changes:
            _put(directory.names, name, inode)
        self._pending.append(changes)

    def _settle(self, changes: tuple[Change, ...]) -> None:
        for directory, name, inode in changes:
            _put(self._durable[directory], name, inode)

    def _is_durable(self, path: str) -> bool:
        inode, at = self._root, self._durable
        for name in path.strip("/").split("/"):
            following = at.get(inode, {}).get(name)
            if following is None:
                return False
            inode = following
        return True

    def _find_directories(self, path: str, directory: Inode) -> None:
        for name, inode in directory.names.items():
            if inode.is_directory:
                self._directories[f"{path}/{name}"] = inode
                self._find_directories(f"{path}/{name}", inode)

    def _files(self) -> Iterator[Inode]:
        for directory in self._directories.values():
            yield from (inode for inode in directory.names.values() if not inode.is_directory)


class OpenFile:
    """What `os.fdopen` gives."""

    def __init__(self, disk: Disk, number: int) -> None:
        self._disk = disk
        self._number = number

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._disk.close(self._number)

    def fileno(self) -> int:
        return self._number

    def truncate(self, size: int) -> None:
        self._disk.ftruncate(self._number, size)


class Listing(list[Any]):
    """What `os.scandir` gives."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class SimPath(PosixPath):
    """A path on the simulated disk; all else about it is what a path is."""

    disk: Disk

    def stat(self, **_: object) -> Any:
        return self.disk.stat(str(self))

    def lstat(self) -> Any:
        return self.stat()

    def exists(self, **_: object) -> bool:
        return self._mode() is not None

    def is_dir(self, **_: object) -> bool:
        mode = self._mode()
        return mode is not None and stat.S_ISDIR(mode)

    def is_file(self, **_: object) -> bool:
        mode = self._mode()
        return mode is not None and stat.S_ISREG(mode)

    def is_symlink(self) -> bool:
        return False

    def mkdir(self, *_: object, **__: object) -> None:
        self.disk.mkdir(str(self))

    def unlink(self, *_: object, **__: object) -> None:
        self.disk.unlink(str(self))

    def replace(self, target: Any) -> SimPath:
        self.disk.rename(str(self), str(target))
        return SimPath(target)

    def _mode(self) -> int | None:
        try:
            return int(self.stat().st_mode)
        except FileNotFoundError:
            return None


class SimOs:
    """Stands where a module names `os`."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        if name in _CALLS:
            return getattr(self._disk, name)
        return getattr(os, name)


_CALLS = frozenset(
    "open close write read fsync ftruncate fstat posix_fallocate fdopen scandir".split()  # noqa: SIM905 - shorter so
)


def _put(names: dict[str, Inode], name: str, inode: Inode | None) -> None:
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


def _stat(inode: Inode) -> Any:
    kind = stat.S_IFDIR if inode.is_directory else stat.S_IFREG
    return SimpleNamespace(
        st_ino=inode.number, st_dev=DEVICE, st_mode=kind | inode.mode, st_size=len(inode.content)
    )


def _fail(number: int, path: str) -> NoReturn:
    raise OSError(number, os.strerror(number), path)


SPOOL = Path("/spool")
