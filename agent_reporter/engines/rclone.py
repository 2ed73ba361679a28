"""rclone 1.60 and later: JSON lines on stderr, with its counters once a second.

It makes up to three attempts, and each tells its errors anew: those of an attempt are held back until it is
known whether the next one mended them. With `--log-file` or `--syslog`, nothing of all this comes here.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_reporter.engines.adapter import EngineError, Progress, Stream
from agent_reporter.engines.fields import count, parse_object, path, text
from agent_reporter.engines.last_words import LastWords
from agent_reporter.engines.options import before_dashes, is_asked_for
from agent_reporter.engines.rclone_outcome import UNDECRYPTABLE, Printed, judged, kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent_reporter.engines.adapter import Observation, Outcome, StopCause
    from agent_reporter.engines.command_line import Invocation

MAX_ERRORS = 1000
"""Errors of one attempt that are kept with their path; more are only counted."""
MAX_UNKEPT = 100_000

_RESTORING = frozenset({"copy", "copyto", "copyurl", "move", "moveto", "sync"})
_SUB_COMMANDS = _RESTORING | frozenset(
    (
        *("about", "archive", "authorize", "backend", "bisync", "cat", "check", "checksum", "cleanup"),
        *("completion", "config", "convmv", "cryptcheck", "cryptdecode", "dedupe", "delete", "deletefile"),
        *("genautocomplete", "gendocs", "gitannex", "gui", "hashsum", "help", "link", "listremotes", "ls"),
        *("lsd", "lsf", "lsjson", "lsl", "md5sum", "mkdir", "mount", "ncdu", "nfsmount", "obscure"),
        *("purge", "rc", "rcat", "rcd", "rmdir", "rmdirs", "selfupdate", "serve", "settier", "sha1sum"),
        *("size", "test", "touch", "tree", "version"),
    )
)
_LOGGING_ELSEWHERE = ("--log-file", "--syslog")
_PROGRESS = re.compile(r"-[A-Za-z]*P[A-Za-z]*|--progress(?:=true)?")
_NO_PROGRESS = "--progress=false"
"""The progress for a terminal comes in place of the log."""
_DRY_RUN_AMONG_LETTERS = re.compile(r"-[ciILlPuvx]*n[ciIlLnPuvx]*")
_QUIET = re.compile(r"-[A-Za-z]*q[A-Za-z]*|--quiet(?:=true)?|--log-level=ERROR")

_ATTEMPT = re.compile(r"Attempt (\d+)/(\d+) (failed|succeeded)")
_NOT_RETRIED = "Can't retry any of the errors"
_SKIPPED = ("Can't transfer non file", "Can't follow symlink")
_DRY_RUN = "as --dry-run is set"
# 1.75 writes a file under such a name first.
_PARTIAL_NAME = re.compile(r"\.[0-9a-f]{8}\.partial$")
_FATAL_LEVELS = frozenset({"critical", "alert", "emergency", "fatal"})
_LOG_PREFIX = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d (?:[A-Z]+ *: )?")
_UNKEPT = EngineError("", "restore_error", "There were more errors than are kept one by one.")


class Rclone:
    """Facts about rclone."""

    name = "rclone"
    stop_signal = signal.SIGTERM
    ends_its_helpers = True
    begins_at_once = True
    tells_counts = True

    def recognises(self, invocation: Invocation) -> bool:
        """Whether the command starts rclone, under any name such as rclone-1.75."""
        return invocation.starts("rclone")

    def restores_nothing(self, invocation: Invocation) -> bool:
        """Whether it is a dry run."""
        words = before_dashes([*invocation.fixed, *invocation.arguments])
        return is_asked_for(words, {"--dry-run"}, _DRY_RUN_AMONG_LETTERS, "")

    def prepare(
        self, invocation: Invocation, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """Ask for JSON and for counters, in words, since sudo drops variables.

        Left as it is: what the user has set already, in words or variables; another sub-command; and a
        command that logs elsewhere, since the format of that log is the user's own.
        """
        words, variables = list(invocation.arguments), dict(environment)
        options = before_dashes([*invocation.fixed, *words])
        can_take_more = "--" not in invocation.fixed
        restores = next((word for word in options if word in _SUB_COMMANDS), None) in _RESTORING
        if not restores or not can_take_more or _is_set(_LOGGING_ELSEWHERE, options, variables):
            return words, variables
        asked_for = {
            "--use-json-log": (),
            "--stats": ("1s",),
            "--stats-log-level": ("ERROR" if _is_quiet(options, variables) else "NOTICE",),
        }
        more: list[str] = []
        for name, value in asked_for.items():
            if not _is_set([name], options, variables):
                more += [name, *value]
        on_progress = [word for word in options if word == _NO_PROGRESS or _PROGRESS.fullmatch(word)]
        if on_progress[-1:] != [_NO_PROGRESS] and (on_progress or "RCLONE_PROGRESS" in variables):
            more.append(_NO_PROGRESS)
        # Of several words on an option, the last one counts.
        own = before_dashes(words)
        index = max((i + 1 for i, word in enumerate(own) if _PROGRESS.fullmatch(word)), default=0)
        return [*words[:index], *more, *words[index:]], variables

    def reader(self) -> RcloneReader:
        """A reader for one run."""
        return RcloneReader()


def _is_set(names: Iterable[str], options: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Whether an option is there, as a word or as rclone's variable of that name."""
    return any(
        "RCLONE_" + name[2:].upper().replace("-", "_") in variables
        or any(word == name or word.startswith(f"{name}=") for word in options)
        for name in names
    )


def _is_quiet(options: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Whether only errors are logged: what is to be read has to come as one then."""
    return (
        "RCLONE_QUIET" in variables
        or variables.get("RCLONE_LOG_LEVEL") == "ERROR"
        or ("--log-level", "ERROR") in pairwise(options)
        or any(map(_QUIET.fullmatch, options))
    )


class _Counters(NamedTuple):
    bytes_restored: int
    files_restored: int
    total_bytes: int
    total_files: int


@dataclass(slots=True)
class _Attempt:
    """What one attempt told."""

    errors: dict[tuple[str, str, int], EngineError] = field(default_factory=dict)
    unkept: int = 0
    skipped: int = 0

    def add(self, error: EngineError) -> None:
        """Keep an error once, while there is room."""
        identity = error.path, error.type, error.code
        if identity in self.errors:
            return
        if self.is_full:
            self.count_one_more()
        else:
            self.errors[identity] = error

    @property
    def is_full(self) -> bool:
        """Whether more errors are only counted."""
        return len(self.errors) >= MAX_ERRORS

    def count_one_more(self) -> None:
        """Count an error that is not kept."""
        self.unkept = min(self.unkept + 1, MAX_UNKEPT)


class RcloneReader:
    """Reads the output of one run of rclone. Counters never go down; memory is bounded."""

    def __init__(self) -> None:
        self._counters = _Counters(0, 0, 0, 0)
        self._printed = Printed()
        self._ended_attempt = _Attempt()
        self._attempt = _Attempt()
        self._last_end = ""
        self._last_words = LastWords()

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        """Observations from one line, without its line end."""
        if not line.startswith("{"):
            return self._read_text(stream, line)
        if '"stats":{' not in line:
            if '"level":"info"' in line or '"level":"debug"' in line:
                return ()
            if self._attempt.is_full and '"level":"error"' in line and '"object":"' in line:
                self._attempt.count_one_more()
                return ()
        message = parse_object(line)
        if message is None:
            return self._read_text(stream, line)
        stats = message.get("stats")
        if isinstance(stats, dict):
            return self._read_stats(stats)
        return self._read_message(message)

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        """Judge the run after both pipes ended; see `judgement` and `rclone_outcome`.

        Its errors are those of the last attempt. If that was cut short, those of the one before as well:
        nothing says that they were mended.
        """
        kept = {**self._ended_attempt.errors, **self._attempt.errors}
        unkept = max(self._ended_attempt.unkept, self._attempt.unkept)
        printed = replace(
            self._printed,
            errors=(*kept.values(), *[_UNKEPT] * unkept),
            skipped=max(self._ended_attempt.skipped, self._attempt.skipped),
            context=str(self._last_words),
        )
        return judged(printed, returncode, stop)

    def _read_stats(self, stats: dict[str, Any]) -> tuple[Observation, ...]:
        """Totals rise while it lists, and fall when files fail; `transfers` are files that came through."""
        transfers, total_transfers = count(stats.get("transfers")), count(stats.get("totalTransfers"))
        checks, total_checks = count(stats.get("checks")), count(stats.get("totalChecks"))
        printed = self._printed
        printed.is_idle = (
            not (stats.get("transferring") or stats.get("checking"))
            and transfers >= total_transfers
            and checks >= total_checks
        )
        printed.transferred = printed.transferred or transfers > 0 or count(stats.get("renames")) > 0
        printed.checks = checks
        printed.tells_undecryptable = "listed" in stats
        newest = _Counters(
            max(count(stats.get("bytes")), self._counters.bytes_restored),
            max(transfers, self._counters.files_restored),
            max(count(stats.get("totalBytes")), self._counters.total_bytes),
            max(total_transfers, self._counters.total_files),
        )
        if newest == self._counters or printed.is_dry_run:
            return ()
        self._counters = newest
        total_bytes, total_files = newest.total_bytes or None, newest.total_files or None
        return (Progress(newest.bytes_restored, newest.files_restored, total_bytes, total_files),)

    def _read_message(self, message: dict[str, Any]) -> tuple[()]:
        level, words = text(message.get("level")), text(message.get("msg")).strip()
        item = path(message.get("object"))
        if level == "error" and item:
            self._read_error(item, words, text(message.get("objectType")))
        elif level == "error":
            self._last_words.add(words)
            self._read_end_of_attempt(words)
        elif level in _FATAL_LEVELS or (not item and words.startswith("Failed to ")):
            self._last_words.add(words)
            self._printed.message = words
        elif words.startswith("Skipping undecryptable "):
            self._attempt.add(EngineError(item, UNDECRYPTABLE, words))
        elif words.startswith(_SKIPPED):
            self._attempt.skipped += 1
        elif _DRY_RUN in words:
            self._printed.is_dry_run = True
        return ()

    def _read_error(self, item: str, words: str, item_type: str) -> None:
        type_, code = kind(words)
        if item_type.endswith("Fs"):
            self._last_words.add(words)
            self._attempt.add(EngineError("", type_, words, code, item))
        else:
            self._attempt.add(EngineError(_PARTIAL_NAME.sub("", item), type_, words, code))

    def _read_end_of_attempt(self, words: str) -> None:
        found = _ATTEMPT.match(words)
        if found and found[3] == "succeeded":
            self._ended_attempt = _Attempt()
            self._printed.mended = found[0]
        elif (found or words.startswith(_NOT_RETRIED)) and words != self._last_end:
            self._last_end = words
            self._ended_attempt, self._attempt = self._attempt, _Attempt()
            self._printed.went_through = not found or found[1] == found[2]

    def _read_text(self, stream: Stream, line: str) -> tuple[()]:
        """Plain lines: wrong usage, the end of 1.60, and what Go prints when it breaks."""
        if stream is Stream.ERR and not line.startswith((" ", "\t")):  # indented are lists of options
            self._last_words.add(line)
            prefix = _LOG_PREFIX.match(line)
            if prefix:
                self._printed.message = text(line[prefix.end() :])
            elif line.startswith(("panic: ", "fatal error: ")):
                self._printed.message = text(line)
        return ()
