"""Any object in a few words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.model.showing import MAX_SHOWN, described, printable, shown
from tests.model.strategies import unhurried


class Unshowable(Exception):  # noqa: N818 - an exception and a value in one
    """An object of somebody else's that cannot even be printed."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    __str__ = __repr__


def test_a_value_is_shown_by_its_repr() -> None:
    assert shown("a") == "'a'"
    assert shown(None) == "None"


def test_a_long_value_is_cut() -> None:
    assert shown("x" * 1_000) == "'" + "x" * (MAX_SHOWN - 1)


def test_a_value_that_cannot_be_shown_is_named() -> None:
    assert shown(Unshowable()) == "<Unshowable that cannot be shown>"


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (ValueError("not so"), "ValueError: not so"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (Unshowable(), "Unshowable"),
    ],
)
def test_an_exception_is_described_by_its_class_and_what_it_says(problem: Exception, words: str) -> None:
    assert described(problem) == words


@unhurried
@given(st.text() | st.binary() | st.lists(st.integers()))
def test_nothing_is_shown_in_more_than_a_line(value: object) -> None:
    words = shown(value)
    assert len(words) <= MAX_SHOWN
    assert "\n" not in words


@pytest.mark.parametrize(
    ("text", "seen"), [("plain ä", "plain ä"), ("\x1b[2Jgone", "\\x1b[2Jgone"), ("a\nb\0", "a\\nb\\x00")]
)
def test_no_text_steers_a_terminal(text: str, seen: str) -> None:
    assert printable(text) == seen
