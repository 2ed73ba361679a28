"""What an engine itself writes down of its restore: the truth that the record is held against.

TIME done FILES BYTES     so much is restored
TIME told FILES BYTES     the daemon has taken that
TIME stop                 it learnt that it is to stop
TIME end STATE ERRORS     it has ended, with what was done last
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class Notes:
    """What an engine wrote down. Times are seconds since the epoch, None for what has not happened."""

    files: int = 0
    bytes: int = 0
    told_files: int = 0
    told_bytes: int = 0
    errors: int = 0
    stopped_at: float | None = None
    ended_at: float | None = None
    state: str | None = None
    """The state it says it ended in; None if it could say nothing."""


class Notebook:
    """Where an engine writes; what is written stays when the engine is killed."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def write(self, *words: object) -> None:
        self._file.write(" ".join(map(str, (time.time(), *words))) + "\n")


def read_notes(path: Path) -> Notes:
    """What is written at `path`; a last line that a kill has torn is left out."""
    notes = Notes()
    if not path.exists():
        return notes
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break
        moment, word, *values = line.split()
        match word:
            case "done":
                notes.files, notes.bytes = map(int, values)
            case "told":
                notes.told_files, notes.told_bytes = map(int, values)
            case "stop":
                notes.stopped_at = float(moment)
            case "end":
                notes.state, notes.errors, notes.ended_at = values[0], int(values[1]), float(moment)
    return notes
