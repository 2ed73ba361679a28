"""What a check is given, and what it counts."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent_reporter.engines.adapter import Adapter
    from agent_reporter.testing.recordings import Recording


@dataclass
class Tally:
    """How much was tried."""

    lines: int = 0
    chunkings: int = 0
    orders: int = 0
    endings: int = 0
    commands: int = 0
    held_bytes: int = 0
    """The most that a reader held."""


@dataclass(frozen=True)
class Case:
    """An adapter, and all that it is tried with."""

    adapter: Adapter
    recordings: Sequence[Recording]
    commands: Sequence[Sequence[str]]
    other_commands: Sequence[Sequence[str]]
    seed: int
    thoroughness: int
    tally: Tally = field(default_factory=Tally)

    def random(self, use: str) -> random.Random:
        """A source of chance for one use: the same for the same seed, whatever else is tried."""
        return random.Random(f"{self.seed} {use}")  # noqa: S311 - not for secrets: the seed makes it repeatable
