"""rsync 3.1 and later: lines of progress, most of them after a carriage return, and plain messages.

Files are the regular files that were transferred: neither folders and links, nor what is up to date. Bytes
are their full sizes, also where only differences went over. How many files there are in all, with folders,
links and what is up to date, is told once the list of them is complete. `--no-inc-recursive` has it complete
from the start. It is not added: with it, nothing is restored before the whole source was read, and the whole
list is kept in memory.
"""

from __future__ import annotations

import re
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Begun, EngineError, Progress, Stream
from agent_reporter.engines.error_types import CORRUPTED, OTHER, ErrorKind, kind_of
from agent_reporter.engines.fields import digits, path, text
from agent_reporter.engines.judgement import CONNECTION_LOST, Endings, Evidence, judge
from agent_reporter.engines.last_words import LastWords
from agent_reporter.engines.options import is_asked_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent_reporter.engines.adapter import Observation, Outcome, StopCause
    from agent_reporter.engines.command_line import Invocation

ENDINGS = Endings(
    engine="rsync",
    # Some files failed, some vanished at the source, and --max-delete left some undeleted.
    partial=frozenset({23, 24, 25}),
    interrupted=frozenset({19, 20, 130}),
    reasons_by_status={1: "usage_error", 2: "protocol_incompatible", 4: "not_supported", 22: "out_of_memory"},
    reasons_by_text=(
        # Only for how it ended first: the end of one side takes the connection of the other with it.
        (CONNECTION_LOST, re.compile(r"\Arsync error: .*\(code (10|12|30|35|255)\)")),
        ("wrong_password", re.compile(r"@error: auth failed")),
        ("source_missing", re.compile(r"@error: unknown module|(link_stat|change_dir) \".*no such file or")),
        (
            "target_unusable",
            re.compile(
                r"mkdir \".*(no such file or directory|permission denied|not a directory)"
                r"|change_dir#\d|destination path is not a directory|destination must be a directory"
                r"|cannot overwrite non-directory"
            ),
        ),
    ),
)
_FOUND_NOTHING = replace(ENDINGS, partial=frozenset())
"""With none of its sources there, rsync ends as if it had left some files out."""

_COUNTS = "The counts of files and bytes may include files that could not be written."
_LEFT_BEHIND = "What it had transferred of an incomplete file is counted, and removed but for --partial."
_NOTHING_TO_DO = "Nothing was transferred: all was there already, or there is nothing to restore."

_WANTED = ("--info=progress2,stats2", "--no-h")
_NO_RESTORE = frozenset({"--daemon", "--server", "--list-only", "--dry-run", "--help", "--version", "-V"})
_DRY_RUN_AMONG_LETTERS = re.compile(r"-[^-\sefBMT@]*n[^-\sefBMT@]*")

_PROGRESS = re.compile(
    r" *([0-9][0-9.,]*)([KMGTP]?) +[0-9]+% +\S+/s +[0-9:?]+"
    r"(?: \(xfr#([0-9]+), (to|ir)-chk=[0-9]+/([0-9]+)\))? *"
)
_MANY_FIGURES = 19
_STATISTIC = re.compile(
    r"(?P<name>Number of files|Number of created files|Number of regular files transferred"
    r"|Total transferred file size): (?P<number>[\d.,]+)(?: bytes| \(.*\))?"
)
_SKIPPED = ("skipping non-regular file ", "skipping directory ")
_WITH_ERRNO = re.compile(r"rsync: (?P<what>.*): (?P<why>[^:]+) \((?P<code>\d{1,4})\)")
_VANISHED = ErrorKind("file_or_folder_missing", 2)
_IN_WORDS = re.compile(
    r"(?P<what>file has vanished|directory has vanished|symlink has no referent|skipping overly long name"
    r"|could not make way for [a-z]+ [a-z ]+): (?P<path>.+)"
)
_DISCARDED = re.compile(r"ERROR: (?P<path>.+) failed verification -- update .*")
_TEMPORARY = re.compile(r"\.(.+)\.[A-Za-z0-9]{6}")
_ESCAPED = re.compile(rb"\\#([0-3][0-7]{2})")


class Rsync:
    """Facts about rsync."""

    name = "rsync"
    stop_signal = signal.SIGTERM
    ends_its_helpers = True
    begins_at_once = False
    tells_counts = True

    def recognises(self, invocation: Invocation) -> bool:
        """Whether the command starts rsync, under any name such as rsync-3.4.1."""
        return invocation.starts("rsync")

    def restores_nothing(self, invocation: Invocation) -> bool:
        """Whether it is a dry run, a listing, or the daemon."""
        words = [*invocation.fixed, *invocation.arguments]
        return is_asked_for(words, _NO_RESTORE, _DRY_RUN_AMONG_LETTERS, "efBMT@")

    def prepare(
        self, invocation: Invocation, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """Ask for the progress of all files, statistics at the end, and plain numbers.

        The words come first, so what a person asks for counts: `-h` still puts commas into numbers. What has
        no source and target, or restores nothing, is left as it is.
        """
        words = list(invocation.arguments)
        all_words = [*invocation.fixed, *words]
        if _restores(all_words):
            words[:0] = [word for word in _WANTED if word not in all_words]
        return words, dict(environment)

    def reader(self) -> RsyncReader:
        """A reader for one run."""
        return RsyncReader()


def _restores(words: Sequence[str]) -> bool:
    """Whether there are two words that may be a source and a target, and no option against it."""
    return sum(not word.startswith("-") for word in words) > 1 and not is_asked_for(
        words, _NO_RESTORE, _DRY_RUN_AMONG_LETTERS, "efBMT@"
    )


class RsyncReader:
    """Reads the output of one run of rsync. Counters never go down; memory is bounded."""

    def __init__(self) -> None:
        self._begun = False
        self._newest = Progress()
        self._listed: int | None = None
        self._created = 0
        self._skipped = 0
        self._errors = 0
        self._first_end = ""
        self._last_words = LastWords()

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        """Observations from one line, without its line end. `--stderr=all` has all of them on stderr."""
        if line.startswith(" "):
            return self._read_progress(line)
        if line.startswith(("Number of ", "Total transferred ")):
            return self._read_statistic(line)
        if line.startswith(_SKIPPED):
            self._skipped += 1
            return ()
        return self._read_message(line) if stream is Stream.ERR else ()

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        """Judge the run after both pipes ended; see `judgement`."""
        endings = _FOUND_NOTHING if self._listed == 0 else ENDINGS
        return judge(endings, self._evidence(), returncode, stop)

    def _restored_something(self) -> bool | None:
        """Not known, too, where more is listed than failed, and its folder: the rest was there already."""
        files = self._newest.files_restored
        if files is None:
            return None
        if files + self._created > 0:
            return True
        return None if self._listed is not None and self._listed > self._errors + 1 else False

    def _evidence(self) -> Evidence:
        return Evidence(
            errors=self._errors,
            restored=self._restored_something(),
            interrupted="received SIG" in self._first_end,
            message=self._first_end or str(self._last_words),
            context=str(self._last_words),
            remarks=self._remarks(),
            counts=_COUNTS,
            left_behind=_LEFT_BEHIND,
        )

    def _remarks(self) -> tuple[str, ...]:
        skipped = f"{self._skipped} files and folders were skipped, as they are of a kind not asked for."
        nothing = self._newest.files_restored == 0 and not self._created
        return (skipped if self._skipped else "", _NOTHING_TO_DO if nothing else "")

    def _read_progress(self, line: str) -> tuple[Observation, ...]:
        found = _PROGRESS.fullmatch(line)
        if found is None:
            return ()
        figures, unit, files, kind, entries = found.groups()
        return self._count(
            None if unit else _number(figures),
            _number(files) if files else None,
            _number(entries) if kind == "to" else None,
        )

    def _read_statistic(self, line: str) -> tuple[Observation, ...]:
        """A line of the end. Its counts are exact, also where the lines of progress were of single files."""
        found = _STATISTIC.fullmatch(line)
        number = _number(found["number"]) if found else 0
        match found and found["name"]:
            case "Number of files":
                self._listed = number
            case "Number of created files":
                self._created = number
            case "Number of regular files transferred":
                return self._count(files_restored=number)
            case "Total transferred file size":
                return self._count(bytes_restored=number)
        return ()

    def _count(
        self,
        bytes_restored: int | None = None,
        files_restored: int | None = None,
        total_files: int | None = None,
    ) -> tuple[Observation, ...]:
        newest = Progress(
            _higher(bytes_restored, self._newest.bytes_restored),
            _higher(files_restored, self._newest.files_restored),
            None,
            _higher(total_files, self._newest.total_files) or None,
        )
        begun = () if self._begun else (Begun(),)
        self._begun = True
        if newest == self._newest:
            return begun
        self._newest = newest
        return (*begun, newest)

    def _read_message(self, line: str) -> tuple[Observation, ...]:
        self._last_words.add(line)
        if line.startswith(("rsync error: ", "rsync warning: ")):
            self._first_end = self._first_end or text(line)
            return ()
        error = _error_in(line)
        if error is None:
            return ()
        self._errors += 1
        return (error,)


def _number(figures: str) -> int:
    """A counter, with commas or points in it as the locale has them; 0 for what cannot be one."""
    if len(figures) < _MANY_FIGURES and figures.isdecimal():
        return int(figures)
    return digits(figures.replace(".", ""))


def _higher(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)


def _error_in(line: str) -> EngineError | None:
    """The error of a path that `line` tells of; None for other lines, such as those on a connection."""
    if line.startswith("rsync: "):
        found = _WITH_ERRNO.fullmatch(line)
        name = _quoted(found["what"]) if found else None
        if found is None or name is None:
            return None
        description = text(f"{found['what']}: {found['why']}")
        name = _without_suffix(name) if "] mkstemp " in found["what"] else name
        return EngineError(_path(name), kind_of(description).type, description, int(found["code"]))
    if found := _DISCARDED.fullmatch(line):
        return EngineError(_path(found["path"]), CORRUPTED.type, "It failed verification and was discarded.")
    if found := _IN_WORDS.fullmatch(line):
        kind = _VANISHED if found["what"].endswith("vanished") else OTHER
        name = _quoted(found["path"]) or found["path"]
        return EngineError(_path(name), kind.type, text(found["what"]), kind.code)
    return None


def _quoted(words: str) -> str | None:
    """The first path in quotes; names may hold quotes, too."""
    start, end = words.find('"') + 1, words.rfind('"')
    if not 0 < start <= end:
        return None
    for between in ('" -> "', '","'):
        second = words.find(between, start)
        end = second if second >= 0 else end
    return words[start:end]


def _without_suffix(name: str) -> str:
    """The path of a file, from that of the temporary one it is written to first, `.name.Xy12Za`."""
    folder, slash, file = name.rpartition("/")
    found = _TEMPORARY.fullmatch(file)
    return f"{folder}{slash}{found[1]}" if found else name


def _path(name: str) -> str:
    r"""A path as it is, from `a\#303\#251`. A byte that is no character stays one of its own, as `\xe9`."""
    plain = _ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), path(name).encode())
    return path(plain.decode("utf-8", "backslashreplace"))
