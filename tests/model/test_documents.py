"""JSON from outside: the right type, or MalformedError and nothing else."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.errors import MalformedError
from agent_reporter.model.documents import count_of, object_of, optional_count_of, parse_object, text_of
from tests.model.strategies import unhurried


@pytest.mark.parametrize("body", ['{"a": 1}', b'{"a": 1}', '{"a": 1}'.encode("utf-16")])
def test_an_object_is_read_from_text_and_from_bytes(body: bytes | str) -> None:
    assert parse_object(body) == {"a": 1}


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"\xff\xfe\xff", b"{", "nonsense", b'{"a": ' + b"9" * 5000 + b"}"]
)
def test_what_is_no_json_is_malformed(body: bytes | str) -> None:
    with pytest.raises(MalformedError, match="not JSON"):
        parse_object(body)


def test_json_without_a_bottom_is_malformed() -> None:
    with pytest.raises(MalformedError, match="not JSON"):
        parse_object('{"a":' * 100_000)


@pytest.mark.parametrize(
    ("body", "kind"), [("[]", "list"), ("null", "NoneType"), ("7", "int"), ('"a"', "str")]
)
def test_other_json_than_an_object_is_malformed(body: str, kind: str) -> None:
    with pytest.raises(MalformedError, match=f"a JSON object is wanted, not {kind}"):
        parse_object(body)


@unhurried
@given(st.binary())
def test_no_bytes_raise_anything_but_malformed(body: bytes) -> None:
    with suppress(MalformedError):
        assert isinstance(parse_object(body), dict)


def test_a_text_is_read() -> None:
    assert text_of({"a": "text"}, "a") == "text"
    assert text_of({"a": "text"}, "a", "default") == "text"


@pytest.mark.parametrize("document", [{}, {"a": None}])
def test_a_text_that_is_absent_is_the_default_or_malformed(document: dict[str, Any]) -> None:
    assert text_of(document, "a", "") == ""
    with pytest.raises(MalformedError, match="'a' has to be text, not NoneType"):
        text_of(document, "a")


@pytest.mark.parametrize("value", [7, True, [], {}])
def test_what_is_no_text_is_malformed_also_where_there_is_a_default(value: object) -> None:
    with pytest.raises(MalformedError, match="'a' has to be text"):
        text_of({"a": value}, "a", "default")


@pytest.mark.parametrize("value", [0, 1, 2**63 - 1])
def test_a_count_is_read(value: int) -> None:
    assert count_of({"a": value}, "a") == value
    assert optional_count_of({"a": value}, "a") == value


@pytest.mark.parametrize("document", [{}, {"a": None}])
def test_a_count_that_is_absent_is_the_default_or_malformed(document: dict[str, Any]) -> None:
    assert count_of(document, "a") == 0
    assert count_of(document, "a", 3) == 3
    assert optional_count_of(document, "a") is None
    with pytest.raises(MalformedError, match="'a' has to be a count, not None"):
        count_of(document, "a", None)


@pytest.mark.parametrize("value", [-1, True, False, 1.0, "1", [], {}])
def test_what_is_no_count_is_malformed(value: object) -> None:
    with pytest.raises(MalformedError, match="'a' has to be a count"):
        count_of({"a": value}, "a")
    with pytest.raises(MalformedError, match="'a' has to be a count"):
        optional_count_of({"a": value}, "a")


def test_a_complaint_about_a_count_is_short() -> None:
    with pytest.raises(MalformedError) as malformed:
        count_of({"a": "x" * 10_000}, "a")
    assert len(str(malformed.value)) < 100


def test_an_object_inside_is_read_and_is_empty_where_it_is_absent() -> None:
    assert object_of({"a": {"b": 1}}, "a") == {"b": 1}
    assert object_of({"a": None}, "a") == {}
    assert object_of({}, "a") == {}


@pytest.mark.parametrize("value", [[], "", 0, False])
def test_what_is_no_object_is_malformed(value: object) -> None:
    with pytest.raises(MalformedError, match="'a' has to be an object"):
        object_of({"a": value}, "a")


@unhurried
@given(st.dictionaries(st.text(), st.none() | st.integers() | st.text()))
def test_every_object_is_read_back(document: dict[str, Any]) -> None:
    assert parse_object(json.dumps(document)) == document
