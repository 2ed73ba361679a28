"""Whole conversations: any engine, any control plane, any faults, and what we promise at every step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent_reporter.model.dialect import PathSpelling, Progress
from agent_reporter.model.patch import Spelling
from tests.model.builders import (
    COMPLETED,
    FAILED,
    FINALS,
    IN_PROGRESS,
    PREPARING,
    QUEUED,
    START_REQUESTED,
    STOP_REQUESTED,
    document,
)
from tests.model.simulation import ControlPlane, Conversation, Fault

if TYPE_CHECKING:
    from agent_reporter.model.state import RestoreState


class Move(Protocol):
    """Something that happens in a conversation."""

    def happen(self, conversation: Conversation) -> None:
        """Make it happen."""
        ...


@dataclass(frozen=True)
class States:
    """The engine states this."""

    state: RestoreState

    def happen(self, conversation: Conversation) -> None:
        conversation.states(self.state)


@dataclass(frozen=True)
class Restores:
    """The engine has restored so much more."""

    files: int
    bytes_: int

    def happen(self, conversation: Conversation) -> None:
        conversation.restores(self.files, self.bytes_)


@dataclass(frozen=True)
class MeetsAnError:
    """The engine could not restore a file."""

    def happen(self, conversation: Conversation) -> None:
        conversation.meets_an_error()


@dataclass(frozen=True)
class IsToStop:
    """A stop is asked for."""

    def happen(self, conversation: Conversation) -> None:
        conversation.is_to_stop()


@dataclass(frozen=True)
class EndsElsewhere:
    """Somebody else ends the restore."""

    state: RestoreState

    def happen(self, conversation: Conversation) -> None:
        conversation.ends_elsewhere(self.state)


@dataclass(frozen=True)
class Restarts:
    """The reporter restarts in good order."""

    def happen(self, conversation: Conversation) -> None:
        conversation.restarts()


@dataclass(frozen=True)
class Crashes:
    """The reporter is killed and goes on from what was kept."""

    def happen(self, conversation: Conversation) -> None:
        conversation.crashes()


@dataclass(frozen=True)
class Turns:
    """The delivery takes so many turns, each with this fault."""

    number: int
    fault: Fault = Fault.NONE

    def happen(self, conversation: Conversation) -> None:
        for _ in range(self.number):
            conversation.turn(self.fault)


engine: st.SearchStrategy[Move] = st.one_of(
    st.builds(States, st.sampled_from([QUEUED, PREPARING, IN_PROGRESS])),
    st.builds(Restores, st.integers(0, 2), st.integers(0, 2)),
    st.just(MeetsAnError()),
)
an_end: st.SearchStrategy[Move] = st.builds(States, st.sampled_from(FINALS))
delivery: st.SearchStrategy[Move] = st.one_of(
    st.builds(Turns, st.integers(1, 3)),
    st.builds(Turns, st.integers(1, 2), st.sampled_from(Fault)),
)
stops: st.SearchStrategy[Move] = st.just(IsToStop())
restarts: st.SearchStrategy[Move] = st.just(Restarts())
crashes: st.SearchStrategy[Move] = st.just(Crashes())
elsewhere: st.SearchStrategy[Move] = st.builds(EndsElsewhere, st.sampled_from([COMPLETED, FAILED]))


def scripts(*rare: st.SearchStrategy[Move]) -> st.SearchStrategy[list[Move]]:
    """What happens, in order: an engine that works and a delivery that tells, and now and then one of these."""
    return st.lists(st.one_of(engine, engine, delivery, delivery, delivery, an_end, *rare), max_size=40)


counts = st.integers(0, 3)
control_planes = st.builds(
    ControlPlane,
    document=st.builds(
        lambda state, files, bytes_, errors: document(
            state,
            files_restored=files,
            bytes_restored=bytes_,
            errors={"count": errors, "reason": "", "diagnostics": ""},
        ),
        st.sampled_from(
            [START_REQUESTED.value] * 3 + [QUEUED.value, IN_PROGRESS.value, STOP_REQUESTED.value]
        ),
        st.just(0) | counts,
        st.just(0) | counts,
        st.just(0) | counts,
    ),
    spelling=st.none() | st.sampled_from(Spelling),
    strict=st.booleans(),
    refuses=st.one_of(
        st.just(frozenset[str]()),
        st.frozensets(
            st.sampled_from(
                [
                    "queued",
                    "preparing",
                    "in_progress",
                    "failed",
                    "errors",
                    "files_restored",
                    "started_time",
                    "times",
                ]
            ),
            max_size=2,
        ),
    ),
)
unreadable_control_planes = control_planes.map(
    lambda there: replace(there, readable=False, document=document("start_requested"))
)
readings = {"path_spelling": st.sampled_from(PathSpelling), "progress": st.sampled_from(Progress)}


def play(conversation: Conversation, script: list[Move]) -> None:
    for move in script:
        move.happen(conversation)
    conversation.ends()


many = settings(max_examples=700, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@many
@given(there=control_planes, script=scripts(stops, restarts), **readings)
def test_what_we_promise_holds_whatever_happens(
    there: ControlPlane, script: list[Move], path_spelling: PathSpelling, progress: Progress
) -> None:
    play(Conversation(there, path_spelling, progress), script)


@many
@given(there=control_planes, script=scripts(stops, crashes), **readings)
def test_what_we_promise_holds_when_the_reporter_is_killed(
    there: ControlPlane, script: list[Move], path_spelling: PathSpelling, progress: Progress
) -> None:
    play(Conversation(there, path_spelling, progress), script)


@many
@given(there=control_planes, script=scripts(stops, elsewhere, crashes), **readings)
def test_what_we_promise_holds_when_the_restore_ends_elsewhere(
    there: ControlPlane, script: list[Move], path_spelling: PathSpelling, progress: Progress
) -> None:
    play(Conversation(there, path_spelling, progress), script)


LIES = {Fault.SOMETHING_BETWEEN, Fault.SOMETHING_BETWEEN_AFTERWARDS, Fault.CONFLICT}


def believable(move: Move) -> bool:
    """Where nothing can be read, a 2xx and a 409 are taken at their word, so one that lies is believed."""
    return not isinstance(move, Turns) or move.fault not in LIES


@many
@given(
    there=unreadable_control_planes,
    script=scripts(stops).map(lambda moves: [move for move in moves if believable(move)]),
    **readings,
)
def test_what_we_promise_holds_where_nothing_can_be_read(
    there: ControlPlane, script: list[Move], path_spelling: PathSpelling, progress: Progress
) -> None:
    play(Conversation(there, path_spelling, progress), script)
