"""Where a command's events go: lines on stderr, or entries of the systemd journal.

Nobody who logs waits for the output. Events go through a bounded queue to a thread of their own, which folds
repeated failures, renders, and writes. A stderr that is full and that nobody reads costs events, which are
counted, and nothing else. At the end of the program `logging` flushes its handlers: the last events are still
written, in bounded time.
"""

from __future__ import annotations

import logging
import os
import queue
import select
import threading
import time
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

from agent_reporter.log_folding import Folder
from agent_reporter.logs import load, redact
from agent_reporter.threads import start_daemon

if TYPE_CHECKING:
    from collections.abc import Callable

    from structlog.typing import EventDict

    from agent_reporter.log_journal import Journal

ROOM = 4096
"""Events that wait at most to be written."""
FLUSH_SECONDS = 1.0
"""What the end of the program waits at most for its last events to be written."""
JOURNAL_SOCKET = "/run/systemd/journal/socket"
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
                    self.write(load().stamped(event))
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


@cache
def _journal(path: str) -> Journal:
    from agent_reporter.log_journal import Journal  # noqa: PLC0415 - as `logs.load` says

    return Journal(path)


def _write_text(event: EventDict) -> None:
    _write_line(load().in_one_line(event))


def _write_json(event: EventDict) -> None:
    _write_line(load().in_json(event))


def _write_line(line: str) -> None:
    """Not through `sys.stderr`: a thread that waits in there has its lock, and the program could not end."""
    rest = f"{line}\n".encode(errors="backslashreplace")
    while rest:
        try:
            rest = rest[os.write(STDERR, rest) :]
        except BlockingIOError:  # somebody who shares the terminal made it non-blocking
            select.select([], [STDERR], [])
