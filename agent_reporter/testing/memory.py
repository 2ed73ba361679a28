"""The check that a reader's memory is bounded."""

from __future__ import annotations

import gc
import tracemalloc
from contextlib import contextmanager
from functools import partial
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import EngineError, Stream
from agent_reporter.testing import rules
from agent_reporter.testing.hostile import ends_of_words, kinds, stretched, templates
from agent_reporter.testing.rules import shown
from agent_reporter.testing.watched import WatchedReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent_reporter.testing.case import Case
    from agent_reporter.testing.recordings import Line

    Numbered = Callable[[int], Line]

LINES = 10_000
"""A bound that is there is reached within so many lines of different errors."""
MAX_GROWTH = 1 << 20
"""What three times as many lines more may add, in bytes: 35 a line."""
MAX_HELD = 8 << 20
"""What a reader may hold in all, in bytes."""
LONG_LINES = 30
LONG_CHARACTERS = 1 << 20


def memory_is_bounded(case: Case) -> None:
    """Lines that are all different, most of them errors; then long ones."""
    with _traced():
        reader = WatchedReader(case, "many different lines")
        start = _held()
        lines = _different_lines(case)
        count = LINES * case.thoroughness
        _read(reader, islice(lines, count))
        before = _held() - start
        _read(reader, islice(lines, 3 * count))
        after = _held() - start
        case.tally.held_bytes = max(case.tally.held_bytes, after)
        if after > MAX_HELD or after - before > MAX_GROWTH:
            rules.MEMORY.broken(
                f"After {count:,} different lines its reader held {before:,} bytes, and after {4 * count:,} "
                f"it held {after:,}. One of the lines was {shown(next(lines))}."
            )
        reader = WatchedReader(case, "many long lines")
        start = _held()
        _read(reader, islice(_long_lines(case), LONG_LINES))
        held = _held() - start
        case.tally.held_bytes = max(case.tally.held_bytes, held)
        if held > MAX_HELD:
            rules.MEMORY.broken(f"After {LONG_LINES} lines of a megabyte its reader held {held:,} bytes.")


def _read(reader: WatchedReader, lines: Iterator[Line]) -> None:
    """Read `lines`, and a short one after them, as the newest line is held here."""
    for line in chain(lines, [(Stream.ERR, "")]):
        reader.read(line)


def _different_lines(case: Case) -> Iterator[Line]:
    """Lines without end, each with a number of its own: errors of paths, if there are such, and others."""
    others = [make for line in kinds(case.recordings) for make in _numbered(line)]
    errors = _numbered_errors(case) or others
    both = zip(cycle(errors), cycle(others), strict=True)
    return (make(number) for number, make in enumerate(chain.from_iterable(both)))


def _numbered_errors(case: Case) -> list[Numbered]:
    """Lines of errors, with a number in the path: the adapter itself says what the paths are."""
    makers: list[Numbered] = []
    for recording in case.recordings:
        reader = WatchedReader(case, recording.name)
        told = reader.read_all(recording.all_lines)
        told += reader.outcome(recording.returncode, recording.stop).errors
        paths = {each.path for each in told if isinstance(each, EngineError) and len(each.path) > 1}
        for stream, text in templates(recording.all_lines):
            found = next((path for path in paths if path in text), None)
            if found is not None:
                start, _, end = text.partition(found)
                makers.append(partial(_line_of, stream, start + found, end))
    return makers


def _numbered(line: Line) -> Iterator[Numbered]:
    """`line` with a number in each of its words, or of its strings where it is JSON."""
    stream, text = line
    for spot in ends_of_words(text):
        yield partial(_line_of, stream, text[:spot], text[spot:])


def _line_of(stream: Stream, start: str, end: str, number: int) -> Line:
    return stream, f"{start}-{number}{end}"


def _long_lines(case: Case) -> Iterator[Line]:
    random = case.random("long lines")
    lines = kinds(case.recordings)
    while True:
        stream, text = random.choice(lines)
        yield from ((stream, long) for long in stretched(random, text, LONG_CHARACTERS))


@contextmanager
def _traced() -> Iterator[None]:
    """Python counts the memory that it hands out."""
    was_tracing = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        yield
    finally:
        if not was_tracing:
            tracemalloc.stop()


def _held() -> int:
    """Bytes that are in use now."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
