"""GNU tar, when it extracts: plain lines, and checkpoints that say how much of the archive was read.

Bytes are those of the archive, uncompressed, with its headers and what was skipped; how many there are in all
is not known. Files are told only where a person asked for a list of them with `-v`: what is listed and is no
folder, also if it could not be written.
"""

from __future__ import annotations

import re
import signal
from pathlib import PurePath
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import EngineError, Progress, Stream
from agent_reporter.engines.error_types import CORRUPTED, ErrorKind, kind_of
from agent_reporter.engines.fields import digits, path, text
from agent_reporter.engines.judgement import Endings, Evidence, judge
from agent_reporter.engines.last_words import LastWords

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agent_reporter.engines.adapter import Observation, Outcome, StopCause
    from agent_reporter.engines.command_line import Invocation

ENDINGS = Endings(
    engine="tar",
    reasons_by_status={64: "usage_error"},
    reasons_by_text=(
        (
            "archive_damaged",
            re.compile(
                r"unexpected eof in archive|does not look like a tar archive|not in gzip format"
                r"|invalid compressed data|format not recognized|unsupported format|corrupt"
            ),
        ),
        ("usage_error", re.compile(r"try 'tar --help'")),
        ("file_or_folder_missing", re.compile(r"cannot (open|stat|exec): no such file or directory")),
    ),
)

CHECKPOINT_RECORDS = "200"
"""Of 10 KiB, as a rule: a line every 2 MiB, which costs under a hundredth of a core at 500 MB/s."""

_PROGRAMS = frozenset({"tar", "gtar"})
_DROP_ENVIRONMENT = frozenset({"sudo", "doas"})
_LETTERS_WITH_VALUE = frozenset("bCfFgHIKLNTVX")
_EXTRACT = frozenset({"x", "extract", "get"})
_OTHER_MODES = frozenset(
    (
        *("A", "catenate", "concatenate", "c", "create", "d", "diff", "compare", "r", "append"),
        *("t", "list", "u", "update", "delete", "test-label"),
    )
)
_VERBOSE = frozenset({"v", "verbose"})
_NO_LIST_ON_STDOUT = frozenset({"O", "to-stdout", "to-command", "index-file"})

# tar writes a tab in the name of a file as \t: no name looks like this.
_CHECKPOINT = re.compile(r"[^\t]*: (?P<what>read|listed)\tR: (?P<bytes>\d+) \(.*\)")
_TOTAL = re.compile(r"Total bytes read: (?P<bytes>\d+) \(.*\)")
_OF_A_FILE = re.compile(
    r"(?P<path>[^\\:]*(?:\\.[^\\:]*)*): "
    r"(?P<what>(?:Cannot |Wrote only |Not found in archive|Member name contains '\.\.').*)"
)
_NOT_FOUND = "Not found in archive"
_MISSING = ErrorKind("file_or_folder_missing")
_LOST_ITS_WAY = "Skipping to next header"
_NO_ARCHIVE = "This does not look like a tar archive"
_WENT_THROUGH = "Exiting with failure status due to previous errors"
_GAVE_UP = "Error is not recoverable: exiting now"
_WAS_THERE = (": skipping existing file", " is newer or same age")
_ESCAPED = re.compile(rb"\\([0-7]{3}|.)", re.DOTALL)
_CONTROL = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
    b"?": b"\x7f",
}

_BYTES_OF_ARCHIVE = "The bytes are those that tar read of the archive."
_LISTED_FILES = "The files are those that tar listed, also if they failed."
_LEFT_BEHIND = "The file it was writing is left incomplete."


class Tar:
    """Facts about GNU tar."""

    name = "tar"
    stop_signal = signal.SIGTERM
    ends_its_helpers = True
    begins_at_once = True
    tells_counts = True

    def recognises(self, invocation: Invocation) -> bool:
        """Whether the command starts what should be GNU tar."""
        return invocation.program in _PROGRAMS

    def restores_nothing(self, invocation: Invocation) -> bool:
        """Whether it does something else than to extract, such as to list."""
        options, _ = _options([*invocation.fixed, *invocation.arguments])
        return bool(options & _OTHER_MODES) and not options & _EXTRACT

    def prepare(
        self, invocation: Invocation, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """Ask for checkpoints, for totals at the end, and for messages in English.

        Another tar may have the same name, and would refuse the options, so they go into the environment,
        where GNU tar alone looks for them. Only where sudo drops that they become arguments.
        """
        words, variables = list(invocation.arguments), dict(environment)
        options, start = _options([*invocation.fixed, *words])
        if not options & _EXTRACT:
            return words, variables
        variables["LANGUAGE"] = "C"  # unlike LC_ALL, it leaves the names of files alone
        lists = bool(options & _VERBOSE) and not options & _NO_LIST_ON_STDOUT
        wanted = _wanted("listed" if lists else "read")
        if any(PurePath(word).name in _DROP_ENVIRONMENT for word in invocation.before):
            if not invocation.fixed:
                words[start:start] = [word for word in wanted if word not in words]
            return words, variables
        there = variables.get("TAR_OPTIONS", "")
        quoted = " ".join(wanted).replace("\\", "\\\\")
        if quoted not in there:
            variables["TAR_OPTIONS"] = f"{there} {quoted}".strip()
        return words, variables

    def reader(self) -> TarReader:
        """A reader for one run."""
        return TarReader()


def _wanted(what: str) -> tuple[str, ...]:
    """The options to add; `what` tells the reader what the lines on stdout are."""
    echo = rf"--checkpoint-action=echo={what}\t%T"
    return (f"--checkpoint={CHECKPOINT_RECORDS}", echo, "--totals")


def _options(words: Sequence[str]) -> tuple[set[str], int]:
    """Short and long options without their dashes, and the index of the first place for another.

    The first word may be a bundle without a dash, as in `xzf`; the values of its letters follow it.
    """
    options: set[str] = set()
    start = 0
    if words and not words[0].startswith("-"):
        options.update(words[0])
        start = 1 + sum(letter in _LETTERS_WITH_VALUE for letter in words[0])
    index = start
    while index < len(words) and words[index] != "--":
        word = words[index]
        index += 1
        if word.startswith("--"):
            options.add(word[2:].partition("=")[0])
        elif word.startswith("-"):
            value = next((at for at, letter in enumerate(word) if letter in _LETTERS_WITH_VALUE), len(word))
            options.update(word[1 : value + 1])
            index += value == len(word) - 1
    return options, start


class TarReader:
    """Reads the output of one run of tar. Counters never go down; memory is bounded."""

    def __init__(self) -> None:
        self._bytes = 0
        self._listed = 0
        self._stdout_is_list = False
        self._were_there = 0
        self._errors = 0
        self._no_archive = False
        self._end = ""
        self._last_words = LastWords()

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        """Observations from one line, without its line end."""
        if stream is Stream.OUT:
            return self._read_list(line)
        if "\tR: " in line:
            return self._read_checkpoint(line)
        if line.startswith("Total bytes read: "):
            found = _TOTAL.fullmatch(line)
            return self._count(digits(found["bytes"])) if found else ()
        return self._read_message(line)

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        """Judge the run after both pipes ended; see `judgement`."""
        return judge(ENDINGS, self._evidence(), returncode, stop)

    def _evidence(self) -> Evidence:
        were_there = f"{self._were_there} files were there already and were not restored again."
        of_archive = _BYTES_OF_ARCHIVE if self._bytes else ""
        return Evidence(
            errors=self._errors,
            went_through=self._end == _WENT_THROUGH and not self._no_archive,
            message=self._end or str(self._last_words),
            context=str(self._last_words),
            remarks=(were_there if self._were_there else "", of_archive),
            counts=f"{of_archive} {_LISTED_FILES}" if self._stdout_is_list else of_archive,
            left_behind=_LEFT_BEHIND,
        )

    def _read_list(self, line: str) -> tuple[Observation, ...]:
        """A file on stdout, or a line of its content: which, a checkpoint tells."""
        if not line or line.endswith("/"):
            return ()
        self._listed += 1
        return self._count(self._bytes) if self._stdout_is_list else ()

    def _read_checkpoint(self, line: str) -> tuple[Observation, ...]:
        found = _CHECKPOINT.fullmatch(line)
        if found is None:
            return ()
        self._stdout_is_list |= found["what"] == "listed"
        return self._count(digits(found["bytes"]))

    def _count(self, bytes_restored: int) -> tuple[Observation, ...]:
        self._bytes = max(bytes_restored, self._bytes)
        return (Progress(self._bytes, self._listed if self._stdout_is_list else None),)

    def _read_message(self, line: str) -> tuple[Observation, ...]:
        self._last_words.add(line)
        program, _, words = line.partition(": ")
        if "tar" not in program:
            return ()
        if words in {_WENT_THROUGH, _GAVE_UP}:
            self._end = words
        elif words == _NO_ARCHIVE:
            self._no_archive = True
        elif words == _LOST_ITS_WAY:
            return self._error(EngineError("", CORRUPTED.type, words))
        elif words.endswith(_WAS_THERE):
            self._were_there += 1
        elif found := _OF_A_FILE.fullmatch(words):
            description = text(found["what"])
            kind = _MISSING if description == _NOT_FOUND else kind_of(description)
            return self._error(EngineError(_path(found["path"]), kind.type, description, kind.code))
        return ()

    def _error(self, error: EngineError) -> tuple[Observation, ...]:
        self._errors += 1
        return (error,)


def _path(quoted: str) -> str:
    r"""A path as it is, from `a\303\251\:b`. A byte that is no character stays one of its own, as `\xe9`."""
    plain = _ESCAPED.sub(_unescaped, path(quoted).encode())
    return path(plain.decode("utf-8", "backslashreplace"))


def _unescaped(found: re.Match[bytes]) -> bytes:
    escaped = found[1]
    if len(escaped) > 1:
        return bytes([int(escaped, 8) & 0xFF])
    return _CONTROL.get(escaped, escaped)
