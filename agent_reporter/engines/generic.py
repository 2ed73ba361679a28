"""Any engine that is not known: what can be told is that it ran, and how it ended."""

from __future__ import annotations

import signal
from collections import deque
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Outcome, Stream
from agent_reporter.engines.wording import clean, diagnostics, how_it_ended
from agent_reporter.model.state import RestoreState

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent_reporter.engines.adapter import Observation, StopCause

LAST_LINES = 20
MAX_LINE_CHARACTERS = 1024


class Generic:
    """A program that nothing more is known of."""

    name = "generic"
    stop_signal = signal.SIGTERM
    begins_at_once = True

    def recognises(self, command: Sequence[str]) -> bool:
        """Any command at all."""
        return bool(command)

    def prepare(
        self, command: Sequence[str], environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """The command as it is."""
        return list(command), dict(environment)

    def reader(self) -> GenericReader:
        """A reader for one run."""
        return GenericReader()


class GenericReader:
    """Keeps the last lines of stderr, for the diagnostics of a failure."""

    def __init__(self) -> None:
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        """Observe nothing."""
        if stream is Stream.ERR and line.strip():
            self._last_lines.append(clean(line, MAX_LINE_CHARACTERS))
        return ()

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        """Completed for exit status 0, also when a stop came too late; else stopped or failed."""
        if returncode == 0:
            return Outcome(RestoreState.COMPLETED)
        ended = how_it_ended("The engine", returncode)
        # The newest lines tell most: keep those when not all fit.
        last_lines = "\n".join(self._last_lines)[-3500:]
        if stop is not None:
            asked = "The engine was asked to stop."
            return Outcome(RestoreState.STOPPED, stop.reason, diagnostics((asked, ended)))
        reason = "engine_killed" if returncode < 0 else "engine_failed"
        printed = (
            f"Its last lines on stderr:\n{last_lines}" if last_lines else "It printed nothing on stderr."
        )
        return Outcome(RestoreState.FAILED, reason, diagnostics((ended, printed)))
