"""What one file of the spool holds."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.errors import MalformedError
from agent_reporter.model.client import Client
from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.model.record import FORMAT, Destination, Record
from tests.model.builders import COMPLETED, FAILED, IN_PROGRESS, NOW, errors, report
from tests.model.strategies import exchanges, reports, times, unhurried

DESTINATION = Destination("https://api.example.com", "1234")
RECORD = Record(DESTINATION, report(IN_PROGRESS, revision=5))
ENGINE = ProcessIdentity(42, 123_456, "b00t")

identities = st.builds(ProcessIdentity, st.integers(0, 2**22), st.integers(0, MAX_COUNT), st.text(max_size=5))
clients = st.builds(Client, st.integers(0, 2**32), st.lists(identities, max_size=3).map(tuple), st.booleans())
records = st.builds(
    Record,
    st.builds(Destination, st.text(max_size=5), st.text(max_size=5)),
    reports(),
    exchanges,
    st.none() | identities,
    st.none() | times,
    st.none() | clients,
)


def test_a_destination_says_which_project_of_which_control_plane() -> None:
    assert str(DESTINATION) == "project 1234 at https://api.example.com"


def test_a_newer_report_takes_the_place_of_an_older_one() -> None:
    newer = report(IN_PROGRESS, revision=6)
    assert RECORD.supersede(newer) == replace(RECORD, report=newer)


def test_a_result_takes_the_place_of_progress() -> None:
    result = report(COMPLETED, revision=6)
    assert RECORD.supersede(result).report is result


def test_of_two_reports_of_one_revision_the_last_counts() -> None:
    other = report(IN_PROGRESS, revision=RECORD.report.revision, bytes_restored=7)
    assert RECORD.supersede(other).report is other


def test_a_file_holds_no_byte_that_is_not_needed_but_for_the_end_of_its_line() -> None:
    assert b" " not in replace(RECORD, engine=ENGINE).encode()
    assert RECORD.encode().endswith(b"}\n")


def test_a_record_has_no_changes_since_itself() -> None:
    assert RECORD.changes_since(RECORD) == {}


def test_what_changes_is_told_with_its_revision_and_without_what_stays() -> None:
    waits = replace(RECORD, undelivered_since=NOW)
    changes = waits.changes_since(RECORD)
    assert set(changes) == {"undelivered_since", "revision"}
    assert Record.with_changes(RECORD, changes) == waits
    assert Record.with_changes(waits, RECORD.changes_since(waits)) == RECORD


@pytest.mark.parametrize("field", ["uid", "processes"])
def test_a_record_of_a_client_without_a_user_or_processes_is_malformed(field: str) -> None:
    document = replace(RECORD, client=Client(1000)).to_document()
    del document["client"][field]
    with pytest.raises(MalformedError, match=f"'{field}' has to be a"):
        Record.decode(json.dumps(document).encode())


def test_an_older_report_takes_no_place() -> None:
    assert RECORD.supersede(report(IN_PROGRESS, revision=4)) is RECORD


@pytest.mark.parametrize("state", [IN_PROGRESS, COMPLETED, FAILED])
def test_nothing_takes_the_place_of_a_result(state: Any) -> None:
    ended = Record(DESTINATION, report(COMPLETED, revision=5))
    assert ended.supersede(report(state, revision=9)) is ended


def test_a_record_is_one_line_of_json() -> None:
    record = Record(DESTINATION, report(), engine=ENGINE, undelivered_since=NOW)
    content = record.encode()
    assert content.endswith(b"}\n")
    assert content.count(b"\n") == 1
    assert json.loads(content) == {
        "format": FORMAT,
        "endpoint": "https://api.example.com",
        "project_id": "1234",
        "report": report().to_document(),
        "exchange": Exchange().to_document(),
        "engine": {"pid": 42, "start_ticks": 123_456, "boot_id": "b00t"},
        "undelivered_since": "2014-10-20T14:00:00.000000Z",
        "client": None,
    }


def test_what_a_record_lacks_is_null() -> None:
    assert RECORD.to_document()["engine"] is None
    assert RECORD.to_document()["undelivered_since"] is None


@unhurried
@given(records)
def test_every_record_is_read_back(record: Record) -> None:
    again = Record.decode(record.encode())
    assert again == record


@pytest.mark.parametrize(
    "change",
    [
        {"format": None},
        {"format": FORMAT + 1},
        {"format": "1"},
        {"endpoint": None},
        {"project_id": 7},
        {"report": None},
        {"report": []},
        {"exchange": None},
        {"exchange": {}},
        {"engine": {"pid": 42}},
        {"engine": [42]},
        {"undelivered_since": "then"},
    ],
)
def test_a_file_that_holds_something_else_is_malformed(change: dict[str, Any]) -> None:
    content = json.dumps(RECORD.to_document() | change).encode()
    with pytest.raises(MalformedError):
        Record.decode(content)


@pytest.mark.parametrize("cut", [0, 1, 10, -2])
def test_a_file_that_was_cut_off_is_malformed(cut: int) -> None:
    with pytest.raises(MalformedError):
        Record.decode(RECORD.encode()[:cut])


def test_the_format_of_another_version_is_named() -> None:
    with pytest.raises(MalformedError, match="format 99 is not one this version reads"):
        Record.decode(b'{"format": 99}')


def test_a_record_that_fits_is_left_alone() -> None:
    record = Record(DESTINATION, report(errors=errors(10)))
    assert record.trimmed(len(record.encode())) is record


def test_a_record_that_does_not_fit_keeps_the_first_errors_and_the_exact_count() -> None:
    record = Record(DESTINATION, report(errors=errors(40)))
    trimmed = record.trimmed(len(record.encode()) - 1)
    assert trimmed.report.errors == errors(40, records=20)
    assert replace(trimmed, report=record.report) == record


def test_a_record_that_still_does_not_fit_keeps_the_first_of_its_diagnostics() -> None:
    record = Record(DESTINATION, report(errors=errors(7, reason="some", diagnostics="abcdefgh" * 100)))
    bare = replace(record, report=replace(record.report, errors=errors(7, 0, "some", "abcdefgh" * 50)))
    assert record.trimmed(len(bare.encode())) == bare


def test_a_record_that_cannot_fit_keeps_all_but_the_records_and_the_diagnostics_of_errors() -> None:
    record = Record(DESTINATION, report(errors=errors(7, reason="some", diagnostics="Look.")))
    assert record.trimmed(1).report == replace(record.report, errors=errors(7, 0, "some"))


@unhurried
@given(records, st.integers(0, 3_000))
def test_a_trimmed_record_fits_or_has_nothing_left_to_trim(record: Record, max_bytes: int) -> None:
    trimmed = record.trimmed(max_bytes)
    left = trimmed.report.errors
    assert len(trimmed.encode()) <= max_bytes or not (left.records or left.diagnostics)
    assert trimmed.report.errors.count == record.report.errors.count


@unhurried
@given(st.none() | records, st.lists(records, min_size=1, max_size=4))
def test_changes_merged_in_order_make_the_last_record(first: Record | None, following: list[Record]) -> None:
    merged: dict[str, Any] = {}
    before = first
    for record in following:
        merged |= json.loads(json.dumps(record.changes_since(before)))
        before = record
    assert Record.with_changes(first, merged) == following[-1]


def test_changes_of_progress_alone_are_short() -> None:
    moved = replace(RECORD, report=replace(RECORD.report, revision=6, bytes_restored=77))
    assert moved.changes_since(RECORD) == {"revision": 6, "bytes_restored": 77}


def test_changes_that_make_no_record_are_malformed() -> None:
    with pytest.raises(MalformedError):
        Record.with_changes(None, {"revision": 6})


@pytest.mark.parametrize("processes", [None, 1, [1], {"pid": 1}])
def test_a_client_whose_processes_are_none_is_malformed(processes: Any) -> None:
    with pytest.raises(MalformedError, match="processes"):
        Client.from_document({"uid": 0, "processes": processes})
