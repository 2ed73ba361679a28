"""Who is at the other end of the Unix socket, and how many requests a second are taken from each user."""

from __future__ import annotations

import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

BURST_SECONDS = 1.0
"""As many requests as this time's worth may come at once, after a quiet time; one in any case."""
MAX_WAIT = 2.0
"""A request that had to wait for longer, in seconds, is refused."""

ROOT = 0

_CREDENTIALS = struct.Struct("iII")
"""The kernel's `struct ucred`: pid, uid, gid."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Who connected, as the kernel says, as of the moment of the connection.

    `pid` is 0 for a process that cannot be seen from here, as in another container.
    """

    uid: int
    gid: int
    pid: int

    def may_act_for(self, uid: int) -> bool:
        """Whether what belongs to user `uid` may be seen and touched: by that user, and by root."""
        return self.uid in {uid, ROOT}


def peer_of(connection: asyncio.BaseTransport | socket.socket) -> Peer:
    """Who is at the other end of a Unix socket; raises OSError if it is none, or is closed."""
    end = connection if isinstance(connection, socket.socket) else connection.get_extra_info("socket")
    if end is None or end.family != socket.AF_UNIX:
        raise OSError("only a Unix socket tells who is at its other end")
    pid, uid, gid = _CREDENTIALS.unpack(
        end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    )
    return Peer(uid, gid, pid)


class Rates:
    """A token bucket for each user, so that a flood of one costs nobody else anything.

    `rate` is requests a second; `monotonic` is seconds that never go back.
    """

    def __init__(self, rate: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / rate
        self._burst = max(BURST_SECONDS, self._interval)
        self._monotonic = monotonic
        self._full_at: dict[int, float] = {}
        """When the bucket of a user is full again. That says as much as the tokens in it, and never ticks."""
        self._forget_at = 0.0

    def __len__(self) -> int:
        """How many users are kept in mind."""
        return len(self._full_at)

    def take(self, uid: int) -> float:
        """Seconds that this request of `uid` has to wait for its turn: 0 but in a flood.

        More than `MAX_WAIT` means that it is to be refused, with so many seconds as its Retry-After. What is
        refused takes nothing, so that a flood does not keep its user out for longer than it lasts.
        """
        now = self._monotonic()
        if now >= self._forget_at:
            self._full_at = {who: full_at for who, full_at in self._full_at.items() if full_at > now}
            self._forget_at = now + self._burst + MAX_WAIT
        full_at = max(self._full_at.get(uid, now), now) + self._interval
        wait = max(0.0, full_at - now - self._burst)
        if wait <= MAX_WAIT:
            self._full_at[uid] = full_at
        return wait
