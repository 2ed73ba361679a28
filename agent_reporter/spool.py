"""The spool: the directory of undelivered reports, one file a restore, as a mail queue has one a message.

    <restore_id>.json     the record: report, delivery, engine
    <restore_id>.lock     locked by the owner for as long as it reports; names the owner
    dead/                 dead letters: reports that the control plane will never take
    aside/                files that could not be read, set aside

A record whose lock nobody holds is an orphan: its owner died. Whoever works on the spool next takes it over.
All calls here block for the disk, and are made from threads that may.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent_reporter import processes
from agent_reporter.durable import (
    PRIVATE_FILE,
    Reserve,
    draft_of,
    make_directory,
    replace_file,
    sync_directory,
    write_whole,
)
from agent_reporter.errors import MalformedError, RestoreBusyError, SpoolError
from agent_reporter.logs import get_logger
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.model.record import Record
from agent_reporter.model.restore_id import is_restore_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RESERVE_BYTES = 64 * 1024
LOCK_TRIES = 20
LOCK_SECONDS = 0.005
"""Between two tries at a lock whose owner is not named, or dead."""
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
MAX_RECORD_BYTES = 8 * 1024 * 1024

_DEAD_NAME = re.compile(r"(.+)\.json(?:\.\d+)?")
"""What a dead letter's file is called, with a number where there are several of one restore."""

_BESIDE = re.compile(r"\.(.+)\.(?:reserve|json\.new)")
"""What the files beside a record are called (`_reserve_path`, `durable.draft_of`)."""

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Listed:
    """One restore of the spool, as a look from outside shows it.

    `owner` is the pid of the process that reports it, None for an orphan and a dead letter; `record` is
    None, and `problem` says why, where the file cannot be read.
    """

    restore_id: str
    record: Record | None
    owner: int | None = None
    dead: bool = False
    problem: str = ""


class Spool:
    """The directory. It is made, for its owner only, when something is first kept in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.dead = directory / "dead"
        self.aside = directory / "aside"

    def open(self, restore_id: str) -> Entry:
        """Own the file of a restore, which is made if it is not there.

        Raises RestoreBusyError if another process owns it, SpoolError if the directory cannot be used.
        """
        return self._open(restore_id, LOCK_TRIES)

    def _open(self, restore_id: str, lock_tries: int) -> Entry:
        try:
            for directory in (self.directory, self.dead, self.aside):
                make_directory(directory)
            lock = self._lock(restore_id, lock_tries)
            try:
                record = self._load(restore_id)
            except BaseException:
                os.close(lock)
                raise
        except OSError as problem:
            raise SpoolError(
                f"restore {restore_id}: the spool {self.directory} cannot be used: {problem}. "
                "Make it writable, or name another with spool_dir."
            ) from problem
        return Entry(self, restore_id, lock, record)

    def orphans(self) -> Iterator[Entry]:
        """Take over every restore that nobody owns; each has a record.

        What an owner left that was killed before its first record is tidied up.
        """
        recorded = self._restore_ids(".json")
        locked = self._restore_ids(".lock")
        left = {*filter(self._is_lock, locked), *self._left_over(locked)}
        for restore_id in left.difference(recorded):
            self._tidy_up(restore_id)
        for restore_id in recorded:
            try:
                entry = self._open(restore_id, 1)
            except (RestoreBusyError, SpoolError):
                continue
            if entry.record is None:
                entry.release()
            else:
                yield entry

    def listing(self) -> list[Listed]:
        """Every restore and dead letter in the spool, without owning or changing anything."""
        alive = [
            self._look(self._path(restore_id), restore_id, dead=False)
            for restore_id in self._restore_ids(".json")
        ]
        dead = [
            self._look(path, name[1], dead=True)
            for path in _files(self.dead)
            if not path.is_symlink() and path.is_file() and (name := _DEAD_NAME.fullmatch(path.name))
        ]
        return [listed for listed in alive + dead if listed is not None]

    def set_aside(self) -> list[Path]:
        """The files that could not be read."""
        return _files(self.aside)

    def sizes(self) -> dict[str, int]:
        """How many files are `waiting`, `dead` and `aside`, and the `bytes` of all files."""
        files = {"waiting": _files(self.directory), "dead": _files(self.dead), "aside": _files(self.aside)}
        size = 0
        for path in [path for paths in files.values() for path in paths]:
            with suppress(OSError):  # gone since the directory was listed
                size += path.stat().st_size
        records = sum(path.suffix == ".json" for path in files["waiting"])
        return {
            "waiting": records,
            "dead": len(files["dead"]),
            "aside": len(files["aside"]),
            "bytes": size,
        }

    def _restore_ids(self, suffix: str) -> list[str]:
        names = [path.name for path in _files(self.directory)]
        ids = {name.removesuffix(suffix) for name in names if name.endswith(suffix)}
        return sorted(filter(is_restore_id, ids))

    def _left_over(self, locked: list[str]) -> set[str]:
        """The restores of which only a file beside the record is left, as the disk would not remove it."""
        names = [path.name for path in _files(self.directory, hidden=True)]
        left = {found[1] for name in names if (found := _BESIDE.fullmatch(name))}
        return set(filter(is_restore_id, left.difference(locked)))

    def _path(self, restore_id: str) -> Path:
        return self.directory / f"{restore_id}.json"

    def _lock_path(self, restore_id: str) -> Path:
        return self.directory / f"{restore_id}.lock"

    def _reserve_path(self, restore_id: str) -> Path:
        return self.directory / _reserve_name(restore_id)

    def _look(self, path: Path, restore_id: str, *, dead: bool) -> Listed | None:
        try:
            record = _read_record(path, restore_id)
        except FileNotFoundError:
            return None  # delivered since the directory was listed
        except (OSError, MalformedError) as problem:
            return Listed(restore_id, None, dead=dead, problem=str(problem))
        owner = None if dead else self._owner(restore_id)
        return Listed(restore_id, record, owner, dead)

    def _named_owner(self, restore_id: str) -> ProcessIdentity | None:
        """Whom the lock file names, dead or alive."""
        try:
            return ProcessIdentity.decode(_read_bounded(self._lock_path(restore_id)))
        except (OSError, MalformedError):
            return None

    def _owner(self, restore_id: str) -> int | None:
        owner = self._named_owner(restore_id)
        return owner.pid if owner is not None and processes.is_alive(owner) else None

    def _is_lock(self, restore_id: str) -> bool:
        """Whether a lock file is one of ours: it names an owner, or is empty, as while it is made."""
        if self._named_owner(restore_id) is not None:
            return True
        try:
            there = self._lock_path(restore_id).stat()
        except OSError:
            return False
        return stat.S_ISREG(there.st_mode) and there.st_size == 0

    def _tidy_up(self, restore_id: str) -> None:
        """Remove all files of a restore without a record if nobody owns it, never saying that we do.

        Who begins to own it at this very moment finds the lock held for an instant, or gone, and tries again.
        """
        path = self._lock_path(restore_id)
        with suppress(OSError):
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_file(lock, path) and not self._path(restore_id).exists():
                    for beside in (self._reserve_path(restore_id), draft_of(self._path(restore_id))):
                        with suppress(OSError):
                            beside.unlink()
                    path.unlink()
            finally:
                os.close(lock)

    def _lock(self, restore_id: str, tries: int) -> int:
        path = self._lock_path(restore_id)
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_file(lock, path):
                    os.ftruncate(lock, 0)
                    write_whole(lock, processes.own_identity().encode())
                    return lock
            except BlockingIOError:
                os.close(lock)
                owner = self._owner(restore_id)
                tries -= 1
                if owner is None and tries > 0:  # it may be about to be tidied up
                    time.sleep(LOCK_SECONDS)
                    continue
                who = "another process" if owner is None else f"process {owner}"
                raise RestoreBusyError(restore_id, f"{who} reports it already") from None
            except OSError as problem:
                if problem.errno not in FULL:
                    os.close(lock)
                    raise
                return lock  # the lock holds without the owner's name in it
            os.close(lock)  # its owner removed it between our open and our lock: once more

    def _load(self, restore_id: str) -> Record | None:
        path = self._path(restore_id)
        try:
            return _read_record(path, restore_id)
        except FileNotFoundError:
            return None
        except MalformedError as problem:
            path.replace(_free_name(self.aside, path.name))
            _log.error(
                "spool.set_aside",
                restore_id=restore_id,
                file=str(path),
                problem=str(problem),
                hint=f"the file was moved to {self.aside}; what it held is not reported",
            )
            return None


class Entry:
    """One restore of the spool, owned. Its calls are safe from any thread."""

    def __init__(self, spool: Spool, restore_id: str, lock: int, record: Record | None) -> None:
        self.restore_id = restore_id
        self.record = record
        """What the file holds; None while there is no file."""
        self._spool = spool
        self._lock: int | None = lock
        self._is_delivered = False
        self._mutex = threading.Lock()
        self._reserve = Reserve(spool.directory, _reserve_name(restore_id), RESERVE_BYTES)

    # Made anew each time: a path takes a quarter of a kilobyte, and an entry lives as long as its restore.

    @property
    def _path(self) -> Path:
        return self._spool._path(self.restore_id)  # noqa: SLF001 - an entry is the spool's own other half

    @property
    def _lock_path(self) -> Path:
        return self._spool._lock_path(self.restore_id)  # noqa: SLF001 - as above

    def write(self, record: Record) -> None:
        """Keep `record` durably; returns when it is. A newer or final report that is kept already stays.

        Nothing is kept of a restore that was discarded, since all of it was acknowledged. Raises
        SpoolError if it cannot be kept; what was kept before stays then.
        """
        with self._mutex:
            if self._is_delivered:
                return
            if self._lock is None:
                raise SpoolError(f"restore {self.restore_id}: it is not ours any more in the spool")
            if self.record is not None and self.record.supersede(record.report) is self.record:
                record = replace(record, report=self.record.report)
            try:
                self._write(record)
            except OSError as problem:
                raise SpoolError(
                    f"restore {self.restore_id}: {self._path} cannot be written: {problem}. Free some space, "
                    "or make it writable; the report is kept in memory until then."
                ) from problem
            self.record = record

    def discard(self) -> None:
        """Forget the restore: all of it was acknowledged, or nothing was ever kept."""
        with self._mutex:
            if self._lock is not None:
                with suppress(FileNotFoundError):
                    self._path.unlink()
                    sync_directory(self._spool.directory)
                self.record = None
                self._is_delivered = True
                self._unlock(self._lock)

    def bury(self) -> None:
        """Keep the record as a dead letter."""
        with self._mutex:
            if self._lock is not None:
                with suppress(FileNotFoundError):
                    self._path.replace(_free_name(self._spool.dead, self._path.name))
                    sync_directory(self._spool.dead)
                    sync_directory(self._spool.directory)
                self._unlock(self._lock)

    def release(self) -> None:
        """Own it no longer, and leave it in the spool for whoever works on it next."""
        with self._mutex:
            if self._lock is not None:
                self._unlock(self._lock)

    def _write(self, record: Record) -> None:
        try:
            replace_file(self._path, record.encode())
        except OSError as problem:
            if not record.report.is_final or problem.errno not in FULL:
                raise
            self._reserve.spend(record.trimmed(self._reserve.size).encode(), self._path)

    def _unlock(self, lock: int) -> None:
        self._lock = None  # first: whatever fails below, its number may be another file's after the close
        self._reserve.release()
        with suppress(OSError):
            draft_of(self._path).unlink()
        with suppress(OSError):
            self._lock_path.unlink()
        with suppress(OSError):  # it is closed all the same
            os.close(lock)


def _reserve_name(restore_id: str) -> str:
    return f".{restore_id}.reserve"


def _is_file(descriptor: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def _files(directory: Path, *, hidden: bool = False) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries]
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise SpoolError(f"the spool {directory} cannot be read: {problem}") from problem
    return [directory / name for name in sorted(names) if (name[0] == ".") is hidden]


def _read_bounded(path: Path) -> bytes:
    """The content of a file that can be a record's; raises MalformedError for what cannot, and OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as problem:
        if problem.errno in {errno.ELOOP, errno.ENXIO}:
            raise MalformedError(f"{path} is no regular file") from problem
        raise
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise MalformedError(f"{path} is no regular file")
        content = b""
        while chunk := os.read(descriptor, MAX_RECORD_BYTES + 1 - len(content)):
            content += chunk
    finally:
        os.close(descriptor)
    if len(content) > MAX_RECORD_BYTES:
        raise MalformedError(f"{path} is larger than any record: over {MAX_RECORD_BYTES} bytes")
    return content


def _read_record(path: Path, restore_id: str) -> Record:
    record = Record.decode(_read_bounded(path))
    if record.report.restore_id != restore_id:
        raise MalformedError(f"{path} is the record of restore {record.report.restore_id}")
    return record


def _free_name(directory: Path, name: str) -> Path:
    path = directory / name
    number = 1
    while path.exists():
        number += 1
        path = directory / f"{name}.{number}"
    return path
