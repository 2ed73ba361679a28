"""Restore ids that can stand in a URL and in a file name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.errors import InvalidRestoreIdError
from agent_reporter.model.restore_id import checked_restore_id, is_restore_id
from tests.model.strategies import unhurried


@pytest.mark.parametrize("text", ["1", "r", "R-1_2.3~4", "0b1c", "a" * 128])
def test_a_restore_id_is_taken_as_it_is(text: str) -> None:
    assert is_restore_id(text)
    assert checked_restore_id(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "-r",
        "_r",
        "~r",
        "a/b",
        "a\\b",
        "a b",
        "a\n",
        "ä",
        "a%2F",
        "a\0",
        "a" * 129,
        None,
        7,
        b"a",
    ],
)
def test_what_could_leave_its_place_in_a_path_is_no_restore_id(text: object) -> None:
    assert not is_restore_id(text)
    with pytest.raises(InvalidRestoreIdError, match=rf"^{re.escape(repr(text))} is no restore id"):
        checked_restore_id(text)


@unhurried
@given(st.text())
def test_a_restore_id_never_means_more_than_one_name(text: str) -> None:
    if is_restore_id(text):
        assert text.isascii()
        assert not set(text) & set("/\\?#%:\0\n ")
        assert not text.startswith((".", "-"))
