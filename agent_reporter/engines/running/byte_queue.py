"""The bytes between the thread that reads an engine's pipe and the one that writes them on."""

from __future__ import annotations

import threading
from collections import deque

NORMAL_BYTES = 8 << 20
LIFTED_BYTES = 64 << 20


class ByteQueue:
    """Chunks in the order in which they came, bounded in bytes.

    A full queue makes `put` wait, as a full pipe would. Once the bound is lifted, `put` never waits: there is
    room for `lifted_bytes`, and what does not fit is dropped and counted.
    """

    def __init__(self, normal_bytes: int = NORMAL_BYTES, lifted_bytes: int = LIFTED_BYTES) -> None:
        self._normal_bytes = normal_bytes
        self._lifted_bytes = lifted_bytes
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._lifted = False
        self._ended = False
        self._abandoned = False
        self._changed = threading.Condition()
        self.dropped_bytes = 0
        """Bytes that were put in and will not come out."""

    def put(self, chunk: bytes) -> None:
        """Add `chunk`, waiting for room while the bound stands."""
        with self._changed:
            self._changed.wait_for(lambda: self._size < self._normal_bytes or self._lifted or self._abandoned)
            if self._abandoned or self._size + len(chunk) > self._lifted_bytes:
                self.dropped_bytes += len(chunk)
                return
            self._chunks.append(chunk)
            self._size += len(chunk)
            self._changed.notify_all()

    def get(self) -> bytes | None:
        """The oldest chunk, waiting for one; None when there will be no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._chunks or self._ended)
            if not self._chunks:
                return None
            chunk = self._chunks.popleft()
            self._size -= len(chunk)
            self._changed.notify_all()
            return chunk

    def lift_bound(self) -> None:
        """From now on nobody waits in `put`."""
        with self._changed:
            self._lifted = True
            self._changed.notify_all()

    def end(self) -> None:
        """Nothing more is put in."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Nobody takes anything out any more: drop what is there and what is still put in."""
        with self._changed:
            self._abandoned = True
            self._ended = True
            self.dropped_bytes += self._size
            self._chunks.clear()
            self._size = 0
            self._changed.notify_all()
