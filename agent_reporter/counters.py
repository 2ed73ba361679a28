"""The hot path: two counters that an engine moves from any thread, for about the price of storing them.

Nothing is locked, allocated for long, or told to anybody here: whoever wants to know reads the counters at
its next tick. What cannot be true is said to `misused`, and changes nothing.
"""

from __future__ import annotations

from threading import get_ident

from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.model.showing import described, shown


class Counters:
    """Bytes and files restored."""

    def __init__(self, bytes_restored: int, files_restored: int) -> None:
        self._bytes = bytes_restored
        self._files = files_restored
        self._cells: dict[int, list[int]] = {}

    def progress(self, *, bytes_restored: int = 0, files_restored: int = 0) -> None:
        """State how much is restored by now, in all: bytes and files. What is less than before is ignored.

        Beside `advance` for the same counter, it states where the increments start from.
        """
        try:
            # One operation finds out that both are integers, and whether one of them is negative.
            if bytes_restored | files_restored < 0:
                self._refuse("progress", bytes_restored, files_restored, "a count is negative")
                return
            # Not max(): a call costs more, and lets another thread in between the look and the store.
            if bytes_restored > self._bytes:  # noqa: PLR1730 - as said above
                self._bytes = bytes_restored
            if files_restored > self._files:  # noqa: PLR1730 - as said above
                self._files = files_restored
        except Exception as problem:  # noqa: BLE001 - nothing is raised into the engine
            self._refuse("progress", bytes_restored, files_restored, described(problem))

    def advance(self, *, bytes: int = 0, files: int = 0) -> None:  # noqa: A002 - the word of the field
        """State that so many bytes and files more are restored. Exact from any number of threads."""
        try:
            if bytes | files < 0:
                self._refuse("advance", bytes, files, "a count is negative")
                return
            # Each thread adds to a cell of its own, so that none waits for another and none is lost.
            cell = self._cells.get(get_ident())
            if cell is None:
                cell = self._cells.setdefault(get_ident(), [0, 0])
            cell[0] += bytes
            cell[1] += files
        except Exception as problem:  # noqa: BLE001 - nothing is raised into the engine
            self._refuse("advance", bytes, files, described(problem))

    def count(self) -> tuple[int, int]:
        """Bytes and files restored in all, as of now."""
        cells = list(self._cells.values())
        return (
            min(MAX_COUNT, int(self._bytes) + sum(int(cell[0]) for cell in cells)),
            min(MAX_COUNT, int(self._files) + sum(int(cell[1]) for cell in cells)),
        )

    def misused(self, problem: str) -> None:
        """Somebody called with arguments that cannot be true: `problem` says which."""
        raise NotImplementedError

    def _refuse(self, call: str, count_of_bytes: object, count_of_files: object, why: str) -> None:
        self.misused(f"{call} of {shown(count_of_bytes)} bytes and {shown(count_of_files)} files: {why}")
