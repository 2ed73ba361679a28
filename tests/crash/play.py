"""Plays a program once without a fault, to number its calls, and then once for each point."""

from __future__ import annotations

import asyncio
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from agent_reporter.reference import ReferenceServer
from tests.crash.faults import CALLS, LOOKS, Fault, Point
from tests.crash.stage import Played, Stage
from tests.crash.truth import Untruth, other
from tests.endtoend.agent import TOKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

LONGEST_SECONDS = 600.0
"""A play that takes longer hangs."""
BEGINNINGS = frozenset({"openat", "mkdir", "unlink", "rename"})
"""A fault that lasts is played from each of these on: what is between them differs from one that does not last."""


def why_impossible() -> str:
    """Why nothing can be traced here; an empty text if it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the tracer knows the registers and calls of Linux on x86_64 only"
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tests.crash.tracer", f"{folder}/calls", folder, "", "--"]
        traced = subprocess.run([*words, "mkdir", f"{folder}/made"], check=False, capture_output=True)
        if traced.returncode != 0 or not Path(folder, "calls").read_text():
            return "a program cannot be traced here: ptrace is not permitted, or Linux is older than 5.3"
    return ""


class Program(Protocol):
    """A program that meets faults."""

    name: str
    settings: dict[str, str]

    async def prepare(self, directory: Path, server: ReferenceServer) -> None:
        """Make once what all plays begin with."""
        ...

    async def play(self, stage: Stage) -> list[Untruth]:
        """Play it once; returns what is not true."""
        ...


class Theatre:
    """A control plane, and room for some plays at once."""

    def __init__(self, directory: Path, server: ReferenceServer, at_once: int) -> None:
        self._directory = directory
        self._server = server
        self._room = asyncio.Semaphore(at_once)
        self._count = 0

    async def prepare(self, program: Program) -> None:
        async with asyncio.timeout(LONGEST_SECONDS):
            await program.prepare(
                self._directory / f"prepared-{program.name.replace(' ', '-')}", self._server
            )

    async def play(self, program: Program, point: Point | None) -> Played:
        async with self._room:
            self._count += 1
            begun = time.monotonic()
            stage = Stage(self._directory / f"play{self._count}", self._server, point, program.settings)
            try:
                async with asyncio.timeout(LONGEST_SECONDS):
                    untruths = await program.play(stage)
            except TimeoutError:
                untruths = [other(f"it hangs: not over after {time.monotonic() - begun:.0f} s")]
            except RuntimeError as problem:
                untruths = [other(str(problem))]
            finally:
                stage.agent.kill_all()
            calls = stage.calls()
            has_hit = any(call["hit"] for call in calls)
            return Played(program.name, point, has_hit, untruths, time.monotonic() - begun, calls)

    async def play_all(
        self, program: Program, points: Iterable[Point], tell: Callable[[Played], None]
    ) -> list[Played]:
        """Play each point; one that is not reached, as the calls differ from run to run, is played again."""

        async def one(point: Point) -> Played:
            played = await self.play(program, point)
            if not played.has_hit and not played.untruths:
                played = await self.play(program, point)
            tell(played)
            return played

        return list(await asyncio.gather(*map(one, points)))


@asynccontextmanager
async def theatre(directory: Path, at_once: int = 1) -> AsyncIterator[Theatre]:
    async with ReferenceServer(directory / "control-plane", token=TOKEN) as server:
        yield Theatre(directory, server, at_once)


def points_of(calls: list[dict[str, Any]], fault: Fault, *, kills_at_looks: bool = True) -> list[Point]:
    """Every call that `fault` fits, or of kills only those that change something."""
    by_name = {call.name: call for call in CALLS.values()}
    return [
        Point(fault, call["call"], call["on"], call["nth"])
        for call in calls
        if fault.fits(by_name[call["call"]], call["on"])
        and (not fault.lasts or call["call"] in BEGINNINGS)
        and (kills_at_looks or fault is not Fault.KILL or call["call"] not in LOOKS)
    ]
