"""A thousand restores that report ten times a second each over the socket: `python -m tests.daemon.thousand`.

Three processes: the real daemon, a control plane that does nothing but answer and note, and the engines. The
bytes that an engine reports are microseconds since the beginning, so whoever sees them knows how old they are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web
from rich.console import Console
from rich.table import Table

from agent_reporter.daemon.descriptors import raise_descriptor_limit

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

PROJECT = "110011"
AGENT = "8f135b4f-7a69-4b8a-947f-5e80d772fd97"
SETTLE_SECONDS = 10.0
"""For the registrations, before what is measured begins."""
BYTES = re.compile(rb'"/bytes-restored","value":(\d+)')


def micros() -> int:
    """What the engines count by: the same clock in all processes."""
    return time.monotonic_ns() // 1000


# --- the control plane ----------------------------------------------------------------------------------------


@dataclass
class Noted:
    """What a control plane saw."""

    patches: int = 0
    reads: int = 0
    polls: int = 0
    finals: int = 0
    ages: list[int] = field(default_factory=list)
    """How old the data of a patch was when it came, in microseconds."""
    last: dict[str, int] = field(default_factory=dict)


def control_plane(pipe: Connection) -> None:
    """Serve until told otherwise; answers what it noted since the last time it was asked."""
    asyncio.run(_control_plane(pipe))


async def _control_plane(pipe: Connection) -> None:
    noted = Noted()
    document = json.dumps({"state": "in_progress", "errors": {"count": 0}}).encode()

    async def handle(request: web.BaseRequest) -> web.Response:
        nonlocal noted
        if request.method == "PATCH":
            body = await request.read()
            noted.patches += 1
            noted.finals += b'"completed"' in body
            if found := BYTES.search(body):
                told = int(found[1])
                noted.ages.append(micros() - told)
                noted.last[request.path] = told
            return web.Response(status=204)
        if request.method == "POST":
            return web.Response(status=202)
        if request.path.endswith("/events"):
            noted.polls += 1
            return web.json_response({"events": []})
        noted.reads += 1
        return web.Response(body=document, content_type="application/json")

    loop = asyncio.get_running_loop()
    server = await loop.create_server(web.Server(handle, access_log=None), "127.0.0.1", 0, backlog=1024)
    pipe.send(server.sockets[0].getsockname()[1])
    while await loop.run_in_executor(None, pipe.recv) != "end":
        answer, noted = noted, Noted(last=noted.last)
        pipe.send(answer)


# --- the engines ----------------------------------------------------------------------------------------------


@dataclass
class Reported:
    """What the engines did."""

    answers: dict[int, int] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    """Seconds from a report until it was answered."""


class Engine(asyncio.Protocol):
    """One restore: reports at its rate, or as fast as it is answered, on a connection of its own."""

    def __init__(self, number: int, rate: float, reported: Reported) -> None:
        self.path = f"/v2/{PROJECT}/restores/restore-{number}"
        self.reported = reported
        self.ended = asyncio.get_running_loop().create_future()
        self.is_ending = False
        self._has_told_end = False
        self._interval = 1 / rate
        self._due = 0.0
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + random.random() * self._interval
        self._timer = self._loop.call_at(self._due, self._report)

    def _report(self) -> None:
        self._timer = None
        patch: list[dict[str, Any]] = [{"op": "replace", "path": "/bytes-restored", "value": micros()}]
        self._has_told_end = self.is_ending
        if self.is_ending:
            patch.append({"op": "replace", "path": "/state", "value": "completed"})
        body = json.dumps(patch).encode()
        head = (
            f"PATCH {self.path} HTTP/1.1\r\nHost: x\r\nX-Engine-Pid: {os.getpid()}\r\n"
            f"Content-Type: application/json-patch+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._sent_at = self._loop.time()
        self._transport.write(head.encode() + body)  # type: ignore[attr-defined]  # a transport that writes

    def data_received(self, data: bytes) -> None:
        status = int(data[9:12])
        now = self._loop.time()
        self.reported.answers[status] = self.reported.answers.get(status, 0) + 1
        self.reported.latencies.append(now - self._sent_at)
        if self._has_told_end and status == 204:
            if not self.ended.done():
                self.ended.set_result(None)
            return
        self._due = max(self._due + self._interval, now)
        self._timer = self._loop.call_at(self._due, self._report)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.ended.done():
            self.ended.set_exception(exc or ConnectionResetError(f"{self.path}: the daemon hung up"))


def engines(pipe: Connection, socket: str, count: int, rate: float) -> None:
    """Report until told otherwise; then end each restore."""
    raise_descriptor_limit()
    asyncio.run(_engines(pipe, socket, count, rate))


async def _engines(pipe: Connection, socket: str, count: int, rate: float) -> None:
    loop = asyncio.get_running_loop()
    reported = Reported()
    running: list[Engine] = []
    for number in range(count):
        engine = Engine(number, rate, reported)
        running.append(engine)
        await loop.create_unix_connection(lambda engine=engine: engine, socket)  # type: ignore[misc]  # bound
    while await loop.run_in_executor(None, pipe.recv) != "end":
        answer, reported = reported, Reported()
        for engine in running:
            engine.reported = reported
        pipe.send(answer)
    for engine in running:
        engine.is_ending = True
    await asyncio.gather(*(engine.ended for engine in running))
    pipe.send("ended")


# --- the measurement ------------------------------------------------------------------------------------------


@dataclass
class Load:
    """What a process has used so far: CPU seconds, and bytes of memory at the most."""

    cpu: float
    peak: int


def load_of(pid: int) -> Load:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert peak is not None
    return Load((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), int(peak[1]) * 1024)


def start_daemon(directory: Path, url: str, options: list[str]) -> subprocess.Popen[bytes]:
    token = directory / "token"
    token.touch(mode=0o600)
    token.write_text("a-token-of-the-measurement")
    words = ["--endpoint", url, "--project-id", PROJECT, "--agent-id", AGENT, "--token-file", str(token)]
    words += ["--spool-dir", str(directory / "spool"), "--socket", str(directory / "api.sock"), *options]
    daemon = subprocess.Popen([sys.executable, "-m", "agent_reporter.cli.main", "daemon", *words])
    while not (directory / "api.sock").exists() and daemon.poll() is None:
        time.sleep(0.05)
    return daemon


def measure(count: int, rate: float, seconds: float, options: list[str]) -> int:
    raise_descriptor_limit()
    begin = multiprocessing.get_context("spawn")
    plane, plane_end = begin.Pipe()
    fleet, fleet_end = begin.Pipe()
    with tempfile.TemporaryDirectory(prefix="ar-") as name:
        directory = Path(name)
        begin.Process(target=control_plane, args=(plane_end,), daemon=True).start()
        daemon = start_daemon(directory, f"http://127.0.0.1:{plane.recv()}", options)
        try:
            socket = str(directory / "api.sock")
            idle = load_of(daemon.pid)
            begin.Process(target=engines, args=(fleet_end, socket, count, rate), daemon=True).start()
            time.sleep(SETTLE_SECONDS)
            _ask(plane), _ask(fleet)
            before = load_of(daemon.pid)
            time.sleep(seconds)
            after, reported, noted = load_of(daemon.pid), _ask(fleet), _ask(plane)
            fleet.send("end")
            ended = fleet.poll(60) and fleet.recv() == "ended"
            daemon.terminate()
            daemon.wait(60)
            last = _ask(plane)
            title = f"{count} restores, {rate:g} reports a second each, for {seconds:g} s"
            show(title, seconds, (idle, before, after), reported, noted)
            left = len(list((directory / "spool").glob("*.json")))
            print(f"ends acknowledged {noted.finals + last.finals} of {count}, left in the spool {left}")
            return 0 if ended and noted.finals + last.finals == count and not left else 1
        finally:
            with suppress(ProcessLookupError):
                daemon.kill()


def _ask(pipe: Connection) -> Any:
    pipe.send("so far")
    return pipe.recv()


def show(
    title: str, seconds: float, loads: tuple[Load, Load, Load], reported: Reported, noted: Noted
) -> None:
    """Print what was measured between the second and the third of `loads`; the first is the idle daemon."""
    idle, before, after = loads
    table = Table(title=title)
    table.add_column("what")
    table.add_column("figure", justify="right")
    answered = sum(reported.answers.values())
    rows = {
        "reports answered 204, a second": f"{reported.answers.get(204, 0) / seconds:,.0f}",
        "reports answered otherwise": f"{answered - reported.answers.get(204, 0)}",
        "until a report is durable and answered, p50": _ms(reported.latencies, 50),
        "until a report is durable and answered, p99": _ms(reported.latencies, 99),
        "patches to the control plane, a second": f"{noted.patches / seconds:,.0f}",
        "reports for one patch": f"{answered / max(1, noted.patches):.1f}",
        "age of the data at the control plane, p50": _ms([age / 1e6 for age in noted.ages], 50),
        "age of the data at the control plane, p99": _ms([age / 1e6 for age in noted.ages], 99),
        "age of the data at the control plane, worst": _ms([age / 1e6 for age in noted.ages], 100),
        "CPU of the daemon, cores": f"{(after.cpu - before.cpu) / seconds:.2f}",
        "memory of the daemon, idle": f"{idle.peak / 1e6:.0f} MB",
        "memory of the daemon, peak": f"{after.peak / 1e6:.0f} MB",
        "memory of the daemon, a restore": f"{(after.peak - idle.peak) / len(noted.last) / 1e3:.1f} kB",
        "looks for stop requests": f"{noted.polls}",
    }
    for what, figure in rows.items():
        table.add_row(what, figure)
    Console().print(table)


def _ms(values: list[float], percent: int) -> str:
    if len(values) < 2:
        return "-"
    if percent == 100:
        return f"{max(values) * 1e3:,.0f} ms"
    return f"{statistics.quantiles(values, n=100)[percent - 1] * 1e3:,.0f} ms"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.daemon.thousand", description=__doc__)
    parser.add_argument("--restores", type=int, default=1_000)
    parser.add_argument("--rate", type=float, default=10.0, help="reports a second of each")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("options", nargs="*", help="options of the daemon, behind --")
    args = parser.parse_args()
    options = args.options or ["--peer-rate", "1000000"]
    return measure(args.restores, args.rate, args.seconds, options)


if __name__ == "__main__":
    sys.exit(main())
