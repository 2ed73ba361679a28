"""The states, and which may follow which."""

from __future__ import annotations

import pytest

from agent_reporter.model.state import FINAL_STATES, TRANSITIONS, RestoreState, may_follow
from tests.model.builders import FINALS, IN_PROGRESS, PREPARING, QUEUED, START_REQUESTED, STOP_REQUESTED

ORDER = (START_REQUESTED, QUEUED, PREPARING, IN_PROGRESS)


def test_the_states_are_spelled_as_the_protocol_spells_them() -> None:
    assert {str(state) for state in RestoreState} == {
        "start_requested",
        "queued",
        "preparing",
        "in_progress",
        "stop_requested",
        "completed",
        "completed_with_errors",
        "failed",
        "stopped",
    }


def test_the_four_results_are_final_and_nothing_else_is() -> None:
    assert {state for state in RestoreState if state.is_final} == set(FINALS) == FINAL_STATES


def test_every_state_has_a_row_in_the_table() -> None:
    assert set(TRANSITIONS) == set(RestoreState)


@pytest.mark.parametrize("final", FINALS)
def test_nothing_follows_a_final_state(final: RestoreState) -> None:
    assert not any(may_follow(final, following) for following in RestoreState)


@pytest.mark.parametrize("current", [*ORDER, STOP_REQUESTED])
@pytest.mark.parametrize("final", FINALS)
def test_a_final_state_may_follow_every_state_that_is_not_final(
    current: RestoreState, final: RestoreState
) -> None:
    assert may_follow(current, final)


@pytest.mark.parametrize("current", ORDER)
@pytest.mark.parametrize("following", ORDER)
def test_an_engine_may_leave_states_out_and_never_goes_back(
    current: RestoreState, following: RestoreState
) -> None:
    assert may_follow(current, following) is (ORDER.index(following) > ORDER.index(current))


@pytest.mark.parametrize("state", RestoreState)
def test_no_engine_states_a_stop_request_or_a_start_request(state: RestoreState) -> None:
    assert not may_follow(state, STOP_REQUESTED)
    assert not may_follow(state, START_REQUESTED)


@pytest.mark.parametrize("state", ORDER)
def test_after_a_stop_request_only_an_end_may_be_stated(state: RestoreState) -> None:
    assert not may_follow(STOP_REQUESTED, state)
