"""What the control plane is known to have."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from agent_reporter.errors import MalformedError
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.state import RestoreState
from tests.model.builders import (
    ENDED,
    ENDED_TEXT,
    IN_PROGRESS,
    PREPARING,
    QUEUED,
    STARTED,
    STARTED_TEXT,
    document,
)
from tests.model.strategies import acknowledgements, unhurried

PUBLISHED: dict[str, Any] = {
    "project_id": "1234",
    "id": "r-1",
    "backup": {"id": "b-1", "links": []},
    "state": "start_requested",
    "started_time": None,
    "ended_time": None,
    "errors": {
        "count": 0,
        "reason": "",
        "diagnostics": "",
        "links": [{"href": "https://x/errors", "rel": "full"}],
    },
    "files_restored": 0,
    "bytes_restored": 0,
    "links": [],
}


def test_a_new_restore_as_it_is_published_is_as_nothing_was_ever_told() -> None:
    assert Acknowledged().read(PUBLISHED) == Acknowledged()


def test_a_read_shows_everything_but_the_records() -> None:
    known = Acknowledged(revision=7).read(
        document(
            "completed",
            started_time=STARTED_TEXT,
            ended_time=ENDED_TEXT,
            files_restored=8,
            bytes_restored=2**40,
            errors={"count": 2, "reason": "some", "diagnostics": "Look."},
        )
    )
    assert known == Acknowledged(
        revision=7,
        state=RestoreState.COMPLETED,
        started_time=STARTED,
        ended_time=ENDED,
        files_restored=8,
        bytes_restored=2**40,
        error_count=2,
        records=None,
        reason="some",
        diagnostics="Look.",
    )


def test_the_other_spelling_is_read_as_well() -> None:
    known = Acknowledged().read(
        {
            "state": "in_progress",
            "started-time": STARTED_TEXT,
            "ended-time": ENDED_TEXT,
            "files_restores": 8,
            "bytes-restored": 9,
        }
    )
    assert known == Acknowledged(
        state=IN_PROGRESS, started_time=STARTED, ended_time=ENDED, files_restored=8, bytes_restored=9
    )


def test_a_null_in_one_spelling_leaves_the_other_to_say_it() -> None:
    known = Acknowledged().read(document(files_restored=None, files_restores=8))
    assert known.files_restored == 8


def test_a_zero_in_the_spelling_of_the_document_is_not_overridden() -> None:
    assert Acknowledged().read(document(files_restored=0, files_restores=8)).files_restored == 0


def test_what_a_read_does_not_say_is_nothing() -> None:
    before = Acknowledged(3, QUEUED, STARTED, ENDED, 8, 9, 0, 0, "why", "how")
    assert before.read({"state": "preparing"}) == Acknowledged(revision=3, state=PREPARING)


def test_counters_are_taken_as_they_are_read_even_when_they_are_lower() -> None:
    before = Acknowledged(files_restored=8, bytes_restored=9, error_count=3)
    known = before.read(document(files_restored=7, bytes_restored=6))
    assert (known.files_restored, known.bytes_restored, known.error_count) == (7, 6, 0)


@pytest.mark.parametrize(("count", "records"), [(3, 2), (4, None), (2, None)])
def test_the_records_are_known_while_the_count_is_as_it_was(count: int, records: int | None) -> None:
    before = Acknowledged(error_count=3, records=2)
    assert before.read(document(errors={"count": count})).records == records


@pytest.mark.parametrize(
    "change",
    [
        {"state": None},
        {"state": "paused"},
        {"state": 7},
        {"started_time": "then"},
        {"ended_time": 7},
        {"files_restored": -1},
        {"files_restored": "8"},
        {"bytes_restored": 1.5},
        {"errors": []},
        {"errors": {"count": True}},
        {"errors": {"reason": 7}},
        {"errors": {"diagnostics": []}},
    ],
)
def test_a_document_that_cannot_be_understood_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        Acknowledged().read(document() | change)


def test_it_is_kept_as_a_document_of_the_control_plane_with_what_we_know_beside_it() -> None:
    known = Acknowledged(3, IN_PROGRESS, STARTED, None, 8, 9, 2, None, "why", "how")
    assert known.to_document() == {
        "revision": 3,
        "state": "in_progress",
        "started_time": STARTED_TEXT,
        "ended_time": None,
        "files_restored": 8,
        "bytes_restored": 9,
        "errors": {"count": 2, "reason": "why", "diagnostics": "how"},
        "records": None,
    }


@unhurried
@given(acknowledgements)
def test_all_of_it_is_read_back(known: Acknowledged) -> None:
    assert Acknowledged.from_document(json.loads(json.dumps(known.to_document()))) == known


def test_the_zero_time_of_a_control_plane_survives_a_restart() -> None:
    known = Acknowledged().read(document(started_time="0001-01-01T00:00:00Z"))
    assert Acknowledged.from_document(known.to_document()) == known


@pytest.mark.parametrize(
    "change", [{"revision": -1}, {"records": "2"}, {"errors": {"count": -1}}, {"state": "paused"}]
)
def test_other_documents_are_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        Acknowledged.from_document(Acknowledged().to_document() | change)
