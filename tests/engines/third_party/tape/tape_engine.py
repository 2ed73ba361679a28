"""What agent-reporter has to know of tape-restore, an engine that it does not know."""  # noqa: INP001 - all there is

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import EngineError, Progress, Stream
from agent_reporter.engines.error_types import kind_of
from agent_reporter.engines.fields import digits, path, text
from agent_reporter.engines.judgement import Endings, Evidence, judge
from agent_reporter.engines.last_words import LastWords

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent_reporter.engines.adapter import Observation, Outcome, StopCause
    from agent_reporter.engines.command_line import Invocation

ENDINGS = Endings(engine="tape-restore", reasons_by_status={3: "no_tape"})

_PROGRESS = re.compile(r"tape: (\d{1,20}) of (\d{1,20}) bytes")
_ERROR = re.compile(r"tape: cannot write (.+?): (.+)")


class Tape:
    """Facts about tape-restore."""

    name = "tape"
    stop_signal = signal.SIGTERM
    ends_its_helpers = True
    begins_at_once = True
    tells_counts = True

    def recognises(self, invocation: Invocation) -> bool:
        """Whether the command starts tape-restore."""
        return invocation.program == "tape-restore"

    def restores_nothing(self, invocation: Invocation) -> bool:  # noqa: ARG002 - others look at it
        """That cannot be told."""
        return False

    def prepare(
        self, invocation: Invocation, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """Ask for lines of progress."""
        words = list(invocation.arguments)
        if "--progress" not in (*invocation.fixed, *words):
            words.insert(0, "--progress")
        return words, dict(environment)

    def reader(self) -> TapeReader:
        """A reader for one run."""
        return TapeReader()


class TapeReader:
    """Reads the output of one run."""

    def __init__(self) -> None:
        self._bytes = 0
        self._total = 0
        self._errors = 0
        self._is_done = False
        self._last_words = LastWords()

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        """All that it tells is on stderr."""
        if stream is Stream.OUT:
            return ()
        if (found := _PROGRESS.fullmatch(line)) is not None:
            self._bytes = max(self._bytes, digits(found[1]))
            self._total = max(self._total, digits(found[2]))
            return (Progress(bytes_restored=self._bytes, total_bytes=self._total),)
        if (found := _ERROR.fullmatch(line)) is not None:
            self._errors += 1
            kind = kind_of(found[2])
            return (EngineError(path(found[1]), kind.type, text(found[2]), kind.code),)
        self._is_done = self._is_done or line == "tape: done"
        self._last_words.add(line)
        return ()

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        """It says `tape: done` when it came to the end, past errors too."""
        evidence = Evidence(
            errors=self._errors,
            restored=self._bytes > 0,
            went_through=self._is_done and self._errors > 0,
            finished=self._is_done,
            context=str(self._last_words),
        )
        return judge(ENDINGS, evidence, returncode, stop)
