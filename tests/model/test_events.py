"""A page of events -> the restores that are to stop."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.errors import MalformedError
from agent_reporter.model.events import MAX_MARKER, PAGE_SIZE, EventPage, read_page
from tests.model.strategies import unhurried


def stop(event_id: object = "e-1", restore: object = None) -> dict[str, Any]:
    return {"id": event_id, "event": "restore_stop_request", "restore": restore, "request_id": "q-1"}


def progress(event_id: str) -> dict[str, Any]:
    return {"id": event_id, "event": "restore_progress", "restore": {"id": "r-1"}, "bytes_completed": 7}


def test_a_page_names_the_restores_that_are_to_stop_and_the_last_event() -> None:
    page = {"events": [stop("e-1", {"id": "r-1"}), progress("e-2"), stop("e-3", {"id": "r-2"})], "links": []}
    assert read_page(page) == EventPage(frozenset({"r-1", "r-2"}), "e-3", is_full=False)


@pytest.mark.parametrize("nonsense", [None, "restore_stop_request", 7, [], True])
def test_what_is_no_event_keeps_none_after_it_from_being_seen(nonsense: Any) -> None:
    page = {"events": [nonsense, stop("e-2", {"id": "r-1"})]}
    assert read_page(page) == EventPage(frozenset({"r-1"}), "e-2", is_full=False)


def test_only_a_stop_request_asks_for_a_stop() -> None:
    kinds = [
        "restore_start_request",
        "restore_in_progress",
        "restore_progress",
        "restore_completed",
        "restore_failed",
        "restore_stopped",
        "backup_stop_request",
        None,
    ]
    page = {"events": [stop(restore={"id": "r-1"}) | {"event": kind} for kind in kinds]}
    assert read_page(page).stop_requests == frozenset()


@pytest.mark.parametrize("restore", [None, {}, {"id": None}, {"id": 7}, "r-9", []])
def test_an_event_that_does_not_repeat_the_restore_is_of_the_one_that_was_asked_for(restore: object) -> None:
    assert read_page({"events": [stop(restore=restore)]}, "r-1").stop_requests == {"r-1"}
    assert read_page({"events": [stop(restore=restore)]}).stop_requests == frozenset()


def test_the_restore_that_an_event_names_goes_before_the_one_that_was_asked_for() -> None:
    assert read_page({"events": [stop(restore={"id": "r-2"})]}, "r-1").stop_requests == {"r-2"}


def test_an_empty_name_is_nobodys() -> None:
    assert read_page({"events": [stop(restore={"id": ""})]}).stop_requests == frozenset()


def test_an_empty_page_has_no_marker() -> None:
    assert read_page({"events": []}) == EventPage(frozenset(), None, is_full=False)


@pytest.mark.parametrize("strange", [None, 7, "stop", [], [stop()], {}, {"id": None}, {"id": {}}])
def test_an_event_that_makes_no_sense_is_passed_over(strange: object) -> None:
    page = read_page({"events": [stop("e-1", {"id": "r-1"}), strange]})
    assert page == EventPage(frozenset({"r-1"}), "e-1", is_full=False)


def test_an_id_that_no_address_can_carry_is_no_marker() -> None:
    page = read_page({"events": [stop("e" * MAX_MARKER), stop("e" * (MAX_MARKER + 1), {"id": "r-2"})]})
    assert page.marker == "e" * MAX_MARKER
    assert "r-2" in page.stop_requests


def test_a_marker_may_be_a_number() -> None:
    assert read_page({"events": [progress("e-1"), stop(17)]}).marker == "17"


@pytest.mark.parametrize(
    ("events", "is_full"), [(PAGE_SIZE - 1, False), (PAGE_SIZE, True), (PAGE_SIZE + 1, True)]
)
def test_a_full_page_says_that_there_may_be_more(events: int, is_full: bool) -> None:  # noqa: FBT001
    page = read_page({"events": [progress(str(number)) for number in range(events)]})
    assert page.is_full is is_full
    assert page.marker == str(events - 1)


@pytest.mark.parametrize("document", [{}, {"events": None}, {"events": {}}, {"events": "stop"}])
def test_a_document_without_events_is_malformed(document: dict[str, Any]) -> None:
    with pytest.raises(MalformedError, match="has to hold an array 'events'"):
        read_page(document)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "event", "restore"]) | st.text(), inner, max_size=4)
    ),
    max_leaves=8,
)


@unhurried
@given(st.lists(json_values | st.builds(stop, json_values, json_values)), st.none() | st.just("r-1"))
def test_no_events_make_a_page_unreadable(events: list[Any], restore_id: str | None) -> None:
    page = read_page({"events": events}, restore_id)
    assert all(page.stop_requests)
