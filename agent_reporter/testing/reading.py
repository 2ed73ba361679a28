"""Checks of a reader: by recorded lines in any pieces and in any order, by cut ones, and by spoilt ones."""

from __future__ import annotations

import time
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Begun, EngineError, StopCause, Stream
from agent_reporter.model.error_log import ErrorLog, clean_record
from agent_reporter.testing import rules
from agent_reporter.testing.hostile import hostile_lines, kinds, stretched
from agent_reporter.testing.recordings import split
from agent_reporter.testing.rules import shown
from agent_reporter.testing.watched import WatchedReader

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from random import Random

    from agent_reporter.engines.adapter import Observation, Outcome
    from agent_reporter.testing.case import Case
    from agent_reporter.testing.recordings import Line, Recording

CUTS = 10
"""Places at which a recording is cut off, and lines of it are made hostile, in the least thorough run."""
HOSTILE_LINES = 10_000
LINES_A_READER = 400
JUDGED_AFTER = 0.1
"""The share of hostile lines after which the run is judged, as if it had ended there."""
ENDLESS_BYTES = 10 << 20
CHUNK_BYTES = 1 << 16
LONG_CHARACTERS = (1 << 15, 1 << 17, 1 << 20)
LONGEST_SECONDS = 0.5
"""Of processor time, for any line: much more than a megabyte needs, much less than a backtracking pattern."""
SURE_MANY = 1_000_000
"""More errors than any recording has."""


def any_chunks_are_read_alike(case: Case) -> None:
    """Cut at random, between any two bytes, and a byte at a time."""
    random = case.random("chunks")
    for recording in case.recordings:
        for stream in Stream:
            content = recording.bytes_of(stream)
            whole = WatchedReader(case, f"{recording.name}, whole").read_all(recording.lines[stream])
            for chunks in _chunkings(random, content, 2 * case.thoroughness):
                case.tally.chunkings += 1
                reader = WatchedReader(case, f"{recording.name}, in {len(chunks)} chunks")
                observations = reader.read_all(split(stream, chunks))
                if observations != whole:
                    what = f"{recording.name}, {stream}, in {len(chunks)} chunks"
                    rules.LINES_ALONE.broken(f"{what}: {_difference(observations, whole)}")


def any_order_of_streams_tells_the_same(case: Case) -> None:
    """The lines of each stream in their order, and those of the two in any order between them."""
    random = case.random("orders")
    for recording in case.recordings:
        out, err = recording.lines[Stream.OUT], recording.lines[Stream.ERR]
        first = _summary(case, recording, [*out, *err])
        orders = [[*err, *out]] + [_interleaved(random, out, err) for _ in range(3 * case.thoroughness)]
        for order in orders if out and err else ():
            case.tally.orders += 1
            summary = _summary(case, recording, order)
            if summary != first:
                rules.STREAMS.broken(
                    f"{recording.name}, in two orders of the lines of its two streams: "
                    f"{_difference(summary, first)}"
                )


def a_recording_may_end_anywhere(case: Case) -> None:
    """Both streams are cut at random, and the run is judged with any exit status."""
    random = case.random("ends")
    for recording in case.recordings:
        for _ in range(CUTS * case.thoroughness):
            reader = WatchedReader(case, f"{recording.name}, cut off")
            for stream in Stream:
                content = recording.bytes_of(stream)
                reader.read_all(split(stream, [content[: random.randrange(len(content) + 1)]]))
            reader.outcome(random.choice((0, 1, 2, 130, -9, -15)), random.choice((None, *StopCause)))


def hostile_lines_do_no_harm(case: Case) -> None:
    """Lines spoilt in any way, on both streams, and a judgement now and then."""
    random = case.random("hostile")
    lines = hostile_lines(random, kinds(case.recordings))
    for _ in range(HOSTILE_LINES * case.thoroughness // LINES_A_READER):
        reader = WatchedReader(case, "hostile lines")
        for line in islice(lines, LINES_A_READER):
            reader.read(line)
            if random.random() < JUDGED_AFTER:
                reader.outcome(random.randrange(-64, 256), random.choice((None, *StopCause)))


def bytes_that_are_not_text_do_no_harm(case: Case) -> None:
    """A recording with bytes replaced by any others, and ten megabytes without a line end."""
    random = case.random("bytes")
    for recording in case.recordings:
        reader = WatchedReader(case, f"{recording.name}, with bytes replaced")
        for stream in Stream:
            content = bytearray(recording.bytes_of(stream))
            for spot in random.sample(range(len(content)), len(content) // 50):
                content[spot] = random.choice((0, 10, 13, 27, 128, 192, 255))
            reader.read_all(split(stream, [bytes(content)]))
        reader.outcome(0)
    for stream in Stream:
        reader = WatchedReader(case, "ten megabytes without a line end")
        kind = next((text for printed, text in kinds(case.recordings) if printed is stream), "").encode()
        endless = [kind[: len(kind) // 2], *[b"\xff" * CHUNK_BYTES] * (ENDLESS_BYTES // CHUNK_BYTES)]
        reader.read_all(split(stream, endless))
        reader.outcome(1)


def long_lines_are_cheap(case: Case) -> None:
    """Lines of each kind made long, and a few of them longer and longer."""
    random = case.random("long")
    lines = kinds(case.recordings)
    for length in LONG_CHARACTERS:
        for stream, text in lines:
            for long in stretched(random, text, length):
                reader = WatchedReader(case, "long lines")
                start = time.thread_time()
                reader.read((stream, long))
                seconds = time.thread_time() - start
                if seconds > LONGEST_SECONDS:
                    rules.CHEAP.broken(f"The line {shown(long)} of {stream} took it {seconds:.1f} seconds.")
                reader.outcome(1)
        lines = random.sample(lines, min(len(lines), CUTS * case.thoroughness))


def readers_are_independent(case: Case) -> None:
    """Two recordings, read by two readers at once, tell what each tells alone."""
    told_first = [[*_told(case, each, each.all_lines)] for each in case.recordings]
    others = [*case.recordings[1:], case.recordings[0]]
    for one, other, alone in zip(case.recordings, others, told_first, strict=True):
        first, second = WatchedReader(case, one.name), WatchedReader(case, other.name)
        together: list[Observation] = []
        for line, line_of_other in zip_longest(one.all_lines, other.all_lines):
            if line_of_other is not None:
                second.read(line_of_other)
            if line is not None:
                together += first.read(line)
        told = [together, first.outcome(one.returncode, one.stop)]
        if told != alone:
            rules.LINES_ALONE.broken(
                f"{one.name}, with {other.name} read by another reader: {_difference(told, alone)}"
            )


def the_same_error_is_one_record(case: Case) -> None:
    """Each line is printed three times, and its errors are recorded once."""
    for recording in case.recordings:
        lines = recording.all_lines
        once = _records(case, recording, lines)
        thrice = _records(case, recording, [line for line in lines for _ in range(3)])
        if thrice != once:
            rules.ONE_RECORD.broken(
                f"{recording.name}, with each line three times: {len(thrice)} errors, and not {len(once)}: "
                f"{shown([identity for identity in thrice if identity not in set(once)])}."
            )


def _chunkings(random: Random, content: bytes, count: int) -> Iterator[list[bytes]]:
    """`content` in pieces: a byte each, and `count` times in pieces of any size."""
    yield [content[index : index + 1] for index in range(len(content))]
    for _ in range(count):
        cuts = sorted(random.randrange(len(content) + 1) for _ in range(random.randrange(1, 30)))
        yield [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]


def _interleaved(random: Random, out: Sequence[Line], err: Sequence[Line]) -> list[Line]:
    """All lines, those of each stream in their order."""
    streams = [Stream.OUT] * len(out) + [Stream.ERR] * len(err)
    random.shuffle(streams)
    rest = {Stream.OUT: iter(out), Stream.ERR: iter(err)}
    return [next(rest[stream]) for stream in streams]


def _told(case: Case, recording: Recording, lines: Iterable[Line]) -> tuple[list[Observation], Outcome]:
    """All that a new reader tells of `lines`."""
    reader = WatchedReader(case, recording.name)
    return reader.read_all(lines), reader.outcome(recording.returncode, recording.stop)


def _records(case: Case, recording: Recording, lines: Iterable[Line]) -> list[tuple[str, str, int]]:
    """What identifies each error that the reporter would keep."""
    observations, outcome = _told(case, recording, lines)
    log = ErrorLog(max_records=SURE_MANY)
    for error in [*observations, *outcome.errors]:
        if isinstance(error, EngineError):
            log.add(clean_record(error.path, error.type, error.code, error.description, error.details))
    return [record.identity for record in log.freeze().records]


def _summary(case: Case, recording: Recording, lines: Iterable[Line]) -> dict[str, object]:
    """What has to be the same in any order of the streams."""
    reader = WatchedReader(case, f"{recording.name}, its streams in another order")
    observations = reader.read_all(lines)
    outcome = reader.outcome(recording.returncode, recording.stop)
    errors = (each for each in [*observations, *outcome.errors] if isinstance(each, EngineError))
    return {
        "how it began": [each for each in observations if isinstance(each, Begun)],
        "last counters": reader.counters,
        "errors": sorted({(error.path, error.type, error.code) for error in errors}),
        "state": outcome.state,
        "reason": outcome.reason,
    }


def _difference(told: object, otherwise: object) -> str:
    """The first thing in which two values differ."""
    if isinstance(told, dict) and isinstance(otherwise, dict):
        key = next(key for key in told if told[key] != otherwise[key])
        return f"{key}: {_difference(told[key], otherwise[key])}"
    if isinstance(told, list) and isinstance(otherwise, list):
        pairs = zip_longest(told, otherwise, fillvalue="nothing")
        return next(_difference(one, other) for one, other in pairs if one != other)
    return f"{shown(told)}, and {shown(otherwise)}."
