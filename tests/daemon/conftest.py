"""A real daemon on a real socket in front of a real control plane; only time runs faster."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from agent_reporter.daemon.notify import Notifier
from agent_reporter.daemon.service import Service
from agent_reporter.reference.server import PROJECT
from tests.blocking import no_blocking_calls
from tests.delivery.conftest import Rig, open_rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from agent_reporter.settings import Settings


@dataclass(frozen=True)
class Answered:
    """An answer of the daemon."""

    status: int
    document: Any
    headers: dict[str, str] = field(default_factory=dict)


class Client:
    """Whoever calls the daemon over its socket, as curl does."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answered:
        data = body if isinstance(body, bytes | None) else None
        json = None if isinstance(body, bytes) else body
        url = f"http://localhost/v2/{PROJECT}{path}"
        async with self._session.request(method, url, json=json, data=data, headers=headers) as answer:
            document = await answer.json() if answer.content_type == "application/json" else None
            return Answered(answer.status, document, dict(answer.headers))

    async def tell(self, restore_id: str, headers: dict[str, str] | None = None, **values: Any) -> Answered:
        """PATCH a restore."""
        patch = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in values.items()]
        return await self.call("PATCH", f"/restores/{restore_id}", patch, headers)

    async def read(self, restore_id: str) -> Answered:
        return await self.call("GET", f"/restores/{restore_id}")

    async def events(self, restore_id: str, query: str = "") -> Answered:
        return await self.call("GET", f"/restores/{restore_id}/events{query}")


@asynccontextmanager
async def client_of(path: Path) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session:
        yield Client(session)


@dataclass
class Daemons:
    """A host on which daemons come and go, in front of the control plane of `rig`."""

    rig: Rig
    socket: Path

    def settings(self, **changes: object) -> Settings:
        return self.rig.settings(socket=self.socket, **changes)

    @asynccontextmanager
    async def running(
        self, *, loaded: dict[str, object] | None = None, **changes: object
    ) -> AsyncIterator[Service]:
        """A daemon, until it ends in an orderly way. `loaded` are the settings that it finds at a reload."""

        def load() -> Settings:
            return self.settings(**{**changes, **(loaded or {})})

        service = Service(
            self.settings(**changes),
            load,
            self.rig.clock,
            Notifier(None),
            [],
        )
        with no_blocking_calls():
            task = asyncio.create_task(service.run())
            ready = asyncio.create_task(service.ready.wait())
            await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
            try:
                if not task.done():
                    yield service
            finally:
                service.end()
                await task


@pytest.fixture
def socket_directory() -> Iterator[Path]:
    """A short one: the path of a Unix socket has at most 107 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="ar-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
async def daemons(tmp_path: Path, socket_directory: Path) -> AsyncIterator[Daemons]:
    async with open_rig(tmp_path / "rig") as rig:
        yield Daemons(rig, socket_directory / "api.sock")


@pytest.fixture
async def client(daemons: Daemons) -> AsyncIterator[Client]:
    async with client_of(daemons.socket) as client:
        yield client


ME = str(os.getpid())
