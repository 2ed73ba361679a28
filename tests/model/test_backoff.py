"""When to try again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.model.backoff import Backoff
from tests.model.strategies import unhurried

BACKOFF = Backoff(base=2.0, cap=60.0, retry_after_cap=300.0)

randoms = st.floats(0, 1, exclude_max=True)
attempts = st.integers(-5, 10**6)


@pytest.mark.parametrize(
    ("attempt", "longest"), [(1, 2), (2, 4), (3, 8), (4, 16), (5, 32), (6, 60), (7, 60), (10**9, 60)]
)
def test_the_longest_wait_doubles_up_to_the_cap(attempt: int, longest: float) -> None:
    assert BACKOFF.delay(attempt, 1.0) == longest


@pytest.mark.parametrize("attempt", [1, 3, 9])
def test_jitter_is_full_so_that_a_wait_may_be_none_at_all(attempt: int) -> None:
    assert BACKOFF.delay(attempt, 0.0) == 0.0
    assert BACKOFF.delay(attempt, 0.25) == BACKOFF.delay(attempt, 1.0) / 4


@pytest.mark.parametrize("attempt", [0, -1])
def test_an_attempt_before_the_first_waits_like_the_first(attempt: int) -> None:
    assert BACKOFF.delay(attempt, 0.5) == BACKOFF.delay(1, 0.5) == 1.0


def test_retry_after_is_a_floor_and_jitter_comes_on_top() -> None:
    assert BACKOFF.delay(2, 0.0, 30.0) == 30.0
    assert BACKOFF.delay(2, 0.5, 30.0) == 32.0
    assert BACKOFF.delay(2, 1.0, 30.0) == 34.0


@pytest.mark.parametrize(
    ("retry_after", "floor"), [(-1.0, 0.0), (300.0, 300.0), (300.1, 300.0), (1e9, 300.0)]
)
def test_retry_after_is_clamped(retry_after: float, floor: float) -> None:
    assert BACKOFF.delay(1, 0.0, retry_after) == floor


def test_the_cap_may_be_shorter_than_the_base() -> None:
    assert Backoff(base=10.0, cap=3.0).delay(1, 1.0) == 3.0


@unhurried
@given(attempts, randoms, st.floats(allow_nan=False))
def test_no_wait_is_negative_or_longer_than_both_caps(
    attempt: int, random: float, retry_after: float
) -> None:
    assert 0 <= BACKOFF.delay(attempt, random, retry_after) <= 360


@unhurried
@given(attempts, randoms, st.floats(0, 300))
def test_no_wait_is_shorter_than_retry_after(attempt: int, random: float, retry_after: float) -> None:
    assert BACKOFF.delay(attempt, random, retry_after) >= retry_after
