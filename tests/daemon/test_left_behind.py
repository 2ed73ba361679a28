"""What is left of a restore in a file and in lines is brought together, and nobody else's is touched."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.daemon.journal import Journal
from agent_reporter.daemon.journaled import OVER
from agent_reporter.daemon.left_behind import LeftBehind, brought_together
from agent_reporter.errors import MalformedError
from agent_reporter.model.client import Client as Facts
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.model.record import Destination, Record
from agent_reporter.model.state import RestoreState
from agent_reporter.spool import Spool
from tests.builders import DESTINATION, a_record, a_report, a_result, listening
from tests.model.strategies import exchanges, reports, unhurried

if TYPE_CHECKING:
    from agent_reporter.model.report import Report
    from tests.daemon.conftest import Client, Daemons

ELSEWHERE = Destination("https://another.example.com", "220022")
OF_DAEMON = Facts(1001, (ProcessIdentity(4711, 5, "a-boot"),))


def of_daemon(report: Report | None = None, **fields: Any) -> Record:
    return a_record(report, **{"client": OF_DAEMON} | fields)


def lines(record: Record, before: Record | None = None) -> dict[str, Any]:
    """What a replay of the journal gives for a restore that was journaled so."""
    return {**record.changes_since(before), OVER: False}


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


def keep(spool: Spool, *records: Record) -> None:
    for record in records:
        entry = spool.open(record.report.restore_id)
        entry.write(record)
        entry.release()


def kept(spool: Spool) -> dict[str, Record | None]:
    return {listed.restore_id: listed.record for listed in spool.listing()}


def owned(spool: Spool, journaled: dict[str, dict[str, Any]]) -> tuple[LeftBehind, dict[str, Record]]:
    """What is owned of all that is left; it is let go again."""
    return again(spool, LeftBehind(spool, DESTINATION, journaled))


def again(spool: Spool, left: LeftBehind) -> tuple[LeftBehind, dict[str, Record]]:
    found = left.own()
    for entry, record in found:
        assert (entry.restore_id, entry.record) == (record.report.restore_id, record)
        entry.release()
    return left, {entry.restore_id: record for entry, record in found}


# --- one restore ------------------------------------------------------------------------------------------

records = st.builds(
    Record,
    st.just(DESTINATION),
    reports(),
    exchanges,
    st.none(),
    st.none(),
    st.just(OF_DAEMON),
)


@given(st.none() | records, records)
@unhurried
def test_lines_alone_are_the_record_and_lines_that_are_newer_are_the_newest(
    file: Record | None, newest: Record
) -> None:
    if file is not None:
        newest = replace(newest, report=replace(newest.report, revision=file.report.revision + 1))
    assert brought_together(file, lines(newest)) == newest
    assert brought_together(file, newest.changes_since(file)) == newest


@given(records, records)
@unhurried
def test_lines_that_are_older_than_the_file_are_in_it_already(file: Record, older: Record) -> None:
    file = replace(file, report=replace(file.report, revision=older.report.revision + 1))
    assert brought_together(file, lines(older)) is file


def test_what_is_neither_in_a_file_nor_in_lines_is_not_there() -> None:
    assert brought_together(None, {}) is None
    record = of_daemon()
    assert brought_together(record, {}) is record


def test_lines_of_the_same_report_tell_where_its_delivery_stands() -> None:
    file = of_daemon()
    further = replace(file, exchange=Exchange(attempt=3))
    assert brought_together(file, lines(further)) == further


def test_changes_that_need_a_file_make_no_record_without_it() -> None:
    before, newest = of_daemon(), of_daemon(a_report(revision=2, bytes_restored=5))
    changes = newest.changes_since(before)
    assert brought_together(before, changes) == newest
    with pytest.raises(MalformedError):
        brought_together(None, changes)


@pytest.mark.parametrize(
    "wrong",
    [
        {"state": "flying"},
        {"state": None},
        {"bytes_restored": -1},
        {"errors": []},
        {"client": {"uid": "root"}},
        {"exchange": 5},
        {"endpoint": None},
        {"started_time": "yesterday"},
    ],
)
def test_lines_that_make_no_record_are_malformed(wrong: dict[str, Any]) -> None:
    changes = lines(of_daemon(a_report(revision=2))) | wrong
    for file in (None, of_daemon()):
        with pytest.raises(MalformedError):
            brought_together(file, changes)


@pytest.mark.parametrize("revision", ["2", -1, [], 1.5])
def test_lines_with_a_revision_that_is_none_are_malformed(revision: object) -> None:
    with pytest.raises(MalformedError):
        brought_together(of_daemon(), lines(of_daemon(a_report(revision=2))) | {"revision": revision})


# --- all of them ------------------------------------------------------------------------------------------


def test_restores_of_files_and_of_lines_are_owned_whole(spool: Spool) -> None:
    in_file = of_daemon(a_report("in-file"))
    in_both = of_daemon(a_report("in-both", revision=1))
    newer = of_daemon(a_result("in-both", revision=2))
    in_lines = of_daemon(a_report("in-lines", bytes_restored=9))
    keep(spool, in_file, in_both)
    left, found = owned(spool, {"in-both": lines(newer), "in-lines": lines(in_lines)})
    assert found == {"in-file": in_file, "in-both": newer, "in-lines": in_lines}
    assert kept(spool) == found
    assert left.journaled == {}


def test_what_is_over_is_not_brought_back(spool: Spool) -> None:
    over = {**lines(of_daemon(a_result("r-1"))), OVER: True}
    left, found = owned(spool, {"r-1": over})
    assert (left.journaled, found, kept(spool)) == ({}, {}, {})


def test_a_restore_that_came_again_after_it_was_over_is_brought_back(spool: Spool) -> None:
    again = of_daemon(a_report("r-1", revision=1))
    replayed: dict[str, Any] = {}
    for line in (lines(of_daemon(a_result("r-1", revision=9))), {OVER: True}, lines(again)):
        replayed.update(line)
    assert owned(spool, {"r-1": replayed})[1] == {"r-1": again}


def test_restores_without_a_daemon_are_left_to_whoever_takes_over_orphans(spool: Spool) -> None:
    keep(spool, a_record(a_report("alone")))
    assert owned(spool, {})[1] == {}


def test_dead_letters_stay_dead(spool: Spool) -> None:
    entry = spool.open("r-1")
    entry.write(of_daemon(a_result("r-1")))
    entry.bury()
    assert owned(spool, {})[1] == {}
    assert [listed.dead for listed in spool.listing()] == [True]


def test_what_belongs_to_another_control_plane_stays_and_is_free(spool: Spool) -> None:
    there = of_daemon(a_report("there"), destination=ELSEWHERE)
    newer = of_daemon(a_report("there", revision=2, bytes_restored=7), destination=ELSEWHERE)
    keep(spool, there)
    left, found = owned(
        spool, {"there": lines(newer), "lines": lines(of_daemon(a_report("lines"), destination=ELSEWHERE))}
    )
    assert found == {}
    assert kept(spool)["there"] == newer
    assert [record.destination for record in kept(spool).values() if record] == [ELSEWHERE] * 2
    assert left.journaled == {}
    assert all(listed.owner is None for listed in spool.listing())
    assert list(spool.directory.glob("*.lock")) == []


def test_what_somebody_else_has_is_owned_once_it_is_free(spool: Spool) -> None:
    keep(spool, of_daemon(a_report("r-1")))
    newest = of_daemon(a_report("r-1", revision=5, bytes_restored=7))
    busy = spool.open("r-1")
    left = LeftBehind(spool, DESTINATION, {"r-1": lines(newest)})
    assert left.own() == []
    assert left.journaled == {"r-1": lines(newest)}
    busy.release()
    [(entry, record)] = left.own()
    assert (record, entry.record, left.journaled) == (newest, newest, {})
    assert left.own() == []
    entry.release()


def test_lines_that_make_no_record_are_set_aside_and_said_and_others_go_on(spool: Spool) -> None:
    good = of_daemon(a_report("good"))
    bad = {"revision": 3, "bytes_restored": 5, OVER: False}
    with listening() as heard:
        left, found = owned(spool, {"bad": bad, "good": lines(good)})
    assert found == {"good": good}
    assert left.journaled == {}
    assert [event["restore_id"] for event in heard.named("daemon.lines_set_aside")] == ["bad"]
    assert list(spool.directory.glob("bad.*")) == []
    (aside,) = spool.set_aside()
    assert json.loads(aside.read_bytes()) == bad


def test_a_restore_that_is_over_goes_though_its_file_is_left(spool: Spool) -> None:
    keep(spool, of_daemon(a_report("r-1")))
    assert owned(spool, {"r-1": {"bytes_restored": 5, OVER: True}})[1] == {}
    assert list(spool.directory.glob("r-1.*")) == []


def test_a_file_that_cannot_be_deleted_stops_nobody_else_and_is_free(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(spool, of_daemon(a_report("over")))
    good = of_daemon(a_report("running"))

    def fail(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with listening() as heard, monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", fail)
        left, found = owned(spool, {"over": {OVER: True}, "running": lines(good)})
    assert (found, left.over) == ({"running": good}, {"over"})
    assert [event["restore_id"] for event in heard.named("spool.clearing_failed")] == ["over"]
    left, found = again(spool, left)
    assert (found, left.over, set(kept(spool))) == ({"running": good}, set(), {"running"})


def test_a_restore_that_is_over_and_looked_at_by_somebody_is_still_over_afterwards(spool: Spool) -> None:
    keep(spool, of_daemon(a_report("over")))
    busy = spool.open("over")
    left, found = owned(spool, {"over": {OVER: True}})
    assert (found, left.over) == ({}, {"over"})
    busy.release()
    left, found = again(spool, left)
    assert (found, left.over, kept(spool)) == ({}, set(), {})


def test_a_restore_that_is_over_stays_so_while_its_file_cannot_be_read(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(spool, of_daemon(a_report("over")))

    def fail(path: Path, restore_id: str) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    with monkeypatch.context() as patched:
        patched.setattr("agent_reporter.spool._read_record", fail)
        left, found = owned(spool, {"over": {OVER: True}})
    assert (found, left.over) == ({}, {"over"})
    left, found = again(spool, left)
    assert (found, left.over, kept(spool)) == ({}, set(), {})


def test_a_restore_that_somebody_goes_on_with_is_not_over(spool: Spool) -> None:
    keep(spool, of_daemon(a_report("over")))
    left = LeftBehind(spool, DESTINATION, {"over": {OVER: True}})
    left.taken("over")
    assert again(spool, left)[1].keys() == {"over"}


def test_a_file_that_cannot_be_read_does_not_cost_what_the_lines_have(spool: Spool) -> None:
    newest = of_daemon(a_report("r-1", bytes_restored=7))
    keep(spool, of_daemon(a_report("r-1")))
    (spool.directory / "r-1.json").write_text("{broken")
    assert owned(spool, {"r-1": lines(newest)})[1] == {"r-1": newest}
    assert len(spool.set_aside()) == 1


def test_an_id_that_cannot_be_one_harms_nothing(spool: Spool) -> None:
    good = of_daemon(a_report("good"))
    stray = lines(of_daemon(a_report("../../etc/stray")))
    with listening():
        _, found = owned(spool, {"../../etc/stray": stray, "good": lines(good)})
    assert found == {"good": good}


def test_a_result_in_the_file_is_never_undone_by_lines(spool: Spool) -> None:
    result = of_daemon(a_result("r-1", revision=9, state=RestoreState.FAILED))
    keep(spool, result)
    late = lines(of_daemon(a_report("r-1", revision=9)))
    assert owned(spool, {"r-1": late})[1]["r-1"].report == result.report


async def test_what_a_real_journal_replays_is_what_was_appended(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    states = [of_daemon(a_report("r-1", revision=number, bytes_restored=number)) for number in range(1, 20)]
    journal = Journal(directory)
    await asyncio.to_thread(journal.replay)
    await journal.start()
    before: Record | None = None
    for record in states:
        await journal.append("r-1", {**record.changes_since(before), **({} if before else {OVER: False})})
        before = record
    await journal.close()

    def resume() -> dict[str, Record]:
        again = Journal(directory)
        try:
            return owned(Spool(directory), again.replay())[1]
        finally:
            asyncio.run(again.close())

    assert await asyncio.to_thread(resume) == {"r-1": states[-1]}


# --- in the daemon ----------------------------------------------------------------------------------------


async def leave(daemons: Daemons, record: Record) -> None:
    await asyncio.to_thread(keep, daemons.rig.spool, record)


async def test_a_restore_that_is_kept_for_another_control_plane_is_not_sent_to_this_one(
    daemons: Daemons, client: Client
) -> None:
    restore_id = daemons.rig.server.start_restore()
    there = of_daemon(
        a_report(restore_id, bytes_restored=7), destination=ELSEWHERE, client=Facts(os.getuid())
    )
    await leave(daemons, there)
    async with daemons.running():
        answer = await client.tell(restore_id, state="in_progress")
        while "reports it already" in answer.document["message"]:  # the daemon itself just looks at it
            answer = await client.tell(restore_id, state="in_progress")
        assert answer.status == 409
        assert ELSEWHERE.endpoint in answer.document["message"]
    assert await daemons.rig.waiting() == [there]
    assert daemons.rig.server.document(restore_id)["bytes_restored"] == 0
