"""What a patch of an engine makes of a report."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.model.amendment import FINAL_CONFLICT, LOOKED_AT, Amendment, ConflictError, amended
from agent_reporter.model.error_log import MAX_PATH, ErrorRecord, Errors
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState, may_follow
from tests.model.builders import (
    COMPLETED,
    ENDED,
    FINALS,
    IN_PROGRESS,
    NOW,
    PREPARING,
    QUEUED,
    START_REQUESTED,
    STARTED,
    STOPPED,
    errors,
    report,
)
from tests.model.strategies import all_errors, counts, reports, states, times, unhurried

MOST = 500

amendments = st.builds(
    Amendment,
    st.none() | states,
    st.none() | times,
    st.none() | times,
    st.none() | counts,
    st.none() | counts,
    st.none() | all_errors(),
    st.none() | counts,
    st.none() | counts,
)


def after(before: Report, **changes: Any) -> Report:
    return amended(before, Amendment(**changes), NOW, MOST)


@pytest.mark.parametrize("state", FINALS)
def test_nothing_follows_a_result(state: RestoreState) -> None:
    with pytest.raises(ConflictError, match="not allowed") as caught:
        after(report(state), bytes_restored=7)
    assert str(caught.value) == FINAL_CONFLICT


def test_a_state_that_cannot_follow_is_refused_in_words() -> None:
    with pytest.raises(ConflictError, match="in_progress cannot become preparing"):
        after(report(IN_PROGRESS), state=PREPARING)


def test_the_same_state_again_changes_nothing() -> None:
    before = report(IN_PROGRESS)
    assert after(before, state=IN_PROGRESS) is before


def test_counters_go_up_and_never_down() -> None:
    before = report(IN_PROGRESS, files_restored=5, bytes_restored=50)
    told = after(before, files_restored=4, bytes_restored=60)
    assert (told.files_restored, told.bytes_restored, told.revision) == (5, 60, before.revision + 1)


@pytest.mark.parametrize("state", [START_REQUESTED, QUEUED, PREPARING])
def test_a_restore_whose_counters_move_is_in_progress_without_a_word(state: RestoreState) -> None:
    told = after(report(state), bytes_restored=1)
    assert (told.state, told.started_time) == (IN_PROGRESS, NOW)


def test_counters_of_nothing_start_nothing() -> None:
    assert after(report(PREPARING), bytes_restored=0).state is PREPARING


def test_a_result_without_times_gets_them() -> None:
    told = after(report(QUEUED), state=COMPLETED)
    assert (told.started_time, told.ended_time) == (NOW, NOW)


def test_a_result_keeps_the_times_that_were_told() -> None:
    told = after(report(PREPARING), state=STOPPED, started_time=STARTED, ended_time=ENDED)
    assert (told.started_time, told.ended_time) == (STARTED, ENDED)


def test_the_count_of_errors_never_goes_down() -> None:
    before = report(IN_PROGRESS, errors=errors(3))
    assert after(before, errors=errors(2)) is before


def test_errors_are_as_they_were_told_last_within_their_bounds() -> None:
    long = ErrorRecord("/" + "x" * MAX_PATH, "missing", 2)
    told = amended(report(), Amendment(errors=Errors(9, "why", "how", (long,) * 3)), NOW, MOST).errors
    assert (told.count, told.reason, told.diagnostics, len(told.records)) == (9, "why", "how", 1)
    assert len(told.records[0].path) == MAX_PATH


def test_errors_without_a_list_leave_the_records_that_are_known() -> None:
    told = after(report(errors=errors(2)), errors=Errors(5)).errors
    assert (told.count, told.records) == (5, errors(2).records)


def test_errors_of_the_same_count_take_the_place_of_those_that_are_known() -> None:
    told = after(report(errors=errors(2)), errors=errors(2, reason="why")).errors
    assert (told.count, told.reason) == (2, "why")


def test_of_a_list_that_is_much_too_long_the_rest_is_not_looked_at() -> None:
    same, other = ErrorRecord("/a", "missing"), ErrorRecord("/b", "missing")
    told = Amendment(
        errors=Errors(99, records=(*(same,) * (LOOKED_AT * 2 - 1), other, ErrorRecord("/c", "missing")))
    )
    assert amended(report(), told, NOW, 2).errors.records == (same, other)
    told = Amendment(errors=Errors(99, records=(*(same,) * (LOOKED_AT * 2), other)))
    assert amended(report(), told, NOW, 2).errors.records == (same,)


def test_no_more_records_are_kept_than_allowed() -> None:
    assert len(amended(report(), Amendment(errors=errors(9)), NOW, 4).errors.records) == 4


def test_totals_are_taken_and_stay() -> None:
    told = after(after(report(), total_bytes=100, total_files=7), bytes_restored=1)
    assert (told.total_bytes, told.total_files) == (100, 7)


@unhurried
@given(reports(), amendments)
def test_whatever_is_told_the_invariants_hold(before: Report, amendment: Amendment) -> None:
    try:
        told = amended(before, amendment, NOW, MOST)
    except ConflictError:
        wanted = amendment.state
        assert before.is_final or (wanted is not None and not may_follow(before.state, wanted))
        return
    assert told.state is before.state or may_follow(before.state, told.state)
    assert told.bytes_restored >= before.bytes_restored
    assert told.files_restored >= before.files_restored
    assert told.errors.count >= before.errors.count
    assert told.revision == before.revision + (told is not before)
    assert not told.is_final or (told.started_time is not None and told.ended_time is not None)


@unhurried
@given(reports(), reports())
def test_changes_since_a_report_bring_one_to_the_other(before: Report, now: Report) -> None:
    merged = before.to_document() | now.changes_since(before)
    assert Report.from_document(merged) == now
    assert set(now.changes_since(before)) <= set(now.to_document())


def test_a_report_has_no_changes_since_itself() -> None:
    assert report().changes_since(report()) == {}
