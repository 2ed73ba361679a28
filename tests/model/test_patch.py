"""What was acknowledged and what is newest -> the operations of one patch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.error_log import Errors
from agent_reporter.model.patch import (
    PATHS,
    PROGRESS_RECORDS,
    Content,
    Operations,
    Spelling,
    after,
    operations,
    replace_state,
)
from agent_reporter.model.state import RestoreState
from tests.model.builders import (
    COMPLETED_WITH_ERRORS,
    ENDED,
    ENDED_TEXT,
    IN_PROGRESS,
    PREPARING,
    QUEUED,
    RECORD,
    RECORD_DOCUMENT,
    STARTED,
    STARTED_TEXT,
    STOP_REQUESTED,
    STOPPED,
    acknowledged,
    errors,
    paths,
    report,
)
from tests.model.strategies import acknowledgements, reports, spellings, unhurried

if TYPE_CHECKING:
    from agent_reporter.model.report import Report

AUTHORITY, DOCUMENT = Spelling.AUTHORITY, Spelling.DOCUMENT
RESULT = report(
    COMPLETED_WITH_ERRORS,
    files_restored=8,
    bytes_restored=9,
    errors=Errors(1, "unable_to_process_some_files", "Look.", (RECORD,)),
)

unfinished = reports(st.sampled_from([QUEUED, PREPARING, IN_PROGRESS]))
finals = reports(st.sampled_from([state for state in RestoreState if state.is_final]))
contents_and_reports: st.SearchStrategy[tuple[Content, Report]] = st.one_of(
    st.tuples(st.sampled_from([Content.RESULT, Content.RESULT_ALONE]), finals),
    st.tuples(
        st.sampled_from(
            [content for content in Content if content not in {Content.RESULT, Content.RESULT_ALONE}]
        ),
        unfinished,
    ),
)


def test_four_paths_have_two_spellings() -> None:
    assert dict(PATHS[AUTHORITY]) == {
        "started": "/started-time",
        "ended": "/ended-time",
        "files": "/files_restores",
        "bytes": "/bytes-restored",
    }
    assert dict(PATHS[DOCUMENT]) == {
        "started": "/started_time",
        "ended": "/ended_time",
        "files": "/files_restored",
        "bytes": "/bytes_restored",
    }


def test_each_spelling_has_another() -> None:
    assert AUTHORITY.other is DOCUMENT
    assert DOCUMENT.other is AUTHORITY


def test_only_progress_has_no_state() -> None:
    assert [content for content in Content if not content.has_state] == [Content.PROGRESS]


def test_progress_is_told_alone_or_beside_a_state() -> None:
    assert {content for content in Content if content.is_progress} == {
        Content.PROGRESS,
        Content.PROGRESS_BESIDE_STATE,
    }


def test_asking_for_a_stop_is_one_operation() -> None:
    assert replace_state(STOP_REQUESTED) == [{"op": "replace", "path": "/state", "value": "stop_requested"}]


@pytest.mark.parametrize(
    ("spelling", "started", "ended", "files", "bytes_"),
    [
        (AUTHORITY, "/started-time", "/ended-time", "/files_restores", "/bytes-restored"),
        (DOCUMENT, "/started_time", "/ended_time", "/files_restored", "/bytes_restored"),
    ],
)
def test_a_result_is_told_whole_in_one_patch(
    spelling: Spelling, started: str, ended: str, files: str, bytes_: str
) -> None:
    assert operations(Content.RESULT, Acknowledged(), RESULT, spelling) == [
        {"op": "replace", "path": "/state", "value": "completed_with_errors"},
        {"op": "replace", "path": started, "value": STARTED_TEXT},
        {"op": "replace", "path": ended, "value": ENDED_TEXT},
        {
            "op": "replace",
            "path": "/errors",
            "value": {
                "count": 1,
                "reason": "unable_to_process_some_files",
                "diagnostics": "Look.",
                "list": [RECORD_DOCUMENT],
            },
        },
        {"op": "replace", "path": files, "value": 8},
        {"op": "replace", "path": bytes_, "value": 9},
    ]


def test_a_result_is_told_whole_also_where_nothing_is_new() -> None:
    known = after(Content.RESULT, Acknowledged(), RESULT)
    assert operations(Content.RESULT, known, RESULT, AUTHORITY) == operations(
        Content.RESULT, Acknowledged(), RESULT, AUTHORITY
    )


def test_a_result_that_is_refused_is_told_by_its_state_and_times_alone() -> None:
    assert operations(Content.RESULT_ALONE, Acknowledged(), RESULT, AUTHORITY) == [
        {"op": "replace", "path": "/state", "value": "completed_with_errors"},
        {"op": "replace", "path": "/started-time", "value": STARTED_TEXT},
        {"op": "replace", "path": "/ended-time", "value": ENDED_TEXT},
    ]


def test_a_time_that_is_not_known_is_left_out_of_a_result() -> None:
    told = operations(Content.RESULT_ALONE, Acknowledged(), report(STOPPED, started_time=None), AUTHORITY)
    assert paths(told) == ["/state", "/ended-time"]


def test_a_result_never_tells_less_than_is_known_there() -> None:
    known = acknowledged(files_restored=80, bytes_restored=5)
    told = {step["path"]: step["value"] for step in operations(Content.RESULT, known, RESULT, AUTHORITY)}
    assert told["/files_restores"] == 80
    assert told["/bytes-restored"] == 9


def test_a_result_never_tells_of_fewer_errors_than_are_known_there() -> None:
    known = acknowledged(error_count=5)
    told = {step["path"]: step["value"] for step in operations(Content.RESULT, known, RESULT, AUTHORITY)}
    assert told["/errors"]["count"] == 5
    assert told["/errors"]["list"] == [RECORD_DOCUMENT]


def test_a_result_tells_all_records() -> None:
    newest = report(COMPLETED_WITH_ERRORS, errors=errors(PROGRESS_RECORDS + 5))
    (told,) = [
        step["value"]
        for step in operations(Content.RESULT, Acknowledged(), newest, AUTHORITY)
        if step["path"] == "/errors"
    ]
    assert len(told["list"]) == told["count"] == PROGRESS_RECORDS + 5


def test_a_state_is_told_with_its_start_and_what_is_new() -> None:
    newest = report(IN_PROGRESS, files_restored=8, bytes_restored=9, errors=Errors(1, records=(RECORD,)))
    assert operations(Content.STATE, acknowledged(PREPARING), newest, DOCUMENT) == [
        {"op": "replace", "path": "/state", "value": "in_progress"},
        {"op": "replace", "path": "/started_time", "value": STARTED_TEXT},
        {"op": "replace", "path": "/files_restored", "value": 8},
        {"op": "replace", "path": "/bytes_restored", "value": 9},
        {
            "op": "replace",
            "path": "/errors",
            "value": {"count": 1, "reason": "", "diagnostics": "", "list": [RECORD_DOCUMENT]},
        },
    ]


@pytest.mark.parametrize("spelling", Spelling)
def test_a_state_before_anything_is_restored_is_told_alone(spelling: Spelling) -> None:
    assert operations(Content.STATE, Acknowledged(), report(QUEUED), spelling) == [
        {"op": "replace", "path": "/state", "value": "queued"}
    ]


def test_a_start_that_is_known_there_is_not_told_again() -> None:
    known = acknowledged(PREPARING, started_time=ENDED)
    assert paths(operations(Content.STATE, known, report(IN_PROGRESS), AUTHORITY)) == ["/state"]


def test_a_state_alone_is_told_alone() -> None:
    newest = report(IN_PROGRESS, files_restored=8, errors=errors(1))
    assert operations(Content.STATE_ALONE, Acknowledged(), newest, AUTHORITY) == [
        {"op": "replace", "path": "/state", "value": "in_progress"}
    ]


def test_progress_tells_what_is_new_and_no_state() -> None:
    newest = report(IN_PROGRESS, files_restored=8, bytes_restored=9, errors=errors(1, records=0))
    assert operations(Content.PROGRESS, acknowledged(), newest, AUTHORITY) == [
        {"op": "replace", "path": "/files_restores", "value": 8},
        {"op": "replace", "path": "/bytes-restored", "value": 9},
        {
            "op": "replace",
            "path": "/errors",
            "value": {"count": 1, "reason": "", "diagnostics": "", "list": []},
        },
    ]


@pytest.mark.parametrize(
    ("new", "path"),
    [
        ({"files_restored": 4}, "/files_restores"),
        ({"bytes_restored": 4}, "/bytes-restored"),
        ({"errors": errors(4)}, "/errors"),
    ],
)
def test_progress_leaves_out_what_is_not_new(new: dict[str, Any], path: str) -> None:
    known = acknowledged(files_restored=3, bytes_restored=3, error_count=3, records=3)
    newest = report(IN_PROGRESS, **{"files_restored": 3, "bytes_restored": 3, "errors": errors(3)} | new)
    assert paths(operations(Content.PROGRESS, known, newest, AUTHORITY)) == [path]


def test_there_is_no_progress_where_nothing_is_new() -> None:
    known = acknowledged(files_restored=3, bytes_restored=3, error_count=3, records=3)
    newest = report(IN_PROGRESS, files_restored=3, bytes_restored=3, errors=errors(3))
    assert operations(Content.PROGRESS, known, newest, AUTHORITY) == []


def test_progress_that_is_behind_what_is_known_there_is_not_told() -> None:
    known = acknowledged(files_restored=30, bytes_restored=30, error_count=30)
    newest = report(IN_PROGRESS, files_restored=3, bytes_restored=3, errors=errors(3))
    assert operations(Content.PROGRESS, known, newest, AUTHORITY) == []


def test_progress_beside_a_state_tells_what_is_new_after_the_state_that_stands() -> None:
    known = acknowledged(files_restored=8)
    newest = report(IN_PROGRESS, files_restored=8, bytes_restored=9)
    assert operations(Content.PROGRESS_BESIDE_STATE, known, newest, AUTHORITY) == [
        {"op": "replace", "path": "/state", "value": "in_progress"},
        {"op": "replace", "path": "/bytes-restored", "value": 9},
    ]
    assert after(Content.PROGRESS_BESIDE_STATE, known, newest) == acknowledged(
        revision=1, files_restored=8, bytes_restored=9
    )


@pytest.mark.parametrize("records", [None, 0, 2])
def test_records_that_may_be_missing_there_are_told_again(records: int | None) -> None:
    known = acknowledged(error_count=3, records=records)
    newest = report(IN_PROGRESS, errors=errors(3))
    assert paths(operations(Content.PROGRESS, known, newest, AUTHORITY)) == ["/errors"]


def test_where_there_are_no_errors_none_are_told_whatever_is_known() -> None:
    assert operations(Content.PROGRESS, acknowledged(records=None), report(IN_PROGRESS), AUTHORITY) == []


def test_progress_tells_the_first_records_and_the_exact_count() -> None:
    newest = report(IN_PROGRESS, errors=errors(PROGRESS_RECORDS + 5))
    (told,) = operations(Content.PROGRESS, acknowledged(), newest, AUTHORITY)
    assert told["value"]["count"] == PROGRESS_RECORDS + 5
    assert len(told["value"]["list"]) == PROGRESS_RECORDS
    known = after(Content.PROGRESS, acknowledged(), newest)
    assert operations(Content.PROGRESS, known, newest, AUTHORITY) == []


def test_after_a_result_everything_is_known_there() -> None:
    assert after(Content.RESULT, Acknowledged(), RESULT) == Acknowledged(
        revision=1,
        state=COMPLETED_WITH_ERRORS,
        started_time=STARTED,
        ended_time=ENDED,
        files_restored=8,
        bytes_restored=9,
        error_count=1,
        records=1,
        reason="unable_to_process_some_files",
        diagnostics="Look.",
    )


def test_after_a_bare_result_the_counters_are_as_they_were() -> None:
    known = acknowledged(files_restored=3, bytes_restored=4, error_count=1, records=1)
    assert after(Content.RESULT_ALONE, known, RESULT) == Acknowledged(
        1, COMPLETED_WITH_ERRORS, STARTED, ENDED, 3, 4, 1, 1
    )


def test_after_a_state_alone_only_the_state_is_known_there() -> None:
    known = acknowledged(PREPARING, files_restored=3)
    newest = report(IN_PROGRESS, files_restored=8, errors=errors(1))
    assert after(Content.STATE_ALONE, known, newest) == Acknowledged(1, IN_PROGRESS, files_restored=3)


def test_after_a_state_its_start_is_known_there_unless_one_was() -> None:
    newest = report(IN_PROGRESS, files_restored=8)
    assert after(Content.STATE, acknowledged(PREPARING), newest).started_time == STARTED
    assert after(Content.STATE, acknowledged(PREPARING, started_time=ENDED), newest).started_time == ENDED


def test_after_progress_the_state_there_is_as_it_was() -> None:
    known = acknowledged(STOP_REQUESTED, bytes_restored=30)
    newest = report(IN_PROGRESS, revision=7, files_restored=8, bytes_restored=9, errors=errors(2))
    assert after(Content.PROGRESS, known, newest) == Acknowledged(
        revision=7, state=STOP_REQUESTED, files_restored=8, bytes_restored=30, error_count=2, records=2
    )


@unhurried
@given(contents_and_reports, acknowledgements, spellings)
def test_what_is_known_after_a_patch_is_what_the_patch_has_made(
    told: tuple[Content, Report], known: Acknowledged, spelling: Spelling
) -> None:
    content, newest = told
    document = known.to_document()
    apply(document, operations(content, known, newest, spelling))
    read = known.read(document)
    expected = after(content, known, newest)
    for name in ("state", "started_time", "ended_time", "files_restored", "bytes_restored", "error_count"):
        assert getattr(read, name) == getattr(expected, name), name
    assert expected.revision == (known.revision if content is Content.STOP else newest.revision)


@unhurried
@given(contents_and_reports, acknowledgements, spellings)
def test_no_patch_makes_a_counter_go_down(
    told: tuple[Content, Report], known: Acknowledged, spelling: Spelling
) -> None:
    document = known.to_document()
    apply(document, operations(told[0], known, told[1], spelling))
    assert document["files_restored"] >= known.files_restored
    assert document["bytes_restored"] >= known.bytes_restored
    assert document["errors"]["count"] >= known.error_count


@unhurried
@given(contents_and_reports, acknowledgements, spellings)
def test_every_operation_is_a_replace_of_a_path_in_that_spelling(
    told: tuple[Content, Report], known: Acknowledged, spelling: Spelling
) -> None:
    content, newest = told
    made = operations(content, known, newest, spelling)
    touched = paths(made)
    assert {step["op"] for step in made} <= {"replace"}
    assert set(touched) <= {"/state", "/errors", *PATHS[spelling].values()}
    assert len(set(touched)) == len(touched)
    is_told_already = content is Content.STOP and known.state is STOP_REQUESTED
    assert ("/state" in touched) is (content.has_state and not is_told_already)


@unhurried
@given(unfinished, acknowledgements, spellings)
def test_what_was_told_is_not_told_again(newest: Report, known: Acknowledged, spelling: Spelling) -> None:
    again = operations(Content.PROGRESS, after(Content.PROGRESS, known, newest), newest, spelling)
    assert again == []


def apply(document: dict[str, Any], patch: Operations) -> None:
    """What a control plane makes of a patch."""
    names = {
        "/state": "state",
        "/errors": "errors",
        **{path: f"{name}_time" for path, name in _spelled("started", "ended")},
        **{path: f"{name}_restored" for path, name in _spelled("files", "bytes")},
    }
    for step in patch:
        document[names[step["path"]]] = step["value"]


def _spelled(*names: str) -> list[tuple[str, str]]:
    return [(PATHS[spelling][name], name) for spelling in Spelling for name in names]
