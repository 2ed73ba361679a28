"""A daemon in a process of its own, and users who mean it no good; restores beside them go on undisturbed."""

from __future__ import annotations

import asyncio
import grp
import gzip
import json
import resource
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter import DaemonUse, Reporter, Settings
from agent_reporter.model.client import Client
from agent_reporter.model.record import Destination, Record
from agent_reporter.model.report import Report
from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.server import PROJECT
from agent_reporter.spool import Spool
from tests.builders import needs_root
from tests.endtoend.agent import TOKEN, Agent, make_agent, values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = needs_root

ALICE, MALLORY = 64_001, 64_002
"""Users who may call the daemon. Nobody has to know their names."""
GROUP = "daemon"
BOUND = 60
"""Seconds that a test waits at most for what has to happen."""
MEBIBYTE = 1024 * 1024
HALF_A_HEAD = b"GET / HTTP/1.1\r\nHost: loc"
RESTORES = f"/v2/{PROJECT}/restores"
WAITS = f"GET /v2/{PROJECT}/agents/self/events?wait=3600 HTTP/1.1\r\nHost: local\r\n\r\n".encode()

BECOME = """
import os, resource, sys

def become():
    uid, gid = int(sys.argv[1]), int(sys.argv[2])
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.setgroups([gid])
    os.setgid(uid)
    os.setuid(uid)
    return sys.argv[3]
"""
"""Goes on as a user: it is root who can start an interpreter and import, wherever that is installed."""

CONNECT = """
import socket
path = become()
with socket.socket(fileno=0) as home:
    for _ in range(int(sys.argv[4])):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            socket.send_fds(home, [b"."], [connection.fileno()])
"""
"""Hands out connections, which go on to be this user's for the kernel, whoever uses them."""

REPORT = """
import http.client, json, select, socket, time
path = become()
project, restore_id = sys.argv[4:]

class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(path)

connection, told, again, seconds, failed = Connection("localhost"), 0, 0, [], []

def tell(**values):
    global again
    patch = json.dumps([{"op": "replace", "path": f"/{name}", "value": values[name]} for name in values])
    begun = time.monotonic()
    for attempt in range(2):
        try:
            connection.request("PATCH", f"/v2/{project}/restores/{restore_id}", patch)
            answer = connection.getresponse()
            content = answer.read()
        except (OSError, http.client.HTTPException) as problem:
            connection.close()
            outcome, again = repr(problem), again + 1
        else:
            outcome = "" if answer.status == 204 else f"{answer.status} {content[:200]}"
            break
    seconds.append(time.monotonic() - begun)
    if outcome:
        failed.append(outcome)

tell(bytes_restored=told)
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.05)[0]:
    told += 1
    tell(bytes_restored=told)
tell(state="completed", bytes_restored=told)
print(json.dumps({"told": told, "again": again, "seconds": seconds, "failed": failed}))
"""
"""Reports a restore every 50 ms until its input ends, and says how that went."""


@dataclass
class Host:
    """A daemon that runs, and the control plane behind it."""

    agent: Agent
    server: ReferenceServer
    path: Path
    process: asyncio.subprocess.Process
    log: list[str] = field(default_factory=list)

    def memory(self, name: str) -> int:
        """Bytes of the daemon: VmRSS is what it has, VmHWM the most it had since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition(f"{name}:")[2].split()[0]) * 1024

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    @contextmanager
    def bounded_memory(self, most: int, what: str) -> Iterator[None]:
        """The daemon never has more than `most` bytes beyond what it had, and its figures are printed."""
        before = self.memory("VmRSS")
        self.forget_peak()
        yield
        peak, after = self.memory("VmHWM"), self.memory("VmRSS")
        print(f"\n{what}: {mib(before)} before, {mib(peak)} at most, {mib(after)} after")
        assert peak - before < most

    async def has_read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.log.append(line.decode())


def mib(size: int) -> str:
    return f"{size / MEBIBYTE:.1f} MiB"


@asynccontextmanager
async def a_host(directory: Path, socket_directory: Path, **settings: str) -> AsyncIterator[Host]:
    """A daemon until its orderly end: with exit status 0, and no bug of its own in its log."""
    path = socket_directory / "api.sock"
    async with ReferenceServer(directory / "control-plane", token=TOKEN) as server:
        agent = make_agent(directory / "host", server.url, socket=str(path), socket_group=GROUP, **settings)
        host = Host(agent, server, path, await agent.start("daemon", stdout=subprocess.DEVNULL))
        reading = asyncio.create_task(host.has_read())
        try:
            async with asyncio.timeout(BOUND):
                while not any("daemon.ready" in line for line in host.log):
                    assert host.process.returncode is None, host.log
                    await asyncio.sleep(0.01)
            yield host
            host.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(BOUND):
                assert await host.process.wait() == 0
                await reading
        finally:
            agent.kill_all()
            await reading
        assert not [line for line in host.log if "Traceback" in line or "api.failed" in line], host.log


@pytest.fixture
def socket_directory() -> Iterator[Path]:
    """Where other users reach a socket, which they do not below pytest's own directory."""
    directory = Path(tempfile.mkdtemp(prefix="ar-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def host(tmp_path: Path, socket_directory: Path) -> AsyncIterator[Host]:
    async with a_host(tmp_path, socket_directory) as host:
        yield host


@pytest.fixture(autouse=True)
def _many_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def gid() -> int:
    return grp.getgrnam(GROUP).gr_gid


def words(script: str, uid: int, *arguments: object, group: int | None = None) -> list[str]:
    who = (uid, gid() if group is None else group)
    return [sys.executable, "-c", BECOME + script, *map(str, (*who, *arguments))]


@contextmanager
def connections_of(uid: int, host: Host, count: int = 1) -> Iterator[list[socket.socket]]:
    """So many connections of a user to the daemon. Blocks."""
    here, there = socket.socketpair()
    with ExitStack() as stack, here:
        with there, subprocess.Popen(words(CONNECT, uid, host.path, count), stdin=there.fileno()) as process:
            there.close()
            connections = []
            for _ in range(count):
                _, [descriptor], _, _ = socket.recv_fds(here, 1, 1)
                connection = stack.enter_context(socket.socket(fileno=descriptor))
                connection.settimeout(BOUND)
                connections.append(connection)
            assert process.wait(BOUND) == 0
        yield connections


def says(connection: socket.socket, content: bytes) -> None:
    """Send as much as is taken."""
    with suppress(ConnectionError):
        connection.sendall(content)


def hears(connection: socket.socket) -> bytes:
    """All that is said until the other end closes, which it has to."""
    heard = b""
    with suppress(ConnectionError):
        while part := connection.recv(65_536):
            heard += part
    return heard


def asks(uid: int, host: Host, content: bytes) -> bytes:
    """What the daemon says to a request, or whatever it is, until it closes. Blocks."""
    with connections_of(uid, host) as [connection]:
        says(connection, content)
        return hears(connection)


def ask_all(uid: int, host: Host, requests: list[bytes]) -> Counter[int]:
    """How often each status came as the answer to many requests, one after another. Blocks."""
    answers = Counter[int]()
    left = list(requests)
    while left:  # by the dozen, as none of the connections may be quiet for long
        with connections_of(uid, host, min(12, len(left))) as connections:
            for connection in connections:
                says(connection, left.pop())
                answers[status(hears(connection))] += 1
    return answers


def request(method: str, path: str, body: bytes = b"", *headers: str) -> bytes:
    head = [f"{method} {path} HTTP/1.1", "Host: local", "Connection: close", *headers]
    if not any(header.startswith(("Content-Length", "Transfer-Encoding")) for header in headers):
        head.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*head, "", ""]).encode() + body


def patch(**values: object) -> bytes:
    return json.dumps(
        [{"op": "replace", "path": f"/{name}", "value": value} for name, value in values.items()]
    ).encode()


def status(answer: bytes) -> int:
    """Of an answer; 0 for a connection that was closed without a word."""
    return int(answer.split()[1]) if answer else 0


def message(answer: bytes) -> str:
    return str(json.loads(answer.partition(b"\r\n\r\n")[2])["message"])


@asynccontextmanager
async def undisturbed(host: Host, *uids: int) -> AsyncIterator[None]:
    """Restores go on beside what happens: one of each of `uids`, and one of the library. Each has to succeed."""
    async with AsyncExitStack() as stack:
        restores = {host.server.start_restore(): uid for uid in uids}
        reporters = {}
        for restore_id, uid in restores.items():
            process = await asyncio.create_subprocess_exec(
                *words(REPORT, uid, host.path, PROJECT, restore_id),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                limit=64 * MEBIBYTE,
            )
            stack.callback(killed, process)
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
            reporters[restore_id] = process
        of_library = host.server.start_restore()
        async with library(host, of_library):
            yield
        await host.server.wait_until(lambda: has_ended(host, of_library), within=BOUND)
        for restore_id, process in reporters.items():
            async with asyncio.timeout(BOUND):
                out, _ = await process.communicate(b"")
            await judge(host, restore_id, restores[restore_id], json.loads(out))


def killed(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


@asynccontextmanager
async def library(host: Host, restore_id: str) -> AsyncIterator[None]:
    settings = Settings(
        project_id=PROJECT,
        socket=host.path,
        daemon=DaemonUse.ALWAYS,
        spool_dir=host.agent.directory / "own-spool",
    )
    async with Reporter(settings) as reporter, reporter.restore(restore_id) as job:

        async def goes_on() -> None:
            while True:
                job.advance(bytes=1)
                await asyncio.sleep(0.05)

        going = asyncio.create_task(goes_on())
        try:
            yield
        finally:
            going.cancel()
            await asyncio.gather(going, return_exceptions=True)


def has_ended(host: Host, restore_id: str) -> bool:
    return bool(host.server.document(restore_id)["state"] == "completed")


async def judge(host: Host, restore_id: str, uid: int, told: dict[str, Any]) -> None:
    """The record is true, and nothing failed that the restore's own reporter tried."""
    seconds = sorted(told["seconds"])
    print(
        f"user {uid}: {len(seconds)} reports, {len(told['failed'])} failed, {told['again']} connected again; "
        f"answered within {statistics.median(seconds) * 1000:.1f} ms (median), {seconds[-1] * 1000:.1f} ms (worst)"
    )
    assert told["failed"] == []
    await host.server.wait_until(lambda: has_ended(host, restore_id), within=BOUND)
    assert host.server.document(restore_id)["bytes_restored"] == told["told"]
    counts = values(host.server, restore_id, "/bytes-restored")
    assert counts == sorted(counts)


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    async with asyncio.timeout(2 * BOUND):
        return await asyncio.to_thread(call, *arguments)


# --- who may ----------------------------------------------------------------------------------------------


async def test_a_user_who_is_not_in_the_group_cannot_connect(host: Host) -> None:
    async with undisturbed(host, ALICE):
        for group, succeeds in ((MALLORY, False), (gid(), True)):
            here, there = socket.socketpair()
            with here, there:
                process = await asyncio.create_subprocess_exec(
                    *words(CONNECT, MALLORY, host.path, 1, group=group),
                    stdin=there.fileno(),
                    stderr=subprocess.PIPE,
                )
                _, said = await process.communicate()
                assert (process.returncode == 0) is succeeds
                assert (b"PermissionError" in said) is not succeeds


def touches(restore_id: str) -> dict[str, bytes]:
    """Every way to touch a restore."""
    path = f"{RESTORES}/{restore_id}"
    return {
        "progress": request("PATCH", path, patch(bytes_restored=10**9)),
        "result": request("PATCH", path, patch(state="failed")),
        "stop": request("PATCH", path, patch(state="stop_requested")),
        "process": request("PATCH", path, patch(state="in_progress"), "X-Engine-Pid: 1"),
        "errors": request("GET", f"{path}/errors"),
        "events": request("GET", f"{path}/events?wait=3600"),
    }


async def test_nobody_touches_the_restore_of_another_user_also_not_after_a_kill_of_the_daemon_or_its_end(
    tmp_path: Path, socket_directory: Path
) -> None:
    async with a_host(tmp_path, socket_directory) as host:
        restore_id, ended = host.server.start_restore(), host.server.start_restore()
        for known, fields in ((restore_id, {"bytes_restored": 7}), (ended, {"state": "completed"})):
            told = await in_thread(
                asks, ALICE, host, request("PATCH", f"{RESTORES}/{known}", patch(**fields))
            )
            assert status(told) == 204
        for known in (restore_id, ended):
            for name, touch in touches(known).items():
                answer = await in_thread(asks, MALLORY, host, touch)
                assert (name, status(answer)) == (name, 403)
                assert message(answer) == f"Restore {known} is another user's."
        listed = await in_thread(asks, MALLORY, host, request("GET", RESTORES))
        assert listed.endswith(b'{"restores": []}')
        own = await in_thread(asks, MALLORY, host, request("GET", f"/v2/{PROJECT}/agents/self/events"))
        assert own.endswith(b'{"events": [], "links": []}')
        assert host.server.document(restore_id)["state"] != "stop_requested"
        host.process.kill()
        await host.process.wait()
        host.process = await host.agent.start("daemon", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        await in_thread(until_it_answers, host)
        for name, touch in touches(restore_id).items():
            answer = await in_thread(asks, MALLORY, host, touch)
            assert (name, status(answer)) == (name, 403)
        done = await in_thread(
            asks, ALICE, host, request("PATCH", f"{RESTORES}/{restore_id}", patch(state="completed"))
        )
        assert status(done) == 204
        await host.server.wait_until(lambda: has_ended(host, restore_id), within=BOUND)
        assert host.server.document(restore_id)["bytes_restored"] == 7


async def test_what_is_kept_of_a_restore_keeps_its_user(host: Host) -> None:
    restore_id = host.server.start_restore()
    destination = Destination(host.server.url, PROJECT)

    def keep() -> None:
        entry = Spool(host.agent.spool).open(restore_id)
        entry.write(Record(destination, Report(restore_id, bytes_restored=7), client=Client(ALICE)))
        entry.release()

    await in_thread(keep)
    path = f"{RESTORES}/{restore_id}"
    answers = [
        status(await in_thread(asks, uid, host, request("PATCH", path, patch(state="completed"))))
        for uid in (MALLORY, ALICE)
    ]
    assert answers == [403, 204]
    await host.server.wait_until(lambda: has_ended(host, restore_id), within=BOUND)
    assert host.server.document(restore_id)["bytes_restored"] == 7


def until_it_answers(host: Host) -> None:
    while True:
        with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
            connection.connect(str(host.path))
            says(connection, request("GET", RESTORES))
            if status(hears(connection)) == 200:
                return


# --- too much, and too slow -------------------------------------------------------------------------------


def chunked(size: int) -> bytes:
    chunk = b"%x\r\n%b\r\n" % (MEBIBYTE, bytes(MEBIBYTE))
    return chunk * (size // MEBIBYTE) + b"0\r\n\r\n"


async def test_a_body_of_100_mb_is_refused_with_and_without_a_length(host: Host) -> None:
    size = 100 * MEBIBYTE
    bodies = {
        "declared": request("PATCH", f"{RESTORES}/r-1", bytes(size)),
        "chunked": request("PATCH", f"{RESTORES}/r-1", chunked(size), "Transfer-Encoding: chunked"),
        "for nobody": request("POST", "/nothing", bytes(size)),
    }
    async with undisturbed(host, ALICE, MALLORY):
        with host.bounded_memory(16 * MEBIBYTE, "Bodies of 100 MiB"):
            answers = {name: await in_thread(asks, MALLORY, host, body) for name, body in bodies.items()}
        assert {name: status(answer) for name, answer in answers.items()} == {
            "declared": 400,
            "chunked": 400,
            "for nobody": 404,
        }
        assert message(answers["declared"]) == "The body is larger than 1000000 bytes."


def bomb() -> bytes:
    return gzip.compress(bytes(1024 * MEBIBYTE), 9)


async def test_a_body_that_is_compressed_does_not_grow_here(host: Host) -> None:
    body = await in_thread(bomb)
    path = f"{RESTORES}/r-1"
    async with undisturbed(host, ALICE, MALLORY):
        with host.bounded_memory(16 * MEBIBYTE, f"A gzip bomb of {mib(len(body))}"):
            whole = await in_thread(
                asks, MALLORY, host, request("PATCH", path, body, "Content-Encoding: gzip")
            )
            part = await in_thread(
                asks, MALLORY, host, request("PATCH", path, body[:900_000], "Content-Encoding: gzip")
            )
        assert [status(whole), status(part)] == [400, 400]


async def test_who_never_finishes_a_head_or_a_body_is_cut_off(host: Host) -> None:
    begun = {
        "nothing": b"",
        "half a head": HALF_A_HEAD,
        "half a body": request("PATCH", f"{RESTORES}/r-1", b"[", "Content-Length: 100"),
        "half a chunk": request("PATCH", f"{RESTORES}/r-1", b"fff\r\n[", "Transfer-Encoding: chunked"),
        "a body for nobody": request("GET", RESTORES, b"x", "Content-Length: 1000"),
    }

    def goes_slow() -> dict[str, bytes]:
        with (
            connections_of(MALLORY, host, len(begun)) as connections,
            connections_of(MALLORY, host) as [slow],
        ):
            says(slow, b"GET / HTTP/1.1\r\nX-Slow: ")
            slow.settimeout(0.3)
            for connection, content in zip(connections, begun.values(), strict=True):
                says(connection, content)
            dripped = b""
            with suppress(ConnectionError):
                while True:
                    with suppress(TimeoutError):
                        dripped = slow.recv(1)
                        break
                    slow.sendall(b"a")
            answers = dict(zip(begun, map(hears, connections), strict=True))
            return {**answers, "a byte at a time": dripped}

    async with undisturbed(host, ALICE, MALLORY):
        answers = await in_thread(goes_slow)
    assert {name: status(answer) for name, answer in answers.items()} == {
        "nothing": 0,
        "half a head": 0,
        "half a body": 408,
        "half a chunk": 408,
        "a body for nobody": 200,
        "a byte at a time": 0,
    }


# --- too many ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "begin"),
    [("quiet", b""), ("half-open", HALF_A_HEAD), ("waiting", WAITS)],
    ids=["quiet", "half-open", "waiting"],
)
async def test_5000_connections_of_one_user_cost_others_nothing(host: Host, what: str, begin: bytes) -> None:
    def crowd() -> int:
        with connections_of(MALLORY, host, 5_000) as connections:
            for connection in connections:
                says(connection, begin)
            newcomer = asks(ALICE, host, request("GET", RESTORES))
            assert status(newcomer) == 200
            return sum(is_open(connection) for connection in connections)

    async with undisturbed(host, ALICE, *(() if begin == WAITS else (MALLORY,))):
        with host.bounded_memory(150 * MEBIBYTE, f"5,000 connections, {what}"):
            left = await in_thread(crowd)
        print(f"{left} of 5,000 were let in and stayed")
    assert 0 < left <= 2048


def is_open(connection: socket.socket) -> bool:
    connection.settimeout(0)
    try:
        return bool(connection.recv(1))
    except BlockingIOError:
        return True
    except ConnectionError:
        return False


async def test_one_user_who_asks_more_often_than_allowed_is_put_off_and_others_are_not(
    tmp_path: Path, socket_directory: Path
) -> None:
    async with a_host(tmp_path, socket_directory, peer_rate="200") as host:

        def floods() -> Counter[int]:
            """Everybody of a crowd asks at once, three times."""
            answers = Counter[int]()
            with connections_of(MALLORY, host, 1_000) as connections:
                for _ in range(3):
                    for connection in connections:
                        says(connection, f"GET {RESTORES} HTTP/1.1\r\nHost: local\r\n\r\n".encode())
                    for connection in connections:
                        answer = connection.recv(65_536)
                        answers[status(answer)] += 1
                        assert status(answer) == 200 or b"\r\nRetry-After: " in answer
            return answers

        async with undisturbed(host, ALICE):
            answers = await in_thread(floods)
        print(f"A flood at a rate of 200: {dict(answers)}")
        assert set(answers) == {200, 503}


async def test_requests_that_come_all_at_once_on_one_connection_take_no_memory(host: Host) -> None:
    pipelined = f"GET {RESTORES} HTTP/1.1\r\nHost: local\r\n\r\n".encode() * 500_000

    def pumps() -> bytes:
        with connections_of(MALLORY, host, 2) as [waits, hears_nothing]:
            waits.settimeout(3)
            hears_nothing.settimeout(3)
            for connection, first in ((waits, WAITS), (hears_nothing, b"")):
                with suppress(TimeoutError):
                    says(connection, first + pipelined)
            return b""

    async with undisturbed(host, ALICE):
        with host.bounded_memory(32 * MEBIBYTE, f"{mib(2 * len(pipelined))} of requests in advance"):
            await in_thread(pumps)


async def test_one_user_with_too_many_restores_leaves_room_for_others(
    tmp_path: Path, socket_directory: Path
) -> None:
    async with a_host(tmp_path, socket_directory, max_restores="400") as host:

        def begins(uid: int, restore_ids: list[str]) -> Counter[int]:
            body = patch(state="queued")
            return ask_all(uid, host, [request("PATCH", f"{RESTORES}/{each}", body) for each in restore_ids])

        async with undisturbed(host, ALICE, MALLORY):
            taken = await in_thread(begins, MALLORY, [host.server.start_restore() for _ in range(450)])
            print(f"\n450 restores of one user, where 400 may be open: {dict(taken)}")
            assert set(taken) == {204, 503}
            left = await in_thread(begins, ALICE, [host.server.start_restore() for _ in range(10)])
            assert left == {204: 10}


async def test_restores_that_are_over_take_little_memory(host: Host) -> None:
    restore_ids = [host.server.start_restore() for _ in range(150)]
    listed = [{"path": f"/{number}/{'x' * 1650}", "type": "missing"} for number in range(500)]
    body = patch(state="failed", errors={"count": len(listed), "list": listed})

    requests = [request("PATCH", f"{RESTORES}/{each}", body) for each in restore_ids]

    async with undisturbed(host, ALICE, MALLORY):
        with host.bounded_memory(96 * MEBIBYTE, f"150 restores that ended with {mib(len(body))} of errors"):
            assert set(await in_thread(ask_all, MALLORY, host, requests)) == {204}
            await host.server.wait_until(
                lambda: all(host.server.document(each)["state"] == "failed" for each in restore_ids),
                within=BOUND,
            )
        assert len(host.server.errors(restore_ids[-1])["list"]) == len(listed)


async def test_waits_that_are_given_up_leave_nothing_behind(host: Host) -> None:
    def give_up() -> None:
        for _ in range(10):
            with connections_of(MALLORY, host, 1_000) as connections:
                for connection in connections:
                    says(connection, WAITS)

    async with undisturbed(host, ALICE):
        with host.bounded_memory(32 * MEBIBYTE, "10,000 waits that were given up"):
            await in_thread(give_up)


async def test_answers_that_nobody_reads_take_little_memory(host: Host) -> None:
    path = f"{RESTORES}/{host.server.start_restore()}"
    listed = [{"path": f"/{number}/{'x' * 1650}", "type": "missing"} for number in range(500)]
    body = patch(state="in_progress", errors={"count": len(listed), "list": listed})
    look = f"GET {path}/errors HTTP/1.1\r\nHost: local\r\n\r\n".encode()

    def never_reads() -> None:
        assert status(asks(MALLORY, host, request("PATCH", path, body))) == 204
        with connections_of(MALLORY, host, 1_000) as connections:
            for connection in connections:
                says(connection, look)
            assert status(asks(ALICE, host, request("GET", RESTORES))) == 200

    async with undisturbed(host, ALICE):
        with host.bounded_memory(96 * MEBIBYTE, f"1,000 unread answers of {mib(len(body))}"):
            await in_thread(never_reads)


# --- nonsense ---------------------------------------------------------------------------------------------

NONSENSE = {
    "no HTTP": b"\x00\xff" * 1000,
    "words": b"hello\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "HTTP/9": b"GET / HTTP/9.9\r\n\r\n",
    "a request line of 1 MB": b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: local\r\n\r\n",
    "10,000 headers": request("GET", RESTORES, b"", *(f"X-{number}: a" for number in range(10_000))),
    "a header of 1 MB": request("GET", RESTORES, b"", "X-Long: " + "a" * 1_000_000),
    "garbage behind a request": b"GET / HTTP/1.1\r\nHost: local\r\n\r\n" + b"\x00garbage\r\n\r\n" * 1000,
    "two lengths": request("PATCH", f"{RESTORES}/r-1", b"[]", "Content-Length: 2", "Content-Length: 9"),
    "a negative length": request("PATCH", f"{RESTORES}/r-1", b"", "Content-Length: -1"),
    "a length beside chunks": request(
        "PATCH", f"{RESTORES}/r-1", b"0\r\n\r\n", "Content-Length: 5", "Transfer-Encoding: chunked"
    ),
    "a bad chunk": request("PATCH", f"{RESTORES}/r-1", b"zz\r\n[]\r\n", "Transfer-Encoding: chunked"),
    "another encoding": request("PATCH", f"{RESTORES}/r-1", b"[]", "Content-Encoding: gzip"),
    "a tunnel": b"CONNECT example.com:443 HTTP/1.1\r\nHost: local\r\nConnection: close\r\n\r\n",
    "a way up": request("GET", f"/v2/{PROJECT}/restores/../../../etc/passwd"),
    "a way up in disguise": request("PATCH", f"{RESTORES}/..%2f..%2fetc", patch(state="queued")),
    "an id that is none": request("PATCH", f"{RESTORES}/{'a' * 5000}", patch(state="queued")),
    "deep JSON": request("PATCH", f"{RESTORES}/r-1", b"[" * 999_999),
    "a number of 1 MB": request("PATCH", f"{RESTORES}/r-1", b"9" * 999_999),
    "many wrong operations": request("PATCH", f"{RESTORES}/r-1", b"[" + b"1," * 499_000 + b"1]"),
    "not UTF-8": request("PATCH", f"{RESTORES}/r-1", b'[{"op":"add","path":"/state","value":"\xff"}]'),
    "a process that is none": request("PATCH", f"{RESTORES}/r-1", patch(state="queued"), "X-Engine-Pid: 0"),
}


async def test_nonsense_is_refused_or_dropped(host: Host) -> None:
    async with undisturbed(host, ALICE, MALLORY):
        with host.bounded_memory(32 * MEBIBYTE, "Nonsense"):
            for name, content in NONSENSE.items():
                answer = await in_thread(asks, MALLORY, host, content)
                print(f"{name}: {status(answer) or 'closed'}")
                assert status(answer) in {0, 400, 404, 405}, name
        listed = await in_thread(asks, MALLORY, host, request("GET", RESTORES))
        assert b'"r-1"' not in listed


def many_errors(count: int, record: str) -> bytes:
    records = ",".join(record.replace("N", str(number)) for number in range(count))
    return b'[{"op":"add","path":"/errors","value":{"count":%d,"list":[%b]}}]' % (count, records.encode())


@pytest.mark.parametrize(
    ("count", "record"),
    [
        (330_000, "{}"),
        (499_000, "1"),
        (20_000, '{"path":"/N"}'),
        (8_000, '{"path":"/N","type":"%s"}' % ("x" * 90)),
    ],
    ids=["empty", "wrong", "short", "long"],
)
async def test_lists_of_errors_as_large_as_can_be_hold_nobody_up(host: Host, count: int, record: str) -> None:
    body = many_errors(count, record)
    assert len(body) < 1_000_000
    restore_id = host.server.start_restore()

    def tells() -> set[int]:
        path = f"{RESTORES}/{restore_id}"
        return {status(asks(MALLORY, host, request("PATCH", path, body))) for _ in range(20)}

    async with undisturbed(host, ALICE, MALLORY):
        with host.bounded_memory(150 * MEBIBYTE, f"Twenty lists of {count} errors in {mib(len(body))}"):
            answers = await in_thread(tells)
        print(f"each was answered with {answers}")
        assert answers == {204} if "path" in record else answers <= {204, 400}
        last = request("PATCH", f"{RESTORES}/{restore_id}", patch(state="failed"))
        assert status(await in_thread(asks, MALLORY, host, last)) == 204
        await host.server.wait_until(
            lambda: host.server.document(restore_id)["state"] == "failed", within=BOUND
        )
    told = host.server.errors(restore_id)
    assert told["count"] == (count if answers == {204} else 0)
    assert len(told["list"]) <= 500
