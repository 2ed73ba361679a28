"""borg 1.2 and 1.4: `borg extract`, which tells all it has to say on stderr, a JSON object a line."""

from __future__ import annotations

import re
import signal
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from agent_reporter.engines.adapter import Begun, EngineError, Progress, Stream
from agent_reporter.engines.borg_outcome import ENDINGS, Printed
from agent_reporter.engines.error_types import CORRUPTED, OTHER, ErrorKind, kind_of
from agent_reporter.engines.fields import count, digits, parse_object, path, text
from agent_reporter.engines.judgement import judge
from agent_reporter.engines.last_words import LastWords
from agent_reporter.engines.options import before_dashes, is_asked_for

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agent_reporter.engines.adapter import Observation, Outcome, StopCause
    from agent_reporter.engines.command_line import Invocation

# What borg takes in front of its sub-command.
_OPTIONS_WITH_VALUE = (
    *("--debug-topic", "--lock-wait", "--umask", "--remote-path", "--remote-ratelimit", "--upload-ratelimit"),
    *("--remote-buffer", "--upload-buffer", "--debug-profile", "--rsh"),
)
_ASKED_FOR = (
    ("--log-json", frozenset({"--log-json"})),
    ("--progress", frozenset({"--progress", "-p"})),
    ("--list", frozenset({"--list"})),
)
_DRY_RUN = re.compile(r"-[pv]*n[pvn]*")
_QUIET = ("--critical", "--error")
_QUESTIONS = ("BORG_RELOCATED_REPO_ACCESS_IS_OK", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK")

_LOG = '{"type": "log_message"'
_LISTED = '"name": "borg.output.list"}'
_BEGUN = (Begun(),)

# Greedy: a path may hold all of this, too.
_OF_OPERATION = re.compile(r"(?P<path>.*): (?P<rest>[a-z_]+: \[Errno \d+\] .*)", re.DOTALL)
_OF_SYSTEM = re.compile(r"(?P<path>.*): (?P<rest>\[Errno \d+\] .*)", re.DOTALL)
_OF_BORG = re.compile(
    r"(?P<path>.*): (?P<rest>backup error|Size inconsistency .*|File has damaged .*|not extracted, .*)",
    re.DOTALL,
)
_OF_PATTERN = re.compile(r"(?P<rest>Include pattern '(?P<path>.*)' never matched\.)", re.DOTALL)
_DAMAGE = re.compile(r"backup error|Size inconsistency|File has damaged")
_ERRNO = re.compile(r"\[Errno (\d{1,9})\] ([^:]{0,200})")
_NOT_IN_ARCHIVE = ErrorKind("file_or_folder_missing")

_SYSTEM_INFORMATION = re.compile(r"(?:^|\n)(?:Borg server: )?Platform: .*", re.DOTALL)


class Borg:
    """Facts about borg."""

    name = "borg"
    stop_signal = signal.SIGTERM
    """It ignores the first SIGINT of an extract. After SIGTERM it ends at once, and releases its lock."""
    ends_its_helpers = True
    begins_at_once = False
    tells_counts = True

    def recognises(self, invocation: Invocation) -> bool:
        """Whether the command starts borg, under any name such as borg-linux64."""
        return invocation.starts("borg")

    def restores_nothing(self, invocation: Invocation) -> bool:
        """Whether it is a dry run."""
        options = before_dashes([*invocation.fixed, *invocation.arguments])
        index = _sub_command(options)
        is_extract = index is not None and options[index] == "extract"
        return is_extract and is_asked_for(options[index:], {"--dry-run"}, _DRY_RUN, "e")

    def prepare(
        self, invocation: Invocation, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """Ask an extract for JSON, progress and a list; another sub-command is left as it is.

        Warnings are asked for where somebody silenced them: they are how borg tells of files that failed.
        The questions that it puts on a terminal would not be seen there as JSON, and it would wait for ever:
        where no answer to them is in the environment, it is no, and borg ends.
        """
        words, variables = list(invocation.arguments), dict(environment)
        options = before_dashes([*invocation.fixed, *words])
        index = _sub_command(options)
        if index is None or options[index] != "extract" or "--" in invocation.fixed:
            return words, variables
        if _is_dry_run(options[index:]):
            return words, variables
        place = max(index + 1 - len(invocation.fixed), 0)
        asked = [option for option, names in _ASKED_FOR if names.isdisjoint(options)]
        loud = ["--warning"] if any(_means(word, *_QUIET) for word in invocation.fixed) else []
        for question in _QUESTIONS:
            variables.setdefault(question, "no")
        return [*_loud(words[:place]), *asked, *loud, *_loud(words[place:])], variables

    def reader(self) -> BorgReader:
        """A reader for one run."""
        return BorgReader()


def _is_dry_run(words: Sequence[str]) -> bool:
    return any(_DRY_RUN.fullmatch(word) or _means(word, "--dry-run") for word in words)


def _means(word: str, *options: str) -> bool:
    """Whether `word` is one of `options`, or short for it, as Python's argparse has it."""
    return len(word) > len("--") and any(option.startswith(word) for option in options)


def _sub_command(words: Sequence[str]) -> int | None:
    """The index of the first word that is neither an option nor the value of one."""
    index = 0
    while index < len(words):
        word = words[index]
        if not word.startswith("-"):
            return index
        has_value = word != "--debug" and _means(word, *_OPTIONS_WITH_VALUE)
        index += 2 if has_value else 1
    return None


def _loud(words: Sequence[str]) -> Iterator[str]:
    """`words`, with each option that silences warnings taken back, if it is not yet: the last one counts."""
    options = len(before_dashes(words))
    for index, (word, following) in enumerate(pairwise([*words, ""])):
        yield word
        if index < options and _means(word, *_QUIET) and following != "--warning":
            yield "--warning"


class BorgReader:
    """Reads the output of one run of borg. Counters never go down; memory is bounded.

    Files are the items that borg listed and that did not fail: files, folders, links and all else, since a
    line of its list does not tell what it is. One is counted when the next is listed. Bytes are those that
    borg took from the repository: a file with hard links once, holes of a sparse file as what they stand
    for, and the piece that it is about to write. Once borg has said that it is through, and named no error,
    they are the total, to which it adds the lengths of symbolic links.
    """

    def __init__(self) -> None:
        self._begun = False
        self._tells_progress = False
        self._finished = False
        self._bytes = self._total_bytes = self._files = 0
        self._listed_line = ""
        """The newest item, as it was listed."""
        self._is_pending = False
        """Whether that item is neither counted yet nor has failed."""
        self._errors = 0
        self._interrupted = False
        self._question = ""
        self._final_message = ""
        self._last_words = LastWords()

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        """Observations from one line, without its line end."""
        if stream is Stream.OUT:  # what `--stdout` restores
            return ()
        if line.endswith(_LISTED) and line.startswith(_LOG):  # most lines are such
            return self._read_listed(line)
        message = parse_object(line) if line.startswith("{") else None
        if message is None:
            self._last_words.add(line)
            return ()
        if message.get("name") == "borg.output.list":
            return self._read_listed(line)
        return self._read_message(message)

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        """Judge the run after both pipes ended; see `judgement` and `borg_outcome`."""
        printed = Printed(
            errors=self._errors,
            restored_something=self._files > 0 or self._bytes > 0,
            tells_progress=self._tells_progress,
            finished=self._finished,
            interrupted=self._interrupted,
            question=self._question,
            message=self._final_message,
            context=str(self._last_words),
        )
        evidence = printed.evidence(returncode)
        return judge(ENDINGS, evidence, returncode, stop)

    def _read_message(self, message: dict[str, Any]) -> tuple[Observation, ...]:
        match message.get("type"):
            case "progress_percent" if message.get("msgid") == "extract":
                return self._read_progress(message)
            case "log_message":
                return self._read_log(message)
            case "question_prompt":
                self._question = text(message.get("msgid"))
                for line in text(message.get("message")).splitlines():
                    self._last_words.add(line)
        return ()

    def _begin(self) -> tuple[Begun, ...]:
        if self._begun:
            return ()
        self._begun = True
        return _BEGUN

    def _read_listed(self, line: str) -> tuple[Observation, ...]:
        begun = self._begin()
        self._listed_line = line
        if not self._is_pending:
            self._is_pending = True
            return begun
        self._files += 1
        return (*begun, self._progress())

    def _read_progress(self, message: dict[str, Any]) -> tuple[Observation, ...]:
        begun = self._begin()
        self._tells_progress = True
        before = (self._bytes, self._total_bytes, self._files)
        self._bytes = max(self._bytes, count(message.get("current")))
        self._total_bytes = max(self._total_bytes, count(message.get("total")))
        if message.get("finished") is True:
            self._finished = True
            self._files += self._is_pending
            self._is_pending = False
            if not self._errors:
                self._bytes = max(self._bytes, self._total_bytes)
        if before == (self._bytes, self._total_bytes, self._files):
            return begun
        return (*begun, self._progress())

    def _progress(self) -> Progress:
        return Progress(self._bytes, self._files, self._total_bytes or None)

    def _read_log(self, message: dict[str, Any]) -> tuple[Observation, ...]:
        said, logger = message.get("message"), message.get("name")
        if not isinstance(said, str) or (isinstance(logger, str) and logger.startswith("borg.output.")):
            return ()
        match message.get("levelname"):
            case "WARNING":
                return self._read_warning(said, logger)
            case "ERROR" | "CRITICAL":
                self._read_failure(said, message.get("msgid"))
        return ()

    def _read_warning(self, said: str, logger: object) -> tuple[EngineError, ...]:
        """A warning is an error of one item, but for those on borg itself."""
        item = self._listed_item()
        if logger == "borg.xattr":  # the item itself is there
            named = said.rpartition(": b'")
            return self._error(named[2].rstrip("')") if named[1] else item, said)
        if logger != "borg.archiver":
            self._last_words.add(said)
            return ()
        end = _end_of_path(said, item)
        if end:
            self._is_pending = False
            return self._error(said[: end - 2], said[end:])
        for pattern in (_OF_OPERATION, _OF_SYSTEM, _OF_BORG, _OF_PATTERN):
            found = pattern.fullmatch(said)
            if found is not None:
                return self._error(found["path"], found["rest"])
        self._last_words.add(said)
        return ()

    def _listed_item(self) -> str:
        """The path of the newest item; "" if it is not known."""
        message = parse_object(self._listed_line)
        item = message.get("message") if message is not None else ""
        return item if isinstance(item, str) else ""

    def _error(self, item: str, description: str) -> tuple[EngineError, ...]:
        self._errors += 1
        kind = _kind(description)
        return (EngineError(path(item), kind.type, text(description), kind.code),)

    def _read_failure(self, said: str, msgid: object) -> None:
        """The sentence that borg ends with, then a traceback, of which the last line tells most."""
        words = _SYSTEM_INFORMATION.sub("", said).strip()
        if said == "Keyboard interrupt" or (isinstance(msgid, str) and msgid.startswith("Signal.")):
            self._interrupted = True
        if self._final_message or "Traceback (most recent call last)" in words:
            self._last_words.add(words.rpartition("\n")[2])
        else:
            self._final_message = text(words)


def _end_of_path(warning: str, item: str) -> int:
    """The index after `item: ` in a warning on it, also with the components that were stripped; else 0."""
    if not item:
        return 0
    if warning.startswith(f"{item}: "):
        return len(item) + 2
    index = warning.find(f"/{item}: ")
    return index + len(item) + 3 if index >= 0 else 0


def _kind(description: str) -> ErrorKind:
    named = _ERRNO.search(description)
    if named is not None:
        return ErrorKind(kind_of(named[2]).type, digits(named[1]))
    if _OF_PATTERN.fullmatch(description):
        return _NOT_IN_ARCHIVE
    return CORRUPTED if _DAMAGE.match(description) else OTHER
