from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import stat
import tempfile
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter import durable, processes, spool
from agent_reporter.errors import MalformedError, RestoreBusyError, SpoolError
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.dialect import Dialect, Progress
from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.model.error_log import MAX_DIAGNOSTICS, ErrorRecord, Errors, clean_text
from agent_reporter.model.exchange import Ending, Exchange
from agent_reporter.model.patch import Spelling
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.model.record import Destination, Record
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState
from agent_reporter.spool import Spool
from tests.builders import (
    a_record,
    a_report,
    a_result,
    fill,
    listening,
    names,
    needs_root,
    python,
    python_that_waits,
    tiny_disk,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

TRICKY_IDS = ["a.json", "a.json.b", "a.lock", "a.json.2", "dead", "aside", "a..b", "a-", "A" * 128]

OWN_AND_WAIT = """
import sys, pathlib
from agent_reporter.spool import Spool
from agent_reporter.model.record import Record
entry = Spool(pathlib.Path(sys.argv[1])).open(sys.argv[2])
if len(sys.argv) > 3:
    entry.write(Record.decode(pathlib.Path(sys.argv[3]).read_bytes()))
print("ready", flush=True)
sys.stdin.readline()
entry.release()
print("released", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


def kept(directory: Path, record: Record) -> None:
    """Keep `record`, and own it no longer."""
    entry = Spool(directory).open(record.report.restore_id)
    entry.write(record)
    entry.release()


def buried(directory: Path, record: Record) -> None:
    entry = Spool(directory).open(record.report.restore_id)
    entry.write(record)
    entry.bury()


def orphan_ids(directory: Path) -> list[str]:
    orphans = list(Spool(directory).orphans())
    for orphan in orphans:
        orphan.release()
    return [orphan.restore_id for orphan in orphans]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- what is kept, and by whom ----------------------------------------------------------------------------


def test_what_was_written_is_read_back_by_the_next_owner(directory: Path) -> None:
    record = a_record(a_result())
    kept(directory, record)
    entry = Spool(directory).open("r-1")
    assert entry.record == record
    entry.release()


def test_directories_and_files_are_their_owners_alone_whatever_the_umask(directory: Path) -> None:
    before = os.umask(0)
    try:
        entry = Spool(directory).open("r-1")
        entry.write(a_record())
    finally:
        os.umask(before)
    assert [mode_of(path) for path in (directory, directory / "dead", directory / "aside")] == [0o700] * 3
    assert {path.name: mode_of(path) for path in directory.iterdir() if path.is_file()} == {
        "r-1.json": 0o600,
        "r-1.lock": 0o600,
        ".r-1.reserve": 0o600,
    }
    entry.release()


def test_an_entry_that_is_released_leaves_its_record_and_nothing_else(directory: Path) -> None:
    kept(directory, a_record())
    assert names(directory) == ["aside", "dead", "r-1.json"]


def test_an_entry_that_is_discarded_leaves_nothing(directory: Path) -> None:
    entry = Spool(directory).open("r-1")
    entry.write(a_record())
    entry.discard()
    entry.discard()
    assert names(directory) == ["aside", "dead"]
    assert entry.record is None


def test_an_entry_that_never_held_a_record_can_be_discarded_released_or_buried(directory: Path) -> None:
    for end in ("discard", "release", "bury"):
        getattr(Spool(directory).open("r-1"), end)()
    assert names(directory) == ["aside", "dead"]
    assert names(directory / "dead") == []


@pytest.mark.parametrize("first", ["discard", "release", "bury"])
@pytest.mark.parametrize("second", ["discard", "release", "bury"])
def test_after_its_end_an_entry_touches_nothing_any_more(directory: Path, first: str, second: str) -> None:
    entry = Spool(directory).open("r-1")
    entry.write(a_record())
    getattr(entry, first)()
    other = Spool(directory).open("r-1")
    other.write(a_record(a_report(revision=7)))
    getattr(entry, second)()
    with pytest.raises(RestoreBusyError):
        Spool(directory).open("r-1")
    assert Record.decode((directory / "r-1.json").read_bytes()) == other.record
    other.release()


def test_a_spool_directory_that_was_just_made_is_itself_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    fsync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    entry = Spool(tmp_path / "state" / "spool").open("r-1")
    entry.write(a_record(a_result()))
    entry.release()
    assert tmp_path / "state" / "spool" in synced
    assert tmp_path / "state" in synced
    assert tmp_path in synced


def test_a_spool_where_no_directory_can_be_says_so_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match=r"restore r-1: the spool .* cannot be used.*spool_dir"):
        Spool(tmp_path / "file" / "spool").open("r-1")


def test_a_lock_that_its_owner_removed_meanwhile_is_no_lock(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Spool(directory).open("r-1")
    flock = fcntl.flock

    def lock_late(descriptor: int, operation: int) -> None:
        entry.release()  # it takes its file along, once
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", lock_late)
    before = open_descriptors()
    again = Spool(directory).open("r-1")
    with pytest.raises(RestoreBusyError):
        Spool(directory).open("r-1")
    again.release()
    assert open_descriptors() == before - 1, "without the first entry's"


def test_a_restore_is_owned_once_within_a_process(directory: Path) -> None:
    entry = Spool(directory).open("r-1")
    with pytest.raises(RestoreBusyError, match=f"restore r-1: process {os.getpid()} reports it already"):
        Spool(directory).open("r-1")
    Spool(directory).open("r-2").release()
    entry.release()
    Spool(directory).open("r-1").release()


def test_a_restore_is_owned_once_across_processes(directory: Path) -> None:
    with python_that_waits(OWN_AND_WAIT, directory, "r-1") as owner:
        with pytest.raises(RestoreBusyError, match=f"process {owner.pid} reports it already"):
            Spool(directory).open("r-1")
        assert owner.stdin is not None
        assert owner.stdout is not None
        owner.stdin.write("\n")
        owner.stdin.flush()
        assert owner.stdout.readline() == "released\n"
        Spool(directory).open("r-1").release()


def test_of_many_threads_that_open_a_restore_at_once_one_gets_it(directory: Path) -> None:
    owners: list[spool.Entry] = []
    busy: list[RestoreBusyError] = []
    barrier = threading.Barrier(8)

    def open_it() -> None:
        barrier.wait()
        try:
            owners.append(Spool(directory).open("r-1"))
        except RestoreBusyError as problem:
            busy.append(problem)

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(owners), len(busy)) == (1, 7)
    owners[0].release()


def test_opening_and_releasing_in_many_threads_never_gives_two_owners(directory: Path) -> None:
    owners = 0
    seen: list[int] = []
    guard = threading.Lock()

    def work() -> None:
        nonlocal owners
        for _ in range(60):
            try:
                entry = Spool(directory).open("r-1")
            except RestoreBusyError:
                continue
            with guard:
                owners += 1
                seen.append(owners)
            with guard:
                owners -= 1
            entry.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(seen) == {1}


def test_the_record_of_an_owner_that_was_killed_is_an_orphan_and_is_taken_over(
    directory: Path, tmp_path: Path
) -> None:
    record = a_record(a_result())
    (tmp_path / "record").write_bytes(record.encode())
    with python_that_waits(OWN_AND_WAIT, directory, "r-1", tmp_path / "record") as owner:
        assert [listed.owner for listed in Spool(directory).listing()] == [owner.pid]
        assert list(Spool(directory).orphans()) == []
        owner.send_signal(signal.SIGKILL)
        owner.wait()
        assert [listed.owner for listed in Spool(directory).listing()] == [None]
        (orphan,) = Spool(directory).orphans()
    assert orphan.record == record
    assert list(Spool(directory).orphans()) == []
    orphan.discard()
    assert names(directory) == ["aside", "dead"]


def test_what_an_owner_left_that_was_killed_before_its_first_record_is_tidied_up(directory: Path) -> None:
    with python_that_waits(OWN_AND_WAIT, directory, "r-1") as owner:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert list(Spool(directory).orphans()) == []
    assert names(directory) == ["aside", "dead"], "a lock and 64 KiB of reserve would stay for ever"


def test_all_that_a_dead_owner_left_is_tidied_up_unless_somebody_holds_its_lock(directory: Path) -> None:
    Spool(directory).open("r-1").release()
    for name in (".r-1.json.new", ".r-1.reserve"):
        (directory / name).write_bytes(b"left")
    (directory / "r-1.lock").write_bytes(ProcessIdentity(4711, 5, "an earlier boot").encode())
    with (directory / "r-1.lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert list(Spool(directory).orphans()) == []
        assert (directory / "r-1.lock").exists()
    assert list(Spool(directory).orphans()) == []
    assert names(directory) == ["aside", "dead"]


def test_a_record_that_is_made_while_a_dead_owners_lock_is_tidied_up_stays_with_its_lock(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Spool(directory).open("r-1").release()
    (directory / "r-1.lock").write_bytes(ProcessIdentity(4711, 5, "an earlier boot").encode())
    flock = fcntl.flock

    def lock_late(descriptor: int, operation: int) -> None:
        (directory / "r-1.json").write_bytes(a_record().encode())
        flock(descriptor, operation)

    with monkeypatch.context() as late:
        late.setattr(fcntl, "flock", lock_late)
        assert list(Spool(directory).orphans()) == []
    assert names(directory) == ["aside", "dead", "r-1.json", "r-1.lock"]
    assert orphan_ids(directory) == ["r-1"]


def test_a_spool_that_is_no_directory_is_said_to_be_unreadable(directory: Path) -> None:
    directory.touch()
    for look in (Spool(directory).listing, Spool(directory).sizes, lambda: list(Spool(directory).orphans())):
        with pytest.raises(SpoolError, match=f"the spool {directory} cannot be read"):
            look()


def test_the_half_written_file_of_an_owner_that_was_killed_is_tidied_up(directory: Path) -> None:
    kept(directory, a_record())
    (directory / ".r-1.json.new").write_bytes(b"half of a rec")
    (orphan,) = Spool(directory).orphans()
    orphan.discard()
    assert names(directory) == ["aside", "dead"]


def test_a_second_process_delivering_the_same_orphans_gets_those_that_are_left(directory: Path) -> None:
    for restore_id in ("r-1", "r-2"):
        kept(directory, a_record(a_report(restore_id)))
    with python_that_waits(OWN_AND_WAIT, directory, "r-1"):
        assert orphan_ids(directory) == ["r-2"]


# --- which report stays -----------------------------------------------------------------------------------


def test_a_final_report_is_never_replaced_by_a_later_one(directory: Path) -> None:
    entry = Spool(directory).open("r-1")
    final = a_result(revision=5)
    entry.write(a_record(final))
    entry.write(a_record(a_report(revision=6, bytes_restored=7)))
    entry.write(a_record(a_result(revision=7, state=RestoreState.FAILED)))
    entry.release()
    assert Record.decode((directory / "r-1.json").read_bytes()).report == final


def test_a_newer_report_is_never_replaced_by_an_older_one(directory: Path) -> None:
    entry = Spool(directory).open("r-1")
    entry.write(a_record(a_report(revision=5)))
    entry.write(a_record(a_report(revision=4)))
    assert entry.record is not None
    assert entry.record.report.revision == 5
    entry.release()


def test_a_report_that_stays_still_takes_the_newest_of_its_delivery(directory: Path) -> None:
    entry = Spool(directory).open("r-1")
    entry.write(a_record(a_result()))
    entry.write(a_record(a_report(), exchange=Exchange(attempt=3, failure="HTTP 503")))
    entry.release()
    record = Record.decode((directory / "r-1.json").read_bytes())
    assert record.report == a_result()
    assert (record.exchange.attempt, record.exchange.failure) == (3, "HTTP 503")


def test_of_what_many_threads_write_the_newest_stays(directory: Path) -> None:
    entry = Spool(directory).open("r-1")
    revisions = list(range(1, 201))
    barrier = threading.Barrier(4)

    def write(mine: list[int]) -> None:
        barrier.wait()
        for revision in mine:
            entry.write(a_record(a_report(revision=revision)))

    threads = [
        threading.Thread(target=write, args=(revisions[part::4][:: (-1) ** part],)) for part in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entry.release()
    assert Record.decode((directory / "r-1.json").read_bytes()).report.revision == 200


def test_a_result_that_comes_after_the_entry_was_released_is_not_said_to_be_kept(directory: Path) -> None:
    entry = Spool(directory).open("r-1")
    entry.write(a_record(a_report()))
    entry.release()
    with pytest.raises(SpoolError, match="r-1"):
        entry.write(a_record(a_result()))
    assert Record.decode((directory / "r-1.json").read_bytes()).report == a_report()


def test_a_write_after_all_was_delivered_does_not_bring_the_record_back(directory: Path) -> None:
    entry = Spool(directory).open("r-1")
    entry.write(a_record(a_result()))
    entry.discard()
    entry.write(a_record(a_result()))
    assert names(directory) == ["aside", "dead"]


# --- dead letters -----------------------------------------------------------------------------------------


def test_a_dead_letter_is_kept_and_listed_and_is_no_orphan(directory: Path) -> None:
    record = a_record(a_result())
    buried(directory, record)
    assert names(directory) == ["aside", "dead"]
    assert orphan_ids(directory) == []
    (listed,) = Spool(directory).listing()
    assert (listed.restore_id, listed.record, listed.dead, listed.owner) == ("r-1", record, True, None)


def test_a_dead_letter_has_no_owner_though_its_restore_is_reported_again(directory: Path) -> None:
    buried(directory, a_record(a_result()))
    entry = Spool(directory).open("r-1")
    entry.write(a_record())
    assert [(listed.dead, listed.owner) for listed in Spool(directory).listing()] == [
        (False, os.getpid()),
        (True, None),
    ]
    entry.release()


def test_dead_letters_of_the_same_restore_do_not_overwrite_each_other(directory: Path) -> None:
    records = [a_record(a_result(revision=revision)) for revision in (1, 2, 3)]
    for record in records:
        buried(directory, record)
    assert names(directory / "dead") == ["r-1.json", "r-1.json.2", "r-1.json.3"]
    listed = Spool(directory).listing()
    assert [letter.restore_id for letter in listed] == ["r-1"] * 3
    assert [letter.record for letter in listed] == records


@pytest.mark.parametrize("restore_id", TRICKY_IDS)
def test_ids_that_look_like_tricks_with_file_names_are_ids_like_others(
    directory: Path, restore_id: str
) -> None:
    record = a_record(a_result(restore_id))
    kept(directory, record)
    assert [listed.restore_id for listed in Spool(directory).listing()] == [restore_id]
    (orphan,) = Spool(directory).orphans()
    assert (orphan.restore_id, orphan.record) == (restore_id, record)
    assert [listed.owner for listed in Spool(directory).listing()] == [os.getpid()]
    orphan.release()


@pytest.mark.parametrize("restore_id", TRICKY_IDS)
def test_dead_letters_of_ids_that_look_like_tricks_are_listed_under_their_id(
    directory: Path, restore_id: str
) -> None:
    for revision in (1, 2):
        buried(directory, a_record(a_result(restore_id, revision=revision)))
    assert [(listed.restore_id, listed.dead) for listed in Spool(directory).listing()] == [
        (restore_id, True)
    ] * 2


def test_ids_that_differ_by_a_suffix_do_not_get_in_each_others_way(directory: Path) -> None:
    ids = ["a", "a.json", "a.lock", "a.json.lock", "a.reserve", "a.json.new"]
    entries = [Spool(directory).open(restore_id) for restore_id in ids]
    for entry in entries:
        entry.write(a_record(a_report(entry.restore_id)))
    assert [listed.restore_id for listed in Spool(directory).listing()] == sorted(ids)
    for entry in entries:
        entry.release()
    assert sorted(orphan_ids(directory)) == sorted(ids)


# --- files that are not what they should be ---------------------------------------------------------------


CONTENTS = {
    "empty": b"",
    "garbage": bytes(range(256)),
    "other JSON": b'{"hello": "world"}',
    "half": a_record().encode()[:-40],
    "newer format": json.dumps({**a_record().to_document(), "format": 2}).encode(),
    "bottomless": b'{"format":' + b"[" * 100_000,
    "huge": bytes(spool.MAX_RECORD_BYTES + 1),
}


def damage(path: Path, kind: str) -> None:
    """Put something that is no record where a record should be."""
    match kind:
        case "symlink":
            target = path.parent.parent / "elsewhere"
            target.write_bytes(a_record(a_report(path.stem)).encode())
            path.symlink_to(target)
        case "dangling symlink":
            path.symlink_to(path.parent / "nowhere")
        case "circular symlink":
            path.symlink_to(path)
        case "directory":
            path.mkdir()
            (path / "something").touch()
        case "FIFO":
            os.mkfifo(path)
        case _:
            path.write_bytes(CONTENTS[kind])


UNREADABLE = [*CONTENTS, "symlink"]
IRREGULAR = ["dangling symlink", "circular symlink", "directory", "FIFO"]


@pytest.mark.parametrize("kind", UNREADABLE + IRREGULAR)
def test_a_file_that_is_no_record_stops_neither_listing_nor_orphans(directory: Path, kind: str) -> None:
    kept(directory, a_record(a_report("good")))
    damage(directory / "bad.json", kind)
    listed = {entry.restore_id: entry for entry in Spool(directory).listing()}
    assert listed["good"].record is not None
    if kind in UNREADABLE:
        assert listed["bad"].record is None
        assert listed["bad"].problem
    assert (directory / "bad.json").exists() or (directory / "bad.json").is_symlink(), (
        "a look changes nothing"
    )
    assert orphan_ids(directory) == ["good"]


@pytest.mark.parametrize("kind", UNREADABLE + IRREGULAR)
def test_a_file_that_is_no_record_is_set_aside_and_reported_when_its_restore_is_opened(
    directory: Path, kind: str
) -> None:
    kept(directory, a_record(a_report("good")))
    damage(directory / "bad.json", kind)
    with listening() as heard:
        entry = Spool(directory).open("bad")
    assert entry.record is None
    entry.write(a_record(a_report("bad")))
    entry.release()
    assert names(directory / "aside") == ["bad.json"]
    (event,) = heard.named("spool.set_aside")
    assert (event["restore_id"], event["level"]) == ("bad", "error")
    assert str(directory / "aside") in event["hint"]
    assert not (directory / "bad.json").is_symlink()
    assert Record.decode((directory / "bad.json").read_bytes()).report.restore_id == "bad"


@pytest.mark.parametrize("kind", IRREGULAR)
def test_setting_a_file_aside_keeps_no_descriptor_open(directory: Path, kind: str) -> None:
    Spool(directory).open("bad").release()
    before = len(names(Path("/proc/self/fd")))
    for _ in range(3):
        damage(directory / "bad.json", kind)
        Spool(directory).open("bad").discard()
    assert len(names(Path("/proc/self/fd"))) == before


def test_what_is_wrong_with_a_file_is_said_where_it_is_listed_and_where_it_is_set_aside(
    directory: Path,
) -> None:
    Spool(directory).open("bad").release()
    (directory / "bad.json").write_bytes(b'{"format": 2}')
    (listed,) = Spool(directory).listing()
    assert (listed.problem, listed.record, listed.dead) == (
        "format 2 is not one this version reads",
        None,
        False,
    )
    with listening() as heard:
        Spool(directory).open("bad").release()
    (event,) = heard.named("spool.set_aside")
    assert event["problem"] == listed.problem
    assert event["file"] == str(directory / "bad.json")
    assert event["hint"].endswith("; what it held is not reported")
    assert Spool(directory).set_aside() == [directory / "aside" / "bad.json"]


@pytest.mark.parametrize(("more", "is_read"), [(0, True), (1, False)])
def test_a_record_is_read_up_to_the_most_that_one_can_be(directory: Path, more: int, is_read: bool) -> None:  # noqa: FBT001 - a parameter
    Spool(directory).open("r-1").release()
    content = a_record().encode()
    padding = b" " * (spool.MAX_RECORD_BYTES + more - len(content))
    (directory / "r-1.json").write_bytes(content + padding)
    (listed,) = Spool(directory).listing()
    assert (listed.record is not None) is is_read
    assert ("is larger than any record: over 8388608 bytes" in listed.problem) is not is_read


@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_is_no_file_is_said_to_be_none(directory: Path, kind: str) -> None:
    kept(directory, a_record(a_report("good")))
    damage(directory / "bad.json", kind)
    problems = {listed.restore_id: listed.problem for listed in Spool(directory).listing()}
    assert problems.get("bad", "") in {"", f"{directory / 'bad.json'} is no regular file"}


def test_files_that_are_set_aside_do_not_overwrite_each_other(directory: Path) -> None:
    Spool(directory).open("bad").release()
    for text in ("one", "two"):
        (directory / "bad.json").write_text(text)
        Spool(directory).open("bad").release()
    assert [path.read_text() for path in Spool(directory).set_aside()] == ["one", "two"]


def test_a_record_that_is_another_restores_is_set_aside(directory: Path) -> None:
    kept(directory, a_record(a_report("r-1")))
    shutil.copy(directory / "r-1.json", directory / "r-2.json")
    with listening() as heard:
        assert orphan_ids(directory) == ["r-1"], "one restore is never reported under two locks"
    assert heard.named("spool.set_aside")
    assert names(directory / "aside") == ["r-2.json"]


def test_a_record_that_is_another_restores_is_listed_as_a_problem_and_not_as_that_other_restore(
    directory: Path,
) -> None:
    kept(directory, a_record(a_report("r-1")))
    shutil.copy(directory / "r-1.json", directory / "r-2.json")
    listed = {each.restore_id: each.problem for each in Spool(directory).listing()}
    assert set(listed) == {"r-1", "r-2"}
    assert (listed["r-1"], bool(listed["r-2"])) == ("", True)


@pytest.mark.parametrize("kind", ["garbage", "directory"])
def test_a_file_that_can_be_neither_read_nor_set_aside_stays_and_stops_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    for restore_id in ("a", "z"):
        kept(directory, a_record(a_report(restore_id)))
    damage(directory / "bad.json", kind)
    real_replace = Path.replace

    def refuse(self: Path, target: Path) -> Path:
        if target.parent.name == "aside":
            raise OSError(errno.EACCES, "Permission denied")
        return real_replace(self, target)

    monkeypatch.setattr(Path, "replace", refuse)
    assert orphan_ids(directory) == ["a", "z"]
    assert (directory / "bad.json").exists(), "what could not be read was deleted"


def test_foreign_files_and_hidden_ones_are_ignored(directory: Path) -> None:
    kept(directory, a_record())
    for name in ("README", ".hidden.json", "notes.txt", "-x.json", "sp ace.json", "ü.json", ".json"):
        (directory / name).write_text("not ours")
    assert [listed.restore_id for listed in Spool(directory).listing()] == ["r-1"]
    assert orphan_ids(directory) == ["r-1"]
    assert (directory / "README").read_text() == "not ours"
    assert names(directory / "aside") == []


def test_foreign_files_among_the_dead_letters_are_reported_or_ignored(directory: Path) -> None:
    buried(directory, a_record(a_result()))
    (directory / "dead" / "x.json").write_text("garbage")
    (directory / "dead" / "README").write_text("not ours")
    os.mkfifo(directory / "dead" / "fifo.json")
    listed = {letter.restore_id: letter for letter in Spool(directory).listing()}
    assert set(listed) == {"r-1", "x"}
    assert listed["x"].dead
    assert listed["x"].problem


@pytest.mark.parametrize("kind", ["FIFO", "directory", "dangling symlink", "symlink"])
def test_a_lock_that_is_no_file_stops_that_restore_alone(directory: Path, kind: str) -> None:
    for restore_id in ("r-1", "r-2"):
        kept(directory, a_record(a_report(restore_id)))
    damage(directory / "r-1.lock", kind)
    assert orphan_ids(directory) == ["r-2"]
    assert {listed.restore_id for listed in Spool(directory).listing()} == {"r-1", "r-2"}
    with pytest.raises(SpoolError, match="r-1"):
        Spool(directory).open("r-1")


@pytest.mark.parametrize("content", [b"", b"nonsense", b'{"pid": 1}', b"[1]", b"\xff", b"x" * 10_000])
def test_a_lock_that_nobody_holds_is_taken_whatever_it_says(directory: Path, content: bytes) -> None:
    kept(directory, a_record())
    (directory / "r-1.lock").write_bytes(content)
    assert [listed.owner for listed in Spool(directory).listing()] == [None]
    (orphan,) = Spool(directory).orphans()
    assert (directory / "r-1.lock").read_bytes() == processes.own_identity().encode()
    orphan.release()


def test_a_lock_of_ours_that_could_not_be_removed_is_tidied_up(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Spool(directory).open("r-1")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _broken)
        entry.release()
    assert "r-1.lock" in names(directory)
    assert orphan_ids(directory) == []
    assert sorted(path.name for path in directory.iterdir()) == ["aside", "dead"]


def _broken(*_: object, **_options: object) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_a_lock_that_the_disk_does_not_let_us_close_well_is_closed_once_and_no_other_file_instead(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, closed = os.close, []

    def fails_afterwards(descriptor: int) -> None:
        close(descriptor)
        closed.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    entry = Spool(directory).open("r-1")
    with monkeypatch.context() as broken:
        broken.setattr(os, "close", fails_afterwards)
        entry.release()
        entry.release()
    assert len(closed) == 1
    Spool(directory).open("r-1").release()


def test_a_lock_that_was_made_and_never_named_is_tidied_up(directory: Path) -> None:
    kept(directory, a_record(a_report("r-2")))
    (directory / "r-1.lock").touch()
    assert orphan_ids(directory) == ["r-2"]
    assert not (directory / "r-1.lock").exists()


@pytest.mark.parametrize("name", [".r-1.reserve", ".r-1.json.new"])
def test_what_the_disk_would_not_remove_is_removed_by_who_looks_next(directory: Path, name: str) -> None:
    Spool(directory).open("r-2").discard()
    (directory / name).write_bytes(bytes(100))
    assert orphan_ids(directory) == []
    assert sorted(path.name for path in directory.iterdir()) == ["aside", "dead"]


@pytest.mark.parametrize("name", [".my data.json.new", ".-x.json.new", "..reserve", ".notes"])
def test_a_hidden_file_of_somebody_else_stays(directory: Path, name: str) -> None:
    Spool(directory).open("r-2").discard()
    (directory / name).write_text("not ours")
    assert orphan_ids(directory) == []
    assert (directory / name).read_text() == "not ours"


def test_what_is_beside_a_record_stays_for_its_owner(directory: Path) -> None:
    entry = Spool(directory).open("r-1")
    assert orphan_ids(directory) == []
    assert (directory / ".r-1.reserve").exists()
    entry.release()


@pytest.mark.parametrize("kind", ["FIFO", "directory", "dangling symlink", "symlink", "text"])
def test_a_lock_of_somebody_else_is_never_removed(directory: Path, kind: str) -> None:
    Spool(directory).open("r-2").discard()
    if kind == "text":
        (directory / "r-1.lock").write_text("not ours")
    else:
        damage(directory / "r-1.lock", kind)
    assert orphan_ids(directory) == []
    assert os.path.lexists(directory / "r-1.lock")


def test_who_makes_a_lock_while_it_is_tidied_up_gets_it_all_the_same(directory: Path) -> None:
    Spool(directory).open("r-2").discard()
    path = directory / "r-1.lock"
    held = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)

    def tidy_up() -> None:
        path.unlink()
        os.close(held)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent_reporter.spool.time.sleep", lambda _: tidy_up())
        entry = Spool(directory).open("r-1")
    assert path.read_bytes() == processes.own_identity().encode()
    entry.release()


def test_a_lock_that_somebody_holds_without_a_name_is_another_process_and_stays_as_it_is(
    directory: Path,
) -> None:
    kept(directory, a_record())
    with (directory / "r-1.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RestoreBusyError, match="restore r-1: another process reports it already"):
            Spool(directory).open("r-1")
        assert orphan_ids(directory) == []
    assert (directory / "r-1.lock").exists()


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM])
def test_a_good_record_that_cannot_be_read_right_now_is_not_set_aside(
    directory: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    kept(directory, a_record(a_result()))
    real_open = os.open

    def fail(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith(".json"):
            raise OSError(number, os.strerror(number))
        return real_open(path, *arguments, **options)

    with monkeypatch.context() as broken:
        broken.setattr(os, "open", fail)
        with pytest.raises(SpoolError, match="r-1"):
            Spool(directory).open("r-1")
        assert orphan_ids(directory) == []
    assert orphan_ids(directory) == ["r-1"]


def test_no_result_is_lost_where_there_are_more_orphans_than_descriptors(directory: Path) -> None:
    for number in range(40):
        kept(directory, a_record(a_result(f"r-{number}")))
    script = (
        "import sys, pathlib, resource\n"
        "from agent_reporter.spool import Spool\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[2]), int(sys.argv[2])))\n"
        "orphans = list(Spool(pathlib.Path(sys.argv[1])).orphans())\n"
        "print(len(orphans))\n"
    )
    for descriptors in (32, 33):  # whichever call it is that gets none
        taken = python(script, directory, descriptors)
        assert taken.returncode == 0, taken.stderr
        assert int(taken.stdout) > 5
    assert names(directory / "aside") == []
    assert len(orphan_ids(directory)) == 40
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 64


@needs_root
def test_files_that_may_not_be_read_stop_neither_listing_nor_orphans() -> None:
    home = Path(tempfile.mkdtemp(prefix="spool-of-nobody-", dir="/tmp"))
    try:
        directory = home / "spool"
        kept(directory, a_record(a_report("good")))
        (directory / "secret.json").write_bytes(a_record(a_report("secret")).encode())
        secrets = home / "secrets"
        secrets.mkdir(mode=0o700)
        (directory / "pointer.json").symlink_to(secrets / "x.json")
        for path in (home, directory, directory / "dead", directory / "aside", directory / "good.json"):
            os.chown(path, 65534, 65534)
        (directory / "secret.json").chmod(0o600)
        script = (
            "import os, sys, pathlib\n"
            "from agent_reporter.spool import Spool\n"
            "os.setgroups([]), os.setgid(65534), os.setuid(65534)\n"
            "spool = Spool(pathlib.Path(sys.argv[1]))\n"
            "print(*sorted(listed.restore_id for listed in spool.listing() if listed.record))\n"
            "print(*(orphan.restore_id for orphan in spool.orphans()))\n"
        )
        seen = python(script, directory)
        assert (seen.returncode, seen.stdout) == (0, "good\ngood\n"), seen.stderr
    finally:
        shutil.rmtree(home)


# --- looking without touching -----------------------------------------------------------------------------


def test_a_spool_that_is_not_there_lists_nothing_and_is_not_made(directory: Path) -> None:
    assert Spool(directory).listing() == []
    assert list(Spool(directory).orphans()) == []
    assert Spool(directory).set_aside() == []
    assert not directory.exists()


def test_what_the_spool_holds_is_counted_by_kind_and_size(directory: Path) -> None:
    assert Spool(directory).sizes() == {"waiting": 0, "dead": 0, "aside": 0, "bytes": 0}
    for restore_id in ("a", "b", "c"):
        kept(directory, a_record(a_report(restore_id)))
    for _ in range(2):
        buried(directory, a_record(a_report("dead")))
    (directory / "aside" / "damaged.json").write_bytes(b"?")
    (directory / "note").write_bytes(b"four")
    (directory / ".hidden").write_bytes(b"not counted")
    files = [path for path in directory.rglob("*") if path.is_file() and path.name[0] != "."]
    files += [directory / "dead", directory / "aside"]
    assert Spool(directory).sizes() == {
        "waiting": 3,
        "dead": 2,
        "aside": 1,
        "bytes": sum(path.stat().st_size for path in files),
    }
    (directory / "gone.json").symlink_to(directory / "nowhere")
    assert Spool(directory).sizes()["waiting"] == 4, "what cannot be measured is counted all the same"
    assert Spool(directory).set_aside() == [directory / "aside" / "damaged.json"]


def test_listing_owns_nothing_and_changes_nothing(directory: Path) -> None:
    entry = Spool(directory).open("mine")
    entry.write(a_record(a_report("mine")))
    kept(directory, a_record(a_report("orphan")))
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    listed = Spool(directory).listing()
    assert [(each.restore_id, each.owner, each.dead) for each in listed] == [
        ("mine", os.getpid(), False),
        ("orphan", None, False),
    ]
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == before
    Spool(directory).open("orphan").release()
    entry.release()


def test_a_record_that_goes_while_the_spool_is_listed_is_left_out(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for restore_id in ("a", "b"):
        kept(directory, a_record(a_report(restore_id)))
    read = spool._read_bounded

    def read_slowly(path: Path) -> bytes:
        (directory / "a.json").unlink(missing_ok=True)
        return read(path)

    monkeypatch.setattr(spool, "_read_bounded", read_slowly)
    assert [listed.restore_id for listed in Spool(directory).listing()] == ["b"]


# --- disks that are full ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tiny_disk(tmp_path / "disk", kibibytes=512) as mounted:
        yield mounted


def test_on_a_full_disk_progress_is_refused_with_what_to_do_and_the_old_record_stays(disk: Path) -> None:
    entry = Spool(disk).open("r-1")
    entry.write(a_record(a_report(revision=1)))
    fill(disk)
    with pytest.raises(SpoolError, match=r"restore r-1: .*No space left.*Free some space"):
        entry.write(a_record(a_report(revision=2)))
    assert entry.record == a_record(a_report(revision=1))
    entry.release()
    assert Record.decode((disk / "r-1.json").read_bytes()) == a_record(a_report(revision=1))


def test_on_a_full_disk_a_result_is_kept_out_of_the_reserve(disk: Path) -> None:
    entry = Spool(disk).open("r-1")
    entry.write(a_record(a_report()))
    fill(disk)
    entry.write(a_record(a_result()))
    entry.release()
    assert Record.decode((disk / "r-1.json").read_bytes()).report == a_result()


def test_on_a_full_disk_a_result_with_many_errors_keeps_those_that_fit_and_the_count(disk: Path) -> None:
    errors = Errors(700, "reason", "diagnostics", tuple(ErrorRecord(f"/{i}", "type", 2) for i in range(5000)))
    entry = Spool(disk).open("r-1")
    fill(disk)
    entry.write(a_record(replace(a_result(), errors=errors)))
    entry.release()
    kept_errors = Record.decode((disk / "r-1.json").read_bytes()).report.errors
    assert (kept_errors.count, kept_errors.reason, kept_errors.diagnostics) == (700, "reason", "diagnostics")
    assert 100 < len(kept_errors.records) < 5000


@pytest.mark.parametrize("letter", ["x", "ä", "語", "😀", "\x01"])
def test_on_a_full_disk_a_result_is_kept_in_whatever_language_its_diagnostics_are(
    disk: Path, letter: str
) -> None:
    errors = Errors(1, "reason", clean_text(letter * 50_000, MAX_DIAGNOSTICS))
    entry = Spool(disk).open("r-1")
    fill(disk)
    entry.write(a_record(replace(a_result(), errors=errors)))
    entry.release()
    report = Record.decode((disk / "r-1.json").read_bytes()).report
    assert (report.state, report.errors.count) == (RestoreState.COMPLETED, 1)


def test_a_restore_can_be_owned_on_a_disk_that_is_full_already(disk: Path) -> None:
    Spool(disk).open("r-0").release()
    ballast = fill(disk)
    entry = Spool(disk).open("r-1")
    with pytest.raises(RestoreBusyError, match="another process"):
        Spool(disk).open("r-1")
    with pytest.raises(SpoolError):
        entry.write(a_record(a_result()))
    ballast.unlink()
    entry.write(a_record(a_result()))
    entry.release()


def test_a_disk_quota_that_is_used_up_is_a_full_disk(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(directory, a_record())

    def refuse(_descriptor: int, _content: bytes) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(spool, "write_whole", refuse)
    entry = Spool(directory).open("r-1")
    with pytest.raises(RestoreBusyError, match="another process"):
        Spool(directory).open("r-1")
    entry.release()


def test_a_disk_that_breaks_says_so_and_keeps_what_there_was(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = Spool(directory).open("r-1")
    entry.write(a_record())

    def fail(_descriptor: int, _content: bytes) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(durable, "write_whole", fail)
        with pytest.raises(SpoolError, match=r"restore r-1: .*Input/output error"):
            entry.write(a_record(a_result()))
    assert entry.record == a_record()
    entry.write(a_record(a_result()))
    entry.release()


# --- records ----------------------------------------------------------------------------------------------

texts = st.text(max_size=40).map(lambda text: clean_text(text, 40)) | st.sampled_from(
    ["\ud800", "a\udcffb"]
).map(lambda text: clean_text(text, 40))
anything = st.text(st.characters(exclude_categories=[]), max_size=40).map(lambda text: clean_text(text, 40))
counts = st.integers(0, MAX_COUNT)
times = st.datetimes(datetime(1000, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001 - bounds are naive
maybe_times = st.none() | times
errors = st.builds(
    Errors,
    counts,
    anything,
    anything,
    st.lists(st.builds(ErrorRecord, anything, anything, st.integers(), anything, anything), max_size=3).map(
        tuple
    ),
)
reports = st.builds(
    Report,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._~-]{0,20}", fullmatch=True),
    counts,
    st.sampled_from(RestoreState),
    maybe_times,
    maybe_times,
    counts,
    counts,
    st.none() | counts,
    st.none() | counts,
    errors,
)
acknowledgements = st.builds(
    Acknowledged,
    counts,
    st.sampled_from(RestoreState),
    maybe_times,
    maybe_times,
    counts,
    counts,
    counts,
    st.none() | counts,
    anything,
    anything,
)
exchanges = st.builds(
    Exchange,
    acknowledged=st.none() | acknowledgements,
    dialect=st.builds(
        Dialect, st.sampled_from(Spelling), settled=st.booleans(), progress=st.sampled_from(Progress)
    ),
    uncertain=st.booleans(),
    attempt=counts,
    not_before=maybe_times,
    failure=texts,
    ending=st.none() | st.sampled_from(Ending),
)
records = st.builds(
    Record,
    st.builds(Destination, anything, anything),
    reports,
    exchanges,
    st.none() | st.builds(ProcessIdentity, counts, counts, anything),
    maybe_times,
)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(record=records)
def test_every_record_is_read_back_as_it_was_written(record: Record) -> None:
    content = record.encode()
    assert Record.decode(content) == record
    content.decode("ascii")


@given(content=st.binary(max_size=200))
def test_bytes_that_are_no_record_are_malformed_and_nothing_else(content: bytes) -> None:
    with pytest.raises(MalformedError):
        Record.decode(content)


@given(record=records, data=st.data())
def test_a_record_with_anything_in_place_of_a_field_is_read_or_malformed(
    record: Record, data: st.DataObject
) -> None:
    document = record.to_document()
    place = document
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not (isinstance(place[key], dict) and place[key] and data.draw(st.booleans())):
            break
        place = place[key]
    place[key] = data.draw(documents)
    try:
        read = Record.decode(json.dumps(document).encode())
    except MalformedError:
        return
    assert Record.decode(read.encode()) == read


@given(record=records, cut=st.floats(0, 1, exclude_max=True))
def test_a_record_that_was_cut_off_is_malformed(record: Record, cut: float) -> None:
    content = record.encode().rstrip(b"\n")
    with pytest.raises(MalformedError):
        Record.decode(content[: int(len(content) * cut)])
