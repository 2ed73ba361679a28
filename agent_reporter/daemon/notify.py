"""What the service manager and the daemon tell each other: sd_notify(3), and the sockets it passes on.

READY=1, STATUS=..., RELOADING=1, STOPPING=1, WATCHDOG=1, EXTEND_TIMEOUT_USEC=...
LISTEN_PID, LISTEN_FDS: from descriptor 3 on
"""

from __future__ import annotations

import re
import socket
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Self

from agent_reporter.errors import ConfigurationError
from agent_reporter.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

FIRST_DESCRIPTOR = 3
PINGS_IN_TIME = 3
"""Pings in the time after which the watchdog bites."""

_log = get_logger()


class Notifier:
    """Tells the service manager how the daemon is. Without one it does nothing, and it never raises."""

    def __init__(self, address: str | None, watchdog_interval: float | None = None) -> None:
        self.watchdog_interval = watchdog_interval
        """Seconds between two pings of the watchdog; None if there is none."""
        self._address = address
        self._has_failed = False

    @classmethod
    def from_environment(cls, environ: Mapping[str, str], pid: int) -> Self:
        """What `environ` says of the manager of process `pid`."""
        watched = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        microseconds = environ.get("WATCHDOG_USEC", "") if watched else ""
        interval = int(microseconds) / 1e6 / PINGS_IN_TIME if _is_number(microseconds) else 0.0
        return cls(environ.get("NOTIFY_SOCKET"), interval or None)

    def ready(self, status: str) -> None:
        """It answers, or has taken over changed settings."""
        self._send(f"READY=1\nSTATUS={status}")

    def status(self, text: str) -> None:
        """How it is, in a line for a person."""
        self._send(f"STATUS={text}")

    def reloading(self) -> None:
        """It looks at its settings again; `ready` follows."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """It is about to end."""
        self._send("STOPPING=1\nSTATUS=delivering what is left")

    def watchdog(self) -> None:
        """All is well."""
        self._send("WATCHDOG=1")

    def extend_timeout(self, seconds: float) -> None:
        """What it does now, starting or stopping, takes up to `seconds` from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}")

    def _send(self, text: str) -> None:
        if not self._address:
            return
        address = f"\0{self._address[1:]}" if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
                manager.settimeout(0)
                manager.sendto(text.encode(errors="replace"), address)
        except OSError as problem:
            if not self._has_failed:
                _log.warning("daemon.not_notified", socket=self._address, problem=str(problem))
            self._has_failed = True


def inherited_sockets(environ: MutableMapping[str, str], pid: int) -> list[socket.socket]:
    """The listening sockets that were passed to process `pid`; `environ` names them no more afterwards.

    Raises ConfigurationError if one of them takes no connections, or takes them from other machines.
    """
    meant = environ.pop("LISTEN_PID", None) == str(pid)
    count = environ.pop("LISTEN_FDS", "0")
    environ.pop("LISTEN_FDNAMES", None)
    if not meant or not _is_number(count):
        return []
    return [_inherited(FIRST_DESCRIPTOR + number) for number in range(int(count))]


def _is_number(text: str) -> bool:
    return re.fullmatch("[0-9]{1,19}", text) is not None


def _inherited(descriptor: int) -> socket.socket:
    try:
        passed = socket.socket(fileno=descriptor)
        listens = passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as problem:
        raise ConfigurationError(
            f"the service manager passed descriptor {descriptor}, which is no socket: {problem}. "
            "Have one ListenStream= with a path in the socket's unit."
        ) from problem
    if passed.type != socket.SOCK_STREAM or not listens or not _is_of_this_machine(passed):
        passed.detach()
        raise ConfigurationError(
            f"the service manager passed descriptor {descriptor}, which is no Unix socket and no loopback "
            "port that takes connections. Have one ListenStream= with a path in the socket's unit."
        )
    passed.set_inheritable(False)
    passed.settimeout(0)
    return passed


def _is_of_this_machine(passed: socket.socket) -> bool:
    if passed.family in {socket.AF_INET, socket.AF_INET6}:
        return ip_address(passed.getsockname()[0]).is_loopback
    return passed.family == socket.AF_UNIX
