"""An adapter of another package, guarded: whatever it does, a restore starts, and its end is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_reporter.engines.adapter import Adapter, Outcome
from agent_reporter.engines.observe import Observe
from agent_reporter.engines.wording import diagnostics, how_it_ended
from agent_reporter.model.state import RestoreState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from agent_reporter.engines.adapter import Observation, OutputReader, StopCause, Stream
    from agent_reporter.engines.command_line import Invocation

FINAL_STATES = frozenset(state for state in RestoreState if state.is_final)
FAULTS = (Exception, SystemExit)
"""What is caught: a package that calls `sys.exit` is no reason to end."""


class Guarded:
    """Asks `adapter`, and does without it where it raises or answers nonsense, with a sentence for `warn`."""

    def __init__(self, adapter: Adapter, warn: Callable[[str], None]) -> None:
        self._adapter = adapter
        self._warn = warn
        self.name = adapter.name
        self.stop_signal = adapter.stop_signal
        self.ends_its_helpers = bool(adapter.ends_its_helpers)
        self.begins_at_once = adapter.begins_at_once
        self.tells_counts = adapter.tells_counts

    def recognises(self, invocation: Invocation) -> bool:
        """Whether the command is the adapter's; not, if it cannot say."""
        try:
            return bool(self._adapter.recognises(invocation))
        except FAULTS as problem:
            self._say(problem, "It is passed over.")
            return False

    def restores_nothing(self, invocation: Invocation) -> bool:
        """Whether the adapter is sure of that."""
        try:
            return self._adapter.restores_nothing(invocation) is True
        except FAULTS as problem:
            self._say(problem, "The command is taken for one that restores.")
            return False

    def prepare(
        self, invocation: Invocation, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """What the adapter makes of them, or both as they are."""
        try:
            arguments, variables = self._adapter.prepare(invocation, environment)
            return _strings(arguments), dict(
                zip(_strings(variables), _strings(variables.values()), strict=True)
            )
        except FAULTS as problem:
            self._say(problem, "The command is started as it is.")
            return list(invocation.arguments), dict(environment)

    def reader(self) -> OutputReader:
        """The adapter's reader, guarded as well; if there is none, the engine is one that tells nothing."""
        try:
            return _GuardedReader(self._adapter.reader(), self.name, self._warn)
        except FAULTS as problem:
            self._say(problem, "Its output is not read.")
            self.begins_at_once, self.tells_counts = True, False
            return Observe().reader()

    def _say(self, problem: BaseException, consequence: str) -> None:
        self._warn(f"The engine {self.name!r} raised {problem!r}. {consequence}")


class _GuardedReader:
    def __init__(self, reader: OutputReader, name: str, warn: Callable[[str], None]) -> None:
        self._reader = reader
        self._name = name
        self._warn = warn
        self._has_warned = False

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        try:
            return list(self._reader.read_line(stream, line))
        except FAULTS as problem:
            if not self._has_warned:
                self._has_warned = True
                self._warn(
                    f"The engine {self._name!r} raised {problem!r}: a line of output is not understood."
                )
            return ()

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        try:
            return _checked(self._reader.outcome(returncode, stop))
        except FAULTS as problem:
            ended = how_it_ended("The engine", returncode)
            said = f"What it printed could not be judged by the adapter {self._name!r}: {problem!r}."
            return Outcome(RestoreState.FAILED, "adapter_failed", diagnostics((ended, said)))


def _strings(words: Iterable[Any]) -> list[str]:
    found = list(words)
    if not all(isinstance(word, str) for word in found):
        raise TypeError(f"not all are strings: {found!r:.200}")
    return found


def _checked(outcome: Any) -> Outcome:
    if not isinstance(outcome, Outcome) or outcome.state not in FINAL_STATES:
        raise TypeError(f"not an outcome with a final state: {outcome!r:.200}")
    return Outcome(outcome.state, str(outcome.reason), str(outcome.diagnostics), tuple(outcome.errors))
