"""What engines print: bytes of two pipes, in any chunks -> lines -> a reader -> a job -> the patch of its result.

An input is a byte that chooses the exit status and who asked for a stop, then stdout, a byte 0x1f, and stderr.
"""

from __future__ import annotations

import json
import zlib
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import cache, partial
from random import Random
from typing import TYPE_CHECKING

from agent_reporter.daemon.patches import read_patch
from agent_reporter.engines.adapter import Begun, EngineError, Progress, StopCause, Stream
from agent_reporter.engines.catalogue import OWN, own
from agent_reporter.engines.error_lines import error_pattern
from agent_reporter.engines.lines import LineSplitter
from agent_reporter.engines.observe import Observe
from agent_reporter.job import Job
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.patch import Content, Spelling, operations
from agent_reporter.model.record import Destination, Record
from agent_reporter.model.report import Report
from agent_reporter.testing.case import Case
from agent_reporter.testing.watched import WatchedReader
from tests.engines.captures import DIRECTORY
from tests.fuzz.fuzzing import Target

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agent_reporter.engines.adapter import Adapter, Observation, Outcome

BETWEEN = b"\x1f"
RETURNCODES = (0, 1, 2, 3, 11, 12, 23, 24, 25, 82, 107, 128, 130, 143, 255, -1, -2, -9, -11, -13, -15, -64)
STOPS = (None, None, StopCause.CONTROL_PLANE, StopCause.HOST)
MAX_SEED_BYTES = 6_000
"""Of each end of a recording."""
MAX_DOCUMENT_BYTES = 1_000_000
"""One JSON document of the API is at most 1 MB."""
SMALL_LINE_BYTES = 97
"""A bound of lines that inputs go beyond."""
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ERROR_LINES = "^(?P<path>[^:]*): (failed|cannot)"

Line = tuple[Stream, str]


class _Strict(Job):
    """A job to which nothing may be stated that cannot be true."""

    def misused(self, problem: str) -> None:
        raise AssertionError(f"the job was misused: {problem}")


def lines_are_the_same_in_any_chunks(data: bytes, random: Random) -> list[str]:
    """Cut anywhere, the lines are those of the whole, encodable, without line ends, and no longer than allowed."""
    bound = random.choice((SMALL_LINE_BYTES, 1 << 20))
    cuts = sorted(random.randrange(len(data) + 1) for _ in range(random.randrange(8)))
    splitter = LineSplitter(bound)
    lines = []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        lines += splitter.feed(data[start:end])
        assert len(splitter._unfinished) <= bound
    lines += splitter.flush()
    whole = LineSplitter(bound)
    assert lines == whole.feed(data) + whole.flush()
    for line in lines:
        assert not {"\r", "\n"} & set(line)
        assert len(line) <= bound
        line.encode()
    return lines


def whatever_is_printed_can_be_reported(adapter: Adapter, data: bytes) -> None:
    """The reader keeps its rules, and what it tells makes a record and a patch within the protocol's limits."""
    random = Random(zlib.crc32(data))
    choice, out, err = data[0] if data else 0, *data[1:].partition(BETWEEN)[::2]
    lines = {
        Stream.OUT: lines_are_the_same_in_any_chunks(out, random),
        Stream.ERR: lines_are_the_same_in_any_chunks(err, random),
    }
    reader = WatchedReader(Case(adapter, (), (), (), 0, 1), "fuzzed output")
    observations = reader.read_all(_in_turn(random, lines[Stream.OUT], lines[Stream.ERR]))
    outcome = reader.outcome(
        RETURNCODES[choice % len(RETURNCODES)], STOPS[choice // len(RETURNCODES) % len(STOPS)]
    )
    can_be_told(_stated(adapter, observations, outcome))


def can_be_told(report: Report) -> None:
    """The record can be kept and read again, and the patch of the result is one that is taken."""
    record = Record(Destination("https://backup.example.com", "110011"), report)
    assert Record.decode(record.encode()) == record
    patch = operations(Content.RESULT, Acknowledged(), report, Spelling.AUTHORITY)
    body = json.dumps(patch).encode()
    assert len(body) <= MAX_DOCUMENT_BYTES, f"{len(body)} bytes"
    read_patch(body)


def _in_turn(random: Random, out: list[str], err: list[str]) -> Iterator[Line]:
    """The lines of each stream in their order."""
    streams = [Stream.OUT] * len(out) + [Stream.ERR] * len(err)
    random.shuffle(streams)
    rest = {Stream.OUT: iter(out), Stream.ERR: iter(err)}
    return ((stream, next(rest[stream])) for stream in streams)


def _stated(adapter: Adapter, observations: Iterable[Observation], outcome: Outcome) -> Report:
    """What a job holds in the end that was told all of it, as the supervision of an engine tells it."""
    job = _Strict(Report("fuzzed"), lambda: NOW)
    if adapter.begins_at_once:
        job.start()
    for observation in [*observations, *outcome.errors]:
        match observation:
            case Begun():
                job.start()
            case Progress(size, files, total_bytes, total_files):
                job.start(total_bytes, total_files)
                job.progress(bytes_restored=size or 0, files_restored=files or 0)
            case EngineError():
                job.error(**observation._asdict())
    job.finish(outcome.state, reason=outcome.reason, diagnostics=outcome.diagnostics)
    return job.take_report()


@cache
def _recorded(name: str) -> list[bytes]:
    folder = DIRECTORY / name
    stems = sorted({path.stem for path in folder.iterdir() if path.suffix in {".out", ".err"}})
    seeds = []
    for number, stem in enumerate(stems):
        out, err = (_short(folder / f"{stem}.{stream}") for stream in Stream)
        seeds.append(bytes([number % 88]) + out + BETWEEN + err)
    return seeds


def _short(path: Path) -> bytes:
    content = path.read_bytes() if path.exists() else b""
    if len(content) <= 2 * MAX_SEED_BYTES:
        return content
    return content[:MAX_SEED_BYTES] + content[-MAX_SEED_BYTES:]


def _target(adapter: Adapter, modules: tuple[str, ...], recorded: str) -> Target:
    return Target(
        f"output-{adapter.name}",
        ("engines/lines.py", *modules),
        partial(_recorded, recorded),
        lambda: nullcontext(partial(whatever_is_printed_can_be_reported, adapter)),
    )


_OTHERS = {"borg": ("engines/borg_outcome.py",), "rclone": ("engines/rclone_outcome.py",)} | {
    "restic": ("engines/restic_outcome.py",),
    "pgbackrest": ("engines/pgbackrest_outcome.py",),
}
TARGETS = [
    *(
        _target(adapter, (f"engines/{adapter.name}.py", *_OTHERS.get(adapter.name, ())), adapter.name)
        for adapter in map(own, OWN)
    ),
    _target(Observe(error_pattern(ERROR_LINES)), ("engines/observe.py", "engines/error_lines.py"), "tar"),
]
