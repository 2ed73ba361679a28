"""A control plane, a host, and a repository as large as a real restore."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.endtoend.agent import Agent, make_agent, serve
from tests.engines.real_restic import Repository, binaries, make_repository

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from agent_reporter.reference import ReferenceServer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ReferenceServer]:
    async for server in serve(tmp_path):
        yield server


@pytest.fixture
def agent(tmp_path: Path, server: ReferenceServer) -> Iterator[Agent]:
    agent = make_agent(tmp_path / "host", server.url)
    yield agent
    agent.kill_all()


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """2,100 files and 210 MB, made by the oldest restic, so that all can read it."""
    return make_repository(tmp_path_factory.mktemp("large"), binaries()[0], files=2_100, file_bytes=100_000)
