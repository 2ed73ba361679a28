from __future__ import annotations

import asyncio
import errno
import grp
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import aiohttp
import pytest
from aiohttp import web

from agent_reporter.daemon.descriptors import (
    DESCRIPTORS_OF_RESTORE,
    MAX_DESCRIPTORS,
    OWN_DESCRIPTORS,
    affordable_connections,
    raise_descriptor_limit,
)
from agent_reporter.daemon.door import KEEP_ALIVE_SECONDS, Door
from agent_reporter.daemon.listening import listening_socket
from agent_reporter.daemon.peers import Peer
from agent_reporter.errors import ConfigurationError
from tests.blocking import no_blocking_calls
from tests.builders import needs_root, python, python_that_waits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

BOUND = 30
"""Seconds that a test waits at most for what has to happen."""
NOBODY = 65534
LARGE = 20_000_000
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: loc"
HALF_A_BODY = b"POST / HTTP/1.1\r\nHost: local\r\nContent-Length: 9\r\n\r\nhalf"

CROWD = """
import os, resource, socket, sys
path, count, begin, uid = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode(), int(sys.argv[4])
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
if uid != os.getuid():
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
connections = []
for number in range(count):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    if number % 2 and begin:
        try:
            connection.sendall(begin)
        except OSError:
            pass  # it has been closed for room
    connections.append(connection)
print("ready", flush=True)
sys.stdin.read()
"""
"""Connects many times, as a user, begins a request on every second connection, and holds on to them all."""


@pytest.fixture
def path() -> Iterator[Path]:
    """Where a socket may be that other users reach, which they do not below pytest's own directory."""
    directory = Path(tempfile.mkdtemp(prefix="door-"))
    directory.chmod(0o755)
    yield directory / "api.sock"
    shutil.rmtree(directory)


@dataclass
class House:
    """A server behind a door."""

    path: Path
    door: Door = field(init=False)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    transport: asyncio.Transport | None = None

    async def has_arrived(self) -> asyncio.Transport:
        """Wait for a request that is kept waiting, and say over which connection it came."""
        async with asyncio.timeout(BOUND):
            await self.arrived.acquire()
        assert self.transport is not None
        return self.transport

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        body = await request.read() if request.path == "/" else b""
        with self.door.busy(request.transport) as peer:
            if request.path != "/":
                self.transport = request.transport
                self.arrived.release()
                await self.go.wait()
            if request.path == "/large":
                return web.Response(body=bytes(LARGE))
            length = len(body)
            if request.path == "/stream":
                async for part in request.content.iter_any():
                    length += len(part)
            return web.Response(text=f"{peer} {length}")


@asynccontextmanager
async def a_house(
    path: Path, max_connections: int = 100, head_seconds: float = BOUND
) -> AsyncIterator[House]:
    house = House(path)
    server = web.Server(house.answer, access_log=None, keepalive_timeout=KEEP_ALIVE_SECONDS)
    house.door = Door(server, max_connections, head_seconds=head_seconds)
    listener = await house.door.serve(listening_socket(path, 0o666))
    try:
        yield house
    finally:
        listener.close()
        house.go.set()
        await server.shutdown(BOUND)
        await listener.wait_closed()


class Client:
    """Speaks HTTP byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.transport = cast("asyncio.Transport", writer.transport)

    def send(self, content: bytes) -> None:
        self._writer.write(content)

    def ask(self, path: str = "/") -> None:
        self.send(f"GET {path} HTTP/1.1\r\nHost: local\r\n\r\n".encode())

    async def answer(self) -> tuple[int, bytes]:
        async with asyncio.timeout(BOUND):
            head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
            return int(head.split()[1]), await self._reader.readexactly(length)

    async def gets(self, path: str = "/") -> int:
        self.ask(path)
        return (await self.answer())[0]

    async def is_closed(self) -> bool:
        """Wait until the other end closes, without a word."""
        async with asyncio.timeout(BOUND):
            try:
                return await self._reader.read() == b""
            except ConnectionError:
                return True

    def close(self) -> None:
        self.transport.abort()


@asynccontextmanager
async def clients(house: House, count: int) -> AsyncIterator[list[Client]]:
    """So many connections of ours, in the order in which they came in."""
    connected: list[Client] = []
    try:
        for _ in range(count):
            seen = house.door.connections + house.door.closed_for_room
            connected.append(await knock(house))
            await came_in(house, seen)
        yield connected
    finally:
        for client in connected:
            client.close()


async def knock(house: House) -> Client:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(0)
    async with asyncio.timeout(BOUND):
        while connection.connect_ex(str(house.path)) == errno.EAGAIN:  # noqa: ASYNC110 - the kernel's queue has no event
            await asyncio.sleep(0)
    return Client(*await asyncio.open_unix_connection(sock=connection))


async def came_in(house: House, seen: int) -> None:
    await until(lambda: house.door.connections + house.door.closed_for_room > seen)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(BOUND):
        while not condition():  # noqa: ASYNC110 - the door has no event for it
            await asyncio.sleep(0)


@asynccontextmanager
async def crowd(house: House, count: int, begin: bytes = b"", uid: int | None = None) -> AsyncIterator[None]:
    """So many connections of another process, which may be another user's."""
    arguments = map(str, (house.path, count, begin.decode(), os.getuid() if uid is None else uid))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-c", CROWD, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(2 * BOUND):
            assert await process.stdout.readline() == b"ready\n"
        yield
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.stdin.close()
        await process.wait()


async def gets_in(house: House) -> bool:
    """Whether a new connection gets an answer at once."""
    client = await knock(house)
    try:
        return await client.gets() == 200
    finally:
        client.close()


async def flooded(house: House, count: int, begin: bytes, uid: int | None) -> None:
    """Let a crowd come, until all of it was judged."""
    async with crowd(house, count, begin, uid):
        await until(lambda: house.door.connections + house.door.closed_for_room >= count)


def uids(house: House) -> dict[int, int]:
    return {uid: crowd.connections for uid, crowd in house.door._crowds.items()}


async def test_a_request_is_answered_and_its_sender_known(path: Path) -> None:
    async with a_house(path) as house, clients(house, 1) as [client]:
        with no_blocking_calls():
            client.send(b"POST / HTTP/1.1\r\nHost: local\r\nContent-Length: 3\r\n\r\nabc")
            us = Peer(os.getuid(), os.getgid(), os.getpid())
            assert await client.answer() == (200, f"{us} 3".encode())


async def test_a_client_of_aiohttp_goes_on_with_one_connection(path: Path) -> None:
    connector = aiohttp.UnixConnector(str(path), limit=1)
    async with a_house(path) as house, aiohttp.ClientSession(connector=connector) as session:
        for _ in range(20):
            async with session.post("http://local/", data=b"abc") as response:
                assert (response.status, (await response.text())[-2:]) == (200, " 3")
        assert house.door.connections == 1


async def test_requests_that_come_in_one_go_are_all_answered(path: Path) -> None:
    async with a_house(path) as house, clients(house, 1) as [client]:
        for _ in range(200):
            client.ask()
        assert [(await client.answer())[0] for _ in range(200)] == [200] * 200


async def test_a_body_that_nobody_reads_yet_is_held_back_and_then_comes_whole(path: Path) -> None:
    async with a_house(path) as house, clients(house, 1) as [client]:
        client.send(f"POST /stream HTTP/1.1\r\nHost: local\r\nContent-Length: {LARGE}\r\n\r\n".encode())
        client.send(bytes(LARGE))
        transport = await house.has_arrived()
        await until(lambda: not transport.is_reading())
        assert client.transport.get_write_buffer_size() > LARGE // 2
        house.go.set()
        assert (await client.answer())[1].endswith(f" {LARGE}".encode())


async def test_an_answer_that_nobody_reads_yet_is_held_back_and_then_comes_whole(path: Path) -> None:
    async with a_house(path) as house, clients(house, 1) as [client]:
        client.transport.pause_reading()
        house.go.set()
        client.ask("/large")
        transport = await house.has_arrived()
        await until(lambda: transport.get_write_buffer_size() > 0)
        client.transport.resume_reading()
        assert await client.answer() == (200, bytes(LARGE))
        assert await client.gets() == 200


async def test_a_head_that_comes_a_byte_at_a_time_is_cut_off(path: Path) -> None:
    async with a_house(path, head_seconds=0.1) as house, clients(house, 1) as [client]:
        client.send(b"GET / HTTP/1.1\r\nX-Slow: ")
        closed = asyncio.create_task(client.is_closed())
        while not (await asyncio.wait([closed], timeout=0.01))[0]:
            client.send(b"a")
        assert closed.result()
        assert (house.door.heads_timed_out, house.door.connections) == (1, 0)


@pytest.mark.parametrize("begin", [b"", HALF_A_HEAD, HALF_A_BODY])
async def test_a_request_that_never_becomes_whole_is_cut_off(path: Path, begin: bytes) -> None:
    async with a_house(path, head_seconds=0.1) as house, clients(house, 2) as both:
        for client in both:
            client.send(begin)
        assert [await client.is_closed() for client in both] == [True, True]
        assert (house.door.heads_timed_out, house.door.connections, uids(house)) == (2, 0, {})


async def test_the_next_request_has_to_become_whole_as_well(path: Path) -> None:
    async with a_house(path, head_seconds=0.1) as house, clients(house, 1) as [client]:
        assert await client.gets() == 200
        client.send(HALF_A_HEAD)
        assert await client.is_closed()
        assert house.door.heads_timed_out == 1


async def test_being_quiet_after_an_answer_or_waiting_for_one_takes_as_long_as_it_takes(path: Path) -> None:
    async with a_house(path, head_seconds=0.1) as house, clients(house, 2) as [quiet, waiting]:
        assert await quiet.gets() == 200
        waiting.ask("/wait")
        await house.has_arrived()
        for _ in range(2):
            later = await knock(house)
            assert await later.is_closed()
            later.close()
        assert house.door.heads_timed_out == 2
        house.go.set()
        assert (await waiting.answer())[0] == 200
        assert await quiet.gets() == 200


async def test_the_connection_that_is_longest_quiet_makes_room(path: Path) -> None:
    async with a_house(path, max_connections=8) as house, clients(house, 4) as [first, second, third, fourth]:
        assert await first.gets() == 200
        third.send(HALF_A_HEAD)
        assert await fourth.gets() == 200
        async with AsyncExitStack() as later:
            for client in (second, first, third):  # by arrival, last answer, and first byte
                [newcomer] = await later.enter_async_context(clients(house, 1))
                assert await client.is_closed()
                assert await newcomer.gets() == 200
            assert await fourth.gets() == 200
            assert house.door.connections == 4
        assert (house.door.closed_for_room, house.door.refused) == (3, 0)


async def test_a_connection_that_is_answered_stays_whoever_comes(path: Path) -> None:
    async with a_house(path, max_connections=6) as house, clients(house, 3) as [one, other, idle]:
        one.ask("/wait")
        other.ask("/wait")
        await house.has_arrived()
        await house.has_arrived()
        async with clients(house, 20) as later:
            assert await idle.is_closed()
            assert [await client.is_closed() for client in later[:-1]] == [True] * 19
            assert await later[-1].gets() == 200
        house.go.set()
        assert [(await one.answer())[0], (await other.answer())[0]] == [200, 200]
        assert (house.door.closed_for_room, house.door.refused) == (20, 0)


async def test_a_new_connection_is_refused_while_all_are_being_answered(path: Path) -> None:
    async with a_house(path, max_connections=4) as house, clients(house, 2) as both:
        for client in both:
            client.ask("/wait")
            await house.has_arrived()
        refused = await knock(house)
        assert await refused.is_closed()
        refused.close()
        assert (house.door.closed_for_room, house.door.refused, house.door.connections) == (0, 1, 2)
        house.go.set()
        assert [(await client.answer())[0] for client in both] == [200, 200]
        assert await gets_in(house)


async def test_who_does_not_read_his_answer_makes_room_like_others(path: Path) -> None:
    async with a_house(path, max_connections=2) as house, clients(house, 1) as [client]:
        client.transport.pause_reading()
        house.go.set()
        client.ask("/large")
        transport = await house.has_arrived()
        await until(lambda: transport.get_write_buffer_size() > 0)
        assert await gets_in(house)
        client.transport.resume_reading()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.answer()


async def test_whoever_leaves_leaves_nothing_behind(path: Path) -> None:
    async with a_house(path) as house:
        async with clients(house, 3) as [answered, asking, _quiet]:
            answered.ask("/wait")
            await house.has_arrived()
            asking.send(HALF_A_HEAD)
        await until(lambda: house.door.connections == 0)
        house.go.set()
        assert await gets_in(house)
        await until(lambda: house.door.connections == 0)
        assert uids(house) == {}


async def test_a_request_whose_connection_is_gone_has_no_peer(path: Path) -> None:
    async with a_house(path) as house, clients(house, 1) as [client]:
        client.ask("/wait")
        transport = await house.has_arrived()
        client.close()
        await until(lambda: house.door.connections == 0)
        for gone in (None, transport):
            with house.door.busy(gone) as peer:
                assert peer is None


@needs_root
async def test_room_for_a_newcomer_comes_from_the_largest_crowd(path: Path) -> None:
    async with (
        a_house(path, max_connections=10) as house,
        clients(house, 2) as ours,
        crowd(house, 5, uid=NOBODY),
        crowd(house, 3, uid=NOBODY - 1),
    ):
        async with clients(house, 2) as more:
            assert uids(house) == {os.getuid(): 4, NOBODY: 3, NOBODY - 1: 3}
            assert [await client.gets() for client in [*ours, *more]] == [200] * 4
        assert (house.door.closed_for_room, house.door.refused) == (2, 0)


@needs_root
async def test_a_crowd_that_is_all_answered_takes_no_place_from_a_smaller_one(path: Path) -> None:
    async with (
        a_house(path, max_connections=6) as house,
        clients(house, 2) as ours,
        crowd(house, 1, uid=NOBODY),
        crowd(house, 1, uid=NOBODY - 1),
        crowd(house, 1, uid=NOBODY - 2),
        crowd(house, 1, uid=NOBODY - 3),
    ):
        for client in ours:
            client.ask("/wait")
            await house.has_arrived()
        refused = await knock(house)
        assert await refused.is_closed()
        refused.close()
        assert (house.door.closed_for_room, house.door.refused, house.door.connections) == (0, 1, 6)


@pytest.mark.parametrize("uid", [None, pytest.param(NOBODY, marks=needs_root)], ids=["own", "other"])
@pytest.mark.parametrize("begin", [b"", HALF_A_HEAD], ids=["quiet", "half open"])
async def test_five_thousand_connections_disturb_nobody(path: Path, uid: int | None, begin: bytes) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 5_100:
        pytest.skip("a process may not have 5,000 connections here")
    raise_descriptor_limit()
    async with a_house(path, max_connections=512) as house, clients(house, 1) as [held]:
        held.ask("/wait")
        await house.has_arrived()
        asked = 0
        flood = asyncio.create_task(flooded(house, 5_000, begin, uid))
        while not flood.done():
            assert await gets_in(house)
            asked += 1
        await flood
        assert asked > 10
        house.go.set()
        assert (await held.answer())[0] == 200
        assert house.door.connections <= 512
        assert house.door.refused == 0


SERVER = """
import asyncio, os, resource, sys
from pathlib import Path
from aiohttp import web
from agent_reporter.daemon.descriptors import affordable_connections
from agent_reporter.daemon.door import Door
from agent_reporter.daemon.listening import listening_socket

LIMIT, RESTORES = 600, 50

async def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    held = [os.open("/dev/null", os.O_RDONLY) for _ in range(2 * RESTORES)]
    failures = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failures.append(context["message"]))
    async def answer(request):
        with door.busy(request.transport):
            return web.Response(text=f"{failures} {door.closed_for_room > 0}")
    door = Door(web.Server(answer, access_log=None), affordable_connections(LIMIT, 10_000, RESTORES))
    await door.serve(listening_socket(Path(sys.argv[1])))
    print("ready", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_accepting_never_fails_for_want_of_descriptors(path: Path) -> None:
    with python_that_waits(SERVER, path):
        house = House(path)
        async with crowd(house, 3_000), crowd(house, 3_000):
            client = await knock(house)
            client.ask()
            assert await client.answer() == (200, b"[] True")
            client.close()


def test_as_many_files_may_be_open_as_the_system_allows() -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    script = """if True:
        import resource
        from agent_reporter.daemon.descriptors import raise_descriptor_limit
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        print(raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE))
    """
    most = min(hard, MAX_DESCRIPTORS)
    assert python(script).stdout == f"{most} {most} {hard}\n"


def test_restores_have_their_descriptors_before_connections() -> None:
    assert affordable_connections(65_536, 4_096, 1_000) == 4_096
    taken = OWN_DESCRIPTORS + DESCRIPTORS_OF_RESTORE * 1_000
    assert affordable_connections(taken + 100, 4_096, 1_000) == 100
    with pytest.raises(ConfigurationError, match="LimitNOFILE="):
        affordable_connections(1_024, 4_096, 1_000)


def test_the_socket_is_for_its_user_and_group_and_listens(path: Path) -> None:
    name = grp.getgrgid(os.getgid()).gr_name
    with listening_socket(path, group=name) as listening, socket.socket(socket.AF_UNIX) as client:
        status = path.lstat()
        assert (stat.S_ISSOCK(status.st_mode), stat.S_IMODE(status.st_mode)) == (True, 0o660)
        assert status.st_gid == os.getgid()
        assert not listening.get_inheritable()
        client.connect(str(path))


@needs_root
def test_a_user_who_is_not_in_the_group_does_not_get_in(path: Path) -> None:
    script = """if True:
        import os, socket, sys
        os.setgroups([int(sys.argv[2])])
        os.setgid(65534)
        os.setuid(65534)
        socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    """
    with listening_socket(path, group="daemon"):
        assert "PermissionError" in python(script, path, NOBODY).stderr
        assert python(script, path, path.lstat().st_gid).returncode == 0


def test_its_directory_is_made_open_to_all_whatever_the_umask(path: Path) -> None:
    before = os.umask(0o077)
    try:
        with listening_socket(path.parent / "new" / "api.sock"):
            assert stat.S_IMODE((path.parent / "new").stat().st_mode) == 0o755
    finally:
        os.umask(before)


def test_a_socket_where_nobody_answers_is_replaced(path: Path) -> None:
    listening_socket(path).close()
    assert path.is_socket()
    with listening_socket(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_socket_where_somebody_answers_stays(path: Path) -> None:
    with listening_socket(path) as listening:
        with pytest.raises(ConfigurationError, match="another daemon runs"):
            listening_socket(path)
        listening.listen(0)
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            for client in (first, second):
                client.settimeout(0)
                with suppress(BlockingIOError):  # there is a queue
                    client.connect(str(path))
            with pytest.raises(ConfigurationError, match="another daemon runs"):
                listening_socket(path)
        assert path.is_socket()


def test_what_is_no_socket_stays(path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(ConfigurationError, match="is no socket"):
        listening_socket(path)
    assert path.read_text() == "precious"
    path.unlink()
    listening_socket(path.with_name("real")).close()
    path.symlink_to(path.with_name("real"))
    with pytest.raises(ConfigurationError, match="is no socket"):
        listening_socket(path)
    assert path.is_symlink()


def test_of_two_that_start_at_once_one_gives_way(path: Path) -> None:
    script = """if True:
        import sys
        from pathlib import Path
        from agent_reporter.daemon.listening import _only_one_at
        with _only_one_at(Path(sys.argv[1])):
            print("ready", flush=True)
            sys.stdin.read()
    """
    with python_that_waits(script, path), pytest.raises(ConfigurationError, match="just starting"):
        listening_socket(path)
    listening_socket(path).close()


def test_a_path_that_is_too_long_is_said_to_be_so(path: Path) -> None:
    fits = path.with_name("x" * (107 - len(str(path.parent)) - 1))
    listening_socket(fits).close()
    with pytest.raises(ConfigurationError, match="at most 107 bytes"):
        listening_socket(fits.with_name(fits.name + "x"))


def test_a_group_that_is_not_there_is_said_to_be_so(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no group 'no-such-group'"):
        listening_socket(path, group="no-such-group")
    assert not path.exists()


def test_a_place_where_no_socket_can_be_is_said_to_be_so(path: Path) -> None:
    path.write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot be made: Not a directory"):
        listening_socket(path / "api.sock")


@needs_root
def test_a_group_that_may_not_be_given_leaves_no_socket_behind(path: Path) -> None:
    script = """if True:
        import os, sys
        from pathlib import Path
        from agent_reporter.daemon.listening import listening_socket
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        listening_socket(Path(sys.argv[1]), group="root")
    """
    os.chown(path.parent, NOBODY, NOBODY)
    done = python(script, path)
    assert "cannot be made: Operation not permitted" in done.stderr
    assert not path.exists()
