"""What a run of an engine printed and how it ended, as somebody recorded it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Stream
from agent_reporter.engines.lines import LineSplitter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from os import PathLike

    from agent_reporter.engines.adapter import Progress, StopCause

Line = tuple[Stream, str]
"""A line without its end, and where it was printed."""


@dataclass(frozen=True)
class Recording:
    """One run: the bytes of both pipes, its exit status, and, if given, what is right to say of it."""

    out: bytes = b""
    err: bytes = b""
    returncode: int = 0
    """As `subprocess` gives it: negative for a signal."""
    stop: StopCause | None = None
    """Who asked for a stop of it."""
    state: str | None = None
    reason: str | None = None
    progress: Progress | None = None
    """The last counters."""
    errors: int | None = None
    """How many errors are recorded: the same path, type and code count once."""
    name: str = ""

    def bytes_of(self, stream: Stream) -> bytes:
        """All bytes of one pipe."""
        return self.out if stream is Stream.OUT else self.err

    @cached_property
    def lines(self) -> Mapping[Stream, tuple[Line, ...]]:
        """The lines of each pipe, in their order."""
        return {stream: tuple(split(stream, [self.bytes_of(stream)])) for stream in Stream}

    @property
    def all_lines(self) -> tuple[Line, ...]:
        """The lines of both pipes, those of stdout first."""
        return self.lines[Stream.OUT] + self.lines[Stream.ERR]


def split(stream: Stream, chunks: Iterable[bytes]) -> list[Line]:
    """The lines of one pipe as the reporter makes them of its chunks."""
    splitter = LineSplitter()
    texts = [text for chunk in chunks for text in splitter.feed(chunk)] + splitter.flush()
    return [(stream, text) for text in texts]


def read_recordings(
    directory: str | PathLike[str], endings: Mapping[str, tuple[int, str]] | None = None
) -> list[Recording]:
    """The recordings in `directory`: NAME.out and NAME.err for each; a pipe without output needs no file.

    `endings` has the exit status and the right state for a name. Raises ValueError for a name without files:
    of a run that printed nothing there is an empty NAME.out.
    """
    folder, known = Path(directory), endings or {}
    names = {path.stem for path in folder.iterdir() if path.suffix in {".out", ".err"}}
    if unknown := sorted(set(known) - names):
        raise ValueError(
            f"There is no recording {', '.join(unknown)} in {folder}. A run that printed nothing is an empty "
            f"{unknown[0]}.out."
        )
    recordings = []
    for name in sorted(names):
        out, err = (_content(folder / f"{name}.{stream}") for stream in (Stream.OUT, Stream.ERR))
        returncode, state = known.get(name, (0, None))
        recordings.append(Recording(out, err, returncode, state=state, name=name))
    return recordings


def _content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""
