"""Any engine that tells nothing: how far it is is observed from outside, and how it ended is told."""

from __future__ import annotations

import importlib
import re
import signal
import warnings
from typing import TYPE_CHECKING, Any

from agent_reporter.engines.adapter import EngineError, Stream
from agent_reporter.engines.error_types import kind_of
from agent_reporter.engines.fields import path, text
from agent_reporter.engines.judgement import Endings, Evidence, judge
from agent_reporter.engines.last_words import LastWords
from agent_reporter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agent_reporter.engines.adapter import Observation, Outcome, StopCause
    from agent_reporter.engines.command_line import Invocation

ENDINGS = Endings(engine="The engine")

MAX_SEARCHED_CHARACTERS = 1024
"""As much of a line is searched: what comes then costs time, and says no more."""
MAX_OPEN_REPEATS = 2
"""Of `.*` and the like in one pattern, not counting the first where it begins with `^`.

Each takes as many steps as the line has characters, times those of the others.
"""

_FEW_TIMES = 4
"""A choice that is repeated as often at most, such as numbers in an address, is no worse than in a row."""

_parser: Any = importlib.import_module(
    "re._parser"
)  # the only one there is that tells how a pattern is built
_REPEATS = (_parser.MAX_REPEAT, _parser.MIN_REPEAT)
_KEEPS_ITS_CHOICE = ("POSSESSIVE_REPEAT", "ATOMIC_GROUP", "ASSERT", "ASSERT_NOT")
"""What is matched once, and never tried another way."""


def error_pattern(pattern: str) -> re.Pattern[str]:
    """The lines on stderr that tell of an error; raises ConfigurationError for what is no such pattern."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's own would quote our source
            compiled = re.compile(pattern)
            parsed = _parser.parse(pattern)
        is_endless = _repeats_a_choice(parsed)
        open_repeats = _open_repeats(parsed) - int(pattern.startswith("^"))
    except (re.error, RecursionError, OverflowError) as problem:
        raise ConfigurationError(
            f"--error-lines {pattern!r:.200} is no regular expression: {problem!s:.200}. Write it "
            "as Python's re has it."
        ) from problem
    if is_endless:
        raise ConfigurationError(
            f"--error-lines {pattern!r:.200} repeats what holds a repeat or a choice itself, which may take "
            "for ever on a long line. Write a repeat of single characters, such as '[a-z ]+' for "
            "'([a-z]+ ?)+', and '.*' for '(.|\\s)*' or '(one|two)*'."
        )
    if open_repeats > MAX_OPEN_REPEATS:
        raise ConfigurationError(
            f"--error-lines {pattern!r:.200} has too many of '.*' and '.+' for a long line. Say what each "
            f"stops at, such as '[^:]*: ' for '.*: ', and keep {MAX_OPEN_REPEATS} at most."
        )
    if compiled.search(""):
        raise ConfigurationError(
            f"--error-lines {pattern!r:.200} is found in every line, also in an empty one. Name what only "
            "the lines of errors hold, such as '^ERROR: '."
        )
    return compiled


def _repeats_a_choice(pattern: Any, times: int = 1) -> bool:
    """Whether a part of a parsed pattern is repeated that can match the same text in several ways.

    Then the ways to match a line may be twice as many with each character. `times` is how often the pattern
    is repeated itself.
    """
    for operation, argument in pattern:
        least, most = argument[:2] if operation in _REPEATS else (1, 1)
        if times > _FEW_TIMES and (least != most or operation is _parser.BRANCH):
            return True
        times_within = most * (1 if str(operation) in _KEEPS_ITS_CHOICE else times)
        if any(_repeats_a_choice(part, times_within) for part in _parts(argument)):
            return True
    return False


def _open_repeats(pattern: Any) -> int:
    """How often a parsed pattern repeats any character without end."""
    count = 0
    for operation, argument in pattern:
        if operation in _REPEATS and argument[1] > MAX_SEARCHED_CHARACTERS:
            count += any(inner is _parser.ANY for inner, _ in argument[2])
        count += sum(_open_repeats(part) for part in _parts(argument))
    return count


def _parts(argument: Any) -> Iterator[Any]:
    """The patterns in the argument of an operation."""
    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, (tuple, list)):
        for part in argument:
            yield from _parts(part)


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
