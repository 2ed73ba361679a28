"""Two things to wait for, of few bytes, as each restore has some: one happens once, one rings again."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_one_at_a_time = threading.Lock()
"""Held for an instant, so one for all moments is enough."""


class Moment:
    """Like an event that is never cleared. `happen` may be called from anywhere, also more than once."""

    __slots__ = ("_waiters", "has_happened")

    def __init__(self) -> None:
        self.has_happened = False
        """Whether it has happened."""
        self._waiters: tuple[Callable[[], object], ...] = ()

    def happen(self) -> None:
        """Let everybody who waits go on."""
        if self.has_happened:
            return
        with _one_at_a_time:
            self.has_happened = True
            waiters, self._waiters = self._waiters, ()
        for go_on in waiters:
            go_on()

    async def wait(self) -> None:
        """Return once it has happened."""
        waiter = asyncio.get_running_loop().create_future()
        go_on = partial(_resolve_from_anywhere, waiter)
        if self._is_joined_by(go_on):
            try:
                await waiter
            finally:
                self._leave(go_on)

    def wait_blocking(self, timeout: float | None = None) -> bool:
        """Block this thread until it has happened or `timeout` seconds are over, and say which."""
        event = threading.Event()
        if self._is_joined_by(event.set):
            try:
                event.wait(timeout)
            finally:
                self._leave(event.set)
        return self.has_happened

    def _is_joined_by(self, waiter: Callable[[], object]) -> bool:
        """Have `waiter` called when it happens; False if it has happened."""
        with _one_at_a_time:
            if not self.has_happened:
                self._waiters = (*self._waiters, waiter)
            return not self.has_happened

    def _leave(self, waiter: Callable[[], object]) -> None:
        with _one_at_a_time:
            self._waiters = tuple(each for each in self._waiters if each != waiter)


def _resolve_from_anywhere(waiter: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the loop that waited is closed
        waiter.get_loop().call_soon_threadsafe(_resolve, waiter)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Bell:
    """Rings until it is cleared, for one who waits in the same loop, in a tenth of asyncio's Event."""

    __slots__ = ("_rings", "_waiter")

    def __init__(self) -> None:
        self._rings = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Let who waits go on."""
        self._rings = True
        if self._waiter is not None:
            _resolve(self._waiter)

    def clear(self) -> None:
        """From now on whoever waits, waits for the next ring."""
        self._rings = False

    async def wait(self) -> None:
        """Return once it rings."""
        if self._rings:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
