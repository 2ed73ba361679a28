"""When calls are made."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.model import pacing
from tests.model.builders import NOW
from tests.model.strategies import unhurried

randoms = st.floats(0, 1, exclude_max=True)
moments = st.floats(0, 1e6)


def test_what_a_whole_fleet_does_is_spread_over_five_intervals() -> None:
    assert [pacing.spread(2.0, random) for random in (0.0, 0.5, 1.0)] == [0.0, 5.0, 10.0]


@pytest.mark.parametrize(
    ("retry_at", "next_telling", "urgent", "wait"),
    [
        (0.0, 0.0, False, 0.0),
        (0.0, 103.0, False, 3.0),
        (0.0, 103.0, True, 0.0),
        (105.0, 103.0, True, 5.0),
        (105.0, 103.0, False, 5.0),
        (100.0, 100.0, False, 0.0),
    ],
)
def test_a_retry_holds_everything_and_a_tick_mere_progress(
    retry_at: float, next_telling: float, *, urgent: bool, wait: float
) -> None:
    assert pacing.pause(100.0, retry_at, next_telling, urgent=urgent) == wait


@unhurried
@given(moments, moments, moments)
def test_progress_comes_neither_before_its_retry_nor_before_its_tick(
    now: float, retry_at: float, next_telling: float
) -> None:
    moment = now
    for _ in range(3):
        moment += pacing.pause(moment, retry_at, next_telling, urgent=False)
    assert moment == pytest.approx(max(now, retry_at, next_telling))


@pytest.mark.parametrize(("seconds", "left"), [(-1.0, 0.0), (0.0, 0.0), (7.0, 7.0), (90_000.0, 300.0)])
def test_a_clock_that_was_set_makes_no_wait_longer_than_it_can_be(seconds: float, left: float) -> None:
    assert pacing.seconds_left(NOW + timedelta(seconds=seconds), NOW, 300.0) == left


def test_there_is_nothing_to_wait_for_without_a_failure() -> None:
    assert pacing.seconds_left(None, NOW, 300.0) == 0.0


def test_looks_keep_their_rate_and_a_late_one_is_not_made_up_for() -> None:
    assert pacing.next_look(100.0, 2.0, 100.5) == 102.0
    assert pacing.next_look(100.0, 2.0, 104.0) == 104.0


def test_a_look_is_given_up_after_two_intervals_or_as_any_request() -> None:
    assert pacing.look_timeout(10.0, 2.0) == 4.0
    assert pacing.look_timeout(3.0, 2.0) == 3.0


@pytest.mark.parametrize(
    ("left", "latest"),
    [(86_400.0, 86_100.0), (3_000.0, 2_700.0), (1_000.0, 900.0), (10.0, 60.0), (-5.0, 60.0)],
)
def test_a_token_is_renewed_in_time_and_not_by_all_at_once(left: float, latest: float) -> None:
    assert pacing.token_life(left, 0.0) == latest
    assert pacing.token_life(left, 1.0) == pytest.approx(max(60.0, 0.9 * latest))


@unhurried
@given(st.floats(100, 1e8), randoms)
def test_a_token_is_renewed_before_it_ends(left: float, random: float) -> None:
    assert 60.0 <= pacing.token_life(left, random) < left
