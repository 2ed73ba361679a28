"""The states of a restore and the table of transitions an engine may state."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class RestoreState(StrEnum):
    """A state of a restore, spelled as the protocol spells it."""

    START_REQUESTED = "start_requested"
    QUEUED = "queued"
    PREPARING = "preparing"
    IN_PROGRESS = "in_progress"
    STOP_REQUESTED = "stop_requested"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    STOPPED = "stopped"

    @property
    def is_final(self) -> bool:
        """Whether a restore in this state is finished: the control plane takes no update after it."""
        return self in FINAL_STATES


FINAL_STATES = frozenset(
    {
        RestoreState.COMPLETED,
        RestoreState.COMPLETED_WITH_ERRORS,
        RestoreState.FAILED,
        RestoreState.STOPPED,
    }
)

TRANSITIONS: Mapping[RestoreState, frozenset[RestoreState]] = MappingProxyType(
    {
        RestoreState.START_REQUESTED: FINAL_STATES
        | {RestoreState.QUEUED, RestoreState.PREPARING, RestoreState.IN_PROGRESS},
        RestoreState.QUEUED: FINAL_STATES | {RestoreState.PREPARING, RestoreState.IN_PROGRESS},
        RestoreState.PREPARING: FINAL_STATES | {RestoreState.IN_PROGRESS},
        RestoreState.IN_PROGRESS: FINAL_STATES,
        RestoreState.STOP_REQUESTED: FINAL_STATES,
        RestoreState.COMPLETED: frozenset(),
        RestoreState.COMPLETED_WITH_ERRORS: frozenset(),
        RestoreState.FAILED: frozenset(),
        RestoreState.STOPPED: frozenset(),
    }
)
"""From each state, the states that an engine may state next. An engine never states STOP_REQUESTED: that
is the control plane's word, and it is tracked beside the engine's own state, never in place of it."""


def may_follow(current: RestoreState, following: RestoreState) -> bool:
    """Whether an engine in `current` may state `following`."""
    return following in TRANSITIONS[current]
