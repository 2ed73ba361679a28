"""Which process is meant."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.errors import MalformedError
from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.model.process_identity import ProcessIdentity
from tests.model.strategies import unhurried

IDENTITY = ProcessIdentity(42, 123_456, "b00t")


def test_an_identity_is_one_line_of_json() -> None:
    assert IDENTITY.encode() == b'{"pid": 42, "start_ticks": 123456, "boot_id": "b00t"}\n'


def test_a_recycled_pid_is_another_identity() -> None:
    assert ProcessIdentity(42, 123_457, "b00t") != IDENTITY
    assert ProcessIdentity(42, 123_456, "another") != IDENTITY


@unhurried
@given(st.builds(ProcessIdentity, st.integers(0, MAX_COUNT), st.integers(0, MAX_COUNT), st.text()))
def test_every_identity_is_read_back(identity: ProcessIdentity) -> None:
    assert ProcessIdentity.decode(identity.encode()) == identity


@pytest.mark.parametrize(
    "change",
    [{"pid": None}, {"pid": -1}, {"pid": "42"}, {"start_ticks": None}, {"boot_id": None}, {"boot_id": 7}],
)
def test_an_identity_that_lacks_something_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        ProcessIdentity.from_document(IDENTITY.to_document() | change)


@pytest.mark.parametrize("content", [b"", b"42\n", b"[]", b"\0\0"])
def test_other_bytes_are_malformed(content: bytes) -> None:
    with pytest.raises(MalformedError):
        ProcessIdentity.decode(content)
