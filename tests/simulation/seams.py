"""Where the product meets the world, and the simulation stands in for it.

    os, fcntl        in `durable`, `spool` and `secret_file`: the simulated disk
    threads          in `threads` and `job`: a thread is a callback of the loop, some time later
    processes        who this process is, and who lives
    aiohttp          in `control_plane.http`: the session and its connector
    this host        in `token_sources`: what a sign-in says of it

All else is the product's own code.
"""

from __future__ import annotations

import contextvars
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp

from agent_reporter import durable, job, processes, reporter, spool, threads
from agent_reporter.control_plane import http, secret_file, token_sources
from agent_reporter.processes import ProcessStat
from tests.simulation import network
from tests.simulation.disk import SimOs, SimPath
from tests.simulation.loop import PROCESS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.simulation.world import World


@contextmanager
def installed(world: World) -> Iterator[None]:
    """The product runs in `world` for as long as the block lasts."""
    places = _places(world)
    before = [(place, name, getattr(place, name)) for place, name, _ in places]
    SimPath.disk = world.disk
    network.Session.network = world.network
    try:
        for place, name, stand_in in places:
            setattr(place, name, stand_in)
        yield
    finally:
        for place, name, real in before:
            setattr(place, name, real)


def _places(world: World) -> list[tuple[Any, str, Any]]:
    sim_os = SimOs(world.disk)

    def start_daemon(_name: str, target: Callable[[], object]) -> None:
        world.loop.call_later(world.thread_delay(), target, context=contextvars.copy_context())

    class Thread:
        def __init__(self, *, target: Callable[..., object], args: tuple[Any, ...], **_: object) -> None:
            self._call = lambda: target(*args)

        def start(self) -> None:
            start_daemon("", self._call)

    def read_stat(pid: int) -> ProcessStat | None:
        return ProcessStat(pid, "S", 1, pid, pid) if world.is_process_alive(pid) else None

    return [
        (durable, "os", sim_os),
        (spool, "os", sim_os),
        (secret_file, "os", sim_os),
        (spool, "fcntl", SimpleNamespace(flock=world.disk.flock, LOCK_EX=2, LOCK_NB=4)),
        (threads, "start_daemon", start_daemon),
        (job, "threading", SimpleNamespace(Thread=Thread, RLock=threading.RLock)),
        (processes, "os", SimpleNamespace(getpid=_own_pid)),
        (processes, "read_stat", read_stat),
        (processes, "boot_id", lambda: world.boot),
        (reporter, "Spool", lambda directory: spool.Spool(SimPath(directory))),
        (http, "aiohttp", _Aiohttp()),
        (
            token_sources,
            "Path",
            lambda path: SimPath(path) if str(path).startswith("/secret") else Path(path),
        ),
        (token_sources, "_describe_host", lambda *_: {}),
    ]


def _own_pid() -> int:
    process = PROCESS.get()
    return 1 if process is None else process.pid


class _Aiohttp:
    """The module, but that its sessions connect to nothing."""

    ClientSession = network.Session

    @staticmethod
    def TCPConnector(**_: object) -> None:  # noqa: N802 - aiohttp's own name
        """No connections are made."""

    def __getattr__(self, name: str) -> Any:
        return getattr(aiohttp, name)
