"""Which ways through the code an input takes: the feedback that makes the next inputs better."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from coverage import Coverage
from coverage.python import PythonFileReporter

import agent_reporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Any

PACKAGE = Path(agent_reporter.__file__).parent
_LINE_BITS = 20


class Branches:
    """The steps from line to line that were ever made in some modules.

    `modules` are paths of files and of folders in the package.
    """

    def __init__(self, modules: Iterable[str]) -> None:
        self._files = [str(file) for module in modules for file in _files(PACKAGE / module)]
        self._numbers = {file: number << (2 * _LINE_BITS) for number, file in enumerate(self._files)}
        self._seen: set[int] = set()
        self._now: set[int] = set()

    def made_by(self, call: Callable[[], object]) -> set[int]:
        """The steps that `call` makes."""
        before = sys.gettrace()
        self._now = set()
        sys.settrace(self._begin)
        try:
            call()
        finally:
            sys.settrace(before)
        return self._now

    def new_of(self, steps: set[int]) -> set[int]:
        """Those of `steps` that were never made before; they are remembered."""
        new = steps - self._seen
        self._seen |= new
        return new

    def _begin(
        self, frame: FrameType, _event: str, _what: Any
    ) -> Callable[[FrameType, str, Any], Any] | None:
        number = self._numbers.get(frame.f_code.co_filename)
        if number is None:
            return None
        now = self._now
        line_before = frame.f_code.co_firstlineno

        def step(frame: FrameType, event: str, _what: Any) -> Callable[[FrameType, str, Any], Any]:
            nonlocal line_before
            line = frame.f_lineno if event == "line" else 0
            if event in {"line", "return"}:
                now.add(number + (line_before << _LINE_BITS) + line)
                line_before = line
            return step

        return step

    def of_all(self) -> tuple[int, int]:
        """How many of the branches of the modules were taken, and how many there are."""
        plain = Coverage(data_file=None, config_file=False)
        mask = (1 << _LINE_BITS) - 1
        taken = there = 0
        for file, number in self._numbers.items():
            source = PythonFileReporter(file, plain)
            forks = {line for line, ways in source.exit_counts().items() if ways > 1}
            branches = {(start, max(end, 0)) for start, end in source.arcs() if start in forks}
            steps = [step for step in self._seen if step >> (2 * _LINE_BITS) == number >> (2 * _LINE_BITS)]
            made = source.translate_arcs((step >> _LINE_BITS & mask, step & mask) for step in steps)
            taken += len(branches & {(start, max(end, 0)) for start, end in made})
            there += len(branches)
        return taken, there


def _files(path: Path) -> list[Path]:
    return sorted(path.glob("*.py")) if path.is_dir() else [path]
