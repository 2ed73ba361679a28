"""The real daemon as a process of its own, between a control plane and those who report to it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import aiohttp

from agent_reporter.reference.server import AGENT, PROJECT
from tests.daemon.host_daemon import BUGS, START

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TOKEN = "a-token-for-some-minutes"
START_SECONDS = 60.0
END_SECONDS = 60.0
QUICKLY = {
    "REPORT_INTERVAL": "0.2",
    "STOP_POLL_INTERVAL": "0.5",
    "IDLE_POLL_INTERVAL": "2",
    "RETRY_BASE": "0.2",
    "RETRY_CAP": "2",
    "RETRY_AFTER_CAP": "2",
}
"""Settings by which it does in some minutes what else takes it an hour. Its memory is managed as in production."""
_OPEN = re.compile(r"^agent_reporter_restores_open ([0-9.]+)", re.MULTILINE)


class DaemonProcess:
    """It, and what it says of itself."""

    def __init__(self, directory: Path) -> None:
        """`directory` has a short path: its socket is there, and the spool and all else that is its own."""
        self.socket = directory / "api.sock"
        self.spool = directory / "spool"
        self.pid = 0
        self.complaints: list[str] = []
        """What went wrong with it, once it has ended."""
        self._directory = directory
        self._metrics = ""

    @asynccontextmanager
    async def running(self, endpoint: str) -> AsyncIterator[None]:
        """From when it answers until it has ended as it is told to."""
        log = self._directory / "daemon.log"
        with socket.create_server(("127.0.0.1", 0)) as metrics, log.open("wb") as stderr:
            self._metrics = f"http://127.0.0.1:{metrics.getsockname()[1]}/metrics"
            command = [*START, sys.executable, "-m", "agent_reporter.cli.main", "daemon"]
            process = await asyncio.create_subprocess_exec(
                *command, env=self._environment(endpoint), stdin=metrics.fileno(), stderr=stderr
            )
            self.pid = process.pid
            try:
                await self._answers(process)
                yield
                process.send_signal(signal.SIGTERM)
                async with asyncio.timeout(END_SECONDS):
                    if status := await process.wait():
                        self.complaints.append(f"the daemon ended with status {status}")
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        lines = log.read_text(errors="replace").splitlines()
        self.complaints += [line[:500] for line in lines if any(bug in line for bug in BUGS)]

    async def open_restores(self) -> int:
        """How many it says there are; a scrape of its metrics."""
        async with aiohttp.ClientSession() as session, session.get(self._metrics) as answer:
            found = _OPEN.search(await answer.text())
        if found is None:
            raise RuntimeError("the metrics do not tell how many restores are open")
        return int(float(found[1]))

    def spool_files(self) -> list[str]:
        """What is in the spool, but for its directories and the journal."""
        names = [path.name for path in self.spool.iterdir() if path.is_file()]
        return sorted(name for name in names if "journal" not in name)

    def _environment(self, endpoint: str) -> dict[str, str]:
        token = self._directory / "token"
        token.write_text(TOKEN)
        token.chmod(0o600)
        settings = QUICKLY | {
            "ENDPOINT": endpoint,
            "PROJECT_ID": PROJECT,
            "AGENT_ID": AGENT,
            "TOKEN_FILE": str(token),
            "SOCKET": str(self.socket),
            "SPOOL_DIR": str(self.spool),
        }
        return os.environ | {f"AGENT_REPORTER_{name}": value for name, value in settings.items()}

    async def _answers(self, process: asyncio.subprocess.Process) -> None:
        async with asyncio.timeout(START_SECONDS):
            while process.returncode is None:
                with suppress(OSError):
                    _, writer = await asyncio.open_unix_connection(str(self.socket))
                    writer.close()
                    return
                await asyncio.sleep(0.05)
        raise RuntimeError(f"the daemon did not start: status {process.returncode}")
