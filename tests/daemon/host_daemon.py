"""The daemon as a service manager runs it: its socket is kept open, and it is started again at once."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from pathlib import Path

BACKLOG = 4_096
START = ["sh", "-c", 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&0 </dev/null', "sh"]
"""Passes standard input on as the listening socket."""
BUGS = ("reporter.loop_failed", "api.failed", "reporter.ended_badly")
REQUESTS = re.compile(r'^agent_reporter_requests_total\{verdict="(\w+)"\} ([0-9.]+)', re.MULTILINE)


class DaemonService:
    """One daemon after the other, at one socket."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        """`directory` is where the socket and the daemon's log are; the environment holds the settings."""
        self.path = directory / "api.sock"
        self.starts = 0
        self.kills = 0
        self.failures: list[int] = []
        """Exit statuses of daemons that ended of themselves."""
        self.requests: Counter[str] = Counter()
        """What became of requests to the control plane, as the daemons counted them before they were killed."""
        self._log = directory / "daemon.log"
        self._metrics = f"127.0.0.1:{_free_port()}"
        self._environment = environment | {
            "AGENT_REPORTER_SOCKET": str(self.path),
            "AGENT_REPORTER_METRICS_LISTEN": self._metrics,
        }
        self._listening = socket.socket(socket.AF_UNIX)
        self._process: asyncio.subprocess.Process | None = None
        self._is_killed = False
        self._is_ending = False
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._listening.bind(str(self.path))
        self._listening.listen(BACKLOG)
        self._keeping = asyncio.create_task(self._keep())

    async def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        await self._note_requests()
        if self._process is not None and self._process.returncode is None:
            self._is_killed = True
            self.kills += 1
            self._process.kill()

    async def end(self) -> int:
        """SIGTERM; returns the exit status."""
        assert self._process is not None
        assert self._keeping is not None
        await self._note_requests()
        self._is_ending = True
        with suppress(ProcessLookupError):
            self._process.terminate()
        await self._keeping
        self._listening.close()
        return self._process.returncode or 0

    def abandon(self) -> None:
        """Leave no process behind, whatever has happened."""
        self._is_ending = True
        if self._keeping is not None:
            self._keeping.cancel()
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def complaints(self) -> list[str]:
        """Lines of the log that tell of a bug: failed loops, failed calls, and whatever is no event."""
        lines = self._log.read_text(errors="replace").splitlines()
        return [line for line in lines if not line.startswith("{") or any(bug in line for bug in BUGS)]

    async def _keep(self) -> None:
        with self._log.open("ab") as log:
            while not self._is_ending:
                self._is_killed = False
                self.starts += 1
                self._process = await asyncio.create_subprocess_exec(
                    *(*START, sys.executable, "-m", "agent_reporter.cli.main", "daemon"),
                    env=self._environment,
                    stdin=self._listening.fileno(),
                    stderr=log,
                )
                status = await self._process.wait()
                if not self._is_killed and not self._is_ending:
                    self.failures.append(status)

    async def _note_requests(self) -> None:
        bound = aiohttp.ClientTimeout(total=2)
        with suppress(aiohttp.ClientError, TimeoutError):
            async with (
                aiohttp.ClientSession(timeout=bound) as session,
                session.get(f"http://{self._metrics}/metrics") as answer,
            ):
                for verdict, count in REQUESTS.findall(await answer.text()):
                    self.requests[verdict] += int(float(count))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
