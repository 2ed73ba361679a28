"""Requests to the daemon: a real one, on a real socket, in front of a real control plane.

An input is the bytes of a connection; or, where the HTTP is right, a line with method and path, headers, an empty
line, and a body. RESTORE in it stands for a restore that the control plane has, LIFE for the start of the markers.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from agent_reporter.reference.server import PROJECT
from tests.daemon.conftest import Daemons, client_of
from tests.delivery.conftest import open_rig
from tests.fuzz.fuzzing import Target, a_directory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from tests.fuzz.fuzzing import Check

PLACE, LIFE = b"RESTORE", b"LIFE"
INPUTS_A_RESTORE = 20
"""So many inputs are about the same restore."""
FIELD = rb"(?i)(?!content-length|transfer-encoding)[a-z-]+: [ -~]*"
"""A header that leaves the body where it is."""
MAX_HEARD_BYTES = 1 << 20
BOUND = 20.0
"""Seconds until a good request is answered."""
BUGS = re.compile(r"api\.failed|loop_failed|Traceback|bug of ours")
VICTIMS_OWN: dict[str, Any] = {"state": "in_progress", "bytes_restored": 3, "files_restored": 1}


class Host:
    """A daemon with a restore that is nobody else's to touch, and a log that tells of bugs."""

    def __init__(self, runner: asyncio.Runner, directory: Path) -> None:
        self._runner = runner
        self._directory = directory
        self._stack = AsyncExitStack()
        self._bugs: list[str] = []
        self._executions = 0
        self._restore_id = ""

    async def start(self) -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, what: self._bugs.append(f"{what.get('message')}: {what.get('exception')!r}")
        )
        rig = await self._stack.enter_async_context(open_rig(self._directory / "rig"))
        self._daemons = Daemons(rig, self._directory / "api.sock")
        limits: dict[str, Any] = {"max_restores": 6_000, "peer_rate": 1_000_000, "log_level": "debug"}
        await self._stack.enter_async_context(self._daemons.running(**limits))
        self._client = await self._stack.enter_async_context(client_of(self._daemons.socket))
        stopped = rig.server.start_restore()
        await self._client.tell(stopped, **VICTIMS_OWN)
        await self._client.tell(stopped, state="stop_requested")
        [event] = (await self._client.events(stopped)).document["events"]
        self._life = str(event["id"]).partition("-")[0].encode()
        self._victim = rig.server.start_restore()
        told = await self._client.tell(self._victim, {"X-Engine-Pid": str(os.getpid())}, **VICTIMS_OWN)
        assert told.status == 204

    async def end(self) -> None:
        await self._stack.aclose()

    def note(self, said: str) -> None:
        """A line of the log."""
        if BUGS.search(said):
            self._bugs.append(said)

    def is_refused_or_answered(self, data: bytes) -> None:
        """No bug shows, no other restore changes, and the next good request is answered."""
        if self._executions % INPUTS_A_RESTORE == 0:
            self._runner.run(self._begin(self._executions // INPUTS_A_RESTORE))
        self._executions += 1
        self._bugs.clear()
        self._runner.run(self._say(data.replace(PLACE, self._restore_id.encode()).replace(LIFE, self._life)))
        assert self._bugs == []

    async def _begin(self, number: int) -> None:
        """The restore that inputs are about: every other one is known to the daemon."""
        self._restore_id = self._daemons.rig.server.start_restore()
        if number % 2 == 0:
            assert (await self._client.tell(self._restore_id, state="in_progress")).status == 204

    async def _say(self, data: bytes) -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self._daemons.socket))
            connection.setblocking(False)
            heard = b""
            with suppress(ConnectionError, BlockingIOError):  # it may be refused before it is read
                connection.sendall(data)
            async with asyncio.timeout(BOUND):
                answered = await self._client.read(self._victim)
            with suppress(ConnectionError, BlockingIOError):
                heard = connection.recv(MAX_HEARD_BYTES)
        assert answered.status == 200
        assert {name: answered.document[name] for name in VICTIMS_OWN} == VICTIMS_OWN
        _is_no_failure(heard)


def _is_no_failure(heard: bytes) -> None:
    for status in re.findall(rb"HTTP/1\.[01] (\d+)", heard):
        assert status == b"100" or 200 <= int(status) < 500 or status == b"503", heard[:300]
    head, _, body = heard.partition(b"\r\n\r\n")
    if b"Content-Type: application/json" in head and heard.count(b"HTTP/1.") == 1 and b"100-" not in head:
        length = re.search(rb"Content-Length: (\d+)", head)
        if length and int(length[1]) == len(body):
            json.loads(body)


def request(data: bytes) -> bytes:
    """The HTTP of an input whose HTTP is to be right."""
    head, _, body = data.partition(b"\n\n")
    first, *headers = head.split(b"\n")
    method, _, path = first.partition(b" ")
    clean = re.sub(rb"[^!-~]", b"_", path)
    fields = [field for field in headers if re.fullmatch(FIELD, field)]
    prefix = b"/v2/" + PROJECT.encode()
    lines = [method[:20] + b" " + prefix + clean[:2_000] + b" HTTP/1.1", b"Host: local", *fields[:30]]
    return b"\r\n".join([*lines, b"Content-Length: %d" % len(body), b"", body])


class _Listening(logging.Handler):
    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        trace = "Traceback" if record.exc_info else ""
        self._note(f"{record.getMessage()} {trace}")


@contextmanager
def _host(through: Callable[[bytes], bytes]) -> Iterator[Check]:
    with a_directory() as directory, asyncio.Runner() as runner:
        host = Host(runner, directory)
        listening = _Listening(host.note)
        logger = logging.getLogger("agent_reporter")
        logger.addHandler(listening)
        runner.run(host.start())
        try:
            yield lambda data: host.is_refused_or_answered(through(data))
        finally:
            runner.run(host.end())
            logger.removeHandler(listening)


def _patch(**values: Any) -> bytes:
    patch = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in values.items()]
    return json.dumps(patch).encode()


def _bodies() -> Sequence[bytes]:
    errors = {
        "count": 2,
        "reason": "unable_to_process_some_files",
        "diagnostics": "all of it",
        "list": [
            {"index": 0, "path": "/a", "type": "t", "exception": {"code": 2, "description": "d"}},
            {"index": 1, "path": "/b", "type": "t", "exception": None},
        ],
    }
    one = b"PATCH /restores/RESTORE\nX-Engine-Pid: %d\nX-Total-Bytes: 900\nX-Total-Files: 9\n\n" % os.getpid()
    plain = b"PATCH /restores/RESTORE\n\n"
    times = {"started-time": "2014-10-20T13:11:58.985151Z", "ended_time": "2014-10-21T13:11:58+01:00"}
    result = {"state": "completed_with_errors", "errors": errors, "bytes_restored": 9, "files_restored": 9}
    return [
        one + _patch(state="queued"),
        one + _patch(state="in_progress", bytes_restored=7, files_restores=1),
        plain + _patch(state="preparing", **{"started-time": "2014-10-20T13:11:58.985151Z"}),
        plain + _patch(**{"bytes-restored": 100, "files_restored": 3}),
        plain + _patch(errors=errors),
        plain + _patch(state="stop_requested"),
        plain + _patch(**result, **times),
        plain + _patch(state="failed", errors={"count": 0, "reason": "r", "diagnostics": None}),
        b"GET /restores/RESTORE\n\n",
        b"GET /restores/RESTORE/errors\n\n",
        b"GET /restores/RESTORE/events?marker=LIFE-2&limit=10&sort_dir=desc&wait=0\n\n",
        b"GET /agents/self/events?wait=0&limit=1\nAccept-Encoding: gzip, br\n\n",
        b"POST /agents/self/events\nContent-Type: application/json\n\n" + b'{"event": "startup"}',
        b"GET /restores\nConnection: close\n\n",
        b"GET /restores/a%2f..%2fb?a=%ff&a=b\n\n",
        b"GET /restores/RESTORE/events?limit=ten&wait=-1&sort_dir=up\n\n",
        b"PATCH /restores/nobodys\nX-Engine-Pid: x, 0\nX-Total-Bytes: -1\n\n" + _patch(state="queued"),
        b"PATCH /restores/nobodys\n\n" + _patch(state="in_progress", bytes_restored=11, files_restored=11),
        b"PATCH /restores/fuzz~1\nContent-Encoding: gzip\nExpect: 100-continue\n\n" + _patch(state="queued"),
    ]


def _connections() -> Sequence[bytes]:
    chunked = b"\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n[    \r\n1\r\n]\r\n0\r\nTrailer: x\r\n\r\n"
    return [
        *map(request, _bodies()),
        request(_bodies()[0]) + request(_bodies()[8]) + request(_bodies()[13]),
        b"PATCH /v2/" + PROJECT.encode() + b"/restores/RESTORE HTTP/1.1" + chunked,
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
        b"OPTIONS * HTTP/1.0\r\n\r\nGET http://local:80/v2/ HTTP/1.1\r\nHost: a\r\n continued: x\r\n\r\n",
    ]


_MODULES = (
    *("daemon/api.py", "daemon/patches.py", "daemon/reading.py", "daemon/refusals.py", "daemon/door.py"),
    *("daemon/events.py", "daemon/registry.py", "model/amendment.py", "daemon/documents.py"),
)
TARGETS = [
    Target("socket-bodies", _MODULES, _bodies, lambda: _host(request)),
    Target("socket-bytes", _MODULES, _connections, lambda: _host(bytes)),
]
