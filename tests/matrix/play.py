"""Plays one case: the real engine, behind the real `run`, against the reference control plane."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sysconfig
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_reporter.processes import all_stats
from agent_reporter.reference import ReferenceServer
from tests.endtoend.agent import TOKEN, Agent, ended, make_agent
from tests.matrix.scene import Case

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.matrix.scene import RealEngine, Record, Scene

SMALL_BYTES = 8 << 20
"""What the file system of FULL holds."""
SECONDS_TO_BEGIN = 20
SECONDS_TO_END = 120


@dataclass(frozen=True)
class Result:
    """How one case went."""

    engine: str
    version: str
    case: Case
    expected: tuple[str, str]
    reported: tuple[str, str]
    counters: str
    untruths: tuple[str, ...]
    seconds: float

    @property
    def is_true(self) -> bool:
        return not self.untruths


async def play(engine: RealEngine, case: Case, directory: Path) -> Result:
    """Play `case` in `directory`, which is new."""
    began = time.monotonic()
    target = _made(directory)
    with _small_file_system(target) if case is Case.FULL else _nothing():
        scene = await asyncio.to_thread(engine.scene, case, target)
        async with ReferenceServer(directory / "control-plane", token=TOKEN) as server:
            agent = make_agent(directory / "host", server.url, daemon="never")
            try:
                restore_id = server.start_restore()
                printed = await asyncio.wait_for(_run(scene, case, server, agent, restore_id), SECONDS_TO_END)
            finally:
                agent.kill_all()
            record = server.document(restore_id)
            record["errors"]["list"] = server.errors(restore_id)["list"]
        untruths = await asyncio.to_thread(_untruths, scene, record, printed)
    return Result(
        engine=engine.name,
        version=engine.version,
        case=case,
        expected=scene.expected,
        reported=_end(record),
        counters=f"{record['bytes_restored']:,} B, {record['files_restored']:,} files, "
        f"{record['errors']['count']} errors",
        untruths=tuple(untruths),
        seconds=time.monotonic() - began,
    )


def _made(directory: Path) -> Path:
    target = directory / "target"
    target.mkdir(parents=True)
    return target


async def _run(scene: Scene, case: Case, server: ReferenceServer, agent: Agent, restore_id: str) -> str:
    """Run the engine to its end; returns what was printed, in case nothing else is to be learnt."""
    environment = dict(scene.environment)
    if scene.calls_run:
        words = ("run", "--restore-id", restore_id, "--grace", "30", *scene.options, "--", *_as_user(scene))
        process = await agent.start(*words, environment=environment)
    else:
        environment |= {"RESTORE_ID": restore_id, "PATH": _path_with_agent()}
        process = await agent.start_other(*scene.command, environment=environment)
    printed = asyncio.create_task(ended(process))

    def restores() -> bool:
        document = server.document(restore_id)
        return printed.done() or (document["state"] == "in_progress" and document["bytes_restored"] > 0)

    if case in {Case.STOPPED, Case.KILLED}:
        with suppress(TimeoutError):  # its record will show that nothing was told
            await server.wait_until(restores, within=SECONDS_TO_BEGIN)
        if case is Case.KILLED:
            _kill_engine(process.pid)
        elif not printed.done():
            server.request_stop(restore_id)
    return (await printed).text


def _as_user(scene: Scene) -> Sequence[str]:
    if not scene.user:
        return scene.command
    return ["setpriv", f"--reuid={scene.user}", f"--regid={scene.user}", "--clear-groups", *scene.command]


def _path_with_agent() -> str:
    return f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}"


def _kill_engine(run: int) -> None:
    """Kill what `run` has started: its child that leads a session."""
    for stat in all_stats().values():
        if stat.parent == run and stat.session == stat.pid:
            os.kill(stat.pid, signal.SIGKILL)


def _untruths(scene: Scene, record: Record, printed: str) -> list[str]:
    found = []
    if _end(record) != scene.expected:
        said = record["errors"]["diagnostics"] or printed[-500:]
        found.append(f"it should be {' '.join(scene.expected)}, and is {' '.join(_end(record))}: {said}")
    return found + list(scene.untruths(record))


def _end(record: Record) -> tuple[str, str]:
    return record["state"], record["errors"]["reason"]


@contextmanager
def _small_file_system(target: Path) -> Iterator[None]:
    size = f"size={SMALL_BYTES}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(target)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


@contextmanager
def _nothing() -> Iterator[None]:
    yield
