"""Any engine that tells nothing: how far it is is observed from outside, and how it ended is told."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Stream
from agent_reporter.engines.judgement import Endings, Evidence, judge
from agent_reporter.engines.last_words import LastWords

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent_reporter.engines.adapter import Observation, Outcome, StopCause
    from agent_reporter.engines.command_line import Invocation

ENDINGS = Endings(engine="The engine")


class Observe:
    """A program that nothing more is known of."""

    name = "observe"
    stop_signal = signal.SIGTERM
    begins_at_once = True
    tells_counts = False

    def recognises(self, invocation: Invocation) -> bool:
        """Any command at all."""
        return bool(invocation.program)

    def prepare(
        self, invocation: Invocation, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """The command as it is."""
        return list(invocation.arguments), dict(environment)

    def reader(self) -> ObserveReader:
        """A reader for one run."""
        return ObserveReader()


class ObserveReader:
    """Keeps the last lines of stderr, for the diagnostics of a failure."""

    def __init__(self) -> None:
        self._last_words = LastWords()

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        """Observe nothing."""
        if stream is Stream.ERR:
            self._last_words.add(line)
        return ()

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        """Completed for exit status 0, also when a stop came too late; else stopped or failed."""
        return judge(ENDINGS, Evidence(context=str(self._last_words)), returncode, stop)
