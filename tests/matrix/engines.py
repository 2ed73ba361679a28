"""The engines on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.matrix import restic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.matrix.scene import RealEngine


def found() -> Iterator[RealEngine]:
    """Each version of each engine that is found."""
    for module in (restic,):
        yield from module.found()
