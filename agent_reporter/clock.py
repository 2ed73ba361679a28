"""Time and chance, handed in wherever they are needed, so that a test or a simulation can own them."""

from __future__ import annotations

import asyncio
import random
import time
from datetime import UTC, datetime
from typing import Protocol


class Waitable(Protocol):
    """An event, of whatever kind."""

    async def wait(self) -> object:
        """Return once it is set."""
        ...


class Clock(Protocol):
    """What the acting parts need of time and chance. All durations are seconds."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back."""
        ...

    def random(self) -> float:
        """A number from 0 up to 1."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...

    async def wait(self, event: Waitable, seconds: float | None) -> bool:
        """Return when `event` lets go or after `seconds`, and say whether it did."""
        ...


class SystemClock:
    """The clock and the randomness of the machine."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def random(self) -> float:
        """A number from 0 up to 1."""
        return random.random()  # noqa: S311 - it spreads retries, it keeps no secret

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)

    async def wait(self, event: Waitable, seconds: float | None) -> bool:
        """Return when `event` lets go or after `seconds`, and say whether it did."""
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return False
        return True
