"""How a control plane wants to be told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from agent_reporter.errors import MalformedError
from agent_reporter.model.dialect import Dialect, PathSpelling, Progress, Way
from agent_reporter.model.patch import Content, Spelling
from tests.model.strategies import dialects, unhurried

AUTHORITY, DOCUMENT = Spelling.AUTHORITY, Spelling.DOCUMENT
AUTO = Dialect.of_settings(PathSpelling.AUTO, Progress.AUTO)


def test_the_settings_are_spelled_as_they_are_documented() -> None:
    assert list(PathSpelling) == ["authority", "document", "auto"]
    assert list(Progress) == ["auto", "counters", "with_state", "final_only"]


@pytest.mark.parametrize("progress", Progress)
def test_a_spelling_that_is_set_is_settled(progress: Progress) -> None:
    assert Dialect.of_settings(PathSpelling.AUTHORITY, progress) == Dialect(AUTHORITY, True, progress)
    assert Dialect.of_settings(PathSpelling.DOCUMENT, progress) == Dialect(DOCUMENT, True, progress)


@pytest.mark.parametrize("progress", Progress)
def test_auto_begins_with_the_authority_and_may_change_over(progress: Progress) -> None:
    assert Dialect.of_settings(PathSpelling.AUTO, progress) == Dialect(AUTHORITY, False, progress)


def test_by_default_the_authority_is_followed() -> None:
    assert Dialect() == Dialect.of_settings(PathSpelling.AUTHORITY, Progress.AUTO)


@pytest.mark.parametrize("spelling", Spelling)
def test_in_a_settled_spelling_there_is_one_way_and_then_less_to_say(spelling: Spelling) -> None:
    dialect = Dialect(spelling, settled=True)
    assert dialect.ways(Content.RESULT) == (
        Way(Content.RESULT, spelling),
        Way(Content.RESULT_ALONE, spelling),
    )
    assert dialect.ways(Content.STATE) == (Way(Content.STATE, spelling), Way(Content.STATE_ALONE, spelling))
    assert dialect.ways(Content.PROGRESS) == (Way(Content.PROGRESS, spelling),)


def test_progress_beside_a_state_is_not_told_as_a_state_alone_which_would_tell_nothing() -> None:
    beside = Content.PROGRESS_BESIDE_STATE
    assert Dialect().ways(beside) == (Way(beside, AUTHORITY),)
    assert AUTO.ways(beside) == (Way(beside, AUTHORITY), Way(beside, DOCUMENT))


@pytest.mark.parametrize(
    "content", [Content.RESULT, Content.STATE, Content.PROGRESS, Content.PROGRESS_BESIDE_STATE]
)
def test_the_first_way_to_say_something_says_all_of_it(content: Content) -> None:
    assert AUTO.ways(content)[0] == Way(content, AUTHORITY)


def test_in_auto_the_other_spelling_comes_before_saying_less() -> None:
    assert AUTO.ways(Content.RESULT) == (
        Way(Content.RESULT, AUTHORITY),
        Way(Content.RESULT, DOCUMENT),
        Way(Content.RESULT_ALONE, AUTHORITY),
        Way(Content.RESULT_ALONE, DOCUMENT),
    )
    assert AUTO.ways(Content.PROGRESS) == (Way(Content.PROGRESS, AUTHORITY), Way(Content.PROGRESS, DOCUMENT))


def test_a_state_alone_has_no_spelling_so_it_is_said_once() -> None:
    assert AUTO.ways(Content.STATE) == (
        Way(Content.STATE, AUTHORITY),
        Way(Content.STATE, DOCUMENT),
        Way(Content.STATE_ALONE, AUTHORITY),
    )


@pytest.mark.parametrize("spelling", Spelling)
def test_a_spelling_that_was_taken_stays(spelling: Spelling) -> None:
    settled = AUTO.settle(Way(Content.STATE, spelling))
    assert settled == Dialect(spelling, settled=True, progress=Progress.AUTO)


@pytest.mark.parametrize("progress", Progress)
def test_without_progress_only_the_result_has_counters(progress: Progress) -> None:
    before = Dialect(DOCUMENT, settled=False, progress=progress)
    assert before.without_progress() == Dialect(DOCUMENT, settled=False, progress=Progress.FINAL_ONLY)


def test_it_is_kept_as_a_document() -> None:
    assert AUTO.to_document() == {"spelling": "authority", "settled": False, "progress": "auto"}


@unhurried
@given(dialects)
def test_every_dialect_is_read_back(dialect: Dialect) -> None:
    assert Dialect.from_document(json.loads(json.dumps(dialect.to_document()))) == dialect


@pytest.mark.parametrize(
    "change",
    [
        {"spelling": None},
        {"spelling": "auto"},
        {"spelling": 7},
        {"progress": None},
        {"progress": "never"},
        {"progress": 7},
    ],
)
def test_other_documents_are_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        Dialect.from_document(AUTO.to_document() | change)
