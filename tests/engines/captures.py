"""Recorded output of real engines, fed to a reader as a pipe would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import EngineError, Progress, Stream
from agent_reporter.engines.lines import LineSplitter

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agent_reporter.engines.adapter import Observation, OutputReader

DIRECTORY = Path(__file__).parent / "captures"


def names(engine: str) -> list[str]:
    """Of all recorded runs, such as `sigINT-v19`."""
    return sorted({path.stem for path in (DIRECTORY / engine).iterdir()})


def recorded(engine: str, name: str, stream: Stream) -> bytes:
    """Empty files are not kept."""
    path = DIRECTORY / engine / f"{name}.{stream}"
    return path.read_bytes() if path.exists() else b""


def read_all(reader: OutputReader, stream: Stream, chunks: Iterable[bytes]) -> list[Observation]:
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.flush()
    return [observation for line in lines for observation in reader.read_line(stream, line)]


def replay(reader: OutputReader, engine: str, name: str) -> list[Observation]:
    return [
        observation
        for stream in (Stream.OUT, Stream.ERR)
        for observation in read_all(reader, stream, [recorded(engine, name, stream)])
    ]


def errors_of(observations: Sequence[Observation]) -> list[EngineError]:
    return [observation for observation in observations if isinstance(observation, EngineError)]


def progress_of(observations: Sequence[Observation]) -> list[Progress]:
    return [observation for observation in observations if isinstance(observation, Progress)]


def last_progress(observations: Sequence[Observation]) -> Progress:
    return next((o for o in reversed(observations) if isinstance(o, Progress)), Progress())
