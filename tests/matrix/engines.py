"""The engines on this machine."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tests.matrix.scene import RealEngine

NAMES = ("restic", "borg", "rsync", "rclone", "tar", "pgbackrest", "observe", "borgmatic")


def found(names: Collection[str]) -> Iterator[RealEngine]:
    """Each version of each engine that is found; every one has a file here."""
    for name in names:
        yield from importlib.import_module(f"tests.matrix.{name}").found()
