"""Any engine that tells nothing: how far it is is observed from outside, and how it ended is told."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import EngineError, Stream
from agent_reporter.engines.error_lines import MAX_SEARCHED_CHARACTERS
from agent_reporter.engines.error_types import kind_of
from agent_reporter.engines.fields import path, text
from agent_reporter.engines.judgement import Endings, Evidence, judge
from agent_reporter.engines.last_words import LastWords

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Mapping

    from agent_reporter.engines.adapter import Observation, Outcome, StopCause
    from agent_reporter.engines.command_line import Invocation

ENDINGS = Endings(engine="The engine")


class Observe:
    """A program that nothing more is known of than, perhaps, how the lines look that tell of its errors."""

    name = "observe"
    stop_signal = signal.SIGTERM
    ends_its_helpers = False
    begins_at_once = True
    tells_counts = False

    def __init__(self, error_lines: re.Pattern[str] | None = None) -> None:
        """`error_lines` is searched for in each line of stderr; its group `path` is what failed."""
        self._error_lines = error_lines

    def recognises(self, invocation: Invocation) -> bool:
        """Any command at all."""
        return bool(invocation.program)

    def restores_nothing(self, invocation: Invocation) -> bool:  # noqa: ARG002 - others look at it
        """That is not known."""
        return False

    def prepare(
        self, invocation: Invocation, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """The command as it is."""
        return list(invocation.arguments), dict(environment)

    def reader(self) -> ObserveReader:
        """A reader for one run."""
        return ObserveReader(self._error_lines)


class ObserveReader:
    """Finds errors on stderr, and keeps its last lines, for the diagnostics of a failure."""

    def __init__(self, error_lines: re.Pattern[str] | None) -> None:
        self._error_lines = error_lines
        self._errors = 0
        self._last_words = LastWords()

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        """An error, if the line tells of one."""
        if stream is Stream.OUT:
            return ()
        self._last_words.add(line)
        if self._error_lines is None:
            return ()
        found = self._error_lines.search(line, 0, MAX_SEARCHED_CHARACTERS)
        return () if found is None else (self._error(found, line),)

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        """Judge the run by its exit status, and one that succeeded by its errors, too; see `judgement`.

        A program that fails may have gone through to its end past those errors, but it does not say so.
        """
        evidence = Evidence(errors=self._errors, context=str(self._last_words))
        return judge(ENDINGS, evidence, returncode, stop)

    def _error(self, found: re.Match[str], line: str) -> EngineError:
        self._errors += 1
        description = text(line).strip()
        kind = kind_of(description)
        return EngineError(path(found.groupdict().get("path")), kind.type, description, kind.code)
