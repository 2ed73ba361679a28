"""pgBackRest 2: log lines, one for each file, with sizes that are rounded.

A line goes to stdout with a time stamp, or to stderr without one, by the levels of both. It is read the same
on either. pgBackRest never restores in part: the first error that its retries do not mend ends it.
"""

from __future__ import annotations

import re
import signal
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Begun, EngineError, Progress, Stream
from agent_reporter.engines.fields import digits, path, text
from agent_reporter.engines.judgement import Evidence, judge
from agent_reporter.engines.last_words import LastWords
from agent_reporter.engines.pgbackrest_outcome import (
    ENDINGS,
    LEFT_BEHIND,
    NO_CIPHER_PASS,
    NO_READABLE_INFO,
    NO_REPOSITORY,
    NO_ROOM,
    ROUNDED,
    WORKERS,
    type_of,
)
from agent_reporter.model.documents import MAX_COUNT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent_reporter.engines.adapter import Observation, Outcome, StopCause
    from agent_reporter.engines.command_line import Invocation

MAX_WARNINGS = 3
"""So many are told of a run that went well."""

_CONSOLE, _STDERR = "--log-level-console", "--log-level-stderr"
_TELLS_FILES = frozenset({"detail", "debug", "trace"})
# Of those of `restore`: others take the next word as their value, but for --no-... and --reset-...
_OPTIONS_WITHOUT_VALUE = frozenset(
    (
        *("--allow-root", "--beta", "--delta", "--force", "--help", "--link-all", "--log-subprocess"),
        *("--log-timestamp", "--neutral-umask", "--pg-local", "--repo-local", "--repo-s3-requester-pays"),
        *("--repo-storage-verify-tls", "--sck-block", "--sck-keep-alive", "--target-exclusive", "--version"),
    )
)

_MAX_PREFIX = 48
"""Characters of the time, the process and the level in front of what a line says, and a few more."""
_ENTRY = re.compile(
    r"(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} )?(?:P\d{1,6} {1,6})?"
    r"(ASSERT|ERROR|WARN|INFO|DETAIL|DEBUG|TRACE): (.*)"
)
_DETAIL = "DETAIL: "
_FILES = ("restore file ", "restore zeroed file ")
_SIZE = r"(?:\d{1,12}B|\d{1,12}(?:\.\d)?[KMG]B)"
# A block of an incremental backup comes as `bi 8KB/1GB`: so much was restored of a file of that size.
_END_OF_FILE = re.compile(
    rf"(?:bundle \S+, )?(?:bi (?:({_SIZE})/)?)?({_SIZE}), (?:(\d{{1,3}}\.\d\d)|-?nan)%\)"
    r"(?: checksum [0-9a-f]+)?"
)
_EXISTS = " - exists and "
_END = re.compile(rf"restore size = ({_SIZE}), file total = (\d{{1,18}})")
_LEVEL_IN_USE = re.compile(r" --log-level-(?:console|stderr)=(?:detail|debug|trace)\b")
_CIPHER_IN_USE = re.compile(r" --repo\d*-cipher-type=aes")
_ERROR = re.compile(r"\[(\d{1,3})\]: (.*)")
_PATH = re.compile(r"'(/.*?)'(?=$|[ :])")
_SHORT_WRITE = re.compile(r"unable to write '[^']*'$")
_NO_INFO = re.compile(r"repo\d+: \[(\w+)\] unable to load info file")
# What follows is a line of a file of the repository: noise, or a secret.
_QUOTED_LINE = re.compile(r"( at line \d+)\b.*")
# A copy of backup.info that is noise from its start: with the right cipher pass, line 1 begins a section.
_NOISE = re.compile(
    r" +(?:FormatError: (?:key/value found outside of section at line \d|.{1,200}? at line 1\b)"
    r"|CryptoError: unable to flush$)"
)
_UNREADABLE = re.compile("[\x00-\x1f\x7f\ufffd]")

_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_STEP_OF_PERCENT = 0.01


class PgBackRest:
    """Facts about pgBackRest."""

    name = "pgbackrest"
    stop_signal = signal.SIGTERM
    ends_its_helpers = True
    begins_at_once = False
    tells_counts = True

    def recognises(self, invocation: Invocation) -> bool:
        """Whether the command starts pgBackRest, under any name such as pgbackrest-2.45."""
        return invocation.starts("pgbackrest")

    def restores_nothing(self, invocation: Invocation) -> bool:  # noqa: ARG002 - others look at it
        """It has no dry run of a restore."""
        return False

    def prepare(
        self, invocation: Invocation, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """Ask for a line for each file; another command than `restore` is left as it is.

        A word asks for it: sudo drops the environment, and words count more than it and the configuration.
        pgBackRest takes no option twice. If the console has a lower level by another word, stderr is asked.
        """
        words = list(invocation.arguments)
        command, levels = _command_and_levels([*invocation.fixed, *words])
        if command == "restore" and _TELLS_FILES.isdisjoint(levels.values()):
            free = [option for option in (_CONSOLE, _STDERR) if option not in levels]
            words += [f"{option}=detail" for option in free[:1]]
        return words, dict(environment)

    def reader(self) -> PgBackRestReader:
        """A reader for one run."""
        return PgBackRestReader()


def _command_and_levels(words: Sequence[str]) -> tuple[str, dict[str, str]]:
    """The first word that belongs to no option, or "", and the levels asked for, by their options.

    There is no command in words that end where a value should follow: pgBackRest refuses them.
    """
    command = ""
    levels: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            command = command or word
            continue
        name, equals, value = word.partition("=")
        if not equals and not _stands_alone(name):
            following = next(rest, None)
            if following is None:
                return "", {}
            value = following
        for option in (_CONSOLE, _STDERR):
            if _is_short_for(option, name.replace("--reset-", "--")):
                levels[option] = value
    return command, levels


def _is_short_for(option: str, name: str) -> bool:
    """An option may be cut short as long as it can be told from others."""
    return name.startswith("--log-level-") and name != "--log-level-" and option.startswith(name)


def _stands_alone(option: str) -> bool:
    if not option.startswith("--"):
        return True  # pgBackRest has no short options
    return option.startswith(("--no-", "--reset-")) or re.sub(r"\d+", "", option) in _OPTIONS_WITHOUT_VALUE


@lru_cache(maxsize=1024)
def _size(words: str) -> tuple[int, int]:
    """Bytes that `8KB` or `17.2MB` stands for, and as many as there are at least.

    From a kilobyte on, it is rounded to a tenth of the unit.
    """
    unit = _UNITS.get(words[-2:-1])
    if unit is None:
        return int(words[:-1]), int(words[:-1])
    size = round(float(words[:-2]) * unit)
    return size, size - unit // 20


class PgBackRestReader:
    """Reads the output of one run of pgBackRest. Counters never go down; memory is bounded.

    Bytes are sums of rounded sizes, of the files that were restored and no others. The total is what the
    percentages prove that there is at least, so it grows a little until the end. It includes what was there
    already and is not restored again.
    """

    def __init__(self) -> None:
        self._begun = False
        self._tells_counts = False
        self._uses_cipher = False
        self._bytes = self._files = 0
        self._passed_bytes = self._least_passed_bytes = 0
        self._total_bytes = self._total_files = 0
        self._matching_files = self._zeroed_files = 0
        self._has_started = self._has_finished = self._interrupted = False
        self._error = self._of_repository = ""
        self._errors_of_paths = 0
        self._error_without_path: EngineError | None = None
        self._copies_of_noise = 0
        self._warnings: list[str] = []
        self._more_warnings = 0
        self._quotes = False
        self._last_words = LastWords()

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        """Observations from one line, without its line end."""
        at = line.find(_DETAIL, 0, _MAX_PREFIX)
        if at >= 0 and line.startswith(_FILES, at + len(_DETAIL)):
            return self._read_file(line, zeroed=line.startswith(_FILES[1], at + len(_DETAIL)))
        entry = _ENTRY.match(line)
        if entry is None:
            return self._read_more(stream, line)
        level, words = entry.groups()
        match level:
            case "INFO":
                return self._read_info(words)
            case "WARN":
                self._read_warning(words)
            case "ERROR" | "ASSERT":
                return self._read_error(words)
        return ()

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        """Judge the run after both pipes ended; see `judgement`."""
        errors = (self._error_without_path,) if self._error_without_path and self._begun else ()
        evidence = Evidence(
            errors=self._errors_of_paths + len(errors),
            finished=self._has_finished if self._has_started else None,
            interrupted=self._interrupted,
            message=". ".join(filter(None, (self._error, self._why()))),
            context=str(self._last_words),
            remarks=tuple(self._remarks()),
            left_behind=self._left_behind(stop),
        )
        return replace(judge(ENDINGS, evidence, returncode, stop), errors=errors)

    def _left_behind(self, stop: StopCause | None) -> str:
        """After a stop that was asked for here, all of its processes are gone."""
        if not self._begun:
            return ""
        return LEFT_BEHIND if stop is not None else f"{LEFT_BEHIND} {WORKERS}"

    def _read_info(self, words: str) -> tuple[Observation, ...]:
        if words.startswith("restore command begin "):
            self._has_started = True
            self._tells_counts = _LEVEL_IN_USE.search(words) is not None
            self._uses_cipher = _CIPHER_IN_USE.search(words) is not None
        elif "restore backup set " in words[:_MAX_PREFIX]:
            return self._begin(tells_counts=self._tells_counts)
        elif words.startswith("restore size = "):
            return self._read_end(words)
        elif words.startswith("restore command end: "):
            self._has_finished = words.startswith("restore command end: completed successfully")
            self._interrupted = words.startswith("restore command end: terminated on signal")
        return ()

    def _begin(self, *, tells_counts: bool) -> tuple[Begun, ...]:
        if self._begun:
            return ()
        self._begun = True
        return (Begun(tells_counts=tells_counts),)

    def _read_file(self, line: str, *, zeroed: bool) -> tuple[Observation, ...]:
        begun = self._begin(tells_counts=True)
        name, _, end = line.rpartition(" (")
        found = _END_OF_FILE.fullmatch(end)
        if found is None:
            return begun
        changed, whole, percent = found.groups()
        size, least = _size(whole)
        self._passed_bytes += size
        self._least_passed_bytes += least
        if zeroed:
            self._zeroed_files += 1
        elif _EXISTS in name:
            self._matching_files += 1
        else:
            self._files += 1
            self._bytes += _size(changed)[0] if changed else size
        self._grow_total(float(percent) if percent else 100)
        return (*begun, self._progress())

    def _grow_total(self, percent: float) -> None:
        most = min((percent + _STEP_OF_PERCENT) / 100, 1)
        self._total_bytes = max(self._total_bytes, int(self._least_passed_bytes / most), self._passed_bytes)

    def _progress(self) -> Progress:
        total_bytes = min(self._total_bytes, MAX_COUNT) or None
        total_files = self._total_files or None
        if not self._passed_bytes and not self._files:
            return Progress(None, None, total_bytes, total_files)
        return Progress(min(self._bytes, MAX_COUNT), self._files, total_bytes, total_files)

    def _read_end(self, words: str) -> tuple[Observation, ...]:
        found = _END.fullmatch(words)
        if found is None:
            return ()
        size, files = found.groups()
        if not self._passed_bytes:
            self._total_bytes = max(self._total_bytes, _size(size)[0])
        self._total_files = max(self._total_files, digits(files))
        return (self._progress(),)

    def _read_warning(self, words: str) -> None:
        warning = self._kept(words)
        found = _NO_INFO.match(warning)
        if found:
            self._of_repository = NO_REPOSITORY if found[1] == "FileMissingError" else NO_READABLE_INFO
        if len(self._warnings) < MAX_WARNINGS:
            self._warnings.append(warning)
        else:
            self._more_warnings += 1

    def _read_error(self, words: str) -> tuple[Observation, ...]:
        """An error ends pgBackRest. Whether one without a path is one of the restore is known at the end."""
        error = self._kept(words)
        found = _ERROR.fullmatch(error)
        code, description = (int(found[1]), found[2]) if found else (0, error)
        self._error = self._error or description
        named = _PATH.search(description)
        if named is None:
            self._error_without_path = EngineError("", type_of(code, description), description, code)
            return ()
        self._errors_of_paths += 1
        return (EngineError(path(named[1]), type_of(code, description), description, code),)

    def _why(self) -> str:
        """What the error itself does not say."""
        if _SHORT_WRITE.search(self._error):
            return NO_ROOM
        if self._copies_of_noise > 1 and self._uses_cipher:
            return NO_CIPHER_PASS
        return self._of_repository

    def _read_more(self, stream: Stream, line: str) -> tuple[Observation, ...]:
        """More of the entry before, or what other programs say, such as sudo."""
        if _NOISE.match(line):
            self._copies_of_noise += 1
        if line.startswith("     ") or (stream is Stream.ERR and not self._quotes):
            self._kept(line)
        return ()

    def _kept(self, line: str) -> str:
        """What may be told of `line`; it is among the last words from now on."""
        words = text(line)
        told = _QUOTED_LINE.sub(r"\1", words)
        self._quotes = self._quotes or told != words
        told = _UNREADABLE.split(told, maxsplit=1)[0]
        self._last_words.add(told)
        return told.strip()

    def _remarks(self) -> Iterable[str]:
        if self._files:
            yield ROUNDED
        if self._matching_files:
            yield f"{self._matching_files} files were there already and were not restored again."
        if self._zeroed_files:
            left_out = f"{self._zeroed_files} files of databases that were left out"
            yield f"{left_out} hold zeros, and are not counted."
        for warning in self._warnings:
            yield f"It warned: {warning.removesuffix('.')}."
        if self._more_warnings:
            yield f"It gave {self._more_warnings} more warnings."
