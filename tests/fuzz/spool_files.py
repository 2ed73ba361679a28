"""Files of the spool and of the daemon's journal: what a crash, a bad disk, another version or somebody left there.

An input of records is a byte that chooses what is in the place of the file, its content, a byte 0x1f, and that of
the lock. One of the journal is its lines without their checksums, which are put in front of each but the last.
"""

from __future__ import annotations

import json
import os
import shutil
import zlib
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from agent_reporter.cli.restores_shown import Look, describe
from agent_reporter.cli.status import _cells
from agent_reporter.cli.watch_rows import followed, line, rows
from agent_reporter.daemon.journal import Journal
from agent_reporter.daemon.journal_lines import HEADER
from agent_reporter.daemon.left_behind import LeftBehind
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.client import Client
from agent_reporter.model.error_log import ErrorRecord, Errors
from agent_reporter.model.exchange import Ending, Exchange
from agent_reporter.model.patch import Content, Spelling, operations
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.model.record import Destination, Record
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState
from agent_reporter.model.steps import next_step
from agent_reporter.processes import own_identity
from agent_reporter.spool import RESERVE_BYTES, Spool
from agent_reporter.takeover import after_takeover
from tests.fuzz.fuzzing import Target, a_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from agent_reporter.spool import Entry
    from tests.fuzz.fuzzing import Check

BETWEEN = b"\x1f"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
DESTINATION = Destination("https://backup.example.com", "110011")
LONG_GONE = ProcessIdentity(4_000_000, 17, "an-earlier-boot")
GOOD = Record(DESTINATION, Report("good", 4, RestoreState.COMPLETED, NOW, NOW, 9, 900), undelivered_since=NOW)
ODD_PLACES = (5, 6, 7)
"""Of eight values of the first byte: a folder, a symbolic link and a pipe are in the place of the file."""


def _records() -> Sequence[Record]:
    errors = Errors(3, "unable_to_process_some_files", "two of them", (ErrorRecord("/a", "t", 2, "d", "e"),))
    running = Report("fuzzed", 7, RestoreState.IN_PROGRESS, NOW, None, 5, 700, 50, 7000, errors)
    ended = Report("fuzzed", 9, RestoreState.COMPLETED_WITH_ERRORS, NOW, NOW, 5, 700, 50, 7000, errors)
    known = Acknowledged(6, RestoreState.IN_PROGRESS, NOW, None, 4, 600, 1, None, "r", "d")
    return [
        Record(DESTINATION, Report("fuzzed")),
        Record(
            DESTINATION, running, Exchange(known, uncertain=True, attempt=3, not_before=NOW, failure="503")
        ),
        Record(DESTINATION, running, client=Client(0, (own_identity(), LONG_GONE), stop_requested=True)),
        Record(DESTINATION, ended, Exchange(known, ending=Ending.REJECTED), undelivered_since=NOW),
    ]


class Place:
    """A spool that is made anew for each input."""

    def __init__(self, directory: Path) -> None:
        self._outside = directory
        self._directory = directory / "spool"
        self._spool = Spool(self._directory)

    def a_record_is_read_or_set_aside(self, data: bytes) -> None:
        """A look shows it, who takes over gets it or finds it aside, and the record beside it is not touched."""
        kind, content, lock = data[0] % 8 if data else 0, *data[1:].partition(BETWEEN)[::2]
        self._make(GOOD)
        self._put(kind, self._directory / "fuzzed.json", content)
        (self._directory / "fuzzed.lock").write_bytes(lock)
        can_be_shown(self._spool)
        taken = {entry.restore_id: entry for entry in self._spool.orphans()}
        try:
            assert taken["good"].record == GOOD
            if "fuzzed" in taken:
                goes_on(taken["fuzzed"])
            else:
                aside = self._spool.aside / "fuzzed.json"
                assert kind in ODD_PLACES or aside.read_bytes() == content
                assert os.path.lexists(aside)
            self._spool.sizes()
        finally:
            for entry in taken.values():
                entry.release()

    def a_journal_is_replayed_as_far_as_it_can_be(self, data: bytes) -> None:
        """Its first line is read in any case, no restore is lost to a bad one, and nothing gets out of the spool."""
        self._make(GOOD)
        lines = [_first_line(), *data.split(b"\n")]
        summed = [b"%08x %b\n" % (zlib.crc32(each), each) for each in lines[:-1]]
        (self._directory / "journal.1").write_bytes(HEADER + b"".join(summed) + lines[-1])
        (self._directory / "journal.2").write_bytes(data)
        before = sorted(self._outside.iterdir())
        journal = Journal(self._directory)
        try:
            merged = journal.replay()
            assert "first" in merged
            left = LeftBehind(self._spool, DESTINATION, merged)
            found = left.own()
            try:
                for entry, record in found:
                    assert record.destination == DESTINATION
                    goes_on(entry)
                can_be_shown(self._spool)
            finally:
                for entry, _ in found:
                    entry.release()
        finally:
            journal._disown()
        assert sorted(self._outside.iterdir()) == before
        assert (self._directory / "good.json").read_bytes() == GOOD.encode() or b"good" in data

    def _make(self, *records: Record) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        for folder in (self._directory, self._spool.dead, self._spool.aside):
            folder.mkdir(mode=0o700)
        for record in records:
            (self._directory / f"{record.report.restore_id}.json").write_bytes(record.encode())

    def _put(self, kind: int, path: Path, content: bytes) -> None:
        match kind:
            case 5:
                path.mkdir()
                (path / "something").write_bytes(content)
            case 6:
                path.symlink_to(self._outside / "elsewhere")
            case 7:
                os.mkfifo(path)
            case _:
                path.write_bytes(content)


def can_be_shown(spool: Spool) -> None:
    """`status` and its `--json` say it all."""
    found = Look([describe(listed) for listed in spool.listing()], [str(path) for path in spool.set_aside()])
    json.dumps(found.restores).encode()
    for restore in found.restores:
        "".join(_cells(restore, NOW)).encode(errors="replace")
    for row in rows(followed(followed({}, found, 0.0), found, 5.0), found, 5.0, NOW):
        assert line(row).isprintable()


def goes_on(entry: Entry) -> None:
    """What was read can be delivered, kept again, and is the same when it is read again."""
    record = entry.record
    assert record is not None
    entry.write(after_takeover(record))
    again = Record.decode(record.encode())
    assert again == record
    assert Record.with_changes(None, json.loads(json.dumps(record.changes_since(None)))) == record
    trimmed = len(record.trimmed(RESERVE_BYTES).encode())
    assert trimmed <= max(RESERVE_BYTES, len(replace(record, report=Report("fuzzed")).encode()) + 16_384)
    next_step(record.exchange, record.report)
    known = record.exchange.acknowledged or Acknowledged()
    json.dumps(operations(Content.RESULT, known, record.report, Spelling.DOCUMENT)).encode()


def _first_line() -> bytes:
    record = Record(DESTINATION, Report("first", 2), client=Client(0))
    return json.dumps({"restore_id": "first", "changes": record.changes_since(None)}).encode()


@contextmanager
def _place(check_of: Callable[[Place], Check]) -> Iterator[Check]:
    with a_directory() as directory:
        yield check_of(Place(directory))


def _files() -> Sequence[bytes]:
    locks = (b"", own_identity().encode(), LONG_GONE.encode())
    kept = [bytes([0]) + record.encode() + BETWEEN + lock for record in _records() for lock in locks]
    return [*kept, *(bytes([kind]) + b"{}" for kind in ODD_PLACES)]


def _lines() -> Sequence[bytes]:
    def said(restore_id: str, changes: object) -> bytes:
        return json.dumps({"restore_id": restore_id, "changes": changes}).encode() + b"\n"

    bare, running, of_client, ended = _records()
    return [
        said("fuzzed", of_client.changes_since(None)),
        said("fuzzed", bare.changes_since(None)) + said("fuzzed", running.changes_since(bare)),
        said("fuzzed", running.changes_since(None)) + said("fuzzed", ended.changes_since(running)) + b"torn",
        said("fuzzed", of_client.changes_since(None)) + said("fuzzed", {"over": True}),
        said("other", {"revision": 3}),
        said("good", {"revision": 5, "state": "failed"}),
    ]


_MODEL = tuple(
    f"model/{name}.py" for name in ("record", "report", "exchange", "documents", "process_identity")
)
TARGETS = [
    Target(
        "spool-records",
        ("spool.py", *_MODEL, "cli/restores_shown.py"),
        _files,
        partial(_place, lambda place: place.a_record_is_read_or_set_aside),
    ),
    Target(
        "spool-journal",
        ("daemon/journal_lines.py", "daemon/left_behind.py", *_MODEL),
        _lines,
        partial(_place, lambda place: place.a_journal_is_replayed_as_far_as_it_can_be),
    ),
]
