"""The commands with canaries in all that a user gives them: good runs, refusals, engines that fail, mistakes."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.server import PROJECT
from tests.bombs.bombs import Call
from tests.bombs.control_plane import hostile
from tests.canary.echoes import ECHOES
from tests.canary.places import Harvest, journal, watched_processes
from tests.canary.scenes import note_requests
from tests.canary.secrets import PASSPHRASE, PASSWORD, REPOSITORY, TOKEN

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND_SECONDS = 60.0
REFUSALS = {"500 with the request", "secret by numbers"}
RUN_OUTPUT = "output of run, the engine's own in it"
REPOSITORY_URL = f"rest:https://jo:{REPOSITORY.value}@127.0.0.1:1/repository"

ENGINES = {
    "restic": (
        ["-r", REPOSITORY_URL, "restore", "latest", "--target", "there"],
        [
            f'{{"message_type":"error","error":{{"message":"{REPOSITORY_URL}: refused"}},"during":"restore","item":"/a"}}',
            f"Fatal: unable to open repository at {REPOSITORY_URL}: wrong password",
        ],
    ),
    "borg": (
        ["extract", f"ssh://jo:{REPOSITORY.value}@127.0.0.1/./repository::archive"],
        [
            f'{{"type":"log_message","levelname":"ERROR","name":"borg","message":"ssh://jo:{REPOSITORY.value}@127.0.0.1"}}',
            f"Repository ssh://jo:{REPOSITORY.value}@127.0.0.1/./repository does not exist.",
        ],
    ),
    "rsync": (
        ["-a", f"rsync://jo:{REPOSITORY.value}@127.0.0.1/module/", "there"],
        [f"rsync: failed to connect to rsync://jo:{REPOSITORY.value}@127.0.0.1/module/", "rsync error: 10"],
    ),
    "mytool": (
        [f"https://jo:{REPOSITORY.value}@127.0.0.1/archive", "there"],
        [f"mytool: https://jo:{REPOSITORY.value}@127.0.0.1/archive: failed"],
    ),
}
"""Of each engine the arguments, and what it prints before it fails."""
OWN_SECRETS = {
    "RESTIC_PASSWORD": PASSPHRASE.value,
    "BORG_PASSPHRASE": PASSPHRASE.value,
    "RESTIC_REPOSITORY": REPOSITORY_URL,
}


@dataclass
class Host:
    """Where commands are called: a directory, settings, and the form in which events are logged."""

    directory: Path
    environment: dict[str, str]
    journal_socket: Path
    harvest: Harvest = field(default_factory=Harvest)

    async def do(self, *words: str, place: str = "output of commands", **environment: str) -> int:
        """Call the program, and keep what it prints."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.canary.journaled", str(self.journal_socket), *words),
            env=self.environment | environment,
            cwd=self.directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            out, _ = await asyncio.wait_for(process.communicate(), COMMAND_SECONDS)
        except TimeoutError:
            process.kill()
            raise
        self.harvest.add(place, " ".join(words[:1]), out)
        return process.returncode or 0


def _environment(directory: Path, level: str, form: str, **settings: object) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_REPORTER_")}
    own["PYTHONPATH"] = str(Path(__file__).parents[2])
    own["PATH"] = f"{directory / 'bin'}:{own['PATH']}"
    settings = {
        "project_id": PROJECT,
        "daemon": "never",
        "spool_dir": directory / "spool",
        "log_level": level,
        "log_format": form,
        "report_interval": 0.1,
        "stop_poll_interval": 0.2,
        "request_timeout": 2,
        "retry_base": 0.05,
        "retry_cap": 0.3,
        "drain_timeout": 0.5,
        **settings,
    }
    return own | {f"AGENT_REPORTER_{name.upper()}": str(value) for name, value in settings.items()}


def _secret(path: Path, content: str, mode: int = 0o600) -> Path:
    path.touch(mode=mode)
    path.write_text(content)
    path.chmod(mode)
    return path


async def commanded(
    directory: Path, *, level: str, form: str, engines: Sequence[str] = tuple(ENGINES), refused: bool = True
) -> Harvest:
    """Engines that fail with secrets in all they print, and each command while it is `refused`."""
    async with AsyncExitStack() as stack:
        reference = await stack.enter_async_context(ReferenceServer(directory / "cp", token=TOKEN.value))
        front = await stack.enter_async_context(hostile(reference.url))
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="canary-")))
        token = _secret(directory / "token", TOKEN.value)
        environment = _environment(directory, level, form, endpoint=front.url, token_file=token)
        host = Host(directory, environment | OWN_SECRETS, sockets / "journal")
        await stack.enter_async_context(journal(host.journal_socket, host.harvest))
        await stack.enter_async_context(watched_processes(host.harvest))
        _make_engines(directory / "bin")
        for name in engines:
            restore_id = reference.start_restore()
            await host.do("run", "--restore-id", restore_id, "--", name, *ENGINES[name][0], place=RUN_OUTPUT)
            host.harvest.add("records of the control plane", name, str(reference.errors(restore_id)).encode())
        for echo in (echo for echo in ECHOES if refused and echo.name in REFUSALS):
            for call in (Call.PATCH, Call.READ):
                front.arm(echo, call, 1_000)
                restore_id = reference.start_restore()
                if call is Call.PATCH:
                    await host.do("run", "--restore-id", restore_id, "--", "true")
                    host.harvest.add_files("spool", directory / "spool")
                    await host.do("stop", restore_id, "--timeout", "0.2")
                    await host.do("flush", "--timeout", "0.2")
                    await host.do("status")
                    await host.do("status", "--json")
                else:
                    await host.do("check")
        note_requests(front, host.harvest)
    host.harvest.add_files("spool", directory / "spool")
    return host.harvest


def _make_engines(folder: Path) -> None:
    """Programs that print, and live for long enough to be seen in `/proc`."""
    folder.mkdir()
    for name, (_, lines) in ENGINES.items():
        program = folder / name
        text = folder.parent / f"{name}.txt"
        text.write_text("\n".join(lines) + "\n")
        program.write_text(f'#!/bin/sh\ncat "{text}" >&2\ncat "{text}"\nsleep 1\nexit 1\n')
        program.chmod(0o755)


MISTAKES: dict[str, tuple[str, dict[str, str], tuple[str, ...]]] = {
    "token in the settings file": (f'token = "{TOKEN.value}"', {}, ()),
    "token as the file": (f'token_file = "{TOKEN.value}"', {}, ()),
    "broken settings file": (f'token_file = "here\ntoken = "{TOKEN.value}"', {}, ()),
    "no quotes in the settings file": (f"token_file = {TOKEN.value}", {}, ()),
    "token as a level": (f'log_level = "{TOKEN.value}"', {}, ()),
    "token as a number": (f'report_interval = "{TOKEN.value}"', {}, ()),
    "token as a choice": (f'progress = "{TOKEN.value}"', {}, ()),
    "token as the endpoint": (f'endpoint = "{TOKEN.value}"', {}, ()),
    "password in the endpoint": (f'endpoint = "https://jo:{REPOSITORY.value}@backup.invalid"', {}, ()),
    "password in the Identity endpoint": (
        "",
        {"IDENTITY_ENDPOINT": f"https://jo:{REPOSITORY.value}@identity.invalid"},
        (),
    ),
    "token in a query": ("", {"ENDPOINT": f"https://backup.invalid/?token={TOKEN.value}"}, ()),
    "token in an address over http": ("", {"ENDPOINT": f"http://{REPOSITORY.value}@backup.invalid"}, ()),
    "token as an option": ("", {}, ("--token", TOKEN.value)),
    "token as an option of no name": ("", {}, ("--auth-token", TOKEN.value)),
    "password as an option": ("", {}, ("--agent-password", PASSWORD.value)),
}
"""Of each the settings file, the environment and the options."""
TOKEN_FILES = {
    "two lines": (f"{TOKEN.value}\n{TOKEN.value}\n", 0o600),
    "open to others": (TOKEN.value, 0o644),
    "no text": (f"\x00{TOKEN.value}", 0o600),
}


async def mistaken(directory: Path, *, level: str, form: str, among: Sequence[str] = ()) -> Harvest:
    """Every mistake that puts a secret where none belongs. What is typed is in `/proc` by the user's own doing."""
    with tempfile.TemporaryDirectory(prefix="canary-") as sockets:
        host = Host(directory, _environment(directory, level, form), Path(sockets) / "journal")
        endpoint = {"AGENT_REPORTER_ENDPOINT": "https://backup.invalid"}
        async with journal(host.journal_socket, host.harvest):
            for name, (settings, environment, options) in MISTAKES.items():
                if among and name not in among:
                    continue
                file = directory / "settings.toml"
                file.write_text(f"{settings}\n")
                theirs = {f"AGENT_REPORTER_{key}": value for key, value in environment.items()}
                given = theirs if "endpoint =" in settings else endpoint | theirs
                await host.do("check", "--config", str(file), *options, **given)
            for content, mode in TOKEN_FILES.values() if not among else ():
                token = _secret(directory / "token", content, mode)
                await host.do("check", "--token-file", str(token), **endpoint)
    host.harvest.add_files("spool", directory / "spool")
    return host.harvest
