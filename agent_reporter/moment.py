"""Something that happens once, and can be waited for from any thread and any event loop."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress


class Moment:
    """Like an event that is never cleared. `happen` may be called from anywhere, also more than once."""

    __slots__ = ("_event", "_lock", "_waiters")

    def __init__(self) -> None:
        self._event = threading.Event()
        self._lock = threading.Lock()
        self._waiters: set[asyncio.Future[None]] = set()

    @property
    def has_happened(self) -> bool:
        """Whether it has happened."""
        return self._event.is_set()

    def happen(self) -> None:
        """Let everybody who waits go on."""
        with self._lock:
            self._event.set()
            waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            with suppress(RuntimeError):  # the loop that waited is closed
                waiter.get_loop().call_soon_threadsafe(_resolve, waiter)

    async def wait(self) -> None:
        """Return once it has happened."""
        with self._lock:
            if self._event.is_set():
                return
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
        try:
            await waiter
        finally:
            with self._lock:
                self._waiters.discard(waiter)

    def wait_blocking(self, timeout: float | None = None) -> bool:
        """Block this thread until it has happened or `timeout` seconds are over, and say which."""
        return self._event.wait(timeout)


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
