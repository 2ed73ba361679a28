"""The hostile control plane: passes every request on to a good one, but for those that a bomb is armed for.

It speaks raw bytes, and so can say what no HTTP server would. What another origin is asked, is noted.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp

from tests.bombs.bombs import Bomb, Call, Target

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

UNSIGNED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
MOST_SECONDS = 45.0
"""A bomb that is not given up by then is ended, and counts as not given up."""
LOOK_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Burst:
    """One explosion: how much was sent in how long, and whether the agent gave the answer up or had it all."""

    seconds: float
    sent: int
    is_over: bool


@dataclass
class Hostile:
    """A handle of the hostile control plane."""

    upstream: str
    url: str = ""
    elsewhere: str = ""
    bursts: list[Burst] = field(default_factory=list)
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    """The head and the body of each request."""
    asked_elsewhere: list[bytes] = field(default_factory=list)
    """What came in at another origin."""
    _armed: tuple[Bomb, Call] | None = None
    _left: int = 0
    _revoked: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def arm(self, bomb: Bomb, call: Call, times: int) -> None:
        """Answer the next `times` requests of the kind `call` with `bomb`."""
        self._armed, self._left = (bomb, call), times
        self.bursts.clear()
        self._revoked = call is Call.SIGN_IN
        for writer in self._writers:  # what comes with a connection needs a new one
            writer.close()

    async def wait_for_bursts(self, count: int, within: float) -> None:
        """Raises TimeoutError if `count` explosions are not over by then."""
        async with asyncio.timeout(within):
            while len(self.bursts) < count:
                self._changed.clear()
                await self._changed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        self._writers.add(writer)
        try:
            async with aiohttp.ClientSession(auto_decompress=False) as upstream:
                await self._serve(reader, writer, upstream)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the agent went away
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, upstream: aiohttp.ClientSession
    ) -> None:
        if (bomb := self._take(None)) is not None:
            await self._explode(bomb, Target(Call.READ, b"", "/", self.elsewhere), reader, writer)
            return
        while True:
            head, body = await _read_request(reader)
            self.requests.append((head, body))
            call = _call_of(head)
            if self._revoked and call is not Call.SIGN_IN:
                writer.write(UNSIGNED)
                continue
            bomb = self._take(call)
            if call is Call.SIGN_IN and (bomb is None or bomb.lets_through):
                self._revoked = False
            if bomb is None or call is None:
                writer.write(await self._pass_on(head, body, upstream))
                continue
            good = await self._pass_on(head, body, upstream) if bomb.lets_through else b""
            path = head.split(b" ", 2)[1].decode()
            await self._explode(bomb, Target(call, good, path, self.elsewhere, head + body), reader, writer)
            if not bomb.lets_through:
                return

    def _take(self, call: Call | None) -> Bomb | None:
        """The bomb for this call; with None, that for a connection over which nothing was asked yet."""
        if self._armed is None or self._left == 0:
            return None
        bomb, armed_for = self._armed
        if bomb.before_request is not (call is None) or (call is not None and call is not armed_for):
            return None
        self._left -= 1
        return bomb

    async def _explode(
        self, bomb: Bomb, target: Target, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        begun, sent, is_over = time.monotonic(), 0, True
        try:
            for item in bomb.send(target):
                if time.monotonic() - begun > MOST_SECONDS:
                    is_over = False
                    break
                if isinstance(item, bytes):
                    writer.write(item)
                    await writer.drain()
                    await asyncio.sleep(0)  # `drain` alone lets nobody else in while all is taken at once
                    sent += len(item)
                elif await _goes_away(reader, item):
                    break
        except OSError:
            pass  # it was given up
        self.bursts.append(Burst(time.monotonic() - begun, sent, is_over))
        self._changed.set()

    async def _pass_on(self, head: bytes, body: bytes, upstream: aiohttp.ClientSession) -> bytes:
        request_line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, path, _ = request_line.split(" ", 2)
        headers = dict(line.split(": ", 1) for line in lines)
        headers.pop("Host", None)
        async with upstream.request(
            method, self.upstream + path, headers=headers, data=body or None, allow_redirects=False
        ) as answer:
            content = await answer.read()
            length = [] if answer.status == 204 else [f"Content-Length: {len(content)}"]
            text = "\r\n".join([f"HTTP/1.1 {answer.status} {answer.reason}", *length, "", ""])
            return text.encode() + content

    async def note_elsewhere(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """The other origin: whoever comes is welcome, and what it says is kept."""
        with suppress(OSError):
            self.asked_elsewhere.append(await reader.read(65_536))
            writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        writer.close()


@asynccontextmanager
async def hostile(upstream: str) -> AsyncIterator[Hostile]:
    """A hostile control plane in front of the good one at the URL `upstream`."""
    handle = Hostile(upstream)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        with suppress(asyncio.CancelledError):  # it is over
            await handle.serve(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 21)
    other = await asyncio.start_server(handle.note_elsewhere, "127.0.0.1", 0)
    handle.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    handle.elsewhere = f"http://127.0.0.1:{other.sockets[0].getsockname()[1]}"
    try:
        yield handle
    finally:
        server.close()
        other.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return head, await reader.readexactly(int(lengths[0])) if lengths else b""


def _call_of(head: bytes) -> Call | None:
    method, path = head.split(b" ", 2)[:2]
    if method == b"PATCH":
        return Call.PATCH
    if path.endswith(b"/tokens"):
        return Call.SIGN_IN
    if method == b"GET":
        return Call.EVENTS if b"/events" in path else Call.READ
    return None


async def _goes_away(reader: asyncio.StreamReader, within: float) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        if reader.at_eof():
            return True
        await asyncio.sleep(LOOK_SECONDS)
    return False
