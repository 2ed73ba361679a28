"""Where a command's events go: lines on stderr, or entries of the systemd journal.

Nobody who logs waits for the output. Events go through a bounded queue to a thread of their own, which folds
repeated failures, renders, and writes. A stderr that is full and that nobody reads costs events, which are
counted, and nothing else. At the end of the program `logging` flushes its handlers: the last events are still
written, in bounded time.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import re
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import structlog

from agent_reporter.logs import redact
from agent_reporter.threads import start_daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from structlog.typing import EventDict

ROOM = 4096
"""Events that wait at most to be written."""
FLUSH_SECONDS = 1.0
"""What the end of the program waits at most for its last events to be written."""
FOLD_SECONDS = 60.0
FOLD_ROOM = 256
REASONS = ("why", "problem", "exception")
"""What makes a failure the same as another one, beside its name."""
JOURNAL_SOCKET = "/run/systemd/journal/socket"
PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
STDERR = 2


def configure(level: str = "warning", form: str = "auto") -> None:
    """Write events of at least `level`, and warnings of the libraries; calling it again changes both.

    `form` is `text` (`key=value`), `json`, `journal` (its native protocol; `json` where there is none), or
    `auto`: the journal if stderr leads there, else text on a terminal, else JSON.
    """
    package = logging.getLogger("agent_reporter")
    write = _writer(form)
    output = next((handler for handler in package.handlers if isinstance(handler, Output)), None)
    if output is None:
        output = Output(write)
    output.write = write
    output.setLevel(level.upper())
    package.handlers[:] = [output]
    package.setLevel(level.upper())
    package.propagate = False
    # What libraries log would else be written to stderr by whoever logs it, and wait there.
    logging.getLogger().addHandler(output)


def _writer(form: str) -> Callable[[EventDict], None]:
    is_for_journal = form == "journal" or (form == "auto" and _stderr_is_the_journal())
    # In a loop, too: /run is memory and not a disk.
    if is_for_journal and os.path.exists(JOURNAL_SOCKET):  # noqa: PTH110 - it never raises
        return _journal(JOURNAL_SOCKET).write
    if form == "text" or (form == "auto" and os.isatty(STDERR)):
        return _write_text
    return _write_json


def _stderr_is_the_journal() -> bool:
    try:
        stderr = os.fstat(STDERR)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{stderr.st_dev}:{stderr.st_ino}"


class Output(logging.Handler):
    """Hands events on to a thread that writes them. Nothing here waits, but for `flush`, or raises.

    `now` is the time in seconds, which never goes back; `room` is how many events may wait.
    """

    def __init__(
        self,
        write: Callable[[EventDict], None],
        folder: Folder | None = None,
        now: Callable[[], float] = time.monotonic,
        room: int = ROOM,
    ) -> None:
        super().__init__()
        self.write = write
        self._folder = folder or Folder()
        self._now = now
        self._room = room
        self._dropped = 0
        self._dropped_told = 0
        # Unlike `Queue` it has no lock to wait for, and may be used by a signal handler.
        self._queue: queue.SimpleQueue[logging.LogRecord | threading.Event] = queue.SimpleQueue()
        start_daemon("logs", self._work)

    def emit(self, record: logging.LogRecord) -> None:
        """Have `record` written, if there is room for it."""
        if self._queue.qsize() < self._room:
            self._queue.put(record)
        else:
            self._dropped += 1

    def flush(self, timeout: float = FLUSH_SECONDS) -> None:
        """Wait until all that was logged so far is written, or `timeout` seconds are over."""
        written = threading.Event()
        self._queue.put(written)
        written.wait(timeout)

    def _work(self) -> None:
        while True:
            item: logging.LogRecord | threading.Event | None = None
            with suppress(queue.Empty):
                item = self._queue.get(timeout=self._folder.seconds_left(self._now()))
            with suppress(Exception):  # a log that cannot be written is no reason to fail
                for event in self._lines(item):
                    self.write(event if "timestamp" in event else _STAMP(None, "", event))
            if isinstance(item, threading.Event):
                item.set()

    def _lines(self, item: logging.LogRecord | threading.Event | None) -> list[EventDict]:
        if isinstance(item, logging.LogRecord):
            lines = self._folder.take(_event_of(item), self._now())
            has_room = self._queue.qsize() <= self._room // 2
        else:
            lines = self._folder.ended(self._now()) if item is None else self._folder.end_all()
            has_room = True
        dropped = self._dropped - self._dropped_told
        if dropped and has_room:
            self._dropped_told += dropped
            lines.append({"event": "log.dropped", "level": "warning", "times": dropped})
        return lines


def _event_of(record: logging.LogRecord) -> EventDict:
    if isinstance(record.msg, dict):
        return record.msg.copy()
    event: EventDict = {
        "event": redact(record.getMessage()),
        "level": record.levelname.lower(),
        "logger": record.name,
    }
    if record.exc_info:
        event["exception"] = redact(logging.Formatter().formatException(record.exc_info))
    return event


@dataclass(slots=True)
class _Window:
    end: float
    summary: EventDict
    times: int = 0


class Folder:
    """Decides which events are written, so that a failure that repeats itself takes few lines.

    A failure is written when it comes first. When it comes again within `seconds`, for whatever restore, it
    is counted, and the count follows as `log.folded` when they are over. Only events from `warning` on that
    name a reason are folded. At most `room` failures are remembered; beyond, the oldest one's time ends.
    """

    def __init__(self, seconds: float = FOLD_SECONDS, room: int = FOLD_ROOM) -> None:
        self._seconds = seconds
        self._room = room
        self._windows: dict[int, _Window] = {}
        """By what is the same, in the order in which they end."""

    def take(self, event: EventDict, now: float) -> list[EventDict]:
        """What is to be written after `event` came at `now`, in seconds."""
        lines = self.ended(now)
        reasons = _reasons(event)
        if not reasons or PRIORITIES.get(event["level"], 0) > PRIORITIES["warning"]:
            return [*lines, event]
        name = str(event["event"])
        same = hash((name, event["level"], *reasons.items()))
        if same in self._windows:
            self._windows[same].times += 1
            return lines
        if len(self._windows) >= self._room:
            lines += self._end_first()
        summary = {"event": "log.folded", "level": event["level"], "folded": name[:200]}
        self._windows[same] = _Window(now + self._seconds, {**summary, **_last_lines(reasons)})
        return [*lines, event]

    def ended(self, now: float) -> list[EventDict]:
        """What is to be written about the failures whose time is over at `now`."""
        lines: list[EventDict] = []
        while self.seconds_left(now) == 0:
            lines += self._end_first()
        return lines

    def end_all(self) -> list[EventDict]:
        """What is to be written when nothing more will come."""
        lines: list[EventDict] = []
        while self._windows:
            lines += self._end_first()
        return lines

    def seconds_left(self, now: float) -> float | None:
        """Seconds from `now` until there may be something to write; None if that needs an event first."""
        first = next(iter(self._windows.values()), None)
        return None if first is None else max(0.0, first.end - now)

    def _end_first(self) -> list[EventDict]:
        window = self._windows.pop(next(iter(self._windows)))
        return [{**window.summary, "times": window.times}] if window.times else []


def _reasons(event: EventDict) -> dict[str, str]:
    """Why it happened, in words that are the same for every restore."""
    reasons = {name: str(event[name]) for name in REASONS if name in event}
    if "restore_id" in event:
        this_restore = re.compile(rf"(?<!\w){re.escape(str(event['restore_id']))}(?!\w)")
        reasons = {name: this_restore.sub("*", reason) for name, reason in reasons.items()}
    return reasons


def _last_lines(reasons: dict[str, str]) -> dict[str, str]:
    """Of a traceback the last line tells most; and what is remembered has to be short."""
    return {name: reason.rstrip().rpartition("\n")[2][:200] for name, reason in reasons.items()}


_STAMP = structlog.processors.TimeStamper(fmt="iso", utc=True)
_JSON = structlog.processors.JSONRenderer()
_KEY_VALUE = structlog.processors.KeyValueRenderer(
    key_order=["timestamp", "level", "event"], drop_missing=True, repr_native_str=False
)


def _write_text(event: EventDict) -> None:
    _write_line(_in_one_line(event))


def _write_json(event: EventDict) -> None:
    _write_line(str(_JSON(None, "", event)))


def _write_line(line: str) -> None:
    """Not through `sys.stderr`: a thread that waits in there has its lock, and the program could not end."""
    rest = f"{line}\n".encode(errors="backslashreplace")
    while rest:
        try:
            rest = rest[os.write(STDERR, rest) :]
        except BlockingIOError:  # somebody who shares the terminal made it non-blocking
            select.select([], [STDERR], [])


def _in_one_line(event: Mapping[str, object]) -> str:
    """An event takes one line, and no text from outside steers the terminal."""
    return str(_KEY_VALUE(None, "", {key: _printable(str(value)) for key, value in event.items()}))


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


class Journal:
    """Writes events to the socket `path` as the journal's native protocol wants them: a datagram each."""

    CUTS = (None, 16384, 2048, 256)
    """Letters that are left of a value, where the one before made too large a datagram."""

    def __init__(self, path: str) -> None:
        self._path = path
        # Kept open: an event that says that the process is out of file descriptors has to be written, too.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def write(self, event: EventDict) -> None:
        """Write `event`, with long values cut if need be; raises OSError if the journal does not take it."""
        fields = journal_fields(event)
        for cut in self.CUTS:
            entry = encode_fields({name: _shortened(value, cut) for name, value in fields.items()})
            try:
                self._socket.sendto(entry, self._path)
            except OSError as problem:
                if problem.errno != errno.EMSGSIZE:
                    raise
            else:
                return


_journal = cache(Journal)


def journal_fields(event: EventDict) -> dict[str, str]:
    """The fields of an entry: those that the journal knows, `EVENT`, `RESTORE_ID`, and `AR_*` for all else.

    The prefix keeps names valid, whatever the key, and apart from those that mean something to the journal.
    """
    said = {
        key: value for key, value in event.items() if key not in {"timestamp", "level", "event", "exception"}
    }
    message = f"{_printable(str(event['event']))} {_in_one_line(said)}".rstrip()
    fields = {
        "MESSAGE": f"{message}\n{event['exception']}" if "exception" in event else message,
        "PRIORITY": str(PRIORITIES.get(event["level"], PRIORITIES["info"])),
        "SYSLOG_IDENTIFIER": "agent-reporter",
        "EVENT": str(event["event"]),
    }
    for key, value in event.items():
        if key == "restore_id":
            fields["RESTORE_ID"] = str(value)
        elif key not in {"level", "event"}:
            fields[f"AR_{re.sub('[^A-Z0-9_]', '_', key.upper())}"[:64]] = str(value)
    return fields


def encode_fields(fields: Mapping[str, str]) -> bytes:
    """The datagram of an entry: `NAME=value` a line, or for a value of several lines its length before it."""
    entry = bytearray()
    for name, text in fields.items():
        value = text.encode(errors="backslashreplace")
        if b"\n" in value:
            entry += b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
        else:
            entry += b"%s=%s\n" % (name.encode(), value)
    return bytes(entry)


def _shortened(text: str, cut: int | None) -> str:
    return text if cut is None or len(text) <= cut else f"{text[:cut]}…"
