"""What an answer means."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.errors import MalformedError
from agent_reporter.model import verdict
from agent_reporter.model.verdict import MAX_FAULT_TEXT, Answer, Verdict, explain, retry_after_seconds
from tests.model.builders import NOW
from tests.model.strategies import unhurried


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (100, Verdict.RETRY),
        (200, Verdict.RECONCILE),
        (202, Verdict.RECONCILE),
        (204, Verdict.DELIVERED),
        (205, Verdict.RECONCILE),
        (299, Verdict.RECONCILE),
        (300, Verdict.RETRY),
        (301, Verdict.RETRY),
        (302, Verdict.RETRY),
        (307, Verdict.RETRY),
        (399, Verdict.RETRY),
        (400, Verdict.REJECTED),
        (401, Verdict.SIGN_IN),
        (403, Verdict.GONE),
        (404, Verdict.GONE),
        (405, Verdict.GONE),
        (408, Verdict.RETRY),
        (409, Verdict.RECONCILE),
        (410, Verdict.REJECTED),
        (413, Verdict.REJECTED),
        (415, Verdict.REJECTED),
        (422, Verdict.REJECTED),
        (425, Verdict.RETRY),
        (429, Verdict.RETRY),
        (499, Verdict.REJECTED),
        (500, Verdict.RETRY),
        (501, Verdict.RETRY),
        (502, Verdict.RETRY),
        (503, Verdict.RETRY),
        (504, Verdict.RETRY),
        (599, Verdict.RETRY),
        (999, Verdict.RETRY),
    ],
)
def test_each_status_has_its_verdict(status: int, meaning: Verdict) -> None:
    assert verdict.of(status) is meaning


@unhurried
@given(st.integers(100, 999).filter(lambda status: status != 204))
def test_only_204_is_success(status: int) -> None:
    assert verdict.of(status) is not Verdict.DELIVERED


@pytest.mark.parametrize("status", [200, 201, 202, 206, 299, 500, 501, 502, 503, 504, 599])
def test_after_these_a_patch_may_have_been_carried_out(status: int) -> None:
    assert verdict.is_uncertain(status)


@pytest.mark.parametrize("status", [100, 204, 301, 302, 400, 401, 403, 404, 405, 408, 409, 413, 429, 499])
def test_after_these_it_is_known_whether_a_patch_was_carried_out(status: int) -> None:
    assert not verdict.is_uncertain(status)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        ("1", 1.0),
        (" 120 ", 120.0),
        ("007", 7.0),
        ("999999999", 999_999_999.0),
        ("9" * 5000, 999_999_999.0),
    ],
)
def test_retry_after_in_seconds(header: str, seconds: float) -> None:
    assert retry_after_seconds(header, NOW) == seconds


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("Mon, 20 Oct 2014 14:01:30 GMT", 90.0),
        ("  Mon, 20 Oct 2014 14:01:30 GMT ", 90.0),
        ("Mon, 20 Oct 2014 15:01:30 +0100", 90.0),
        ("Mon, 20 Oct 2014 14:01:30 -0000", 90.0),
        ("Monday, 20-Oct-14 14:01:30 GMT", 90.0),
        ("Mon Oct 20 14:01:30 2014", 90.0),
        ("Mon, 20 Oct 2014 14:00:00 GMT", 0.0),
        ("Mon, 20 Oct 2014 13:59:59 GMT", 0.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
    ],
)
def test_retry_after_as_a_date(header: str, seconds: float) -> None:
    assert retry_after_seconds(header, NOW) == seconds


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        "-1",
        "+5",
        "1.5",
        "soon",
        "²",
        "٣",
        "1e9",
        "Mon, 99 Oct 2014 14:01:30 GMT",
        "20 Oct",
        "14:01:30",
    ],
)
def test_an_unreadable_retry_after_asks_for_nothing(header: str | None) -> None:
    assert retry_after_seconds(header, NOW) == 0.0


@unhurried
@given(st.integers(0, 10**8))
def test_both_forms_of_retry_after_mean_the_same(seconds: int) -> None:
    date = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert retry_after_seconds(date, NOW) == retry_after_seconds(str(seconds), NOW) == seconds


@unhurried
@given(
    st.text()
    | st.from_regex(
        r"([MTWF][a-z]{2}, )?[0-9]{1,6} (Jan|Oct) [0-9]{1,6} [0-9]{1,3}:[0-9]{1,3}(:[0-9]{1,3})?( [+-][0-9]{1,9}| GMT)?",
        fullmatch=True,
    ),
    st.sampled_from([NOW, datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]),
)
def test_no_retry_after_raises_or_is_negative(header: str, now: datetime) -> None:
    assert retry_after_seconds(header, now) >= 0.0


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "Not so.", "errors": ["This.", "That."]}, "HTTP 400: Not so.; This.; That."),
        ({"message": "Not so."}, "HTTP 400: Not so."),
        ({"errors": ["This."]}, "HTTP 400: This."),
        ({"message": "", "errors": ["", "This."]}, "HTTP 400: This."),
        ({"message": 7, "errors": [None, {}, "This."]}, "HTTP 400: This."),
        ({"message": "Not so.", "errors": "This."}, "HTTP 400: Not so."),
        ({"message": None, "errors": {}}, "HTTP 400"),
        ({}, "HTTP 400"),
    ],
)
def test_a_fault_is_told_in_the_words_of_the_control_plane(body: dict[str, Any], words: str) -> None:
    assert explain(Answer(400, json.dumps(body).encode())) == words


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"\xff"])
def test_a_fault_without_words_is_told_by_its_status(body: bytes) -> None:
    assert explain(Answer(503, body)) == "HTTP 503"


def test_a_long_fault_is_cut() -> None:
    words = explain(Answer(400, json.dumps({"message": "x" * 10_000}).encode()))
    assert words == "HTTP 400: " + "x" * MAX_FAULT_TEXT


@unhurried
@given(st.binary() | st.text().map(str.encode))
def test_no_body_makes_an_explanation_fail(body: bytes) -> None:
    assert explain(Answer(500, body)).startswith("HTTP 500")


def test_an_answer_holds_its_document() -> None:
    assert Answer(200, b'{"state": "queued"}').document() == {"state": "queued"}
    with pytest.raises(MalformedError):
        Answer(204).document()
