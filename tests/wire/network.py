"""A network in memory: names, connections, and bytes that take their time, in order, or do not come at all.

    client's transport -> `Connection` -> server's transport

A connection holds a request until it is whole, and so an answer: what spoils it is decided then, by the faults of
this moment, and each byte before the cut arrives. In between `middle.py` may answer itself.
"""

from __future__ import annotations

import asyncio
import contextvars
import socket
from collections import Counter
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from tests.simulation.loop import PROCESS, Process
from tests.wire import middle
from tests.wire.frames import Frame, read_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from random import Random

    from tests.wire.ledger import Ledger
    from tests.wire.loop import WireLoop
    from tests.wire.plan import Fault

HOST, PORT = "backup.example.com", 8080
ADDRESSES = ("192.0.2.10", "192.0.2.11")
LATENCY = 0.02
HIGH_WATER = 64 * 1024
FORGOTTEN_AFTER = 20.0
"""Seconds of silence after which what is in between forgets a connection, and says so to nobody."""
CONNECT_KINDS = frozenset({"refused", "unreachable", "unanswered", "no_name", "slow_name", "one_address"})


@dataclass
class Exchange:
    """One request, and what its sender heard in answer."""

    number: int
    process: Process
    request: Frame
    kind: str
    """`patch`, `read`, `events` or `sign_in`."""
    restore_id: str
    at: float
    fault: Fault | None
    answer: Frame | None = None
    """What came whole to its sender."""
    heard: int = 0
    """Bytes of it that came."""
    given_up: bool = False
    """The sender has no connection for it any more."""

    @property
    def is_open(self) -> bool:
        """Whether the sender still waits."""
        return self.answer is None and not self.given_up


class End(asyncio.Transport):
    """One end of a connection, as a protocol has it."""

    def __init__(
        self,
        connection: Connection,
        process: Process | None,
        context: contextvars.Context,
        extra: dict[str, Any],
    ) -> None:
        super().__init__(extra)
        self.process = process
        self.is_lost = False
        self.outgoing: Callable[[bytes], None]
        self.peer: End
        self.in_flight = 0
        self._loop = connection.loop
        self._connection = connection
        self._context = context
        self._protocol: Any = None
        self._closing = False
        self._paused = False
        self._holds_writer = False
        self._inbox: list[bytes] = []
        self._free_at = 0.0

    # What a protocol asks of its transport.

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._paused

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_soon(self._empty_inbox, context=self._context)

    def get_write_buffer_size(self) -> int:
        return self.in_flight

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """They are as they are."""

    def can_write_eof(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self._closing:
            self.outgoing(bytes(data))

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(map(bytes, list_of_data)))

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if self is self._connection.client:
                self._connection.closed_by_client()
            self._connection.ended(self)
            self.tell_end()
            self._loop.call_soon(self._lose, None, context=self._context)

    def abort(self) -> None:
        self.close()

    # What the network does to it.

    def begin(self, protocol: Any) -> None:
        """The connection is there."""
        self._protocol = protocol
        self._run(protocol.connection_made, self)

    def send(self, data: bytes, *, delay: float = 0.0, rate: float = 0.0) -> None:
        """Carry bytes to the other end: in order, some time later."""
        at = max(self._loop.time() + self._connection.latency + delay, self._free_at)
        at += len(data) / rate if rate else 0.0
        self._free_at = at
        self.in_flight += len(data)
        if self.in_flight > HIGH_WATER and not self._holds_writer:
            self._holds_writer = True
            self._run(self._protocol.pause_writing)
        self._loop.later(at - self._loop.time(), self._arrive, data)

    def tell_end(self, *, reset: bool = False, delay: float = 0.0) -> None:
        """The other end learns, after all that was sent, that no more comes."""
        at = max(self._loop.time() + self._connection.latency + delay, self._free_at)
        self._loop.later(at - self._loop.time(), self.peer.hear_reset if reset else self.peer.hear_end)

    def hear_end(self) -> None:
        if not self._closing and not self._connection.is_silent:
            self._connection.is_ended_by = self.peer
            if not self._run(self._protocol.eof_received):
                self.close()

    def hear_reset(self) -> None:
        if not self.is_lost and not self._connection.is_silent:
            self._closing = True
            self._connection.ended(self)
            self._run(self._lose, ConnectionResetError(104, "Connection reset by peer"))

    def drop(self) -> None:
        """Its process is gone, or its machine: the other end hears of it after what was sent."""
        if not self.is_lost:
            self._closing = True
            self._connection.ended(self)
            self.tell_end()
            self._run(self._lose, None)

    def _arrive(self, data: bytes) -> None:
        if self._connection.is_silent:
            return
        self.peer.receive(data)

    def receive(self, data: bytes) -> None:
        if self._closing:
            self.peer.hear_reset()
            return
        self._inbox.append(data)
        self._run(self._empty_inbox)

    def _empty_inbox(self) -> None:
        while self._inbox and not self._paused and not self._closing:
            data = self._inbox.pop(0)
            self._connection.arrived(self, data)
            self._protocol.data_received(data)
            self.peer.consumed(len(data))

    def consumed(self, size: int) -> None:
        self.in_flight -= size
        if self._holds_writer and self.in_flight <= HIGH_WATER // 4 and not self._closing:
            self._holds_writer = False
            self._run(self._protocol.resume_writing)

    def _lose(self, problem: Exception | None) -> None:
        if self.is_lost:
            return
        self.is_lost = True
        sock = self.get_extra_info("socket")
        try:
            self._protocol.connection_lost(problem)
        finally:
            if sock is not None:
                sock.close()

    def _run(self, call: Callable[..., Any], *args: object) -> Any:
        if self.process is not None and not self.process.is_alive and call != self._lose:
            return None
        if PROCESS.get() is self.process:
            return call(*args)
        return self._context.copy().run(call, *args)


class Connection:
    """One connection of a client to the server, the exchanges on it, and what spoils them."""

    def __init__(self, network: Network, process: Process, sock: socket.socket, number: int) -> None:
        self.loop = network.loop
        self.number = number
        self.process = process
        self.made_at = network.loop.time()
        self.latency = LATENCY * (0.5 + network.random.random())
        self.is_silent = False
        """Nothing comes through any more, and nobody is told."""
        self.exchange: Exchange | None = None
        self.exchanges = 0
        self.idle_since: float | None = None
        self.is_ended_by: End | None = None
        self.is_spoilt_since: float | None = None
        """When something came that nobody asked for."""
        self._network = network
        self._sent = self._said = b""
        self._heard = bytearray()
        context = contextvars.copy_context()
        names = {"peername": (ADDRESSES[0], PORT), "sockname": ("192.0.2.200", 40_000 + number)}
        self.client = End(self, process, context, {**names, "socket": sock})
        self.server = End(self, None, network.world_context(), {"peername": names["sockname"]})
        self.client.peer, self.server.peer = self.server, self.client
        self.client.outgoing, self.server.outgoing = self._from_client, self._from_server

    @property
    def is_open(self) -> bool:
        """Whether the client has it still."""
        return not self.client.is_closing()

    def _from_client(self, data: bytes) -> None:
        self._sent += data
        if (found := read_frame(self._sent)) is None:
            return
        frame, size = found
        whole, self._sent = self._sent[:size], self._sent[size:]
        now = self.loop.time()
        if self.idle_since is not None and now - self.idle_since > FORGOTTEN_AFTER:
            self.is_silent = True
        exchange = self._network.begins(self, frame)
        self._heard = bytearray()
        self.exchange, self.idle_since = exchange, None
        self.exchanges += 1
        self._carry(exchange, whole)

    def _carry(self, exchange: Exchange, whole: bytes) -> None:
        fault = exchange.fault
        match None if fault is None else fault.kind:
            case "stale" if self.exchanges > 1:
                self.break_off("reset")
            case "cut_request":
                assert fault is not None
                self.client.send(whole[: round(len(whole) * fault.part)] or whole[:1])
                self.break_off(fault.how)
            case "half_closed":
                assert fault is not None
                self.client.send(whole)
                self.server.tell_end(delay=fault.delay)
            case "lost":
                self.is_silent = True
            case "middle" if middle.answers_itself(fault):
                middle.answer(self, exchange)
            case "slow":
                assert fault is not None
                self.client.send(whole, delay=fault.delay)
            case "narrow":
                assert fault is not None
                self.client.send(whole, rate=fault.rate)
            case _:
                self.client.send(whole)

    def _from_server(self, data: bytes) -> None:
        self._said += data
        if (found := read_frame(self._said)) is None:
            return
        frame, size = found
        whole, self._said = self._said[:size], self._said[size:]
        if frame.first.split()[1][0] == "1" or self.exchange is None:
            self.server.send(whole)
        else:
            self._carry_back(self.exchange, frame, whole)

    def _carry_back(self, exchange: Exchange, frame: Frame, whole: bytes) -> None:
        fault = exchange.fault
        match None if fault is None else fault.kind:
            case "cut_answer":
                assert fault is not None
                self.server.send(whole[: int(len(whole) * fault.part)] or whole[:1])
                self.break_off(fault.how)
            case "bytewise":
                assert fault is not None
                for position in range(len(whole)):
                    self.server.send(
                        whole[position : position + 1], delay=fault.delay * position / len(whole)
                    )
            case "slow":
                assert fault is not None
                self.server.send(whole, delay=fault.delay)
            case "narrow":
                assert fault is not None
                self.server.send(whole, rate=fault.rate)
            case "middle":
                assert fault is not None
                middle.pass_on(self, fault, frame, whole)
            case _:
                self.server.send(whole)

    def break_off(self, how: str) -> None:
        """It is over, after what was sent: by a `reset`, an `end`, or in `silence`."""
        if how == "silence":
            self.loop.later(self.latency + 0.001, self._fall_silent)
        else:
            for end in (self.client, self.server):
                end.tell_end(reset=how == "reset")

    def _fall_silent(self) -> None:
        self.is_silent = True

    def arrived(self, end: End, data: bytes) -> None:
        """Bytes come to an end."""
        if end is not self.client:
            return
        exchange, now = self.exchange, self.loop.time()
        if exchange is None or exchange.answer is not None:
            self.is_spoilt_since = now if self.is_spoilt_since is None else self.is_spoilt_since
            return
        exchange.heard += len(data)
        self._heard += data
        try:
            found = read_frame(bytes(self._heard))
            while found is not None and found[0].status < 200:
                del self._heard[: found[1]]
                found = read_frame(bytes(self._heard))
        except (ValueError, IndexError):
            return
        if found is not None:
            exchange.answer, size = found
            self.idle_since = now
            if len(self._heard) > size:
                self.is_spoilt_since = now
            self._network.ledger.answered(exchange)

    def ended(self, end: End) -> None:
        """An end is closed."""
        if end is self.client and self.exchange is not None and self.exchange.is_open:
            self.exchange.given_up = True
            self._network.ledger.unanswered(self.exchange)

    def closed_by_client(self) -> None:
        """The client wants it no more, and nobody has told it to."""
        self._network.ledger.closed(self)


class Listener:
    """What listens at a port, as a server of asyncio."""

    def __init__(self, network: Network, host: str, port: int) -> None:
        self._network = network
        self.sockets = (SimpleNamespace(getsockname=lambda: (host, port)),)

    def close(self) -> None:
        self._network.factory = None

    async def wait_closed(self) -> None:
        """Nothing is to be waited for."""


class Network:
    """All connections, and the faults of this moment."""

    def __init__(self, loop: WireLoop, random: Random, ledger: Ledger) -> None:
        self.loop = loop
        self.random = random
        self.ledger = ledger
        self.faults: list[Fault] = []
        self.factory: Callable[[], Any] | None = None
        """Makes the server's protocols while it listens."""
        self.connections: list[Connection] = []
        self.connects = 0
        self.requests = 0
        self.hits: Counter[str] = Counter()
        self._times: Counter[int] = Counter()
        self._numbers = count(1)
        self._made: dict[socket.socket, Connection] = {}
        self._world = contextvars.copy_context()

    def world_context(self) -> contextvars.Context:
        """That of no process."""
        return self._world.copy()

    def getaddrinfo(self, host: str, port: int, *_: object, **__: object) -> list[Any]:
        """As that of the module `socket`; called from a thread."""
        if self._fault("no_name") is not None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        addresses = ADDRESSES if host == HOST else ("192.0.2.66",)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    def thread_delay(self, name: str) -> float:
        """Seconds until a thread begins."""
        if name == "resolve" and (fault := self._fault("slow_name")) is not None:
            return fault.delay
        return 0.0005 + 0.01 * self.random.random()

    def listen(self, factory: Callable[[], Any], host: str, port: int) -> Listener:
        self.factory = factory
        return Listener(self, host, port)

    async def connect(self, sock: socket.socket, address: tuple[str, int]) -> None:
        process = PROCESS.get()
        assert process is not None
        self.connects += 1
        self.ledger.connects(process, address)
        await asyncio.sleep(2 * LATENCY * self.random.random())
        kinds = ("refused", "unreachable", "unanswered")
        fault = next(filter(None, map(self._fault, kinds)), None)
        if fault is None and address[0] == ADDRESSES[0]:
            fault = self._fault("one_address")
        match None if fault is None else fault.kind:
            case "unreachable":
                raise OSError(113, "No route to host")
            case "unanswered" | "one_address":
                await self.loop.create_future()
            case None if self.factory is not None and address[0] in ADDRESSES:
                self._made[sock] = Connection(self, process, sock, next(self._numbers))
            case _:
                raise ConnectionRefusedError(111, "Connection refused")

    def attach(self, sock: socket.socket, protocol: Any) -> tuple[End, Any]:
        connection = self._made.pop(sock)
        self.connections.append(connection)
        if self.factory is None:
            connection.client.begin(protocol)
            connection.server.tell_end(reset=True)
        else:
            connection.server.begin(self.world_context().run(self.factory))
            connection.client.begin(protocol)
        return connection.client, protocol

    def begins(self, connection: Connection, frame: Frame) -> Exchange:
        """A request was sent."""
        self.requests += 1
        method, path, *_ = frame.first.split()
        parts = path.partition("?")[0].strip("/").split("/")
        kind = {"PATCH": "patch", "POST": "sign_in"}.get(method, "read")
        exchange = Exchange(
            number=self.requests,
            process=connection.process,
            request=frame,
            kind="events" if parts[-1] == "events" else kind,
            restore_id=parts[3] if len(parts) > 3 and parts[2] == "restores" else "",
            at=self.loop.time(),
            fault=None,
        )
        self.ledger.sent(connection, exchange)
        exchange.fault = self._fault_of(exchange, reused=connection.exchanges > 0)
        return exchange

    def open_of(self, process: Process | None = None) -> list[Connection]:
        """Connections that their client has not closed."""
        return [each for each in self.connections if each.is_open and process in {None, each.process}]

    def drop_process(self, process: Process) -> None:
        """It was killed."""
        for connection in self.open_of(process):
            connection.client.drop()

    def drop_server(self) -> None:
        """The server is gone, at once."""
        self.factory = None
        for connection in self.connections:
            connection.server.drop()

    def _fault(self, kind: str) -> Fault | None:
        return self._first(each for each in self.faults if each.kind == kind)

    def _fault_of(self, exchange: Exchange, *, reused: bool) -> Fault | None:
        return self._first(
            each
            for each in self.faults
            if each.kind not in CONNECT_KINDS
            and (each.kind != "stale" or reused)
            and (each.what in {"all", exchange.kind} or each.what in self.ledger.says(exchange))
        )

    def _first(self, faults: Iterator[Fault]) -> Fault | None:
        for fault in faults:
            if self._times[id(fault)] < fault.times and self.random.random() < fault.chance:
                self._times[id(fault)] += 1
                self.hits[fault.sort if fault.kind == "middle" else fault.kind] += 1
                self.ledger.note("fault", fault.kind, fault.sort)
                return fault
        return None
