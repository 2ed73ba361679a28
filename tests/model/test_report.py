"""A report, and how it is kept."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
from hypothesis import given

from agent_reporter.errors import MalformedError
from agent_reporter.model.error_log import Errors
from agent_reporter.model.report import Report, state_of
from agent_reporter.model.state import RestoreState
from tests.model.builders import (
    COMPLETED_WITH_ERRORS,
    ENDED_TEXT,
    FINALS,
    QUEUED,
    RECORD,
    RECORD_DOCUMENT,
    STARTED_TEXT,
    report,
)
from tests.model.strategies import reports, unhurried


def test_a_new_report_says_nothing_yet() -> None:
    assert Report("r-1") == Report(
        "r-1", 0, RestoreState.START_REQUESTED, None, None, 0, 0, None, None, Errors()
    )


@pytest.mark.parametrize("state", RestoreState)
def test_a_report_is_final_as_its_state_is(state: RestoreState) -> None:
    assert report(state).is_final is (state in FINALS)


def test_a_report_does_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        report().revision = 2  # type: ignore[misc]  # that is the point


def test_a_report_is_kept_with_all_it_says() -> None:
    newest = report(
        COMPLETED_WITH_ERRORS,
        revision=7,
        files_restored=8,
        bytes_restored=2**40,
        total_files=9,
        errors=Errors(1, "some", "Look.", (RECORD,)),
    )
    assert newest.to_document() == {
        "restore_id": "r-1",
        "revision": 7,
        "state": "completed_with_errors",
        "started_time": STARTED_TEXT,
        "ended_time": ENDED_TEXT,
        "files_restored": 8,
        "bytes_restored": 2**40,
        "total_files": 9,
        "total_bytes": None,
        "errors": {"count": 1, "reason": "some", "diagnostics": "Look.", "list": [RECORD_DOCUMENT]},
    }


def test_a_report_without_times_is_kept_without_times() -> None:
    kept = report(QUEUED).to_document()
    assert kept["started_time"] is None
    assert kept["ended_time"] is None


@unhurried
@given(reports())
def test_every_report_is_read_back(newest: Report) -> None:
    assert Report.from_document(json.loads(json.dumps(newest.to_document()))) == newest


@pytest.mark.parametrize(
    "change",
    [
        {"restore_id": None},
        {"restore_id": 7},
        {"revision": None},
        {"revision": -1},
        {"state": None},
        {"state": "paused"},
        {"state": 7},
        {"started_time": "then"},
        {"ended_time": 7},
        {"files_restored": -1},
        {"bytes_restored": 1.5},
        {"total_files": "9"},
        {"total_bytes": True},
        {"errors": []},
        {"errors": {"count": -1}},
    ],
)
def test_a_document_that_is_no_report_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        Report.from_document(report().to_document() | change)


def test_a_state_that_is_none_is_named_in_the_complaint() -> None:
    with pytest.raises(MalformedError, match="'paused' is no state of a restore"):
        state_of({"state": "paused"})


@pytest.mark.parametrize("state", RestoreState)
def test_every_state_is_read_from_a_document(state: RestoreState) -> None:
    assert state_of({"state": str(state)}) is state
