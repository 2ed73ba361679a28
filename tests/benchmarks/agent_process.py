"""The program `agent-reporter` as a process of its own, as its script starts it; and a daemon that is ready."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tests.benchmarks.goals import UntrueError
from tests.benchmarks.lean_server import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from tests.benchmarks.lean_server import LeanServer

START_SECONDS = 60.0
END_SECONDS = 30.0
SCRIPT = "import sys; from agent_reporter.cli.main import main; sys.exit(main())"


def agent(*words: str, python: Sequence[str] = ()) -> list[str]:
    """The command `agent-reporter`, by an interpreter with the options `python`."""
    return [sys.executable, *python, "-c", SCRIPT, *words]


def environment(server: LeanServer, directory: Path, **settings: str) -> dict[str, str]:
    """Where processes report to `server`, with spool and socket in `directory`; and `settings` beside."""
    ours = {
        "endpoint": server.url,
        "project_id": PROJECT,
        "token_file": str(server.token_file),
        "spool_dir": str(directory / "spool"),
        "socket": str(directory / "api.sock"),
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_REPORTER_")}
    return inherited | {f"AGENT_REPORTER_{name.upper()}": value for name, value in (ours | settings).items()}


@dataclass(frozen=True, slots=True)
class Daemon:
    """One that has said that it is ready."""

    pid: int
    wall: float
    """Seconds that it took until then."""
    cpu: float
    """As above, of all of its threads, and of the processes that it has started and waited for."""


@contextmanager
def daemon(
    settings: Mapping[str, str],
    directory: Path,
    *,
    command: Sequence[str] | None = None,
    stderr: IO[bytes] | None = None,
) -> Iterator[Daemon]:
    """A daemon for as long as the block lasts; UntrueError if it does not begin or end well.

    `command` starts it, if that is not `agent("daemon")`.
    """
    address = directory / "notify.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.settimeout(START_SECONDS)
        notices.bind(str(address))
        begun = time.perf_counter()
        process = subprocess.Popen(
            command or agent("daemon"),
            env={**settings, "NOTIFY_SOCKET": str(address)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if stderr is None else stderr,
        )
        try:
            while b"READY=1" not in _notice(notices, process):
                pass
            wall = time.perf_counter() - begun
            yield Daemon(process.pid, wall, cpu_of(process.pid) + _cpu_of_children(process.pid))
            process.terminate()
            if status := process.wait(END_SECONDS):
                raise UntrueError(f"the daemon ended with status {status}")
        finally:
            process.kill()
            process.wait()
            address.unlink()


def begin_restore(socket_path: Path, restore_id: str) -> None:
    """Have the daemon at `socket_path` take a restore whose engine is this process; UntrueError if it does not."""
    body = b'[{"op": "replace", "path": "/state", "value": "in_progress"}]'
    head = (
        f"PATCH /v2/{PROJECT}/restores/{restore_id} HTTP/1.0\r\nX-Engine-Pid: {os.getpid()}\r\n"
        f"Content-Type: application/json-patch+json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(START_SECONDS)
        connection.connect(str(socket_path))
        connection.sendall(head.encode() + body)
        if b" 204 " not in (answer := connection.recv(4_096)):
            raise UntrueError(f"the daemon did not take restore {restore_id}: {answer!r}")


def cpu_of(pid: int) -> float:
    """Seconds of CPU that all threads of a process have used: the clock that clock_getcpuclockid(3) names."""
    return time.clock_gettime((~pid << 3) | 2)


def _cpu_of_children(pid: int) -> float:
    """Seconds of CPU that those children of a process have used which it has waited for: proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


def _notice(notices: socket.socket, process: subprocess.Popen[bytes]) -> bytes:
    """The next message of the daemon to its service manager."""
    try:
        return notices.recv(4_096)
    except TimeoutError:
        raise UntrueError(f"the daemon is not ready: its exit status is {process.poll()}") from None
