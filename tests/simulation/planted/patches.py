"""Planted bugs: unified diffs that say, on top, what the bug does and which of the house's invariants it breaks.

A hunk applies where the lines that it takes away and keeps are found, once in the whole file: line numbers do
not count, so a patch lasts for as long as the code around it does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY = Path(__file__).parent / "patches"

_HEAD = re.compile(r"(?P<purpose>.+)\nBreaks invariant (?P<invariant>[1-8])\.\n\n(?=--- )")
_FILE = re.compile(r"^--- a/.+\n\+\+\+ b/(.+)\n", re.MULTILINE)
_HUNK = re.compile(r"^@@ .+\n", re.MULTILINE)


class DoesNotApplyError(Exception):
    """The code is not what a patch takes it for."""


@dataclass(frozen=True)
class Bug:
    """A planted bug."""

    name: str
    purpose: str
    invariant: int
    """Its number in the list of the house."""
    changes: tuple[tuple[str, str, str], ...]
    """Path, what is there, and what stands in its place."""

    def plant(self, root: Path) -> dict[Path, str]:
        """The files below `root` that it changes, as they are with the bug; raises DoesNotApplyError."""
        changed: dict[Path, str] = {}
        for name, there, instead in self.changes:
            path = root / name
            text = changed.get(path) or path.read_text(encoding="utf-8")
            places = [found.start() for found in re.finditer(f"^{re.escape(there)}", text, re.MULTILINE)]
            if len(places) != 1:
                raise DoesNotApplyError(
                    f"{self.name}: found {len(places)} times in {name}, and not once:\n{there}"
                )
            changed[path] = text[: places[0]] + instead + text[places[0] + len(there) :]
        return changed


def bugs() -> list[Bug]:
    """All that can be planted."""
    return [read(path.stem, path.read_text(encoding="utf-8")) for path in sorted(DIRECTORY.glob("*.patch"))]


def read(name: str, text: str) -> Bug:
    """The bug that a patch holds; raises ValueError if it is none."""
    head = _HEAD.match(text)
    if head is None:
        raise ValueError(f"{name}: a purpose, 'Breaks invariant N.' and an empty line come first")
    return Bug(name, head["purpose"], int(head["invariant"]), tuple(_changes(text[head.end() :])))


def _changes(diff: str) -> Iterator[tuple[str, str, str]]:
    _, *parts = _FILE.split(diff)
    for name, hunks in zip(parts[::2], parts[1::2], strict=True):
        for hunk in _HUNK.split(hunks)[1:]:
            lines = hunk.splitlines(keepends=True)
            yield (
                name,
                "".join(line[1:] for line in lines if line[0] in " -"),
                "".join(line[1:] for line in lines if line[0] in " +"),
            )
