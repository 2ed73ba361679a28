"""A control plane and one conversation with it, in memory: what is sent is judged as it is sent.

Everything is pure and happens at once, so hypothesis can think up thousands of bad days. The control plane
takes whatever it is told, also counters that go down and a state over a stop request, as the real one does:
the conversation says whether we told it such a thing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from agent_reporter.model.dialect import Dialect, PathSpelling, Progress
from agent_reporter.model.error_log import ErrorRecord, Errors
from agent_reporter.model.exchange import Ending, Exchange
from agent_reporter.model.learning import after_no_answer, after_patch, after_read
from agent_reporter.model.patch import PATHS, Content, Operations, Spelling
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState, may_follow
from agent_reporter.model.steps import Read, Send, next_step
from agent_reporter.model.verdict import Answer, is_uncertain
from tests.model.builders import (
    ENDED,
    FINALS,
    IN_PROGRESS,
    PREPARING,
    QUEUED,
    START_REQUESTED,
    STARTED,
    STOP_REQUESTED,
    WORLD,
    document,
    paths,
)

ORDER = (START_REQUESTED, QUEUED, PREPARING, IN_PROGRESS)
STEPS_TO_THE_END = 8
"""The most that a result takes once nothing fails: a token, a read, four ways to say it, and some doubt."""

_NAMES = {
    PATHS[spelling][key]: name
    for spelling in Spelling
    for key, name in (
        ("started", "started_time"),
        ("ended", "ended_time"),
        ("files", "files_restored"),
        ("bytes", "bytes_restored"),
    )
}


class Fault(Enum):
    """What becomes of a request: the answer, if one comes, and whether it was carried out."""

    NONE = (None, True)
    LOST = ("uncertain", False)
    ANSWER_LOST = ("uncertain", True)
    NO_CONNECTION = ("certain", False)
    BROKEN = (500, False)
    BROKEN_AFTERWARDS = (500, True)
    UNAVAILABLE = (503, False)
    UNAUTHORIZED = (401, False)
    BUSY = (429, False)
    TIMED_OUT = (408, False)
    REDIRECTED = (302, False)
    CONFLICT = (409, False)
    SOMETHING_BETWEEN = (200, False)
    SOMETHING_BETWEEN_AFTERWARDS = (202, True)


@dataclass
class ControlPlane:
    """One restore at a control plane, with the peculiarities it has."""

    document: dict[str, Any] = field(default_factory=document)
    spelling: Spelling | None = None
    """The only one it takes; None if both."""
    strict: bool = False
    """Whether counters alone are refused (decision 5)."""
    readable: bool = True
    refuses: frozenset[str] = frozenset()
    """States, and paths beside a state, that it answers 400 to."""
    results: list[str] = field(default_factory=list)
    """Every final state that was applied by a patch."""
    ended_elsewhere: bool = False

    @property
    def state(self) -> RestoreState:
        """The state of the restore."""
        return RestoreState(self.document["state"])

    def read(self) -> Answer:
        """GET."""
        return Answer(200, json.dumps(self.document).encode()) if self.readable else Answer(405)

    def patch(self, operations: Operations) -> Answer:
        """PATCH."""
        if self.state.is_final:
            return Answer(409)
        if self._is_bad(operations):
            return Answer(400)
        for operation in operations:
            path = operation["path"]
            self.document[_NAMES.get(path, path[1:])] = operation["value"]
        made = self.document["state"]
        if RestoreState(made).is_final:
            self.results.append(made)
        return Answer(204)

    def would_take(self, newest: Report, path_spelling: PathSpelling) -> bool:
        """Whether there is any way to tell this result, in this spelling."""
        understood = path_spelling is PathSpelling.AUTO or self.spelling in {
            None,
            Spelling(path_spelling.value),
        }
        return understood and not self.refuses & {newest.state.value, "times", "started_time"}

    def _is_bad(self, operations: Operations) -> bool:
        touched = set(paths(operations))
        known = {"/state", "/errors", *(PATHS[self.spelling].values() if self.spelling else _NAMES)}
        said = {operation["value"] for operation in operations if operation["path"] == "/state"}
        names = {_NAMES.get(path, path[1:]) for path in touched}
        return (
            not touched <= known
            or (self.strict and "/state" not in touched)
            or bool(said & self.refuses)
            or bool(names & self.refuses)
            or ("times" in self.refuses and "ended_time" in names)
        )


class Conversation:
    """An engine, a reporter and a control plane; every request is held against what we promise."""

    def __init__(self, control_plane: ControlPlane, path_spelling: PathSpelling, progress: Progress) -> None:
        self.control_plane = control_plane
        self.path_spelling = path_spelling
        self.progress = progress
        self.exchange = Exchange(dialect=Dialect.of_settings(path_spelling, progress))
        self.newest = Report("r-1")
        self._kept = (self.newest, self._document())
        self._read_just_now = False
        """The last thing that happened to the delivery was a read that allows for a state."""
        self._in_doubt = False
        """A patch with a state may have been carried out, and the restore was not read since."""
        self._must_read = False
        """A 409, or another 2xx than 204, was not looked into yet."""
        self._refused_counters: set[Spelling] = set()
        self._taken: Spelling | None = None
        self._told_ends: set[RestoreState] = set()

    # What the engine does.

    def states(self, state: RestoreState) -> None:
        """The engine states a state, if it may."""
        if not may_follow(self.newest.state, state):
            return
        begun = state is IN_PROGRESS or state.is_final
        self._amend(
            state=state,
            started_time=self.newest.started_time or (STARTED if begun else None),
            ended_time=ENDED if state.is_final else None,
        )
        if state.is_final:
            self._keep()

    def restores(self, files: int, bytes_: int) -> None:
        """The engine has restored so much more."""
        if not self.newest.is_final:
            self._amend(
                files_restored=self.newest.files_restored + files,
                bytes_restored=self.newest.bytes_restored + bytes_,
            )

    def meets_an_error(self) -> None:
        """The engine could not restore a file."""
        known = self.newest.errors
        if not self.newest.is_final:
            record = ErrorRecord(f"/{known.count}", "missing")
            self._amend(errors=Errors(known.count + 1, records=(*known.records, record)))

    # What happens around.

    def is_to_stop(self) -> None:
        """The control plane wishes that the restore stops."""
        if not self.control_plane.state.is_final:
            self.control_plane.document["state"] = STOP_REQUESTED.value

    def ends_elsewhere(self, state: RestoreState) -> None:
        """Somebody else says that the restore has ended."""
        if not self.control_plane.state.is_final:
            self.control_plane.document["state"] = state.value
            self.control_plane.ended_elsewhere = True

    def restarts(self) -> None:
        """The reporter goes and comes back in good order."""
        self._keep()
        self.crashes()

    def crashes(self) -> None:
        """The reporter is killed, and its successor goes on from what was kept last, as after a takeover."""
        if self.exchange.ending is None:
            self.newest, kept = self._kept
            self.exchange = replace(
                Exchange.from_document(json.loads(kept)), uncertain=True, result_told=self.newest.is_final
            )
            self._read_just_now, self._in_doubt, self._must_read = False, True, False
            self._refused_counters.clear()
            if not self.exchange.dialect.settled:
                self._taken = None

    # What the reporter does.

    def turn(self, fault: Fault = Fault.NONE) -> bool:
        """One turn of the delivery; returns whether there was anything to do."""
        self._keep_what_has_to_be()
        step = next_step(self.exchange, self.newest)
        if step is None:
            self._read_just_now = False
            return False
        if isinstance(step, Send):
            self._judge(step)
        before = dict(self.control_plane.document)
        answer = self._carry_out(step, fault)
        if isinstance(step, Send):
            self._judge_outcome(step, before)
        self._notice(step, answer, fault)
        self._learn(step, answer, fault)
        return True

    def ends(self) -> None:
        """All faults are over and the engine ends, if it has not: then the exchange ends, soon and truly."""
        self.states(RestoreState.COMPLETED)
        steps = 0
        while self.exchange.ending is None:
            assert self.turn(), "a result that nobody tells"
            steps += 1
            assert steps <= STEPS_TO_THE_END
        self._judge_ending(self.exchange.ending)

    # Inside.

    def _amend(self, **changes: Any) -> None:
        self.newest = replace(self.newest, revision=self.newest.revision + 1, **changes)

    def _document(self) -> str:
        return json.dumps(self.exchange.to_document())

    def _keep(self) -> None:
        self._kept = (self.newest, self._document())

    def _keep_what_has_to_be(self) -> None:
        """As the keeper does: states, results and failures at once, mere progress not always."""
        report, kept = self._kept
        if report.state is not self.newest.state or Exchange.from_document(json.loads(kept)).attempt != (
            self.exchange.attempt
        ):
            self._keep()

    def _carry_out(self, step: Read | Send, fault: Fault) -> Answer | None:
        answer, carried_out = fault.value
        if carried_out:
            if isinstance(step, Read):
                real = self.control_plane.read()
            else:
                real = self.control_plane.patch(step.operations)
            if not isinstance(answer, int):
                return real if answer is None else None
        elif not isinstance(answer, int):
            return None
        if isinstance(step, Read):
            answer = {202: 200, 409: 503}.get(answer, answer)  # what a read may be answered
        return Answer(answer, b"<html>")

    def _learn(self, step: Read | Send, answer: Answer | None, fault: Fault) -> None:
        if answer is None:
            uncertain = fault.value[0] == "uncertain"
            self.exchange = after_no_answer(self.exchange, step, "no answer", WORLD, uncertain=uncertain)
        elif isinstance(step, Read):
            self.exchange = after_read(self.exchange, self.newest, answer, WORLD)
        else:
            self.exchange = after_patch(self.exchange, step, answer, WORLD)

    def _notice(self, step: Read | Send, answer: Answer | None, fault: Fault) -> None:
        """Keep in mind, apart from the model, what the next step has to heed."""
        self._read_just_now = False
        if isinstance(step, Read):
            if fault is Fault.NONE and self.control_plane.readable:
                self._in_doubt = self._must_read = False
                state = self.control_plane.state
                self._read_just_now = state is not STOP_REQUESTED and not state.is_final
            return
        lost = answer is None and fault.value[0] == "uncertain"
        unclear = lost or (answer is not None and is_uncertain(answer.status))
        if unclear and step.way.content.has_state:
            self._in_doubt = True
        if answer is None:
            return
        if answer.status == 204:
            self._in_doubt = False
            if any(path in _NAMES for path in paths(step.operations)):
                self._taken = step.way.spelling
        elif answer.status == 400 and not step.way.content.has_state:
            self._refused_counters.add(step.way.spelling)
        self._must_read = answer.status in {200, 202, 409}

    # What we promise.

    def _judge(self, step: Send) -> None:
        touched = paths(step.operations)
        assert touched, "an empty patch"
        assert ("/state" in touched) is step.way.content.has_state
        self._judge_spelling(step, touched)
        if self.exchange.readable:
            assert not self._must_read, "after a 409 the restore is read first"
        if "/state" in touched:
            self._judge_state(step)
        else:
            self._judge_counters(step)

    def _judge_spelling(self, step: Send, touched: list[str]) -> None:
        spelled = {path for path in touched if path in _NAMES}
        assert spelled <= set(PATHS[step.way.spelling].values())
        if self.path_spelling is not PathSpelling.AUTO:
            assert step.way.spelling.value == self.path_spelling.value
        elif spelled and self._taken is not None:
            assert step.way.spelling is self._taken, "a spelling that was taken stays"

    def _judge_state(self, step: Send) -> None:
        state = step.report.state
        assert not (self.exchange.readable and self._in_doubt), "after an uncertain outcome: read first"
        if state.is_final:
            self._told_ends.add(state)
            assert len(self._told_ends) == 1, "one end, and no other"
            return
        if self.exchange.readable:
            assert self._read_just_now, "a state goes out only straight after a read that allows for it"
        else:
            assert not self.exchange.uncertain, "a state after a doubt that no read can settle"
        known = self.exchange.acknowledged
        if known is not None and known.state is state:
            assert self.progress is Progress.WITH_STATE, "progress that carries a state"
            assert step.way.content is Content.PROGRESS_BESIDE_STATE

    def _judge_counters(self, step: Send) -> None:
        assert step.report.state is IN_PROGRESS
        assert step.way.content is Content.PROGRESS
        assert self.progress in {Progress.AUTO, Progress.COUNTERS}
        if self.progress is Progress.AUTO:
            assert step.way.spelling not in self._refused_counters, "counters that were refused already"

    def _judge_outcome(self, step: Send, before: dict[str, Any]) -> None:
        after = self.control_plane.document
        assert after["files_restored"] >= before["files_restored"], "files went down"
        assert after["bytes_restored"] >= before["bytes_restored"], "bytes went down"
        assert after["errors"]["count"] >= before["errors"]["count"], "errors went down"
        assert len(self.control_plane.results) <= 1
        if before["state"] in ORDER and after["state"] in ORDER:
            assert ORDER.index(after["state"]) >= ORDER.index(before["state"]), "a state went backwards"
        assert step.report is self.newest, "what is told is what is newest"

    def _judge_ending(self, ending: Ending) -> None:
        there, ours = self.control_plane, self.newest
        match ending:
            case Ending.DELIVERED | Ending.DELIVERED_BARE:
                assert there.state is ours.state
            case Ending.REJECTED:
                assert not there.would_take(ours, self.path_spelling)
                assert not there.state.is_final or there.ended_elsewhere
            case Ending.ENDED_ELSEWHERE:
                assert there.ended_elsewhere
            case _:
                raise AssertionError(f"nobody caused {ending}")
        if ending is Ending.DELIVERED and not there.ended_elsewhere:
            assert there.results == [ours.state.value]
            assert there.document["files_restored"] >= ours.files_restored
            assert there.document["bytes_restored"] >= ours.bytes_restored
            assert there.document["errors"]["count"] >= ours.errors.count
            assert there.document["ended_time"] is not None
        if there.state in FINALS and not there.ended_elsewhere:
            assert there.results == [there.state.value], "exactly one end is ever applied"
