"""A control plane that is as fast as it can be, so that what is measured is who talks to it.

It runs in a process of its own, and keeps to the protocol as far as an agent sees it: patches, reads, events.
What it was asked is counted, and each patch is kept with the moment at which the record showed it, on the
monotonic clock, which all processes of a machine share. Below `/measure` it is steered and asked for that.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from agent_reporter import Settings
from agent_reporter.settings import DaemonUse

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT, AGENT, TOKEN = "benchmark", "benchmark-agent", "benchmark-token"
FINAL = frozenset({"completed", "completed_with_errors", "failed", "stopped"})
NEW = {
    "state": "start_requested",
    "started_time": None,
    "ended_time": None,
    "files_restored": 0,
    "bytes_restored": 0,
    "errors": {"count": 0, "reason": "", "diagnostics": ""},
}
DONE = b"HTTP/1.1 204 No Content\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_RESTORE = re.compile(r"/v2/[^/]+/restores/([^/]+)(/events)?")
_REASONS = {200: "OK", 202: "Accepted", 404: "Not Found", 409: "Conflict", 503: "Service Unavailable"}


@dataclass(slots=True)
class Counts:
    """What the server was asked, and what went over its connections, but for what is below `/measure`."""

    connections: int = 0
    requests: int = 0
    patches: int = 0
    """That were taken."""
    refused: int = 0
    """Patches that were answered 503."""
    bytes: int = 0
    """Both ways, without what TCP adds."""
    idle_operations: int = 0
    """Of patches that told progress: such as told what the record showed already."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A patch that was taken."""

    moment: float
    restore_id: str
    told: dict[str, Any]
    """By the names of the record."""


class LeanServer:
    """One that was started."""

    def __init__(self, url: str, directory: Path, token_file: Path) -> None:
        self.url = url
        self.directory = directory
        self.token_file = token_file
        self.connection = HTTPConnection(str(urlsplit(url).netloc))

    def settings(self, spool: str, **changes: Any) -> Settings:
        """Settings of an agent that reports to it, with a spool that is called `spool`."""
        return Settings(
            endpoint=self.url,
            project_id=PROJECT,
            token_file=self.token_file,
            spool_dir=self.directory / spool,
            daemon=DaemonUse.NEVER,
            **changes,
        )

    def counts(self) -> Counts:
        return Counts(**self._ask("counts"))

    def patches(self) -> list[Patch]:
        return [Patch(*patch) for patch in self._ask("patches")]

    def records(self) -> dict[str, Any]:
        """What is known of each restore, by its id."""
        known: dict[str, Any] = self._ask("records")
        return known

    def stop(self, restore_id: str) -> float:
        """Have a stop be asked for; returns the moment at which it was accepted."""
        return float(self._ask(f"stop/{restore_id}"))

    def serve(self, *, patches: bool = True, events: bool = True) -> None:
        """From now on serve patches (else they are answered 503) and events (else 404)."""
        self._ask(f"serve/{int(patches)}{int(events)}")

    def _ask(self, what: str) -> Any:
        self.connection.request("GET", f"/measure/{what}")
        return json.loads(self.connection.getresponse().read())


@contextmanager
def lean_server() -> Iterator[LeanServer]:
    """One for as long as the block lasts, with a directory for spools, which goes then: TMPDIR says where."""
    with tempfile.TemporaryDirectory(prefix="agent-reporter-benchmark-") as name:
        token_file = Path(name) / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(TOKEN)
        command = [sys.executable, "-m", "tests.benchmarks.lean_server"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().decode().strip()
                server = LeanServer(url, Path(name), token_file)
                with closing(server.connection):
                    yield server
            finally:
                process.terminate()


class Records:
    """What the server knows."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.patches: list[tuple[float, str, dict[str, Any]]] = []
        self.records: dict[str, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []
        self.takes_patches = self.has_events = True

    def patch(self, restore_id: str, body: bytes) -> bytes:
        if not self.takes_patches:
            self.counts.refused += 1
            return _answer(503, None)
        record = self.records.get(restore_id) or self.records.setdefault(restore_id, dict(NEW))
        if record["state"] in FINAL:
            return _answer(409, {"message": "it has ended"})
        told = {_name(operation["path"]): operation["value"] for operation in json.loads(body)}
        if "state" not in told:
            self.counts.idle_operations += sum(record[name] == value for name, value in told.items())
        record.update(told)
        self.counts.patches += 1
        self.patches.append((time.monotonic(), restore_id, told))
        return DONE

    def read(self, restore_id: str) -> bytes:
        return _answer(200, self.records.get(restore_id, NEW))

    def newer_events(self, query: str, restore_id: str | None) -> bytes:
        if not self.has_events:
            return _answer(404, None)
        marker = int(parse_qs(query).get("marker", ["0"])[0])
        events = [event for event in self.events[marker:] if restore_id in {None, event["restore"]["id"]}]
        return _answer(200, {"events": events[:100], "links": []})

    def measure(self, what: str) -> Any:
        match what.split("/"):
            case ["counts"]:
                return asdict(self.counts)
            case ["patches"]:
                return self.patches
            case ["records"]:
                return self.records
            case ["serve", choice]:
                self.takes_patches, self.has_events = choice[0] == "1", choice[1] == "1"
                return None
            case ["stop", restore_id]:
                self.records.setdefault(restore_id, dict(NEW))["state"] = "stop_requested"
                restore = {"id": restore_id}
                event = {
                    "id": len(self.events) + 1,
                    "event": "restore_stop_request",
                    "restore": restore,
                }
                self.events.append(event)
                return time.monotonic()
        raise ValueError(what)


class Conversation(asyncio.Protocol):
    """One connection."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._is_counted = False
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end]
            found = _LENGTH.search(head)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._received) < whole:
                return
            body, self._received = self._received[end + 4 : whole], self._received[whole:]
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
            answer = self._answer(method, target, body)
            self._transport.write(answer)
            if not target.startswith("/measure/"):
                self._count(whole + len(answer))

    def _answer(self, method: str, target: str, body: bytes) -> bytes:
        if target.startswith("/measure/"):
            return _answer(200, self._records.measure(target.removeprefix("/measure/")))
        path, _, query = target.partition("?")
        found = _RESTORE.fullmatch(path)
        if found is None:
            return _answer(202, None) if method == "POST" else self._records.newer_events(query, None)
        if found[2]:
            return self._records.newer_events(query, found[1])
        return self._records.patch(found[1], body) if method == "PATCH" else self._records.read(found[1])

    def _count(self, size: int) -> None:
        counts = self._records.counts
        counts.requests += 1
        counts.bytes += size
        counts.connections += not self._is_counted
        self._is_counted = True


def _name(path: str) -> str:
    """What the record calls what a patch tells at `path`."""
    return path[1:].replace("-", "_").replace("files_restores", "files_restored")


def _answer(status: int, document: object) -> bytes:
    body = b"" if document is None and status != 200 else json.dumps(document).encode()
    head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def main() -> None:
    records = Records()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Conversation(records), "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()


if __name__ == "__main__":
    asyncio.run(main())
