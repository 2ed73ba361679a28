"""Engines that come and go as fast as the daemon takes them: over its socket and by the library, well and ill."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import aiohttp

from agent_reporter import Reporter
from agent_reporter.reference.exchange import RefusedError
from agent_reporter.reference.server import PROJECT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path
    from random import Random

    from agent_reporter import Job, Settings
    from agent_reporter.reference import ReferenceServer

URL = f"http://localhost/v2/{PROJECT}"
PATIENCE = 60.0
"""Seconds for any one thing that an engine waits for."""
GARBAGE = (
    b"\0\xff\x16\x03\x01 nothing\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /v2/other/restores HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PATCH /v2/%s/restores/x HTTP/1.1\r\nContent-Length: 90\r\n\r\n[{" % PROJECT.encode(),
    b"PATCH /v2/%s/restores/y HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[{" % PROJECT.encode(),
    b"PATCH /v2/%s/restores/%s HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]" % (PROJECT.encode(), b"z" * 5_000),
    b"GET /v2/%s/restores HTTP/1.1\r\nX: %s\r\n\r\n" % (PROJECT.encode(), b"y" * 20_000),
    b"GET /v2/%s/restores/none/events?wait=600 HTTP/1.1\r\nHost: x\r\n\r\n" % PROJECT.encode(),
    b"POST /v2/%s/restores HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n" % PROJECT.encode(),
    b"",
)


class BrokenError(Exception):
    """What some engines end by."""


class Crowd:
    """So many engines at once, each of which begins a restore when its last is over."""

    def __init__(self, server: ReferenceServer, socket: Path, settings: Settings, chance: Random) -> None:
        self.is_there = asyncio.Event()
        """Set while the control plane can be told of a new restore, or of a stop."""
        self.is_there.set()
        self.begun: list[str] = []
        self.troubles: list[str] = []
        self._server = server
        self._socket = socket
        self._settings = settings
        self._chance = chance
        self._ways: list[tuple[Callable[[str], Any], float]] = [
            (self._over_the_socket, 10),
            (self._with_errors, 3),
            (self._told_to_stop, 3),
            (self._stopped_here, 2),
            (self._hangs_up, 2),
            (self._vanishes, 0.5),
            (self._by_the_library, 4),
        ]
        self._shared: aiohttp.ClientSession

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[None]:
        """As long as there are engines that share one connection pool."""
        async with self._session() as self._shared:
            yield

    async def come_and_go(self, is_over: Callable[[], bool]) -> None:
        """One after the other, each in a way of its own."""
        ways, weights = zip(*self._ways, strict=True)
        while not is_over():
            await self.go(self._chance.choices(ways, weights)[0])

    async def go_each_way(self) -> None:
        """One restore in each of the ways, all at once."""
        await asyncio.gather(*(self.go(way) for way, _ in self._ways))

    async def go(self, way: Callable[[str], Any]) -> None:
        """One restore."""
        restore_id = await self._begin()
        try:
            async with asyncio.timeout(PATIENCE):
                await way(restore_id)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as problem:
            self.troubles.append(f"{restore_id}: {way.__name__}: {problem!r}")

    async def misbehave(self) -> None:
        """Say what nobody understands, and leave at once or stay for a while."""
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            writer.write(self._chance.choice(GARBAGE))
            with suppress(TimeoutError, OSError):
                async with asyncio.timeout(self._chance.choice((0.0, 0.01, 0.5))):
                    await reader.read(1_000)
        finally:
            writer.close()

    # --- the ways -----------------------------------------------------------------------------------------

    async def _over_the_socket(self, restore_id: str) -> None:
        async with self._maybe_own_session() as session:
            await self._tell(session, restore_id, state="in_progress")
            for number in range(self._chance.randrange(4)):
                await self._tell(session, restore_id, bytes_restored=number * 1_000, files_restored=number)
            end = self._chance.choice(("completed", "completed", "failed"))
            await self._tell(session, restore_id, state=end, bytes_restored=10_000)

    async def _with_errors(self, restore_id: str) -> None:
        error = {"index": 1, "path": f"/srv/{restore_id}", "type": "no_access", "exception": {"code": 13}}
        errors = {"count": 1, "reason": "unable_to_process_some_files", "list": [error]}
        await self._tell(self._shared, restore_id, state="preparing")
        await self._tell(self._shared, restore_id, state="in_progress", errors=errors)
        await self._tell(self._shared, restore_id, state="completed_with_errors", errors=errors)

    async def _told_to_stop(self, restore_id: str) -> None:
        """By the control plane: its engine waits for the event."""
        await self._tell(self._shared, restore_id, state="in_progress")
        await self.is_there.wait()
        with suppress(RefusedError):
            self._server.request_stop(restore_id)
        async with self._maybe_own_session() as session:
            while "restore_stop_request" not in await self._ask(session, f"{restore_id}/events?wait=5"):
                pass
        await self._tell(self._shared, restore_id, state="stopped")

    async def _stopped_here(self, restore_id: str) -> None:
        """By a call to the daemon; its engine asks for the state."""
        await self._tell(self._shared, restore_id, state="in_progress")
        await self._tell(self._shared, restore_id, state="stop_requested")
        if "stop_requested" not in await self._ask(self._shared, restore_id):
            raise ValueError("a stop that was taken does not show")
        await self._tell(self._shared, restore_id, state="stopped")

    async def _hangs_up(self, restore_id: str) -> None:
        """While it waits for an event; and it does not read what it asks for."""
        await self._tell(self._shared, restore_id, state="in_progress")
        for what in (f"/{restore_id}/events?wait=600", "", f"/{restore_id}/errors"):
            _, writer = await asyncio.open_unix_connection(str(self._socket))
            writer.write(f"GET /v2/{PROJECT}/restores{what} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await asyncio.sleep(self._chance.choice((0.0, 0.05)))
            writer.close()
        await self._tell(self._shared, restore_id, state="completed")

    async def _vanishes(self, restore_id: str) -> None:
        """Its process ends without a word."""
        process = await asyncio.create_subprocess_exec("sleep", "60")
        try:
            headers = {"X-Engine-Pid": str(process.pid)}
            await self._tell(self._shared, restore_id, headers, state="in_progress", bytes_restored=7)
        finally:
            process.kill()
            await process.wait()

    async def _by_the_library(self, restore_id: str) -> None:
        with suppress(BrokenError):
            async with Reporter(self._settings) as reporter, reporter.restore(restore_id) as job:
                await self._restore(job)

    async def _restore(self, job: Job) -> None:
        job.start(total_bytes=10**6, total_files=10)
        for number in range(5):
            job.raise_if_stop_requested()
            job.advance(bytes=10**5, files=1)
            await asyncio.sleep(0.02)
            if self._chance.random() < 0.1:
                job.error(path=f"/srv/{number}", type="no_access", code=13)
        if self._chance.random() < 0.2:
            raise BrokenError("no more")

    # --- calls --------------------------------------------------------------------------------------------

    async def _begin(self) -> str:
        await self.is_there.wait()
        self.begun.append(self._server.start_restore())
        return self.begun[-1]

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._socket)))

    @asynccontextmanager
    async def _maybe_own_session(self) -> AsyncIterator[aiohttp.ClientSession]:
        if self._chance.random() < 0.5:
            yield self._shared
        else:
            async with self._session() as session:
                yield session

    async def _ask(self, session: aiohttp.ClientSession, what: str) -> str:
        async with session.get(f"{URL}/restores/{what}") as answer:
            return await answer.text()

    async def _tell(
        self,
        session: aiohttp.ClientSession,
        restore_id: str,
        headers: dict[str, str] | None = None,
        **values: object,
    ) -> None:
        """PATCH, and again for as long as there is no room."""
        patch = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in values.items()]
        url, body = f"{URL}/restores/{restore_id}", json.dumps(patch)
        while True:
            async with session.patch(url, data=body, headers=headers) as answer:
                if answer.status == 204:
                    return
                if answer.status != 503:
                    raise ValueError(f"{answer.status} {await answer.text()} to {body}")
            await asyncio.sleep(0.2)
