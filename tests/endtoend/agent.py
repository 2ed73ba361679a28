"""The program `agent-reporter` as a user starts it: a process of its own, settings in the environment."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.server import PROJECT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TOKEN = "a-token-that-nobody-else-should-see"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return (self.out + self.err).decode("utf-8", "replace")


@dataclass
class Agent:
    """A host with the program on it. `environment` holds its settings."""

    directory: Path
    environment: dict[str, str]
    running: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def spool(self) -> Path:
        return self.directory / "spool"

    async def start(self, *words: str, **options: Any) -> asyncio.subprocess.Process:
        return await self.start_other(sys.executable, "-m", "agent_reporter.cli.main", *words, **options)

    async def start_other(self, *command: str, **options: Any) -> asyncio.subprocess.Process:
        """Start a program that comes to call `agent-reporter`."""
        environment = self.environment | options.pop("environment", {})
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=options.pop("stdout", asyncio.subprocess.PIPE),
            stderr=options.pop("stderr", asyncio.subprocess.PIPE),
            **options,
        )
        self.running.append(process)
        return process

    async def do(self, *words: str, **options: Any) -> Ended:
        return await ended(await self.start(*words, **options))

    async def run(self, restore_id: str, *command: str, **options: Any) -> Ended:
        return await self.do("run", "--restore-id", restore_id, "--", *command, **options)

    def kill_all(self) -> None:
        for process in self.running:
            if process.returncode is None:
                process.kill()


async def ended(process: asyncio.subprocess.Process) -> Ended:
    out, err = await process.communicate()
    assert process.returncode is not None
    return Ended(process.returncode, out or b"", err or b"")


def make_agent(directory: Path, url: str, **settings: str) -> Agent:
    directory.mkdir(exist_ok=True)
    token = directory / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    own = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_REPORTER_")}
    return Agent(
        directory,
        own
        | {
            "AGENT_REPORTER_ENDPOINT": url,
            "AGENT_REPORTER_PROJECT_ID": PROJECT,
            "AGENT_REPORTER_TOKEN_FILE": str(token),
            "AGENT_REPORTER_SPOOL_DIR": str(directory / "spool"),
            "AGENT_REPORTER_REPORT_INTERVAL": "0.2",
            "AGENT_REPORTER_STOP_POLL_INTERVAL": "0.5",
            "AGENT_REPORTER_RETRY_BASE": "0.1",
            "AGENT_REPORTER_DRAIN_TIMEOUT": "2",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        | {f"AGENT_REPORTER_{name.upper()}": value for name, value in settings.items()},
    )


async def serve(directory: Path) -> AsyncIterator[ReferenceServer]:
    async with ReferenceServer(directory / "control-plane", token=TOKEN) as server:
        yield server


def patches(server: ReferenceServer, restore_id: str) -> list[dict[str, Any]]:
    """The patches that the control plane took, each as the paths and values it holds."""
    return [
        {operation["path"]: operation["value"] for operation in request["body"]}
        for request in server.history(restore_id)
        if request["method"] == "PATCH" and request["applied"]
    ]


def values(server: ReferenceServer, restore_id: str, path: str) -> list[Any]:
    """What the control plane was told of one path, in order."""
    return [patch[path] for patch in patches(server, restore_id) if path in patch]
