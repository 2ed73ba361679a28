"""Reading a patch, as a plain function."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.reference.exchange import RefusedError
from agent_reporter.reference.patches import (
    PATCHABLE_STATES,
    PATHS,
    Field,
    Spelling,
    fields_touched,
    read_patch,
)
from tests.reference.conftest import replace, state

STATES = [state.value for state in PATCHABLE_STATES]
TIME = "2014-10-20T13:11:58.985151Z"
RECORD = {
    "index": 0,
    "path": "/etc/passwd",
    "type": "file_or_folder_missing",
    "exception": {"code": 2, "description": "No such file", "details": ""},
}
ERRORS = {"count": 1, "reason": "unable_to_process_some_files", "diagnostics": "Look.", "list": [RECORD]}
VALUES: dict[Field, Any] = {
    Field.STATE: "completed",
    Field.STARTED_TIME: TIME,
    Field.ENDED_TIME: TIME,
    Field.ERRORS: ERRORS,
    Field.FILES_RESTORED: 8,
    Field.BYTES_RESTORED: 2**40,
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
operations = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "replace", "remove", 7]),
        "path": st.sampled_from([*PATHS[Spelling.BOTH], "/id", "", None, []]),
        "value": st.sampled_from([*VALUES.values(), *STATES]) | json_values,
    }
)


def sentences(patch: Any, **how: Any) -> str:
    with pytest.raises(RefusedError) as refused:
        read_patch(patch, **how)
    assert refused.value.status == 400
    return " ".join([refused.value.message, *refused.value.errors])


@pytest.mark.parametrize("spelling", [Spelling.AUTHORITY, Spelling.DOCUMENT])
@pytest.mark.parametrize("op", ["add", "replace"])
def test_the_result_of_a_finished_restore_is_read_in_either_spelling(spelling: Spelling, op: str) -> None:
    patch = [{"op": op, "path": path, "value": VALUES[field]} for path, field in PATHS[spelling].items()]
    assert read_patch(patch) == VALUES
    assert read_patch(patch, spelling, strict=True) == VALUES


@pytest.mark.parametrize(
    ("spelling", "path"),
    [
        (Spelling.AUTHORITY, "/bytes_restored"),
        (Spelling.AUTHORITY, "/files_restored"),
        (Spelling.AUTHORITY, "/started_time"),
        (Spelling.AUTHORITY, "/ended_time"),
        (Spelling.DOCUMENT, "/bytes-restored"),
        (Spelling.DOCUMENT, "/files_restores"),
        (Spelling.DOCUMENT, "/started-time"),
        (Spelling.DOCUMENT, "/ended-time"),
    ],
)
def test_where_one_spelling_is_taken_the_other_is_not(spelling: Spelling, path: str) -> None:
    value = VALUES[PATHS[Spelling.BOTH][path]]
    assert "has to be one of" in sentences([replace(path, value)], spelling=spelling)


@pytest.mark.parametrize("name", STATES)
def test_every_state_of_the_three_scenarios_is_taken(name: str) -> None:
    assert read_patch(state(name), strict=True) == {Field.STATE: name}


@pytest.mark.parametrize("name", ["start_requested", "COMPLETED", "done", "", None, 3])
def test_any_other_state_is_refused(name: Any) -> None:
    assert "/state has to be one of queued" in sentences([replace("/state", name)])


@pytest.mark.parametrize("path", ["/files_restored", "/bytes-restored"])
@pytest.mark.parametrize("value", [True, False, -1, 1.0, "1", None, 2**63])
def test_a_counter_is_a_non_negative_integer(path: str, value: Any) -> None:
    assert path in sentences([replace(path, value)])


@pytest.mark.parametrize(
    "time",
    [
        "2014-10-20T13:11:58Z",
        "2014-10-20T13:11:58.9Z",
        "2014-10-20T13:11:58.985151Z",
        "2014-10-20T13:11:58+00:00",
    ],
)
def test_a_time_is_utc_to_the_microsecond_at_most(time: str) -> None:
    assert read_patch([replace("/started-time", time)]) == {Field.STARTED_TIME: time}


@pytest.mark.parametrize(
    "time",
    [
        "2014-10-20T13:11:58.9851511Z",
        "2014-10-20T13:11:58",
        "2014-10-20T15:11:58+02:00",
        "2014-10-20 13:11:58Z",
        "2014-13-20T13:11:58Z",
        "2014-10-20T13:11:58Z\n",
        "today",
        1413810718,
        None,
    ],
)
def test_any_other_time_is_refused(time: Any) -> None:
    assert "/ended_time has to be a time" in sentences([replace("/ended_time", time)])


@pytest.mark.parametrize(
    "errors",
    [
        ERRORS,
        {"count": 0},
        {**ERRORS, "diagnostics": None},
        {**ERRORS, "list": [{**RECORD, "exception": None}]},
        {"count": 3, "reason": "", "diagnostics": ""},
    ],
)
def test_an_errors_document_may_leave_things_out(errors: Any) -> None:
    assert read_patch([replace("/errors", errors)]) == {Field.ERRORS: errors}


@pytest.mark.parametrize(
    ("errors", "place"),
    [
        ([], "/errors"),
        ({}, "'count'"),
        ({**ERRORS, "count": "1"}, "/errors.count"),
        ({**ERRORS, "count": True}, "/errors.count"),
        ({**ERRORS, "reason": None}, "/errors.reason"),
        ({**ERRORS, "diagnostics": 1}, "/errors.diagnostics"),
        ({**ERRORS, "list": {}}, "/errors.list"),
        ({**ERRORS, "links": []}, "'links'"),
        ({**ERRORS, "list": [RECORD, {**RECORD, "index": "1"}]}, "/errors.list[1].index"),
        ({**ERRORS, "list": [{**RECORD, "path": None}]}, "/errors.list[0].path"),
        ({**ERRORS, "list": [{**RECORD, "path": "\udcff"}]}, "/errors.list[0].path"),
        ({**ERRORS, "list": [{**RECORD, "exception": {"code": "2"}}]}, "/errors.list[0].exception.code"),
        ({**ERRORS, "list": [{**RECORD, "exception": {"trace": ""}}]}, "'trace'"),
    ],
)
def test_a_wrong_errors_document_is_refused_with_the_place(errors: Any, place: str) -> None:
    assert place in sentences([replace("/errors", errors)])


@pytest.mark.parametrize(
    ("patch", "sentence"),
    [
        ([], "at least one operation"),
        ({}, "at least one operation"),
        (None, "at least one operation"),
        ([7], "Operation 0 has to be an object"),
        ([{"op": "replace", "path": "/state"}], "Operation 0 has to have 'value'"),
        (
            [{"op": "remove", "path": "/state", "value": "queued"}],
            "Operation 0.op has to be one of add, replace",
        ),
        ([{**replace("/state", "queued"), "from": "/id"}], "Operation 0 has 'from'"),
        ([replace("/destination_path", "/")], "Operation 0.path has to be one of"),
        ([replace("/errors/count", 1)], "Operation 0.path has to be one of"),
        ([replace("/state", "queued"), replace("/state", "queued")], "state is changed 2 times"),
        ([replace("/bytes-restored", 1), replace("/bytes_restored", 1)], "bytes_restored is changed 2 times"),
    ],
)
def test_what_is_no_patch_of_a_restore_is_refused_with_the_reason(patch: Any, sentence: str) -> None:
    assert sentence in sentences(patch)


@pytest.mark.parametrize("field", [field for field in Field if field is not Field.STATE])
def test_read_strictly_everything_stands_beside_a_state(field: Field) -> None:
    alone = [replace(f"/{field}", VALUES[field])]
    assert read_patch(alone) == {field: VALUES[field]}
    assert f"{field} may only be reported beside a state" in sentences(alone, strict=True)
    assert read_patch([*state("in_progress"), *alone], strict=True)


def test_read_strictly_a_request_to_stop_stands_alone() -> None:
    patch = [*state("stop_requested"), replace("/bytes-restored", 1)]
    assert read_patch(patch)
    assert "may not stand beside a request to stop" in sentences(patch, strict=True)


def test_an_answer_does_not_list_more_than_a_reader_reads() -> None:
    with pytest.raises(RefusedError) as refused:
        read_patch([7] * 10_000)
    assert len(refused.value.errors) == 20


@given(
    patch=st.lists(operations, min_size=1, max_size=6) | json_values,
    spelling=st.sampled_from(Spelling),
    strict=st.booleans(),
)
def test_any_document_is_read_or_refused_with_a_sentence(
    patch: Any, spelling: Spelling, *, strict: bool
) -> None:
    try:
        changes = read_patch(patch, spelling, strict=strict)
    except RefusedError as problem:
        refused = problem
    else:
        assert len(changes) == len(patch)
        assert changes.keys() == fields_touched(patch)
        return
    assert refused.status == 400
    assert refused.message.endswith(".")
    json.dumps(refused.errors)


@given(st.sets(st.sampled_from(Field), min_size=1), st.data())
def test_every_combination_of_fields_in_every_mix_of_spellings_is_taken(
    fields: set[Field], data: st.DataObject
) -> None:
    paths = PATHS[Spelling.BOTH].items()
    spelled = [
        data.draw(st.sampled_from([path for path, field in paths if field is wanted])) for wanted in fields
    ]
    patch = [replace(path, VALUES[PATHS[Spelling.BOTH][path]]) for path in spelled]
    assert read_patch(patch) == {field: VALUES[field] for field in fields}
