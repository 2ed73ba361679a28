from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import pytest

from agent_reporter.reference import Accounts, AgentAccount, ReferenceServer, UserAccount
from agent_reporter.reference.server import PROJECT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

TOKEN = "fixed-token"
PATCH_TYPE = "application/json-patch+json"
ACCOUNTS = Accounts(
    agents=[AgentAccount(PROJECT, "agent-1", "agent-password")],
    users=[UserAccount("220022", "jo", "jo-key")],
)


@dataclass
class Clock:
    moment: float = 1_700_000_000.25
    pauses: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.moment

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)


class Client:
    """Speaks to the server over its socket, with the fixed token unless another is given."""

    def __init__(self, server: ReferenceServer) -> None:
        self.server = server
        self.token: str | None = TOKEN

    async def __aenter__(self) -> Self:
        self.session = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def call(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **kwargs: Any
    ) -> tuple[int, Any]:
        """The status and the JSON document of an answer, None where there is no body."""
        sent = {"X-Auth-Token": self.token} if self.token is not None else {}
        url = path if path.startswith("http") else self.server.url + path
        async with self.session.request(method, url, headers={**sent, **(headers or {})}, **kwargs) as answer:
            body = await answer.read()
            return answer.status, (await answer.json() if body else None)

    async def patch(self, restore_id: str, patch: Any, **headers: str) -> tuple[int, Any]:
        sent = {
            "Content-Type": PATCH_TYPE,
            **{key.replace("_", "-"): value for key, value in headers.items()},
        }
        return await self.call("PATCH", path_of(restore_id), json=patch, headers=sent)


def path_of(restore_id: str, project_id: str = PROJECT) -> str:
    return f"/v2/{project_id}/restores/{restore_id}"


def replace(path: str, value: Any) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}


def state(name: str) -> list[dict[str, Any]]:
    return [replace("/state", name)]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def server(tmp_path: Path, clock: Clock) -> AsyncIterator[ReferenceServer]:
    async with ReferenceServer(
        tmp_path, token=TOKEN, accounts=ACCOUNTS, faults=True, now=clock.now, pause=clock.pause
    ) as server:
        yield server


@pytest.fixture
async def client(server: ReferenceServer) -> AsyncIterator[Client]:
    async with Client(server) as client:
        yield client
