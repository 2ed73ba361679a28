"""The journal: what the daemon has promised to keep, one line a report, one sync for all that is pending.

    journal.N        segments, the newest has the greatest number
    journal.lock     locked by the daemon that writes

A report is answered once its line is durable. Each line is the change of one restore, as a JSON object that
is merged with those before it. The spool's file of a restore is a checkpoint: once it is written, lines
before it are not needed, and whole segments are deleted. A segment is never written to by another daemon
than the one that began it, so a torn line can only be the last thing in it.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import json
import os
import re
import threading
import zlib
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from agent_reporter.durable import PRIVATE_FILE, make_directory, sync_directory
from agent_reporter.errors import MalformedError, SpoolError
from agent_reporter.logs import get_logger
from agent_reporter.model.documents import object_of, parse_object, text_of
from agent_reporter.threads import call_in_loop, in_thread, start_daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

SEGMENT_BYTES = 8 * 1024 * 1024
PENDING_BYTES = 16 * 1024 * 1024
"""So much waits to be written at most; who comes on top of that waits until there is room."""
CLOSE_SECONDS = 10.0
"""What is pending at the end has so long to be written."""
HEADER = b"agent-reporter journal 1\n"

_to_json = json.JSONEncoder(separators=(",", ":")).encode
_NAME = re.compile(r"journal\.(\d{1,18})")
_log = get_logger()


class Files:
    """The calls of the system that the journal makes, so that a test can have them fail."""

    write = staticmethod(os.write)
    fdatasync = staticmethod(os.fdatasync)
    ftruncate = staticmethod(os.ftruncate)


@dataclass(slots=True)
class _Batch:
    """Lines that are written and synced together."""

    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    waiting: list[asyncio.Future[None]] = field(default_factory=list)


class Journal:
    """The journal in one directory. `replay` first, then `start`; `append` until `close`."""

    def __init__(
        self, directory: Path, *, segment_bytes: int = SEGMENT_BYTES, files: Files | None = None
    ) -> None:
        self._directory = directory
        self._segment_bytes = segment_bytes
        self._files = files or Files()
        self._lock: int | None = None
        self._number = 0
        self._segment = -1
        self._size = 0
        self._is_spoiled = False
        self._mutex = threading.Lock()
        self._woken = threading.Condition(self._mutex)
        self._batch = _Batch()
        self._calls: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []
        self._is_closing = False
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # --- before it starts: these block for the disk -------------------------------------------------------

    def replay(self) -> dict[str, dict[str, Any]]:
        """What the lines say of each restore, merged in their order. The journal is ours from then on.

        What is torn or damaged ends the reading of its segment; a file that is none is set aside. Raises
        SpoolError if another daemon has the journal, or if the directory cannot be used.
        """
        self._own()
        merged: dict[str, dict[str, Any]] = {}
        for number in self._numbers():
            for restore_id, changes in self._read(number):
                merged.setdefault(restore_id, {}).update(changes)
        return merged

    def _own(self) -> None:
        path = self._directory / "journal.lock"
        try:
            make_directory(self._directory)
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                raise
        except BlockingIOError:
            raise SpoolError(
                f"{path} is locked: another daemon works in this spool. Stop it, or set another spool_dir."
            ) from None
        except OSError as problem:
            raise SpoolError(
                f"the spool {self._directory} cannot be used: {problem}. Make it writable, or name another "
                "with spool_dir."
            ) from problem
        self._lock = lock
        self._number = max(self._numbers(), default=0)

    def _numbers(self) -> list[int]:
        names = (_NAME.fullmatch(name) for name in os.listdir(self._directory))  # noqa: PTH208 - names suffice
        return sorted(int(match[1]) for match in names if match)

    def _path(self, number: int) -> Path:
        return self._directory / f"journal.{number}"

    def _read(self, number: int) -> Iterator[tuple[str, dict[str, Any]]]:
        path = self._path(number)
        try:
            with path.open("rb") as file:
                header = file.readline(len(HEADER))
                is_damaged = header != HEADER and not HEADER.startswith(header)
                for line in file if header == HEADER else ():
                    try:
                        yield _decode(line)
                    except MalformedError:
                        is_damaged = bool(file.read(1))  # a torn last line is what a kill leaves
                        break
            if is_damaged:
                self._set_aside(path)
        except OSError as problem:
            _log.error("journal.not_read", file=str(path), problem=str(problem))

    def _set_aside(self, path: Path) -> None:
        """Somebody may find out what it was: it is kept, and not read again."""
        aside = self._directory / "aside"
        make_directory(aside)
        path.replace(aside / f"{path.name}.{path.stat().st_mtime_ns}")
        hint = f"moved to {aside}; what stands after the damage is not reported"
        _log.error("journal.set_aside", file=str(path), hint=hint)

    # --- while it runs ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to write, with a segment of its own; raises SpoolError if that is not possible."""
        self._loop = asyncio.get_running_loop()
        await in_thread("journal-start", self._begin_segment_or_say)
        self._thread = start_daemon("journal", self._work)

    async def close(self) -> None:
        """Write what is pending, for a bounded time, and let another daemon have the journal."""
        if self._thread is not None:
            with self._mutex:
                self._is_closing = True
                self._woken.notify()
            await in_thread("journal-close", partial(self._thread.join, CLOSE_SECONDS))
        if self._segment >= 0:
            await in_thread("journal-close", partial(os.close, self._segment))
            self._segment = -1
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @property
    def wants_rotation(self) -> bool:
        """Whether the segment has grown enough for a new one."""
        return self._size >= self._segment_bytes

    async def append(self, restore_id: str, changes: Mapping[str, Any]) -> None:
        """Return once `changes` of a restore are durable; they are written also if the caller is cancelled.

        Raises SpoolError if they cannot be: none of them counts then.
        """
        line = _encode(restore_id, changes)
        while not self._has_room.is_set():
            await self._has_room.wait()
        if self._loop is None or self._is_closing:
            raise SpoolError(f"restore {restore_id}: the daemon ends, and takes no reports. Report again.")
        done: asyncio.Future[None] = self._loop.create_future()
        with self._mutex:
            batch = self._batch
            if not batch.lines:
                self._woken.notify()
            batch.lines.append(line)
            batch.size += len(line)
            batch.waiting.append(done)
            if batch.size >= PENDING_BYTES:
                self._has_room.clear()
        await done

    async def rotate(self) -> int:
        """Begin a new segment; the number is for `forget`. Raises SpoolError if that is not possible."""

        def rotate() -> int:
            before = self._number
            self._begin_segment_or_say()
            return before

        return int(await self._in_writer(rotate))

    async def forget(self, number: int) -> None:
        """Delete the segments up to `number`: what they hold is in the spool by now, or over."""
        await in_thread("journal-forget", partial(self._forget, number))

    def _forget(self, number: int) -> None:
        try:
            for each in self._numbers():
                if each <= number:
                    self._path(each).unlink(missing_ok=True)
            sync_directory(self._directory)
        except OSError as problem:
            _log.error("journal.not_deleted", number=number, problem=str(problem))

    async def _in_writer(self, call: Callable[[], Any]) -> Any:
        """The result of `call`, made by the thread that writes, between two batches."""
        if self._loop is None or self._is_closing:
            raise SpoolError("the journal is not open")
        done: asyncio.Future[Any] = self._loop.create_future()
        with self._mutex:
            self._calls.append((call, done))
            self._woken.notify()
        return await done

    # --- the thread that writes ---------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._mutex:
                while not (self._batch.lines or self._calls or self._is_closing):
                    self._woken.wait()
                if not (self._batch.lines or self._calls):
                    return
                batch, self._batch = self._batch, _Batch()
                calls, self._calls = self._calls, []
            if batch.lines:
                self._settle(batch, self._commit(batch))
            for call, done in calls:
                self._make(call, done)

    def _commit(self, batch: _Batch) -> SpoolError | None:
        """Make a batch durable, or nothing of it; returns what is wrong."""
        try:
            if self._is_spoiled:
                self._begin_segment()
            self._write(b"".join(batch.lines))
        except OSError as problem:
            self._take_back()
            return self._failure(problem)
        try:
            self._files.fdatasync(self._segment)
        except OSError as problem:
            self._is_spoiled = True  # nobody knows what of it is on the disk
            self._take_back()
            return self._failure(problem)
        self._size += batch.size
        return None

    def _failure(self, problem: OSError) -> SpoolError:
        full = problem.errno in {errno.ENOSPC, errno.EDQUOT}
        return SpoolError(
            f"{self._path(self._number)} cannot be written: {problem.strerror}. "
            f"{'Free some space' if full else 'Look at the disk'}, and report again."
        )

    def _write(self, content: bytes) -> None:
        rest = memoryview(content)
        while rest:
            rest = rest[self._files.write(self._segment, rest) :]

    def _take_back(self) -> None:
        """Cut the segment to what was acknowledged; if that fails, it is left, and another begun."""
        try:
            self._files.ftruncate(self._segment, self._size)
        except OSError:
            self._is_spoiled = True

    def _begin_segment_or_say(self) -> None:
        try:
            self._begin_segment()
        except OSError as problem:
            raise SpoolError(
                f"the spool {self._directory} takes no journal: {problem}. Free some space, or make it "
                "writable."
            ) from problem

    def _begin_segment(self) -> None:
        number = self._number + 1
        path = self._path(number)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_APPEND
        descriptor = os.open(path, flags, PRIVATE_FILE)
        before, self._segment = self._segment, descriptor
        try:
            self._write(HEADER)
            self._files.fdatasync(descriptor)
            sync_directory(self._directory)
        except OSError:
            self._segment = before
            os.close(descriptor)
            with suppress(OSError):
                path.unlink()
            raise
        if before >= 0:
            os.close(before)
        self._number, self._size, self._is_spoiled = number, len(HEADER), False

    def _settle(self, batch: _Batch, problem: SpoolError | None) -> None:
        def settle() -> None:
            self._has_room.set()
            for done in batch.waiting:
                if done.cancelled():
                    continue
                if problem is None:
                    done.set_result(None)
                else:
                    done.set_exception(problem)

        if self._loop is not None:
            call_in_loop(self._loop, settle)

    def _make(self, call: Callable[[], Any], done: asyncio.Future[Any]) -> None:
        def settle(result: Any, problem: Exception | None) -> None:
            if done.cancelled():
                return
            if problem is None:
                done.set_result(result)
            else:
                done.set_exception(problem)

        try:
            result, failure = call(), None
        except Exception as problem:  # noqa: BLE001 - it is raised where the result is awaited
            result, failure = None, problem
        if self._loop is not None:
            call_in_loop(self._loop, partial(settle, result, failure))


def _encode(restore_id: str, changes: Mapping[str, Any]) -> bytes:
    content = _to_json({"restore_id": restore_id, "changes": changes}).encode()
    return b"%08x %b\n" % (zlib.crc32(content), content)


def _decode(line: bytes) -> tuple[str, dict[str, Any]]:
    """The restore's id and the changes in a line; raises MalformedError for a torn or damaged one."""
    checksum, _, content = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(content):
        raise MalformedError("a line is torn or damaged; what comes after it is not read")
    document = parse_object(content)
    return text_of(document, "restore_id"), object_of(document, "changes")
