"""The door of the local API: who comes in over the Unix socket, and how much of it at once.

Each connection is a thin protocol in front of the one that speaks HTTP. It is in one of these phases:

    quiet       nothing has come since it was made, or since its last answer
    asking      a request has begun, and is not whole yet
    answering   a request is being answered

A user has at most half of all connections. Whoever comes when no place is left gets the place of the
connection of the same user that is longest quiet or asking. So a flood of connections, of which none asks for
anything, costs its own user a new connection now and then, and others nothing. One that is being answered is
never closed. A first request, and any that has begun, has to be whole within seconds.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, cast

from agent_reporter.daemon.peers import Peer, peer_of

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

HEAD_SECONDS = 10.0
"""A request has to be whole so long after it began, or, if it is the first, after the connection.
It may take a tenth longer until that is seen."""
KEEP_ALIVE_SECONDS = 75.0
"""For the server behind the door: a connection may be quiet for so long after an answer."""
BACKLOG = 4096
"""So many may have connected and not be accepted yet; the kernel takes less if `net.core.somaxconn` is less.
Whoever comes on top of that waits in his `connect`, or gets EAGAIN if he does not wait."""
HEAR_OUT_SECONDS = 1.0
"""At the end, for requests that are on their way in."""
HEAR_OUT_PAUSE = 0.01
ACCEPTED_AT_ONCE = 16
"""No more are accepted in one turn of the loop, so that those who are in are served between."""


class Connection(asyncio.Protocol):
    """One connection: tells the door of its phases, and passes everything on.

    As a context, it is being answered.
    """

    __slots__ = ("_door", "_protocol", "asking_since", "begun", "crowd", "peer", "transport", "waits")

    peer: Peer
    transport: asyncio.Transport
    _protocol: asyncio.Protocol

    def __init__(self, door: Door) -> None:
        self._door = door
        self.begun = False
        """Whether a request has begun that is not answered yet."""
        self.asking_since: float | None = monotonic()
        """Since when a request is awaited that has to become whole; None if none is."""
        self.crowd: Crowd | None = None
        """With whom it is let in; None if it is not, or no more."""
        self.waits: asyncio.Task[object] | None = None
        """What waits for the sake of this connection alone, and need not go on without it."""

    def __enter__(self) -> Peer:
        self.begun = True
        self.asking_since = None
        if self.crowd is not None:
            self.crowd.idle.pop(self, None)
        return self.peer

    def __exit__(self, *_error: object) -> None:
        self.begun = False
        if self.crowd is not None:
            self.crowd.idle[self] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, or not."""
        self.transport = cast("asyncio.Transport", transport)
        self.peer = peer_of(transport)
        if self._door.let_in(self):
            self._protocol = self._door.make_protocol()
            self._protocol.connection_made(transport)
        else:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Pass it on."""
        if not self.begun:
            self.begun = True
            self._door.asks(self)
        self._protocol.data_received(data)

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self._protocol.eof_received()

    def pause_writing(self) -> None:
        """Pass it on."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self._protocol.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on; one that was never let in has nobody to tell."""
        self._door.leaves(self)
        if self.waits is not None:
            self.waits.cancel()
        if hasattr(self, "_protocol"):
            self._protocol.connection_lost(exc)


@dataclass(slots=True)
class Crowd:
    """The connections of one user."""

    connections: int = 0
    idle: OrderedDict[Connection, None] = field(default_factory=OrderedDict)
    """Those that are quiet or asking, from the longest so to the last."""


class Door:
    """Makes protocols for a server, and lets at most `max_connections` of them live, half of it for one user.

    `make_protocol` makes what speaks HTTP, such as aiohttp's `web.Server`. Whoever answers a request does so
    within `busy`; else it counts as one that never becomes whole.
    """

    def __init__(
        self,
        make_protocol: Callable[[], asyncio.Protocol],
        max_connections: int,
        *,
        head_seconds: float = HEAD_SECONDS,
    ) -> None:
        self.make_protocol = make_protocol
        self.connections = 0
        """Let in, and still here."""
        self.closed_for_room = 0
        """Quiet or asking, and closed for a newer one."""
        self.refused = 0
        """Closed at once, since all others were being answered."""
        self.heads_timed_out = 0
        """Closed since a request was not whole in time."""
        self._max_connections = max_connections
        self._max_of_user = max(1, max_connections // 2)
        self._head_seconds = head_seconds
        self._crowds: dict[int, Crowd] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> Connection:
        """The protocol of a connection that was just accepted."""
        return Connection(self)

    async def serve(self, listening: socket.socket) -> asyncio.Server:
        """Accept connections from a Unix socket that listens."""
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(self, sock=listening, backlog=ACCEPTED_AT_ONCE)
        # asyncio has one number for what waits in the kernel and what is accepted in one turn. Many may wait,
        # but a crowd must not be taken in as a whole before anybody's request is read.
        listening.listen(BACKLOG)
        return server

    async def close(self, server: asyncio.Server, seconds: float = HEAR_OUT_SECONDS) -> None:
        """Accept nobody more, and wait for up to `seconds` until no request is on its way in.

        Whoever has just come in has perhaps asked already, and would be cut off with his request unread.
        Those who wait in the kernel stay there, for whoever serves the socket next.
        """
        loop, until = asyncio.get_running_loop(), monotonic() + seconds
        for listening in server.sockets:
            loop.remove_reader(listening)  # not yet close(): those accepted in this turn are still to come in
        await asyncio.sleep(HEAR_OUT_PAUSE)
        while self._is_asked() and monotonic() < until:  # noqa: ASYNC110 - once in a life, and never for long
            await asyncio.sleep(HEAR_OUT_PAUSE)
        server.close()

    def busy(self, transport: asyncio.BaseTransport | None) -> AbstractContextManager[Peer | None]:
        """While a request that came over `transport` is answered: the connection is not closed by the door.

        Says who asks; None if the connection is gone.
        """
        connection = None if transport is None else transport.get_protocol()
        return connection if isinstance(connection, Connection) else nullcontext()

    @contextmanager
    def waiting(self, transport: asyncio.BaseTransport | None) -> Iterator[None]:
        """While the current task waits for a connection's sake alone: it is cancelled if that is lost."""
        connection = None if transport is None else transport.get_protocol()
        if not isinstance(connection, Connection):
            raise ConnectionResetError("the client has left")
        connection.waits = asyncio.current_task()
        try:
            yield
        finally:
            connection.waits = None

    def let_in(self, connection: Connection) -> bool:
        """Find a place for a new connection; whether there is one."""
        crowd = self._crowds.get(connection.peer.uid) or Crowd()
        if not self._has_room_beside(crowd):
            self.refused += 1
            return False
        self._crowds[connection.peer.uid] = crowd
        self.connections += 1
        crowd.connections += 1
        crowd.idle[connection] = None
        connection.crowd = crowd
        self._watch_over_heads(self._head_seconds)
        return True

    def asks(self, connection: Connection) -> None:
        """The first bytes of a request came, or more of one that was refused before it was whole."""
        if connection.crowd is not None:
            connection.crowd.idle.move_to_end(connection)
            if connection.asking_since is None:
                connection.asking_since = monotonic()
                self._watch_over_heads(self._head_seconds)

    def leaves(self, connection: Connection) -> None:
        """The connection is closed, or is being closed."""
        crowd, connection.crowd = connection.crowd, None
        if crowd is None:
            return
        self.connections -= 1
        crowd.connections -= 1
        crowd.idle.pop(connection, None)
        if crowd.connections == 0:
            del self._crowds[connection.peer.uid]

    def _is_asked(self) -> bool:
        """Whether a request is awaited, or has begun and is not whole."""
        return any(
            connection.asking_since is not None
            for crowd in self._crowds.values()
            for connection in crowd.idle
        )

    def _has_room_beside(self, crowd: Crowd) -> bool:
        if crowd.connections >= self._max_of_user:
            loser: Crowd | None = crowd
        elif self.connections >= self._max_connections:
            # From the largest crowd that has one to give, but never from one smaller than the new one's own.
            candidates = (
                other
                for other in self._crowds.values()
                if other.idle and other.connections >= crowd.connections
            )
            loser = max(candidates, key=lambda other: other.connections, default=None)
        else:
            return True
        if loser is None or not loser.idle:
            return False
        self.closed_for_room += 1
        self._close(next(iter(loser.idle)))
        return True

    def _close(self, connection: Connection) -> None:
        self.leaves(connection)
        # Not close(), which waits for whoever does not read his answer.
        connection.transport.abort()

    def _watch_over_heads(self, seconds: float) -> None:
        # One timer for all: with one for each request, a busy server would mostly start and stop timers.
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(seconds, self._close_late)

    def _close_late(self) -> None:
        self._timer = None
        late = monotonic() - self._head_seconds
        asking = [
            (connection, connection.asking_since)
            for crowd in self._crowds.values()
            for connection in crowd.idle
            if connection.asking_since is not None
        ]
        for connection, since in asking:
            if since <= late:
                self.heads_timed_out += 1
                self._close(connection)
            else:
                self._watch_over_heads(self._head_seconds / 10)
