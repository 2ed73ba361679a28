"""The journal: what the daemon has promised to keep, one line a report, one sync for all that is pending.

    journal.N        segments, the newest has the greatest number
    .journal.lock    locked by the daemon that writes; no restore's lock can be called that
    aside/           segments that could not be read whole

A report is answered once its line is durable. Each line is the change of one restore, as a JSON object that
is merged with those before it. The spool's file of a restore is a checkpoint: once it is written, lines
before it are not needed, and whole segments go. A segment is never written to by another daemon than the one
that began it, so a torn line can only be the last thing in it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from agent_reporter.daemon.journal_lines import HEADER, encode, lines_at
from agent_reporter.durable import PRIVATE_FILE, make_directory, sync_directory
from agent_reporter.errors import MalformedError, SpoolError
from agent_reporter.logs import get_logger
from agent_reporter.threads import call_in_loop, in_thread, start_daemon

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SEGMENT_BYTES = 8 * 1024 * 1024
PENDING_BYTES = 16 * 1024 * 1024
"""So much waits to be written at most; who comes on top of that waits until there is room."""
CLOSE_SECONDS = 10.0
"""What is pending at the end has so long to be written."""
_NAME = re.compile(r"journal\.([1-9]\d*)")
_log = get_logger()


class Files:
    """The calls of the system that the journal makes as it writes, so that a test can have them fail."""

    open = staticmethod(os.open)
    write = staticmethod(os.write)
    fdatasync = staticmethod(os.fdatasync)
    ftruncate = staticmethod(os.ftruncate)
    sync_directory = staticmethod(sync_directory)


@dataclass(slots=True)
class _Batch:
    """Lines that are written and synced together. Who waits for them is told what went wrong, if anything."""

    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    waiting: list[asyncio.Future[Exception | None]] = field(default_factory=list)
    rotating: list[asyncio.Future[int]] = field(default_factory=list)
    """Who wants the segment to end with these lines, and its number."""


class Journal:
    """The journal in one directory. `replay` first, then `start`; `append` until `close`."""

    def __init__(
        self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES, files: Files | None = None
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._files = files or Files()
        self._lock: int | None = None
        self._damaged: set[int] = set()
        self._number = 0
        self._segment: int | None = None
        self._size = 0
        self._mutex = threading.Lock()
        self._woken = threading.Condition(self._mutex)
        self._batch = _Batch()
        self._in_hand = _Batch()
        self._is_closing = False
        self._turn = asyncio.Lock()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # --- before it starts: these block for the disk -------------------------------------------------------

    def replay(self) -> dict[str, dict[str, Any]]:
        """What the lines say of each restore, merged in their order. The journal is ours from then on.

        What is torn or damaged ends the reading of its segment; nothing changes on the disk before `forget`.
        Raises SpoolError if another daemon has the journal, or if the directory cannot be used.
        """
        merged: dict[str, dict[str, Any]] = {}
        for number in self._own():
            for restore_id, changes in self._read(number):
                merged.setdefault(restore_id, {}).update(changes)
        return merged

    def _own(self) -> list[int]:
        """Take the lock; returns the numbers of the segments that are there."""
        path = self._directory / ".journal.lock"
        try:
            make_directory(self._directory)
            self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            numbers = self._numbers()
        except BlockingIOError:
            self._disown()
            raise SpoolError(
                f"{path} is locked: another daemon works in this spool. Stop it, or set another spool_dir."
            ) from None
        except OSError as problem:
            self._disown()
            raise SpoolError(
                f"the spool {self._directory} cannot be used: {problem}. Make it writable, or name another "
                "with spool_dir."
            ) from problem
        self._number = max(numbers, default=0)
        return numbers

    def _disown(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):  # it is closed all the same, and its number may be another file's by now
                os.close(lock)

    def _numbers(self) -> list[int]:
        names = (_NAME.fullmatch(name) for name in os.listdir(self._directory))  # noqa: PTH208 - names suffice
        return sorted(int(match[1]) for match in names if match)

    def _path(self, number: int) -> Path:
        return self._directory / f"journal.{number}"

    def _read(self, number: int) -> Iterator[tuple[str, dict[str, Any]]]:
        path = self._path(number)
        try:
            yield from lines_at(path)
        except (OSError, MalformedError) as problem:
            self._damaged.add(number)
            hint = f"what was not read of it is not reported; it will be found in {self._directory / 'aside'}"
            _log.error("journal.damaged", file=str(path), problem=str(problem), hint=hint)

    # --- while it runs ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to write: in a segment of its own, which is made when there is something to write."""
        self._loop = asyncio.get_running_loop()
        self._thread = start_daemon("journal", self._work)

    async def close(self) -> None:
        """Write what is pending, for a bounded time, and let another daemon have the journal."""
        if self._thread is None:
            self._disown()
            return
        with self._mutex:
            self._is_closing = True
            self._woken.notify()
        self._has_room.set()
        await in_thread("journal-close", partial(self._thread.join, CLOSE_SECONDS))
        if self._thread.is_alive():  # it keeps the segment and the lock for as long as the disk holds it up
            late = TimeoutError(errno.ETIMEDOUT, "the disk does not answer")
            for batch in (self._in_hand, self._batch):
                self._settle(batch, late, self._number)

    @property
    def wants_rotation(self) -> bool:
        """Whether the segment has grown enough for a new one."""
        return self._size >= self._segment_bytes

    async def append(self, restore_id: str, changes: Mapping[str, Any]) -> None:
        """Return once `changes` of a restore are durable. Lines stand in the order of the calls.

        They are written also if the caller is cancelled, unless it still waited for room. Raises SpoolError
        if they cannot be written: then they must not be built upon, and may be appended again.
        """
        async with self._turn:
            await self._has_room.wait()
            written = self._put(restore_id, changes)
        problem = await written
        if problem is not None:
            is_full = isinstance(problem, OSError) and problem.errno in {errno.ENOSPC, errno.EDQUOT}
            raise SpoolError(
                f"restore {restore_id}: the journal in {self._directory} cannot be written: {problem}. "
                f"{'Free some space' if is_full else 'Look at the disk'}, and report again."
            ) from problem

    def _put(self, restore_id: str, changes: Mapping[str, Any]) -> asyncio.Future[Exception | None]:
        if self._loop is None or self._is_closing:
            raise SpoolError(f"restore {restore_id}: the daemon ends, and takes no reports. Report again.")
        line = encode(restore_id, changes)
        written: asyncio.Future[Exception | None] = self._loop.create_future()
        with self._mutex:
            batch = self._batch
            if not batch.lines:
                self._woken.notify()
            batch.lines.append(line)
            batch.size += len(line)
            batch.waiting.append(written)
            if batch.size >= PENDING_BYTES:
                self._has_room.clear()
        return written

    async def rotate(self) -> int:
        """Have what is appended from now on in a new segment; the number is for `forget`."""
        if self._loop is None or self._is_closing:
            raise SpoolError(f"the journal in {self._directory} is not open: start the daemon again.")
        rotated: asyncio.Future[int] = self._loop.create_future()
        with self._mutex:
            self._batch.rotating.append(rotated)
            self._woken.notify()
        return await rotated

    async def forget(self, number: int) -> None:
        """Delete the segments up to `number`: what they hold is in the spool by now, or over.

        Those that could not be read whole are kept aside.
        """
        await in_thread("journal-forget", partial(self._forget, number))

    def _forget(self, number: int) -> None:
        """The oldest first, none after one that stays: the end of a restore is not to go before the rest."""
        try:
            for each in self._numbers():
                if each > number:
                    break
                if each in self._damaged:
                    self._set_aside(self._path(each))
                    self._damaged.discard(each)
                else:
                    self._path(each).unlink()
            sync_directory(self._directory)
        except OSError as problem:
            hint = "make it possible to delete it; until then the journal grows"
            _log.error("journal.not_deleted", number=number, problem=str(problem), hint=hint)

    def _set_aside(self, path: Path) -> None:
        """Somebody may find out what it was."""
        aside = self._directory / "aside"
        make_directory(aside)
        path.replace(aside / f"{path.name}.{path.lstat().st_mtime_ns}")
        sync_directory(aside)

    # --- the thread that writes ---------------------------------------------------------------------------

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            problem = self._commit(batch.lines)
            if batch.rotating:
                self._leave_segment()
            if self._loop is not None:
                call_in_loop(self._loop, partial(self._settle, batch, problem, self._number))
        self._leave_segment()
        self._disown()

    def _next(self) -> _Batch | None:
        """What is to be written next, once there is something; None at the end."""
        with self._mutex:
            while not (self._batch.lines or self._batch.rotating or self._is_closing):
                self._woken.wait()
            self._in_hand, self._batch = self._batch, _Batch()
            return self._in_hand if self._in_hand.lines or self._in_hand.rotating else None

    def _settle(self, batch: _Batch, problem: Exception | None, number: int) -> None:
        """Tell those who wait; called in the loop."""
        self._has_room.set()
        for written in batch.waiting:
            if not written.done():  # its caller may have been cancelled
                written.set_result(problem)
        for rotated in batch.rotating:
            if not rotated.done():
                rotated.set_result(number)

    def _commit(self, lines: list[bytes]) -> Exception | None:
        """Make lines durable; returns what is wrong if that is not possible."""
        try:
            if lines:
                self._extend(b"".join(lines))
        except Exception as problem:  # noqa: BLE001 - whatever it is, those who wait must not wait for ever
            return problem
        return None

    def _extend(self, content: bytes) -> None:
        if self._segment is None:
            self._segment = self._begin_segment()
        segment = self._segment
        try:
            self._write(segment, content)
        except OSError:
            self._take_back(segment)
            raise
        try:
            self._files.fdatasync(segment)
        except OSError:
            self._take_back(segment)
            self._leave_segment()  # nobody knows what of it is on the disk
            raise
        self._size += len(content)

    def _begin_segment(self) -> int:
        """A new segment, which is whole on the disk once its first lines are synced."""
        self._number += 1  # for good: what is left of one that fails is not in the way of the next
        path = self._path(self._number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_APPEND
        segment = self._files.open(path, flags, PRIVATE_FILE)
        try:
            self._write(segment, HEADER)
            self._files.sync_directory(self._directory)
        except OSError:
            os.close(segment)
            with suppress(OSError):
                path.unlink()
            raise
        self._size = len(HEADER)
        return segment

    def _write(self, segment: int, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[self._files.write(segment, rest) :]

    def _take_back(self, segment: int) -> None:
        """Cut the segment to what was acknowledged; if that fails, it is left, and another begun."""
        try:
            self._files.ftruncate(segment, self._size)
        except OSError:
            self._leave_segment()

    def _leave_segment(self) -> None:
        """The next line begins a new one."""
        if self._segment is not None:
            with suppress(OSError):  # what was acknowledged is on the disk
                os.close(self._segment)
            self._segment = None
            self._size = 0
