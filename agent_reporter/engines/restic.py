"""restic 0.14 and later: JSON lines from 0.16 on, a few plain ones before and between."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any

from agent_reporter.engines.adapter import Begun, EngineError, Progress, Stream
from agent_reporter.engines.error_types import kind_of
from agent_reporter.engines.fields import count, parse_object, path, text
from agent_reporter.engines.judgement import judge
from agent_reporter.engines.last_words import LastWords
from agent_reporter.engines.options import is_asked_for
from agent_reporter.engines.restic_outcome import ENDINGS, Printed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agent_reporter.engines.adapter import Observation, Outcome, StopCause
    from agent_reporter.engines.command_line import Invocation

STATUS_LINES_PER_SECOND = "5"

# As restic's own parser has it: what is not in here takes the next word as its value.
_OPTIONS_WITHOUT_VALUE = frozenset(
    (
        *("--cleanup-cache", "--insecure-no-password", "--insecure-tls", "--no-cache", "--no-extra-verify"),
        *("--no-lock", "--json", "--quiet", "--verbose", "--help", "-q", "-v", "-h"),
    )
)
_IGNORED_ERROR = re.compile(r"ignoring error for (.*?): (.*)")
_VERBOSE = '{"message_type":"verbose_status"'
# A status line as restic writes it, with the fields in its order: most lines are such, and this is the
# faster way to read them. Whatever looks otherwise is read as the JSON it is.
_COUNT = r":(\d{1,18}))?"
_STATUS = re.compile(
    r'\{"message_type":"status"(?:,"seconds_elapsed":\d+)?,"percent_done":[0-9.e+-]+'
    rf'(?:,"total_files"{_COUNT}(?:,"files_restored"{_COUNT}(?:,"files_skipped"{_COUNT}(?:,"files_deleted":\d+)?'
    rf'(?:,"total_bytes"{_COUNT}(?:,"bytes_restored"{_COUNT}(?:,"bytes_skipped"{_COUNT}\}}',
    re.ASCII,
)
_COUNTERS = (
    *("total_files", "files_restored", "files_skipped"),
    *("total_bytes", "bytes_restored", "bytes_skipped"),
)
_NO_LETTER = re.compile(r"(?!)")
_NOTHING = Progress(0, 0)
_BEGUN = (Begun(),)
_BEGUN_SILENTLY = (Begun(tells_counts=False),)


class Restic:
    """Facts about restic."""

    name = "restic"
    stop_signal = signal.SIGINT
    """0.14 cleans up after SIGINT only; after SIGTERM it leaves a stale lock."""
    ends_its_helpers = True
    begins_at_once = False
    tells_counts = True

    def recognises(self, invocation: Invocation) -> bool:
        """Whether the command starts restic, under any name such as restic-0.19.1."""
        return invocation.starts("restic")

    def restores_nothing(self, invocation: Invocation) -> bool:
        """A dry run counts all that it would restore as restored."""
        words = [*invocation.fixed, *invocation.arguments]
        return _sub_command(words) == "restore" and is_asked_for(words, {"--dry-run"}, _NO_LETTER, "")

    def prepare(
        self, invocation: Invocation, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """Ask for JSON and for status lines; another sub-command is left as it is."""
        words, variables = list(invocation.arguments), dict(environment)
        all_words = [*invocation.fixed, *words]
        if _sub_command(all_words) != "restore":
            return words, variables
        if not any(word == "--json" or word.startswith("--json=") for word in all_words):
            words.insert(0, "--json")
        variables.setdefault("RESTIC_PROGRESS_FPS", STATUS_LINES_PER_SECOND)
        return words, variables

    def reader(self) -> ResticReader:
        """A reader for one run."""
        return ResticReader()


def _sub_command(words: Sequence[str]) -> str | None:
    """The first word that is neither an option nor the value of one, by restic's own rules."""
    index = 0
    while index < len(words):
        word = words[index]
        if word == "--":
            return None
        if not word.startswith("-") or word == "-":
            return word
        bundle = len(word) > len("-v") and word[1] != "-"
        index += 1 if bundle or "=" in word or word in _OPTIONS_WITHOUT_VALUE else 2
    return None


class ResticReader:
    """Reads the output of one run of restic. Counters never go down; memory is bounded."""

    def __init__(self) -> None:
        self._begun = False
        self._counters = _NOTHING
        self._errors = 0
        self._skipped_files = 0
        self._has_summary = False
        self._speaks_json = False
        self._interrupted = False
        self._final_message = ""
        self._last_words = LastWords()

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        """Observations from one line, without its line end."""
        if not line.startswith("{"):
            return self._read_text(stream, line)
        if self._begun:
            if line.startswith(_VERBOSE):
                return ()
            status = _STATUS.fullmatch(line)
            if status is not None:
                counts = [int(digits) if digits else 0 for digits in status.groups()]
                return self._read_counters(counts)
        message = parse_object(line)
        if message is None:
            return self._read_text(stream, line)
        self._speaks_json = True
        return self._read_message(message)

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        """Judge the run after both pipes ended; see `judgement` and `restic_outcome`."""
        printed = Printed(
            errors=self._errors,
            files_restored=self._counters.files_restored or 0,
            skipped_files=self._skipped_files,
            has_summary=self._has_summary,
            speaks_json=self._speaks_json,
            interrupted=self._interrupted,
            message=self._final_message or str(self._last_words),
            context=str(self._last_words),
        )
        return judge(ENDINGS, printed.evidence(), returncode, stop)

    def _read_message(self, message: dict[str, Any]) -> tuple[Observation, ...]:
        match message.get("message_type"):
            case "status":
                return (*self._begin(), *self._read_counters(_counts(message)))
            case "verbose_status":
                return self._begin()
            case "error":
                return self._read_error(message)
            case "summary":
                self._has_summary = True
                return (*self._begin(), *self._read_counters(_counts(message)))
            case "exit_error":
                self._final_message = text(message.get("message")) or self._final_message
        return ()

    def _begin(self, how: tuple[Begun, ...] = _BEGUN) -> tuple[Begun, ...]:
        if self._begun:
            return ()
        self._begun = True
        return how

    def _read_counters(self, counts: Iterable[int]) -> tuple[Progress, ...]:
        """Status and summary alike: counts in the order of `_COUNTERS`. A total of zero is not known yet."""
        total_files, files_restored, files_skipped, total_bytes, bytes_restored, bytes_skipped = counts
        known = self._counters
        self._speaks_json = True
        self._skipped_files = max(self._skipped_files, files_skipped)
        # What is already there is left out of restic's totals.
        newest = Progress(
            _larger(bytes_restored, known.bytes_restored),
            _larger(files_restored, known.files_restored),
            _larger(count(total_bytes + bytes_skipped), known.total_bytes) or None,
            _larger(count(total_files + files_skipped), known.total_files) or None,
        )
        if newest == known:
            return ()
        self._counters = newest
        return (newest,)

    def _read_error(self, message: dict[str, Any]) -> tuple[Observation, ...]:
        inner = message.get("error")
        description = text(inner.get("message") if isinstance(inner, dict) else inner)
        error = self._error(path(message.get("item")), description, text(message.get("during")))
        return (*self._begin(), *error)

    def _error(self, item: str, description: str, details: str) -> tuple[EngineError, ...]:
        self._errors += 1
        kind = kind_of(description)
        return (EngineError(item, kind.type, description, kind.code, details),)

    def _read_text(self, stream: Stream, line: str) -> tuple[Observation, ...]:
        """Plain lines: all there is of 0.14, and what later versions print beside their JSON."""
        if stream is Stream.OUT:
            return self._begin(_BEGUN_SILENTLY) if line.startswith("restoring ") else ()
        ignored = _IGNORED_ERROR.fullmatch(line)
        if ignored is not None:
            return self._error(path(ignored[1]), text(ignored[2]), "restore")
        words = text(line).strip()
        if words.startswith("signal ") and "received, cleaning up" in words:
            self._interrupted = True
        elif words.startswith(("Fatal: ", "panic: ", "fatal error: ")):
            self._final_message = words
        self._last_words.add(line)
        return ()


def _larger(new: int, old: int | None) -> int:
    return new if old is None or new > old else old


def _counts(message: dict[str, Any]) -> Iterator[int]:
    """The counters of a message in restic's order. A field that is left out is zero."""
    return (count(message.get(field)) for field in _COUNTERS)
