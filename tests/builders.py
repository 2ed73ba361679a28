"""What several tests build: records, a clock that they own, ears for events, disks that are full, a raw server."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter.model.record import Destination, Record
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from agent_reporter.clock import Waitable

DESTINATION = Destination("https://backup.example.com", "110011")
START = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tiny disk or changes user: needs root")


def a_report(restore_id: str = "r-1", *, revision: int = 1, **fields: Any) -> Report:
    return replace(Report(restore_id, revision, RestoreState.IN_PROGRESS, START), **fields)


def a_result(
    restore_id: str = "r-1", *, revision: int = 9, state: RestoreState = RestoreState.COMPLETED
) -> Report:
    return a_report(restore_id, revision=revision, state=state, ended_time=START + timedelta(minutes=1))


def a_record(report: Report | None = None, **fields: Any) -> Record:
    return replace(Record(DESTINATION, report or a_report()), **fields)


@dataclass
class FakeClock:
    """Time that passes only when a test says so."""

    moment: datetime = START
    elapsed: float = 1000.0
    chance: float = 0.5

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.elapsed

    def random(self) -> float:
        return self.chance

    def pass_by(self, seconds: float) -> None:
        self.elapsed += seconds
        self.moment += timedelta(seconds=seconds)

    async def sleep(self, seconds: float) -> None:
        self.pass_by(seconds)
        await asyncio.sleep(0)

    async def wait(self, event: Waitable, seconds: float | None) -> bool:
        if seconds is not None:
            await self.sleep(seconds)
        try:
            async with asyncio.timeout(None if seconds is None else 0):
                await event.wait()
        except TimeoutError:
            return False
        return True


@dataclass
class Heard(logging.Handler):
    """Every event of the package, as the dictionary it is."""

    events: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(logging.DEBUG)

    __hash__ = logging.Handler.__hash__

    def emit(self, record: logging.LogRecord) -> None:
        self.events.append(record.msg if isinstance(record.msg, dict) else {"event": record.getMessage()})

    def named(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == name]

    def __str__(self) -> str:
        return "\n".join(map(str, self.events))


@contextmanager
def listening() -> Iterator[Heard]:
    logger = logging.getLogger("agent_reporter")
    level, heard = logger.level, Heard()
    logger.addHandler(heard)
    logger.setLevel(logging.DEBUG)
    try:
        yield heard
    finally:
        logger.setLevel(level)
        logger.removeHandler(heard)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def tiny_disk(directory: Path, *, kibibytes: int = 256) -> Iterator[Path]:
    """A file system of its own, so small that it can be filled up."""
    directory.mkdir()
    options = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "none", str(directory)]
    if os.geteuid() != 0 or subprocess.run(options, capture_output=True, check=False).returncode != 0:
        pytest.skip("a tiny disk cannot be mounted here: needs root and CAP_SYS_ADMIN")
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


def fill(disk: Path) -> Path:
    """Take every block that is left of `disk`; returns the file that has them."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def python(script: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `script` in a process of its own, to its end."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)


@contextmanager
def python_that_waits(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process that has run `script` up to its first line of output, and waits there; killed at the end."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
            process.wait()


@dataclass
class RawServer:
    """A server that says what a test wants it to say, byte by byte."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def raw_server(
    answer: Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[RawServer]:
    """Reads a request with its body, has it answered by `answer`, and closes the connection."""
    raw = RawServer()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                (
                    int(line[15:])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                ),
                0,
            )
            request = head + await reader.readexactly(length)
            raw.requests.append(request)
            await answer(request, reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went away, or the test is over
        finally:
            writer.close()
            with suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    raw.port = server.sockets[0].getsockname()[1]
    try:
        yield raw
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a whole answer, after which the connection is closed."""
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def says(content: bytes) -> Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Answers everything with `content`."""

    async def answer(_request: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content)
        await writer.drain()

    return answer
