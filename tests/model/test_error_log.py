"""The errors of a restore: counted exactly, recorded up to a bound."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_reporter.errors import MalformedError
from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.model.error_log import (
    DEFAULT_MAX_RECORDS,
    MAX_DESCRIPTION,
    MAX_DETAILS,
    MAX_DIAGNOSTICS,
    MAX_PATH,
    MAX_RECORDS_BYTES,
    MAX_TOKEN,
    ErrorLog,
    ErrorRecord,
    Errors,
    clean_record,
    clean_text,
)
from agent_reporter.model.patch import Content, Spelling, operations
from tests.model.builders import COMPLETED_WITH_ERRORS, RECORD, RECORD_DOCUMENT, acknowledged, errors, report
from tests.model.strategies import unhurried

ONE_MEGABYTE = 1_000_000

records = st.builds(
    ErrorRecord,
    path=st.sampled_from(["/a", "/b", ""]) | st.text(),
    type=st.sampled_from(["missing", "denied"]),
    code=st.integers(-3, 3),
    description=st.text(),
    details=st.text(),
)


def test_a_record_is_written_as_the_protocol_writes_it() -> None:
    assert RECORD.to_document(0) == RECORD_DOCUMENT
    assert RECORD.to_document(7)["index"] == 7


def test_a_record_of_a_path_and_a_type_alone_has_no_exception() -> None:
    assert ErrorRecord("/a", "missing").to_document(0) == {
        "index": 0,
        "path": "/a",
        "type": "missing",
        "exception": None,
    }


@pytest.mark.parametrize("known", [{"code": 2}, {"description": "Why."}, {"details": "How."}])
def test_whatever_more_is_known_makes_a_whole_exception(known: dict[str, Any]) -> None:
    exception = ErrorRecord("/a", "missing", **known).to_document(0)["exception"]
    assert exception == {"code": 0, "description": "", "details": ""} | known


@unhurried
@given(records, st.integers(0, 10**6))
def test_every_record_is_read_back(record: ErrorRecord, index: int) -> None:
    assert ErrorRecord.from_document(json.loads(json.dumps(record.to_document(index)))) == record


@pytest.mark.parametrize(
    "missing", [{}, {"path": None, "type": None, "exception": None}, {"exception": {"code": None}}]
)
def test_a_record_that_says_little_is_read_for_what_it_says(missing: dict[str, Any]) -> None:
    assert ErrorRecord.from_document(missing) == ErrorRecord("", "")


@pytest.mark.parametrize(
    ("strange", "complaint"),
    [
        (None, "an error record has to be an object, not NoneType"),
        ("lost", "an error record has to be an object, not str"),
        ({"exception": []}, "'exception' has to be an object"),
        ({"exception": {"code": "2"}}, "an error code has to be an integer, not '2'"),
        ({"exception": {"code": 2.5}}, "an error code has to be an integer"),
        ({"path": 7}, "'path' has to be text"),
        ({"type": 7}, "'type' has to be text"),
        ({"exception": {"description": 7}}, "'description' has to be text"),
        ({"exception": {"details": 7}}, "'details' has to be text"),
    ],
)
def test_what_is_no_record_is_malformed(strange: object, complaint: str) -> None:
    with pytest.raises(MalformedError, match=complaint):
        ErrorRecord.from_document(strange)


def test_no_errors_are_written_as_the_protocol_writes_them() -> None:
    assert Errors().to_document() == {"count": 0, "reason": "", "diagnostics": "", "list": []}


def test_errors_are_written_with_their_exact_count_and_the_records_that_were_kept() -> None:
    document = Errors(9, "unable_to_process_some_files", "Look.", (RECORD,)).to_document()
    assert document == {
        "count": 9,
        "reason": "unable_to_process_some_files",
        "diagnostics": "Look.",
        "list": [RECORD_DOCUMENT],
    }


def test_errors_are_written_with_at_most_so_many_records_and_the_same_count() -> None:
    document = errors(5).to_document(max_records=2)
    assert document["count"] == 5
    assert [(record["index"], record["path"]) for record in document["list"]] == [
        (0, "/file/0"),
        (1, "/file/1"),
    ]


@unhurried
@given(st.builds(Errors, st.integers(0, MAX_COUNT), st.text(), st.text(), st.lists(records).map(tuple)))
def test_all_errors_are_read_back(all_errors: Errors) -> None:
    assert Errors.from_document(json.loads(json.dumps(all_errors.to_document()))) == all_errors


@pytest.mark.parametrize("absent", [{}, {"count": None, "reason": None, "diagnostics": None, "list": None}])
def test_absent_errors_are_none(absent: dict[str, Any]) -> None:
    assert Errors.from_document(absent) == Errors()


@pytest.mark.parametrize(
    "strange",
    [{"list": {"a": 1}}, {"list": "lost"}, {"list": [7]}, {"count": -1}, {"reason": 7}, {"diagnostics": []}],
)
def test_what_is_no_errors_document_is_malformed(strange: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        Errors.from_document(strange)


def test_an_error_is_counted_and_kept() -> None:
    log = ErrorLog()
    assert log.add(RECORD)
    assert log.freeze("why", "how") == Errors(1, "why", "how", (RECORD,))


def test_the_same_error_is_counted_again_and_kept_once() -> None:
    log = ErrorLog()
    log.add(ErrorRecord("/a", "missing", 2, "first words"))
    assert not log.add(ErrorRecord("/a", "missing", 2, "other words"))
    assert log.freeze() == Errors(2, records=(ErrorRecord("/a", "missing", 2, "first words"),))


@pytest.mark.parametrize(
    "another",
    [ErrorRecord("/b", "missing", 2), ErrorRecord("/a", "denied", 2), ErrorRecord("/a", "missing", 3)],
)
def test_another_path_type_or_code_is_another_error(another: ErrorRecord) -> None:
    log = ErrorLog()
    log.add(ErrorRecord("/a", "missing", 2))
    assert log.add(another)


def test_after_so_many_records_errors_are_only_counted() -> None:
    log = ErrorLog(max_records=2)
    assert [log.add(ErrorRecord(f"/{number}", "missing")) for number in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    assert log.count == 4
    assert log.freeze() == Errors(4, records=(ErrorRecord("/0", "missing"), ErrorRecord("/1", "missing")))


def test_no_record_is_kept_where_none_is_to_be() -> None:
    log = ErrorLog(max_records=0)
    assert not log.add(RECORD)
    assert log.freeze() == Errors(1)


def test_records_are_kept_while_there_is_room_in_one_document() -> None:
    log = ErrorLog(max_records=10_000)
    big = [ErrorRecord(f"/{number}", "missing", details="€" * MAX_DETAILS) for number in range(30)]
    kept = [log.add(record) for record in big]
    room = MAX_RECORDS_BYTES // (MAX_DETAILS * 6)  # as JSON carries it: six bytes a character
    assert kept == [True] * room + [False] * (30 - room)
    assert log.count == 30
    assert len(json.dumps(log.freeze().to_document())) < MAX_RECORDS_BYTES + 100
    assert log.add(ErrorRecord("/small", "missing")), "a small one still has room"


def test_the_room_for_records_is_used_to_the_last_byte_and_no_further() -> None:
    first, empty = (
        ErrorRecord("/a", "missing", details="x" * 1_000),
        ErrorRecord("/b", "missing", details="x"),
    )
    used = sum(
        len(json.dumps(record.to_document(index))) + len(", ") for index, record in enumerate((first, empty))
    )
    left = MAX_RECORDS_BYTES - used + 1
    for details, fits in (("x" * left, True), ("x" * (left + 1), False)):
        log = ErrorLog()
        log.add(first)
        assert log.add(ErrorRecord("/b", "missing", details=details)) is fits


def test_what_was_frozen_does_not_change_any_more() -> None:
    log = ErrorLog()
    log.add(RECORD)
    before = log.freeze()
    log.add(ErrorRecord("/b", "missing"))
    assert before == Errors(1, records=(RECORD,))
    assert log.freeze().count == 2


def test_a_log_goes_on_from_the_errors_of_an_earlier_report() -> None:
    log = ErrorLog()
    log.extend(Errors(9, "why", "how", (RECORD,)))
    assert not log.add(RECORD), "it is known already"
    assert log.freeze() == Errors(10, records=(RECORD,))


@unhurried
@given(st.lists(records), st.integers(0, 5), st.integers(0, 5))
def test_a_log_that_goes_on_is_as_one_that_never_broke_off(
    all_records: list[ErrorRecord], max_records: int, split: int
) -> None:
    whole, before, later = (ErrorLog(max_records) for _ in range(3))
    for record in all_records:
        whole.add(record)
    for record in all_records[:split]:
        before.add(record)
    later.extend(before.freeze())
    for record in all_records[split:]:
        later.add(record)
    assert later.freeze() == whole.freeze()
    assert whole.count == len(all_records)


def test_a_record_is_made_of_texts_that_are_cut_to_their_bounds() -> None:
    record = clean_record(*("x" * 100_000, "y" * 100_000, 5, "z" * 100_000, "w" * 100_000))
    assert [len(text) for text in (record.path, record.type, record.description, record.details)] == [
        MAX_PATH,
        MAX_TOKEN,
        MAX_DESCRIPTION,
        MAX_DETAILS,
    ]
    assert record.code == 5


def test_short_texts_are_left_alone() -> None:
    assert clean_record("/ä", "missing", 2, "Why.", "How.") == ErrorRecord("/ä", "missing", 2, "Why.", "How.")


def test_a_text_is_marked_where_it_was_cut() -> None:
    assert clean_text("abcdef", 6) == "abcdef"
    assert clean_text("abcdefg", 6) == "abcde…"


def test_a_name_that_is_not_utf_8_is_made_to_travel() -> None:
    assert clean_text("/tmp/\udcff\udcfeä", 100) == "/tmp/??ä"


@unhurried
@given(st.text(st.characters()), st.integers(1, 50))
def test_every_clean_text_fits_and_can_be_encoded(text: str, limit: int) -> None:
    clean = clean_text(text, limit)
    assert len(clean) <= limit
    clean.encode()


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["a", '"', "\0", "ä", "€", "\U0001f4be", "\udcff"]),
    st.sampled_from([DEFAULT_MAX_RECORDS, 10**6]),
    st.sampled_from([100, 1_000, 100_000]),
)
def test_no_result_is_larger_than_one_document_may_be(character: str, max_records: int, length: int) -> None:
    log = ErrorLog(max_records)
    filler = character * length
    for number in range(1_200):
        log.add(clean_record(f"/{number}{filler}", filler, 2**31, filler, filler))
    frozen = log.freeze(clean_text(filler, MAX_TOKEN), clean_text(filler, MAX_DIAGNOSTICS))
    newest = report(COMPLETED_WITH_ERRORS, files_restored=2**63, bytes_restored=2**63, errors=frozen)
    patch = operations(Content.RESULT, acknowledged(), newest, Spelling.AUTHORITY)
    assert len(json.dumps(patch, separators=(",", ":")).encode()) <= ONE_MEGABYTE
