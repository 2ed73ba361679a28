"""Where the machine is made up: everything else, on both sides, is the real thing.

threads          real ones, but that the loop starts them, and waits for them
names            looked up in the network's own list
processes        who this process is, and who lives
aiohttp          its clock and its chance
this host        what a sign-in says of it
"""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from aiohttp import connector

from agent_reporter import processes, threads
from agent_reporter.control_plane import http, token_sources
from agent_reporter.processes import ProcessStat
from tests.simulation.loop import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.wire.world import World

OF_HOST = {
    "os": {"name": "Linux", "version": "6.1", "architecture": "x86_64"},
    "fingerprint": "f" * 64,
    "addresses": [{"version": 4, "addr": "192.0.2.200"}],
}


class _Module:
    """A module, but for some of its names."""

    def __init__(self, real: Any, **stand_ins: object) -> None:
        self._real = real
        self.__dict__.update(stand_ins)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@contextmanager
def installed(world: World) -> Iterator[None]:
    """The product runs in `world` for as long as the block lasts."""

    def start_daemon(name: str, target: Callable[[], object]) -> None:
        world.loop.start_thread(world.network.thread_delay(name), name, target)

    def read_stat(pid: int) -> ProcessStat | None:
        is_alive = any(life.pid == pid and life.is_alive for life in world.lives)
        return ProcessStat(pid, "S", 1, pid, pid) if is_alive else None

    places: list[tuple[Any, str, Any]] = [
        (threads, "start_daemon", start_daemon),
        (http, "socket", _Module(socket, getaddrinfo=world.network.getaddrinfo)),
        (processes, "os", SimpleNamespace(getpid=lambda: getattr(PROCESS.get(), "pid", os.getpid()))),
        (processes, "read_stat", read_stat),
        (processes, "boot_id", lambda: "boot"),
        (connector, "monotonic", world.loop.time),
        (connector, "random", world.random),
        (token_sources, "platform", SimpleNamespace(node=lambda: "host")),
        (token_sources, "_describe_host", lambda *_: OF_HOST),
    ]
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    try:
        for place, name, stand_in in places:
            setattr(place, name, stand_in)
        yield
    finally:
        for place, name, real in before:
            setattr(place, name, real)


def close_files_below(directory: str) -> None:
    """What the system does for a process that was killed: its files are closed, and so its locks go."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are what is needed
        try:
            if os.readlink(f"/proc/self/fd/{name}").startswith(directory):  # noqa: PTH115 - a text is needed
                os.close(int(name))
        except OSError:
            continue  # the look itself
