"""All the places where something comes out of an agent, and what of a canary is found in each."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable

    from tests.canary.secrets import Canary

PROC_FILES = ("cmdline", "environ", "comm")
LOOK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Hit:
    """A canary that came out, and where."""

    place: str
    what: str
    canary: str
    forms: tuple[str, ...]


@dataclass
class Harvest:
    """All that came out, by place and by what it is."""

    found: dict[str, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))

    def add(self, place: str, what: str, content: bytes) -> None:
        """What is there already is not kept again, and space that is only reserved not at all."""
        content = content.replace(bytes(64), b"")
        before = self.found[place].get(what, b"")
        if content not in before:
            self.found[place][what] = before + b"\n\0\n" + content

    def add_files(self, place: str, directory: Path, leave_out: Collection[Path] = ()) -> None:
        """Every file below `directory`, with its name; `leave_out` holds secrets, as they were put there."""
        for folder, _, names in os.walk(directory):
            for path in (Path(folder) / name for name in names):
                with suppress(FileNotFoundError):  # the agent has just cleared it up
                    if path.is_file() and not any(path.is_relative_to(left) for left in leave_out):
                        self.add(place, str(path), str(path).encode() + b"\n" + path.read_bytes())

    def bytes_of(self, place: str) -> int:
        return sum(map(len, self.found[place].values()))

    def hits(self, canaries: Iterable[Canary], among: Collection[str] | None = None) -> list[Hit]:
        """What was found, in the places `among`, or in all."""
        return [
            Hit(place, what, canary.name, tuple(forms))
            for canary in canaries
            for place, contents in self.found.items()
            if among is None or place in among
            for what, content in contents.items()
            if (forms := canary.found_in(content))
        ]


@asynccontextmanager
async def watched_processes(harvest: Harvest) -> AsyncIterator[None]:
    """Look again and again at what `/proc` shows of all processes that descend from this one."""

    async def look_again_and_again() -> None:
        seen: set[tuple[str, bytes]] = set()
        while True:
            look(seen)
            await asyncio.sleep(LOOK_SECONDS)

    def look(seen: set[tuple[str, bytes]]) -> None:
        for pid in _descendants(os.getpid()):
            for name in PROC_FILES:
                with suppress(OSError):
                    content = Path(f"/proc/{pid}/{name}").read_bytes()
                    if (name, content) not in seen:
                        seen.add((name, content))
                        harvest.add(f"/proc/PID/{name}", str(pid), content)

    looking = asyncio.create_task(look_again_and_again())
    try:
        yield
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


def _descendants(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


@asynccontextmanager
async def journal(path: Path, harvest: Harvest) -> AsyncIterator[None]:
    """A journal that keeps what it is sent."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiving:
        receiving.bind(str(path))
        receiving.setblocking(False)

        def receive() -> None:
            with suppress(BlockingIOError):
                while True:
                    harvest.add("journal", "entries", receiving.recv(1 << 18))

        loop = asyncio.get_running_loop()
        loop.add_reader(receiving, receive)
        try:
            yield
        finally:
            receive()
            loop.remove_reader(receiving)
