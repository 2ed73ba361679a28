"""Times as the protocol writes them, and as others do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.errors import MalformedError
from agent_reporter.model.times import format_time, parse_optional_time, parse_time
from tests.model.builders import STARTED, STARTED_TEXT
from tests.model.strategies import unhurried

ZONE = timezone(timedelta(hours=5, minutes=30))


def test_a_time_is_written_in_utc_with_microseconds() -> None:
    assert format_time(STARTED) == STARTED_TEXT
    assert format_time(STARTED.astimezone(ZONE)) == STARTED_TEXT
    assert format_time(datetime(2014, 10, 20, tzinfo=UTC)) == "2014-10-20T00:00:00.000000Z"


@pytest.mark.parametrize(
    "text",
    [
        STARTED_TEXT,
        "2014-10-20T13:11:58.985151",
        "2014-10-20T13:11:58.985151789Z",
        "2014-10-20T18:41:58.985151+05:30",
    ],
)
def test_a_time_is_read_in_every_form_that_control_planes_write(text: str) -> None:
    moment = parse_time(text)
    assert moment == STARTED
    assert moment.tzinfo is UTC


def test_milliseconds_and_whole_seconds_are_read() -> None:
    assert parse_time("2014-10-07T02:52:57.416Z") == datetime(2014, 10, 7, 2, 52, 57, 416_000, UTC)
    assert parse_time("2014-10-07T02:52:57Z") == datetime(2014, 10, 7, 2, 52, 57, 0, UTC)


@pytest.mark.parametrize("text", ["", "yesterday", "2014-13-01T00:00:00Z", "0001-01-01T00:00:00+14:00"])
def test_a_text_that_is_no_time_is_malformed(text: str) -> None:
    with pytest.raises(MalformedError, match="is not an RFC 3339 time"):
        parse_time(text)


@pytest.mark.parametrize("value", [None, 7, 1413810718.9, [], True])
def test_what_is_no_text_is_no_time(value: object) -> None:
    with pytest.raises(MalformedError, match="RFC 3339 text is wanted"):
        parse_time(value)


def test_null_is_no_time_where_a_time_is_optional() -> None:
    assert parse_optional_time(None) is None
    assert parse_optional_time(STARTED_TEXT) == STARTED


def test_a_control_plane_that_writes_its_zero_time_for_none_is_understood_and_kept() -> None:
    zero = parse_time("0001-01-01T00:00:00Z")
    assert format_time(zero) == "0001-01-01T00:00:00.000000Z"


@unhurried
@given(st.datetimes(timezones=st.just(UTC)))
def test_every_time_that_is_written_is_read_back(moment: datetime) -> None:
    assert parse_time(format_time(moment)) == moment


@unhurried
@given(st.text() | st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{0,15}([+-][0-9:]{0,6}|Z)?"))
def test_no_text_raises_anything_but_malformed(text: str) -> None:
    try:
        moment = parse_time(text)
    except MalformedError:
        return
    assert moment.utcoffset() == timedelta(0)


def test_what_is_no_time_is_quoted_no_further_than_a_person_reads() -> None:
    with pytest.raises(MalformedError) as raised:
        parse_time("9" * 1_000_000)
    assert len(str(raised.value)) < 100
