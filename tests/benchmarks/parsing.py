"""Reading an engine's output: the cost of a line, beside `json.loads` alone on the same lines.

A pass feeds recorded runs of an engine, each to a reader of its own, in chunks as a pipe gives them, split and
read as the product does it.
"""

from __future__ import annotations

import json
import time
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Stream
from agent_reporter.engines.catalogue import OWN, own
from agent_reporter.engines.fields import parse_object
from agent_reporter.engines.lines import LineSplitter
from tests.benchmarks.goals import Goal, UntrueError
from tests.benchmarks.rounds import Contestant, measure, print_rows
from tests.engines.captures import names, recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from agent_reporter.engines.adapter import Adapter, Observation, Outcome, OutputReader, StopCause
    from tests.benchmarks.rounds import Effort

LINES_A_SECOND = 100_000
CORES = 0.5
"""What reading so many may take."""
CHUNK_BYTES = 65_536
RECORDINGS = 6
"""So many of an engine are read, the longest: short ones tell little of what a line costs."""

Recording = list[tuple[Stream, bytes]]


def run(effort: Effort) -> list[Goal]:
    """Measure and print; raises UntrueError if a reader did not have every line."""
    return [_measure_one(adapter, effort) for adapter in map(own, OWN)]


def _measure_one(adapter: Adapter, effort: Effort) -> Goal:
    recordings = [_chunks(adapter.name, name) for name in names(adapter.name)]
    recordings = sorted(recordings, key=lambda recording: len(_lines(recording)))[-RECORDINGS:]
    lines = [line for recording in recordings for line in _lines(recording)]
    objects = [line for line in lines if parse_object(line) is not None]
    reading = f"{adapter.name}: split and read"
    rows = measure(
        [
            Contestant(
                "json.loads on the lines that are JSON", partial(_parse, objects) if objects else None
            ),
            Contestant(reading, partial(_read, adapter, recordings, len(lines))),
        ],
        effort,
    )
    if not objects:
        rows = rows[1:]
    print_rows(f"{adapter.name}: one line of {len(lines)}, of which {len(objects)} are JSON", rows)
    had, were = _lines_had(adapter, recordings), sum(map(line_count, recordings))
    if had != were:
        raise UntrueError(f"{adapter.name}: the reader had {had} lines of {were}")
    cores = median(rows[-1].costs) * LINES_A_SECOND / 1e9
    return Goal(reading, f"{LINES_A_SECOND:,} lines a second", cores, CORES, "of a core")


def _chunks(engine: str, name: str) -> Recording:
    return [
        (stream, content[start : start + CHUNK_BYTES])
        for stream in Stream
        for content in [recorded(engine, name, stream)]
        for start in range(0, len(content), CHUNK_BYTES)
    ]


def _lines(recording: Recording) -> list[str]:
    splitters = {stream: LineSplitter() for stream in Stream}
    lines = [line for stream, chunk in recording for line in splitters[stream].feed(chunk)]
    return lines + [line for splitter in splitters.values() for line in splitter.flush()]


def line_count(recording: Recording) -> int:
    """How many lines the bytes of a recording have, however they are cut into chunks."""
    pipes = [b"".join(chunk for stream, chunk in recording if stream is each) for each in Stream]
    return sum(len(pipe.splitlines()) for pipe in pipes)


def read(make_reader: Callable[[], OutputReader], recordings: Sequence[Recording]) -> None:
    """Read all recordings once, each with a reader of its own."""
    for recording in recordings:
        reader = make_reader()
        splitters = {stream: LineSplitter() for stream in Stream}
        for stream, chunk in recording:
            for line in splitters[stream].feed(chunk):
                for _ in reader.read_line(stream, line):
                    pass
        for stream, splitter in splitters.items():
            for line in splitter.flush():
                for _ in reader.read_line(stream, line):
                    pass


class CountingReader:
    """Reads with another, and counts the lines that it read to their end."""

    def __init__(self, reader: OutputReader) -> None:
        self._reader = reader
        self.lines = 0

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        yield from self._reader.read_line(stream, line)
        self.lines += 1

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        return self._reader.outcome(returncode, stop)


def _lines_had(adapter: Adapter, recordings: Sequence[Recording]) -> int:
    made: list[CountingReader] = []

    def make_reader() -> CountingReader:
        made.append(CountingReader(adapter.reader()))
        return made[-1]

    read(make_reader, recordings)
    return sum(reader.lines for reader in made)


def _read(adapter: Adapter, recordings: Sequence[Recording], lines_a_pass: int, calls: int) -> float:
    passes = -(-calls // lines_a_pass)
    begun = time.thread_time()
    for _ in range(passes):
        read(adapter.reader, recordings)
    return (time.thread_time() - begun) * calls / (passes * lines_a_pass)


def _parse(lines: Sequence[str], calls: int) -> float:
    passes = -(-calls // len(lines))
    begun = time.thread_time()
    for _ in range(passes):
        for line in lines:
            json.loads(line)
    return (time.thread_time() - begun) * calls / (passes * len(lines))
