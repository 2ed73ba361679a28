"""`agent-reporter run` around an engine, and `flush` over what it left: each is the program that meets a fault."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.faults import Fault
from tests.crash.stage import Stage, copy_renamed, named, until
from tests.crash.truth import (
    FINAL,
    End,
    Untruth,
    lost,
    message_untruths,
    other,
    record_untruths,
    spool_untruths,
    spooled,
)
from tests.endtoend.agent import ended, values
from tests.engines.real_restic import binaries, make_repository

if TYPE_CHECKING:
    from agent_reporter.reference import ReferenceServer
    from tests.endtoend.agent import Agent
    from tests.engines.real_restic import RealRestic, Repository

FILES, BYTES = 4, 4000
SCRIPT = """#!/bin/sh
# Prints as restic does, whether anybody reads it or not, and writes down what is true.
trap '' PIPE
echo began >>"$NOTES"
for files in 1 2 3; do
    echo '{"message_type":"status","percent_done":0.'$files',"total_files":4,"files_restored":'$files',\
"total_bytes":4000,"bytes_restored":'$files'000}'
    sleep ${PAUSE:-0.1}
done 2>&-
echo '{"message_type":"summary","total_files":4,"files_restored":4,"total_bytes":4000,"bytes_restored":4000}' 2>&-
echo ended >>"$NOTES"
"""
ALONE = {"daemon": "never"}
DONE = End("completed", "", FILES, BYTES)
GONE = End("failed", "reporter_lost")


@dataclass(frozen=True)
class Engine:
    """What is restored with, and what is true once it has ended."""

    command: list[str]
    environment: dict[str, str]
    notes: Path
    output: bytes | None = None
    """What it prints, where that is the same each time."""
    done: End = DONE

    @property
    def has_begun(self) -> bool:
        return self.notes.exists()

    @property
    def has_ended(self) -> bool:
        return self.has_begun and "ended" in self.notes.read_text()


def make_engine(directory: Path, pause: str = "0.1") -> Engine:
    script, notes = directory / "restic", directory / "notes"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    command = [str(script), "restore", "latest", "--target", str(directory / "target")]
    return Engine(command, {"NOTES": str(notes), "PAUSE": pause}, notes, clean_output())


def make_real_engine(directory: Path, restic: RealRestic, repository: Repository) -> Engine:
    """A real restic, behind a script that writes down what is true."""
    script, notes, target = directory / "restic", directory / "notes", directory / "target"
    script.write_text(
        f'#!/bin/sh\necho began >>"$NOTES"\n{restic.path} "$@" || exit\necho ended >>"$NOTES"\n'
    )
    script.chmod(0o755)
    command = [str(script), "restore", "latest", "--target", str(target)]
    done = End("completed", "", repository.files + 1, repository.bytes)  # restic counts the folder, too
    return Engine(command, repository.environment(NOTES=str(notes)), notes, done=done)


def make_small_repository(directory: Path) -> tuple[RealRestic, Repository]:
    """The newest restic, and a repository of few files; raises FileNotFoundError if there is none."""
    found = [restic for restic in binaries() if restic.speaks_json]
    if not found:
        raise FileNotFoundError(
            "no restic 0.16 or later: AGENT_REPORTER_TEST_ENGINES names a folder with some"
        )
    directory.mkdir()
    return found[-1], make_repository(directory, found[-1], files=20, file_bytes=100_000)


class Run:
    """`run` is hit; after a kill, `flush` goes on, and if nothing was begun, `run` again."""

    name = "run"
    settings = ALONE

    async def prepare(self, directory: Path, server: ReferenceServer) -> None:
        """Nothing is left by others."""

    def engine(self, directory: Path) -> Engine:
        """What is restored with in one play."""
        return make_engine(directory)

    async def play(self, stage: Stage) -> list[Untruth]:
        restore_id, engine = stage.new_restore("a"), self.engine(stage.directory)
        words = ["run", "--restore-id", restore_id, "--", *engine.command]
        came = await stage.do_traced(*words, environment=engine.environment)
        if stage.is_killed and stage.has_hit:
            return await self._after_kill(stage, restore_id, engine, words)
        found = message_untruths("run", came.text)
        if came.status != 0 or (engine.output is not None and came.out != engine.output):
            found.append(other(f"the engine's own ending was touched: {came.status} {came.out!r}"))
        if stage.server.document(restore_id)["state"] not in FINAL:
            found.append(lost(f"run ended before its result was told. It said: {came.err!r}"))
        if must_say(stage) and b"spool" not in came.err:
            found.append(other(f"nothing was said: {came.err!r}"))
        found += await flush(stage.agent)
        return (
            found + record_untruths(stage.server, restore_id, engine.done) + spool_untruths(stage.agent.spool)
        )

    async def _after_kill(
        self, stage: Stage, restore_id: str, engine: Engine, words: list[str]
    ) -> list[Untruth]:
        if not await until(lambda: not named(engine.command[0])):
            return [other("the engine does not end")]
        kept, told = spooled(stage.agent.spool, restore_id), stage.server.document(restore_id)["state"]
        found = await flush(stage.agent, always=True)
        if told in FINAL or (kept is not None and kept["state"] in FINAL):
            end = engine.done
        elif kept is not None:
            end = GONE
        elif engine.has_begun:
            return [*found, lost("the engine had begun, and nothing was kept of it")]
        else:
            found += spool_untruths(stage.agent.spool)
            if told != "start_requested":
                found.append(other(f"{told} was told before it was kept"))
            end = engine.done
            again = await stage.agent.do(*words, environment=engine.environment)
            found += message_untruths("run", again.text)
            if again.status != 0:
                found.append(other(f"it cannot be run again: {again.status} {again.text}"))
        if end is engine.done and not engine.has_ended:
            found.append(other("the engine had not ended, and an end was kept or told"))
        return found + record_untruths(stage.server, restore_id, end) + spool_untruths(stage.agent.spool)


class RunRestic(Run):
    """As `Run`, around a real restic."""

    name = "run restic"

    def __init__(self) -> None:
        self._restic: RealRestic
        self._repository: Repository

    async def prepare(self, directory: Path, server: ReferenceServer) -> None:  # noqa: ARG002 - as all prepare
        """A repository of few files. There has to be a restic that prints JSON."""
        self._restic, self._repository = await asyncio.to_thread(make_small_repository, directory)

    def engine(self, directory: Path) -> Engine:
        return make_real_engine(directory, self._restic, self._repository)


class Flush:
    """`flush` is hit, over a result that was not delivered and a restore whose `run` was killed."""

    name = "flush"
    settings = ALONE

    def __init__(self) -> None:
        self._template: Path
        self._names: list[str]

    async def prepare(self, directory: Path, server: ReferenceServer) -> None:
        stage = Stage(directory, server, None, self.settings | {"drain_timeout": "0.1"})
        done, gone = stage.new_restore("a"), stage.new_restore("b")
        server.add_fault({"status": 503}, times=10_000, restore_id=done)
        engine = make_engine(directory)
        await stage.agent.run(done, *engine.command, environment=engine.environment)
        engine = make_engine(directory, "60")
        words = ["run", "--restore-id", gone, "--", *engine.command]
        process = await stage.agent.start(*words, environment=engine.environment, start_new_session=True)
        await server.wait_until(lambda: bool(values(server, gone, "/bytes-restored")), within=30)
        process.kill()
        await ended(process)
        for engine_process in named(engine.command[0]):
            os.kill(engine_process, signal.SIGKILL)
        await until(lambda: not named(engine.command[0]))
        assert spooled(stage.agent.spool, done) is not None
        assert spooled(stage.agent.spool, gone) is not None
        self._template, self._names = stage.agent.spool, [done, gone]

    async def play(self, stage: Stage) -> list[Untruth]:
        done, gone = stage.new_restore("a"), stage.new_restore("b", state="in_progress")
        names = dict(zip(self._names, [done, gone], strict=True))
        copy_renamed(self._template, stage.agent.spool, names, lambda content: replaced(content, names))
        came = await stage.do_traced("flush", "--timeout", "120")
        found = [] if stage.is_killed else message_untruths("flush", came.text)
        found += await flush(stage.agent, always=came.status != 0)
        for restore_id, end in ((done, DONE), (gone, GONE)):
            found += record_untruths(stage.server, restore_id, end)
        return found + spool_untruths(stage.agent.spool)


def must_say(stage: Stage) -> bool:
    """Whether something was not kept because of the fault: that is to be said."""
    point = stage.point
    if point is None or point.fault not in {Fault.EIO, Fault.BROKEN} or not stage.has_hit:
        return False
    return point.on.endswith(".json.new") and point.call in {"openat", "write", "fsync", "rename"}


def clean_output() -> bytes:
    """What the script prints."""
    lines = [
        f'{{"message_type":"status","percent_done":0.{files},"total_files":4,"files_restored":{files},'
        f'"total_bytes":4000,"bytes_restored":{files}000}}\n'
        for files in (1, 2, 3)
    ]
    summary = '{"message_type":"summary","total_files":4,"files_restored":4,"total_bytes":4000,"bytes_restored":4000}\n'
    return ("".join(lines) + summary).encode()


def replaced(content: bytes, names: dict[str, str]) -> bytes:
    for old, new in names.items():
        content = content.replace(old.encode(), new.encode())
    return content


async def flush(
    agent: Agent, *, always: bool = False, environment: dict[str, str] | None = None
) -> list[Untruth]:
    """Deliver what is left, if anything is."""
    environment = environment or {}
    spool = Path(environment.get("AGENT_REPORTER_SPOOL_DIR", agent.spool))
    if not always and not spool_untruths(spool):
        return []
    came = await agent.do("flush", "--timeout", "120", environment=environment)
    found = message_untruths("flush", came.text)
    if came.status != 0:
        found.append(other(f"flush ends with {came.status}: {came.text}"))
    return found
