"""Engines for `run`: real restic, slowed down; without one, a shell script of which nothing is known.

`follow` reads what `run` passes on of the engine's output, and takes notes of it as engines of ours do.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tests.daemon.host_notes import Notes
from tests.daemon.host_plan import FOREVER, Way
from tests.engines.real_restic import Repository, binaries, make_repository

if TYPE_CHECKING:
    from tests.daemon.host_plan import Course
    from tests.engines.real_restic import RealRestic

FILES, FILE_BYTES = 20, 80_000
"""Of each part of a repository: restic reads a part as a whole, so the parts are the steps of its progress."""
LEAST_RATE = 30
"""KiB in a second. At less, restic takes too long until it begins."""
ENDLESS_SECONDS = 240.0
"""What an engine takes that somebody is to end."""
SPOILED = 3
"""Files that cannot be restored, where errors are wanted."""
LINE_LIMIT = 1 << 20
EXIT_INTERRUPTED = 130
EXIT_KILLED = 128 + 9
RESTORED = "restored"
"""What the script restores, as its one file, and says then."""
NOT_BY_SCRIPT = frozenset({Way.ERRORS, Way.GIVES_UP})
"""What nobody can tell of a program that nothing is known of."""


class Program(Protocol):
    """What is run, and how its end is told from its exit status and from what it printed."""

    @property
    def name(self) -> str: ...

    def command(self, course: Course, directory: Path) -> list[str]: ...

    def options(self, directory: Path) -> list[str]:
        """What `run` is told beside that command."""
        ...

    def environment(self, course: Course) -> dict[str, str]: ...

    def read(self, line: str, notes: Notes) -> None: ...

    def state(self, course: Course, status: int, notes: Notes) -> str: ...


@dataclass(frozen=True)
class Restic:
    """restic restores all of `repository`."""

    restic: RealRestic
    repository: Repository

    @property
    def name(self) -> str:
        return str(self.restic)

    def command(self, course: Course, directory: Path) -> list[str]:
        if course.way is Way.ERRORS:
            for number in range(SPOILED):  # a folder that is not empty is where a file is to be
                (directory / f"data/file{number:04}" / "in-the-way").mkdir(parents=True)
        seconds = ENDLESS_SECONDS if course.seconds == FOREVER else course.seconds
        rate = max(LEAST_RATE, int(self.repository.bytes / 1024 / seconds))
        limits = ["--limit-download", str(rate), "-o", "local.connections=1"]
        return [self.restic.path, *limits, "restore", "latest", "--target", str(directory)]

    def options(self, directory: Path) -> list[str]:  # noqa: ARG002 - as the script needs it
        return []

    def environment(self, course: Course) -> dict[str, str]:
        wrong = {"RESTIC_PASSWORD": "wrong"} if course.way is Way.GIVES_UP else {}
        return self.repository.environment(**wrong)

    def read(self, line: str, notes: Notes) -> None:
        if "signal interrupt received" in line:
            notes.stopped_at = time.time()
        if not line.startswith("{"):
            return
        message = json.loads(line)
        if message["message_type"] in {"status", "summary"}:
            notes.files = max(notes.files, message.get("files_restored", 0))
            notes.bytes = max(notes.bytes, message.get("bytes_restored", 0))
        notes.errors += message["message_type"] == "error"

    def state(self, course: Course, status: int, notes: Notes) -> str:
        if course.way is Way.STOPS and status in {EXIT_INTERRUPTED, EXIT_KILLED}:
            return "stopped"  # killed, where it slept away the grace that it has
        if status == 0 or (status == 1 and notes.errors):
            return "completed_with_errors" if notes.errors else "completed"
        return "failed"


@dataclass(frozen=True)
class Script:
    """A program that nothing is known of: it tells no counts, so `run` looks into the folder it restores to."""

    name: str = "sh"

    def command(self, course: Course, directory: Path) -> list[str]:
        stop = "trap 'echo stopping; exit 1' TERM"
        wait = f"for _ in $(seq {int(course.seconds * 5)}); do sleep 0.2; done"
        return ["sh", "-c", f"{stop}; {wait}; printf {RESTORED} >{_target(directory)}/file; echo {RESTORED}"]

    def options(self, directory: Path) -> list[str]:
        target = _target(directory)
        target.mkdir()
        return ["--target", str(target)]

    def environment(self, course: Course) -> dict[str, str]:  # noqa: ARG002 - as restic needs it
        return dict(os.environ)

    def read(self, line: str, notes: Notes) -> None:
        if line.startswith("stopping"):
            notes.stopped_at = time.time()
        if line.startswith(RESTORED):
            notes.files, notes.bytes = 1, len(RESTORED)

    def state(self, course: Course, status: int, notes: Notes) -> str:  # noqa: ARG002 - as restic needs it
        if status == 0:
            return "completed"
        return "stopped" if notes.stopped_at is not None else "failed"


def _target(directory: Path) -> Path:
    """Where the script restores to: beside it lies its log."""
    return directory / "target"


def ways_missing() -> frozenset[Way]:
    """The ways in which the engine behind `run` does not go here."""
    return frozenset() if _restics() else NOT_BY_SCRIPT


def make_program(directory: Path, parts: int) -> Program:
    """The newest restic with a repository of so many parts, or the script where there is no restic."""
    if not (found := _restics()):
        return Script()
    first = make_repository(directory, found[0], files=FILES, file_bytes=FILE_BYTES)
    for part in range(1, parts):
        for number in range(FILES):
            (directory / f"data/file{part}-{number:04}").write_bytes(os.urandom(FILE_BYTES))
        subprocess.run(
            [found[0].path, "backup", "data"],
            check=True,
            capture_output=True,
            cwd=directory,
            env=first.environment(),
        )
    files = parts * FILES
    return Restic(found[-1], Repository(first.path, files, files * FILE_BYTES))


def _restics() -> list[RealRestic]:
    return [restic for restic in binaries() if restic.speaks_json]


async def follow(course: Course, process: asyncio.subprocess.Process, program: Program) -> Notes:
    """Notes of the engine behind `run`, once that has ended. Its end is its last line."""
    notes = Notes()
    last = time.time()

    async def read(stream: asyncio.StreamReader | None) -> None:
        nonlocal last
        while stream is not None and (line := await stream.readline()):
            last = time.time()
            program.read(line.decode(), notes)

    await asyncio.gather(read(process.stdout), read(process.stderr))
    status = await process.wait()
    if status >= 0:
        notes.state, notes.ended_at = program.state(course, status, notes), last
    return notes


def child_of(pid: int) -> int | None:
    """The process that process `pid` has started, if there is one."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:
        return None
    return int(children[0]) if children else None
