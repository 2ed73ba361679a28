"""The daemon, hit while engines report to it, and while it takes up again what a killed one left."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from agent_reporter import processes
from agent_reporter.daemon.journal_lines import HEADER, decode, encode
from agent_reporter.reference.server import PROJECT
from tests.crash.run import DONE, flush, replaced
from tests.crash.stage import Stage, children, copy_renamed, until
from tests.crash.truth import (
    FINAL,
    End,
    Untruth,
    false,
    lost,
    message_untruths,
    other,
    record_untruths,
    spool_untruths,
)
from tests.daemon.host_library import BLOCK
from tests.daemon.host_plan import Way
from tests.endtoend.agent import Agent, Ended, ended

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_reporter.reference import ReferenceServer

PATIENCE = 180.0
"""Seconds that something of a daemon may take on a machine that has much to do."""
KILLED = 128 + signal.SIGKILL
"""How the tracer ends after a program that was killed."""
MOST_REFUSALS = 60
"""After so many one has looked at the disk, as the daemon's answer asks: it is mended while the daemon runs."""
MEND_SECONDS = 10.0
"""As long as nothing comes of a disk that is broken for good."""
MOST_ENDS = 3
TIDY_SECONDS = 20.0
REFUSALS = 4
OF_JOURNAL = (".journal.lock", "journal.")
"""What a daemon leaves in its spool when all is delivered."""
SETTINGS = {"daemon": "always", "drain_timeout": "30", "log_level": "warning"}


class Host:
    """A host whose daemon is started again when it ends. The first one may be the one that is hit.

    What is told by HTTP is of an engine that lives until the end.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._directory = Path(tempfile.mkdtemp(prefix="ar-"))  # the path of a socket has at most 107 bytes
        self.socket = self._directory / "api.sock"
        self.ends: list[Ended] = []
        """How daemons ended by themselves or by the fault."""
        self._engine = subprocess.Popen(["sleep", "infinity"])
        self._process: asyncio.subprocess.Process | None = None
        self._is_traced = True
        self._keeping: asyncio.Task[None] | None = None

    @property
    def agent(self) -> Agent:
        return self._stage.agent

    async def start(self, *, traced: bool) -> None:
        """Start the daemon; returns when one answers."""
        self.agent.environment["AGENT_REPORTER_SOCKET"] = str(self.socket)
        self._is_traced = traced
        self._keeping = asyncio.create_task(self._keep())
        await self.call("GET", "/restores")

    async def kill(self) -> None:
        """SIGKILL, and none is started again."""
        assert self._process is not None
        assert self._keeping is not None
        self._keeping.cancel()
        self._process.kill()
        await self._process.communicate()

    async def end(self) -> list[Untruth]:
        """SIGTERM; returns what is not as it is to be after that, or once another has tidied up after this one."""
        came = await self._ended()
        self._end_engine()
        if (came.status == KILLED and self._stage.is_killed) or self._left():
            await self.start(traced=False)
            await until(lambda: not self._left(), within=TIDY_SECONDS)
            came = await self._ended()
        found = [] if came.status == 0 else [other(f"the daemon ends with {came.status}")]
        for said in (came, *self.ends):
            found += message_untruths("the daemon", said.text)
        return found + self._left()

    def _left(self) -> list[Untruth]:
        return spool_untruths(self.agent.spool, may_be=OF_JOURNAL)

    async def _ended(self) -> Ended:
        await self.call("GET", "/restores")
        assert self._process is not None
        assert self._keeping is not None
        self._keeping.cancel()
        for pid in children(self._process.pid) if self._is_traced else [self._process.pid]:
            os.kill(pid, signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            return await ended(self._process)

    def leave(self) -> None:
        self._end_engine()
        if self._keeping is not None:
            self._keeping.cancel()
        shutil.rmtree(self._directory)

    def _end_engine(self) -> None:
        self._engine.kill()
        self._engine.wait()

    @property
    def engine(self) -> list[str]:
        """What records say of the engine's process, in JSON with spaces and without."""
        identity = processes.identity(self._engine.pid)
        assert identity is not None
        document = {"pid": identity.pid, "start_ticks": identity.start_ticks}
        return [
            json.dumps(document, separators=separators)[1:-1] for separators in [(", ", ": "), (",", ":")]
        ]

    async def call(self, method: str, path: str, body: Any = None) -> int:
        """The status of the answer: asked again until there is one that is none of trouble."""
        headers = {"X-Engine-Pid": str(self._engine.pid)}
        url = f"http://localhost/v2/{PROJECT}{path}"
        refusals = 0
        async with asyncio.timeout(PATIENCE):
            while True:
                if self._keeping is not None and self._keeping.done():
                    self._keeping.result()
                try:
                    async with (
                        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
                        session.request(method, url, json=body, headers=headers) as answer,
                    ):
                        await answer.read()
                        if answer.status < 500:
                            return answer.status
                        refusals += 1
                        if refusals == MOST_REFUSALS:
                            self._stage.mend()
                except (aiohttp.ClientError, OSError):
                    pass
                await asyncio.sleep(0.05)

    async def tell(self, restore_id: str, **values: Any) -> int:
        """PATCH a restore, as the script of the README does."""
        patch = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in values.items()]
        return await self.call("PATCH", f"/restores/{restore_id}", patch)

    async def until_final(self, *restores: str) -> None:
        """Return once the records of `restores` have their results."""
        server = self._stage.server
        await self.becomes(lambda: all(server.document(each)["state"] in FINAL for each in restores))

    async def becomes(self, is_so: Callable[[], bool]) -> bool:
        """Whether something becomes so; somebody mends the disk if it does not."""
        if await until(is_so, within=MEND_SECONDS):
            return True
        self._stage.mend()
        return await until(is_so, within=PATIENCE)

    async def _keep(self) -> None:
        while True:
            if self._is_traced:
                self._process = await self._stage.start_traced("daemon")
            else:
                self._process = await self.agent.start("daemon")
            await self._process.wait()
            self._is_traced = False
            self.ends.append(await ended(self._process))
            if len(self.ends) > MOST_ENDS:
                raise RuntimeError(f"the daemon does not stay: {self.ends[-1].text}")


async def counters_told(host: Host, restore_id: str) -> list[Untruth]:
    """An engine that speaks HTTP, from its start to its end; a result that was answered is never told again."""
    statuses = [
        await host.tell(restore_id, state="in_progress"),
        await host.tell(restore_id, bytes_restored=1000, files_restored=1),
        await host.tell(restore_id, bytes_restored=2000, files_restored=2),
        await result_told(host, restore_id),
    ]
    if statuses[:-1] == [204] * 3 and statuses[-1] in {204, 409}:
        return []
    return [other(f"the daemon refused: {statuses}")]


async def result_told(host: Host, restore_id: str) -> int:
    return await host.tell(restore_id, state="completed", bytes_restored=4000, files_restored=4)


class Daemon:
    """The daemon is hit; an engine in Python and one that speaks HTTP report to it meanwhile."""

    name = "daemon"
    settings = SETTINGS

    async def prepare(self, directory: Path, server: ReferenceServer) -> None:
        """Nothing is left by others."""

    async def play(self, stage: Stage) -> list[Untruth]:
        host = Host(stage)
        try:
            await host.start(traced=True)
            library, http = stage.new_restore("a"), stage.new_restore("b")
            # So that for a while nobody but the daemon's disk knows what it has answered to.
            stage.server.add_fault({"status": 503}, times=REFUSALS, restore_id=http)
            notes = stage.directory / "library"
            notes.mkdir()
            engine, found = await asyncio.gather(
                self._engine(host, library, notes), counters_told(host, http)
            )
            found = list(found)
            if engine.status != 0 or engine.out:
                found.append(other(f"the engine's own ending was touched: {engine.status} {engine.text}"))
            found += message_untruths("the engine", engine.text)
            if spool_untruths(notes / "spool"):
                stage.mend()  # the daemon did not take its result, and flush needs a daemon that does
            found += await flush(stage.agent, environment=_of_engine(notes))
            await host.until_final(library, http)
            files = len(list(notes.glob("file*")))
            found += record_untruths(stage.server, library, End("completed", "", files, files * BLOCK))
            found += record_untruths(stage.server, http, DONE)
            found += await host.end()
            return found + spool_untruths(notes / "spool")
        finally:
            host.leave()

    async def _engine(self, host: Host, restore_id: str, notes: Path) -> Ended:
        words = ("-m", "tests.daemon.host_library", restore_id, str(notes), "0.3", Way.WHOLE.value)
        return await ended(
            await host.agent.start_other(sys.executable, *words, environment=_of_engine(notes))
        )


def _of_engine(notes: Path) -> dict[str, str]:
    return {"AGENT_REPORTER_SPOOL_DIR": str(notes / "spool"), "AGENT_REPORTER_LOG_LEVEL": "error"}


class Resume:
    """The daemon is hit while it takes up a result and a running restore that a killed one left in its journal."""

    name = "daemon again"
    settings = SETTINGS

    def __init__(self) -> None:
        self._template: Path
        self._names: list[str]
        self._engine: list[str]

    async def prepare(self, directory: Path, server: ReferenceServer) -> None:
        stage = Stage(directory, server, None, self.settings)
        host = Host(stage)
        done, running = stage.new_restore("a"), stage.new_restore("b")
        for restore_id in (done, running):
            server.add_fault({"status": 503}, times=10_000, restore_id=restore_id)
        try:
            await host.start(traced=False)
            for restore_id in (done, running):
                await host.tell(restore_id, state="in_progress", bytes_restored=1000)
            await result_told(host, done)
            self._engine = host.engine
            await host.kill()
        finally:
            host.leave()
        self._template, self._names = stage.agent.spool, [done, running]

    async def play(self, stage: Stage) -> list[Untruth]:
        done, running = stage.new_restore("a"), stage.new_restore("b")
        names = dict(zip(self._names, [done, running], strict=True))
        host = Host(stage)
        changes = names | dict(zip(self._engine, host.engine, strict=True))
        copy_renamed(self._template, stage.agent.spool, names, lambda content: _renamed(content, changes))
        try:
            await host.start(traced=True)
            found = []
            await host.until_final(done)
            if not await host.becomes(lambda: stage.server.document(running)["bytes_restored"] == 1000):
                found.append(false("the restore that runs is not told as it was"))
            status = await result_told(host, running)
            if status not in {204, 409}:
                found.append(lost(f"the restore that ran is not known any more: {status}"))
            await host.until_final(running)
            for restore_id in (done, running):
                found += record_untruths(stage.server, restore_id, DONE)
            return found + await host.end()
        finally:
            host.leave()


def _renamed(content: bytes, names: dict[str, str]) -> bytes:
    """A file of the daemon's spool: lines of the journal have checksums."""
    if not content.startswith(HEADER):
        return replaced(content, names)
    lines = [decode(line) for line in content[len(HEADER) :].splitlines(keepends=True)]
    return HEADER + b"".join(
        encode(names[restore_id], json.loads(replaced(json.dumps(changes).encode(), names)))
        for restore_id, changes in lines
    )
