"""A reader of which each answer is checked as it comes, whatever it is fed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Begun, EngineError, Outcome, Progress
from agent_reporter.engines.fields import MAX_PATH_CHARACTERS
from agent_reporter.engines.wording import MAX_DIAGNOSTICS_BYTES
from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.model.error_log import MAX_DESCRIPTION, MAX_DETAILS, MAX_TOKEN
from agent_reporter.model.state import RestoreState
from agent_reporter.testing import rules
from agent_reporter.testing.rules import shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agent_reporter.engines.adapter import Observation, OutputReader, StopCause
    from agent_reporter.testing.case import Case
    from agent_reporter.testing.recordings import Line

TEXT_BOUNDS = {"path": MAX_PATH_CHARACTERS, "description": MAX_DESCRIPTION, "details": MAX_DETAILS}
"""In characters."""

_TOKEN = re.compile(r"[a-z][a-z0-9_]*")


class WatchedReader:
    """One reader of the adapter's. `about` says in a message where its lines come from."""

    def __init__(self, case: Case, about: str) -> None:
        self._case = case
        self._about = about
        self._begins_at_once = case.adapter.begins_at_once
        self._has_begun = False
        self._has_errors = False
        self._last: Line | None = None
        self.counters: dict[str, int] = {}
        """The last value of each counter."""
        self._reader = self._made()

    def _made(self) -> OutputReader:
        try:
            return self._case.adapter.reader()
        except Exception as problem:  # noqa: BLE001 - whatever it raises is the finding
            rules.NEVER_RAISES.broken(f"reader() raised {shown(problem)}.")

    def read(self, line: Line) -> list[Observation]:
        """What the reader tells of `line`."""
        self._case.tally.lines += 1
        self._last = line
        try:
            observations = list(self._reader.read_line(*line))
        except Exception as problem:  # noqa: BLE001 - whatever it raises is the finding
            rules.NEVER_RAISES.broken(f"read_line raised {shown(problem)} {self._where()}.")
        for observation in observations:
            self._check(observation)
        return observations

    def read_all(self, lines: Iterable[Line]) -> list[Observation]:
        """What the reader tells of `lines`, one after the other."""
        return [observation for line in lines for observation in self.read(line)]

    def outcome(self, returncode: int, stop: StopCause | None = None) -> Outcome:
        """How the reader judges the lines so far."""
        self._case.tally.endings += 1
        where = f"for exit status {returncode} and stop {stop!s} {self._where()}"
        try:
            outcome: object = self._reader.outcome(returncode, stop)
        except Exception as problem:  # noqa: BLE001 - whatever it raises is the finding
            rules.NEVER_RAISES.broken(f"outcome raised {shown(problem)} {where}.")
        if not isinstance(outcome, Outcome) or not isinstance(outcome.state, RestoreState):
            rules.FINAL.broken(f"outcome returned {shown(outcome)} {where}.")
        errors: object = outcome.errors
        if not isinstance(errors, (tuple, list)):
            rules.FINAL.broken(f"The errors of the outcome were {shown(errors)} {where}.")
        for error in errors:
            self._check_error(error)
        self._check_texts(outcome, where)
        self._check_state(outcome, returncode, stop, where)
        return outcome

    def _where(self) -> str:
        if self._last is None:
            return f"before any line, in {self._about}"
        stream, text = self._last
        return f"at the line {shown(text)} of {stream}, in {self._about}"

    def _check(self, observation: object) -> None:
        match observation:
            case Begun():
                if self._has_begun or self._begins_at_once:
                    again = "though it begins at once" if self._begins_at_once else "a second time"
                    rules.BEGINS_ONCE.broken(f"It told that the restore has begun {again}, {self._where()}.")
                self._has_begun = True
            case Progress():
                self._check_counters(observation)
            case EngineError():
                self._check_error(observation)
                self._has_errors = True
            case _:
                rules.OBSERVES.broken(f"read_line told {shown(observation)} {self._where()}.")

    def _check_counters(self, progress: Progress) -> None:
        for name, value in progress._asdict().items():
            if value is None:
                continue
            if type(value) is not int or not 0 <= value <= MAX_COUNT:
                rules.COUNTS.broken(f"{name} was {shown(value)} {self._where()}.")
            before = self.counters.get(name, 0)
            if value < before:
                rules.COUNTS_UP.broken(f"{name} went from {before} to {value} {self._where()}.")
            self.counters[name] = value

    def _check_error(self, error: object) -> None:
        if not isinstance(error, EngineError) or type(error.code) is not int:
            rules.OBSERVES.broken(f"An error was {shown(error)} {self._where()}.")
        if not _is_token(error.type):
            rules.TEXTS.broken(f"The type of an error was {shown(error.type)} {self._where()}.")
        if abs(error.code) > MAX_COUNT:
            rules.COUNTS.broken(f"The code of an error was {shown(error.code)} {self._where()}.")
        for name, bound in TEXT_BOUNDS.items():
            text = getattr(error, name)
            if not isinstance(text, str):
                rules.OBSERVES.broken(f"The {name} of an error was {shown(text)} {self._where()}.")
            if len(text) > bound:
                rules.TEXTS.broken(f"The {name} of an error had {len(text):,} characters {self._where()}.")
            if _encoded(text) is None:
                rules.TEXTS.broken(
                    f"The {name} of an error, {shown(text)}, cannot be encoded {self._where()}."
                )

    def _check_texts(self, outcome: Outcome, where: str) -> None:
        if outcome.reason != "" and not _is_token(outcome.reason):
            rules.FINAL.broken(f"The reason was {shown(outcome.reason)} {where}.")
        encoded = _encoded(outcome.diagnostics)
        if encoded is None or len(encoded) > MAX_DIAGNOSTICS_BYTES:
            rules.FINAL.broken(f"The diagnostics were {shown(outcome.diagnostics)} {where}.")

    def _check_state(self, outcome: Outcome, returncode: int, stop: StopCause | None, where: str) -> None:
        state = outcome.state
        if not state.is_final:
            rules.FINAL.broken(f"The state was {state} {where}.")
        if state is RestoreState.STOPPED and (stop is None or outcome.reason != stop.reason):
            rules.STOPPED_WHEN_ASKED.broken(f"It was {state} with the reason {outcome.reason!r} {where}.")
        if state is not RestoreState.COMPLETED:
            if not outcome.reason or not outcome.diagnostics:
                rules.SAYS_WHY.broken(f"It was {state} without a reason or without diagnostics {where}.")
        elif returncode != 0:
            rules.STATUS_COUNTS.broken(f"It was completed {where}.")
        elif self._has_errors or outcome.errors:
            rules.ERRORS_COUNT.broken(f"It was completed though errors were listed, {where}.")


def _is_token(text: object) -> bool:
    return isinstance(text, str) and len(text) <= MAX_TOKEN and _TOKEN.fullmatch(text) is not None


def _encoded(text: object) -> bytes | None:
    """`text` as UTF-8; None if it cannot be encoded, or is no text."""
    try:
        return text.encode() if isinstance(text, str) else None
    except UnicodeEncodeError:
        return None
