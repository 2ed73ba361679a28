"""One pipe of an engine: read to its end in any case, shown line by line, and passed on byte for byte."""

from __future__ import annotations

import asyncio
import fcntl
import os
import select
import sys
import termios
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent_reporter.engines.lines import LineSplitter
from agent_reporter.engines.running.byte_queue import ByteQueue
from agent_reporter.threads import call_in_loop, start_daemon

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agent_reporter.engines.adapter import Stream

Sink = int | Callable[[bytes], None]
"""Where an engine's bytes go on to: a file descriptor, or a function that may block."""

CHUNK_BYTES = 256 << 10


class Pump:
    """Two daemon threads: one reads the pipe and never waits for long, one writes to the sink and may wait.

    Takes over the descriptor `source` and closes it at its end.
    """

    def __init__(
        self,
        stream: Stream,
        source: int,
        sink: Sink | None,
        *,
        on_lines: Callable[[Stream, Sequence[str]], None],
        warn: Callable[[str], None],
        queue: ByteQueue | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.stream = stream
        self._source = source
        self._sink = sink
        self._on_lines = on_lines
        self._warn = warn
        self._queue = queue or ByteQueue()
        self._wake_source, self._wake = os.pipe()
        self.read_bytes = 0
        """Bytes that came through so far."""
        self.read_to_end: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing more will be read, and all lines have been shown."""
        self.drained: asyncio.Future[None] = self._loop.create_future()
        """Done when the sink has everything, or is gone."""

    @property
    def dropped_bytes(self) -> int:
        """Bytes that did not reach the sink, because it was too slow in a stop, or gone."""
        return self._queue.dropped_bytes

    def start(self) -> None:
        """Start the threads."""
        start_daemon(f"engine-read-{self.stream}", self._read)
        if self._sink is None:
            self.drained.set_result(None)
        else:
            write = _writer_to(self._sink) if isinstance(self._sink, int) else self._sink
            start_daemon(f"engine-write-{self.stream}", lambda: self._pass_on(write))

    def lift_bound(self) -> None:
        """From now on read on, even if the sink takes nothing."""
        self._queue.lift_bound()

    def give_up_reading(self) -> None:
        """Read what the pipe holds now and no more, though it has not ended: somebody else holds it open."""
        if self._wake >= 0:
            os.close(self._wake)
            self._wake = -1

    def give_up_writing(self) -> None:
        """Drop what the sink has not taken yet."""
        self._queue.abandon()

    def _read(self) -> None:
        splitter = LineSplitter()
        poller = select.poll()
        poller.register(self._source, select.POLLIN)
        poller.register(self._wake_source, select.POLLIN)
        try:
            for chunk in self._chunks(poller):
                self._on_lines(self.stream, splitter.feed(chunk))
                if self._sink is not None:
                    self._queue.put(chunk)
            self._on_lines(self.stream, splitter.flush())
        finally:
            self._queue.end()
            os.close(self._source)
            call_in_loop(self._loop, self._reading_has_ended)

    def _chunks(self, poller: select.poll) -> Iterator[bytes]:
        """What comes through the pipe, until its end; or, once reading was given up, what it holds then."""
        while all(descriptor != self._wake_source for descriptor, _ in poller.poll()):
            if not (chunk := self._read_up_to(CHUNK_BYTES)):
                return
            yield chunk
        left = _held_bytes(self._source)
        while left and (chunk := self._read_up_to(min(left, CHUNK_BYTES))):
            left -= len(chunk)
            yield chunk

    def _read_up_to(self, most: int) -> bytes:
        chunk = os.read(self._source, most)
        self.read_bytes += len(chunk)
        return chunk

    def _reading_has_ended(self) -> None:
        self.give_up_reading()
        os.close(self._wake_source)
        if not self.read_to_end.done():
            self.read_to_end.set_result(None)

    def _pass_on(self, write: Callable[[bytes], None]) -> None:
        try:
            while (chunk := self._queue.get()) is not None:
                write(chunk)
        except Exception as error:  # noqa: BLE001 - the sink is the caller's: any error means that it is gone
            self._queue.abandon()
            self._warn(f"The engine's {self.stream} is read on, but passed on no more: {error}.")
        finally:
            call_in_loop(self._loop, self._writing_has_ended)

    def _writing_has_ended(self) -> None:
        if not self.drained.done():
            self.drained.set_result(None)


def _held_bytes(pipe: int) -> int:
    """How much can be read from `pipe` at once."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def _writer_to(descriptor: int) -> Callable[[bytes], None]:
    """A function that writes all of a chunk to `descriptor`."""

    def write(chunk: bytes) -> None:
        rest = memoryview(chunk)
        while rest:
            try:
                rest = rest[os.write(descriptor, rest) :]
            except BlockingIOError:  # somebody who shares the terminal made it non-blocking
                select.select([], [descriptor], [])

    return write
