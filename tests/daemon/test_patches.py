"""Whatever comes as a patch is understood, or refused in words."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from agent_reporter.daemon.patches import MAX_SENTENCES, read_patch
from agent_reporter.daemon.refusals import RefusedError
from agent_reporter.model.amendment import Amendment
from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.model.error_log import Errors
from agent_reporter.model.patch import Content, Spelling, operations, replace_state
from agent_reporter.model.state import RestoreState
from agent_reporter.model.times import format_time, parse_time
from tests.model.strategies import acknowledgements, all_errors, reports, spellings, times, unhurried

if TYPE_CHECKING:
    from agent_reporter.model.acknowledged import Acknowledged
    from agent_reporter.model.report import Report

PATHS = {
    "/state": "state",
    "/started-time": "started_time",
    "/started_time": "started_time",
    "/ended-time": "ended_time",
    "/ended_time": "ended_time",
    "/errors": "errors",
    "/files_restores": "files_restored",
    "/files_restored": "files_restored",
    "/bytes-restored": "bytes_restored",
    "/bytes_restored": "bytes_restored",
}
TIME = "2026-01-01T00:00:00.000000Z"

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
records = st.fixed_dictionaries(
    {},
    optional={"index": anything, "path": anything, "type": anything, "exception": anything, "more": anything},
)
errors = st.fixed_dictionaries(
    {},
    optional={
        "count": st.integers(0, 5) | anything,
        "reason": st.text(max_size=5) | anything,
        "diagnostics": st.none() | anything,
        "list": st.lists(records, max_size=3) | anything,
    },
)
almost_values = (
    anything
    | errors
    | st.sampled_from([state.value for state in RestoreState])
    | st.just(TIME)
    | st.integers(0, 9)
)
almost_operations = st.fixed_dictionaries(
    {},
    optional={
        "op": st.sampled_from(["add", "replace", "remove", "test"]) | anything,
        "path": st.sampled_from(sorted(PATHS)) | st.text(max_size=5) | anything,
        "value": almost_values,
        "from": anything,
    },
)
counts = st.integers(0, MAX_COUNT)
values: dict[str, st.SearchStrategy[Any]] = {
    "state": st.sampled_from(["queued", "preparing", "in_progress", "completed", "failed", "stopped"]),
    "started_time": times.map(format_time),
    "ended_time": times.map(format_time),
    "files_restored": counts,
    "bytes_restored": counts,
    "errors": all_errors().map(Errors.to_document),
}
good = [RestoreState(state) for state in RestoreState if state not in {"start_requested", "stop_requested"}]


def outcome(body: bytes) -> Amendment | RefusedError:
    """What comes of a patch: nothing else may."""
    try:
        return read_patch(body)
    except RefusedError as problem:
        return problem


def understood(body: bytes) -> Amendment | None:
    """What is understood; None if it is refused, as it should be."""
    found = outcome(body)
    if isinstance(found, Amendment):
        return found
    assert (found.status, found.closes, found.retry_after) == (400, False, None)
    document = json.loads(found.body())
    assert document["message"].endswith(".")
    assert len(document.get("errors", [])) <= MAX_SENTENCES
    assert len(found.body()) < 100_000
    return None


def refusal(body: bytes | list[dict[str, Any]]) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        read_patch(body if isinstance(body, bytes) else json.dumps(body).encode())
    return caught.value


def add(path: str, value: object) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


@given(st.binary())
@unhurried
def test_any_bytes_are_refused(body: bytes) -> None:
    assert understood(body) is None


@given(anything | st.lists(almost_operations, max_size=4))
@unhurried
def test_any_json_is_understood_or_refused(document: object) -> None:
    amendment = understood(json.dumps(document).encode())
    assert amendment != Amendment()


@given(st.permutations(sorted(PATHS)), st.integers(1, 3), st.data())
@unhurried
def test_a_patch_that_is_understood_changes_what_it_names_and_nothing_else(
    paths: list[str], length: int, data: st.DataObject
) -> None:
    named = {PATHS[path]: path for path in paths[:length]}
    patch = [add(path, data.draw(values[field])) for field, path in named.items()]
    amendment = understood(json.dumps(patch).encode())
    assert amendment == told_by(patch)
    assert {name for name in Amendment.__slots__ if getattr(amendment, name) is not None} == named.keys()


def told_by(patch: list[dict[str, Any]]) -> Amendment:
    """What a patch of the library tells, read by other means."""
    told: dict[str, Any] = {PATHS[operation["path"]]: operation["value"] for operation in patch}
    for name in {"started_time", "ended_time"} & told.keys():
        told[name] = parse_time(told[name])
    if "state" in told:
        told["state"] = RestoreState(told["state"])
    if "errors" in told:
        told["errors"] = Errors.from_document(told["errors"])
    return Amendment(**told)


@given(
    st.sampled_from([content for content in Content if content is not Content.STOP]),
    acknowledgements,
    reports(st.sampled_from(good)),
    spellings,
)
@unhurried
def test_whatever_the_library_tells_is_understood_in_either_spelling(
    content: Content, acknowledged: Acknowledged, newest: Report, spelling: Spelling
) -> None:
    counts = (acknowledged, newest)
    assume(all(max(each.files_restored, each.bytes_restored) <= MAX_COUNT for each in counts))
    assume(acknowledged.error_count <= MAX_COUNT)
    patch = operations(content, acknowledged, newest, spelling)
    assume(patch)
    assert understood(json.dumps(patch).encode()) == told_by(patch)


def test_a_request_to_stop_of_the_library_is_understood() -> None:
    body = json.dumps(replace_state(RestoreState.STOP_REQUESTED)).encode()
    assert understood(body) == Amendment(RestoreState.STOP_REQUESTED)


def test_the_example_of_the_protocol_is_understood() -> None:
    listed = {
        "path": "/a",
        "type": "missing",
        "exception": {"code": 2, "description": "gone", "details": "x"},
    }
    value = {"count": 1, "reason": "unable_to_process_some_files", "diagnostics": None, "list": [listed]}
    amendment = understood(json.dumps([add("/errors", value)]).encode())
    assert amendment is not None
    assert amendment.errors == Errors.from_document(value)


def test_each_thing_that_is_wrong_with_an_operation_is_said_where_it_is() -> None:
    value = {"count": -1, "reason": 5, "list": [{"path": "/a"}, {"path": 7}]}
    said = refusal([add("/state", "queued"), add("/errors", value)])
    assert str(said) == "The patch is not valid."
    assert len(said.errors) == 3
    assert said.errors[0].startswith("Operation 1, /errors.value.count: ")
    assert said.errors[2].startswith("Operation 1, /errors.value.list.1.path: ")


def test_a_refusal_has_so_many_sentences_and_no_more_however_much_is_wrong() -> None:
    many = refusal([add("/state", number) for number in range(10_000)])
    assert 1 <= len(many.errors) <= MAX_SENTENCES
    long = refusal([{"op": "add", "path": "/" + "x" * 100_000, "value": 1}])
    assert all(len(sentence) <= 300 for sentence in long.errors)


def test_a_patch_without_an_operation_is_refused() -> None:
    assert str(refusal(b"[]")) == "A patch is an array of at least one operation."


def test_a_field_that_is_changed_twice_is_refused_also_in_two_spellings() -> None:
    said = refusal([add("/bytes-restored", 1), add("/bytes_restored", 2)])
    assert said.errors == ["bytes_restored is changed more than once."]


@pytest.mark.parametrize(
    ("count", "is_taken"), [(0, True), (MAX_COUNT, True), (MAX_COUNT + 1, False), (-1, False)]
)
def test_a_count_is_one_of_64_bits(count: int, is_taken: bool) -> None:  # noqa: FBT001 - a column of the table
    assert (understood(json.dumps([add("/bytes-restored", count)]).encode()) is not None) is is_taken


@pytest.mark.parametrize("count", ["1", 1.0, True, None, 1.5, [1]])
def test_what_looks_like_a_count_is_none(count: object) -> None:
    assert understood(json.dumps([add("/bytes-restored", count)]).encode()) is None


@pytest.mark.parametrize("time", [TIME, "2026-01-01T01:00:00+01:00", "2026-01-01T00:00:00Z"])
def test_a_time_may_be_told_in_any_zone(time: str) -> None:
    assert understood(json.dumps([add("/started-time", time)]).encode()) == Amendment(
        started_time=parse_time(TIME)
    )


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-01T00:00:00",
        "yesterday",
        0,
        None,
        1_767_225_600,
        "",
        "2026-02-30T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "1700000000",
        "2024-01-01T00:00:00Z\0",
        "2024-W01-1T00:00:00Z",
        "20240101T000000Z",
        "2024-01-01x00:00:00Z",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00+01:00:30",
        "2024-13-01T00:00:00Z",
    ],
)
def test_what_is_no_moment_is_no_time(time: object) -> None:
    assert understood(json.dumps([add("/started-time", time)]).encode()) is None
