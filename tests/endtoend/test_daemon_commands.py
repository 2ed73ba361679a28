"""`status`, `stop`, `check` and `flush` on a host with a daemon, each a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.builders import needs_root
from tests.daemon.conftest import client_of
from tests.endtoend.agent import Agent, Ended, ended, make_agent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from agent_reporter.reference import ReferenceServer
    from tests.daemon.conftest import Client

BOUND = 30
"""Seconds that a test waits at most for what has to happen."""
ME = {"X-Engine-Pid": str(os.getpid()), "X-Total-Bytes": "1000", "X-Total-Files": "10"}

AS_ANOTHER_USER = """
import os, sys
import aiohttp, rich.console, rich.table, rich.text
from agent_reporter import setting_sources
from agent_reporter.cli import check, main, status, stop
from agent_reporter.control_plane import connection
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
sys.exit(main.main())
"""
"""Imports while it may still read the interpreter's own files, and goes on as nobody."""


@dataclass
class Host:
    """A host with a daemon on it, and users of it who have no token and know no control plane."""

    service: Agent
    user: Agent
    socket: Path
    process: asyncio.subprocess.Process | None = None

    async def start_daemon(self) -> None:
        self.process = await self.service.start("daemon", stderr=asyncio.subprocess.PIPE)
        assert self.process.stderr is not None
        async with asyncio.timeout(BOUND):
            while b"daemon.ready" not in await self.process.stderr.readline():
                assert self.process.returncode is None

    async def kill_daemon(self) -> None:
        assert self.process is not None
        self.process.kill()
        await self.process.communicate()

    async def shown(self) -> dict[str, Any]:
        """What `status --json` prints."""
        printed = await self.user.do("status", "--json")
        assert printed.status == 0, printed.text
        document: dict[str, Any] = json.loads(printed.out)
        return document


@pytest.fixture
def socket() -> Iterator[Path]:
    """A short path that other users reach."""
    directory = Path(tempfile.mkdtemp(prefix="ar-"))
    directory.chmod(0o755)
    yield directory / "api.sock"
    shutil.rmtree(directory)


@pytest.fixture
async def host(tmp_path: Path, server: ReferenceServer, socket: Path) -> AsyncIterator[Host]:
    service = make_agent(tmp_path / "service", server.url, socket=str(socket), daemon="always")
    user = make_agent(tmp_path / "user", server.url, socket=str(socket))
    for name in ("ENDPOINT", "TOKEN_FILE"):
        del user.environment[f"AGENT_REPORTER_{name}"]
    host = Host(service, user, socket)
    yield host
    for agent in (service, user):
        agent.kill_all()
        for process in agent.running:
            await process.communicate()


@pytest.fixture
async def client(host: Host) -> AsyncIterator[Client]:
    """An engine of this user, and a daemon for it."""
    await host.start_daemon()
    async with client_of(host.socket) as client:
        yield client


async def begun(server: ReferenceServer, client: Client, **values: Any) -> str:
    """A restore that the daemon has."""
    restore_id = server.start_restore()
    answer = await client.tell(restore_id, ME, **({"state": "in_progress"} | values))
    assert answer.status == 204
    return restore_id


# --- status -------------------------------------------------------------------------------------------------


async def test_status_shows_the_daemons_restores_to_a_user_without_token_and_endpoint(
    host: Host, server: ReferenceServer, client: Client
) -> None:
    assert "The daemon has no open restore." in (await host.user.do("status")).text
    restore_id = await begun(server, client, bytes_restored=500)
    shown = await host.shown()
    assert shown["daemon"] == {"socket": str(host.socket), "problem": ""}
    (restore,) = shown["restores"]
    assert (restore["restore_id"], restore["owner"], restore["uid"]) == (restore_id, "daemon", os.getuid())
    assert restore["pids"] == [os.getpid()]
    assert (restore["newest"]["bytes_restored"], restore["newest"]["total_bytes"]) == (500, 1000)
    table = await host.user.do("status", environment={"COLUMNS": "200"})
    assert restore_id in table.text
    assert "Nothing is waiting" not in table.text


async def test_a_restore_that_a_process_reports_through_the_daemon_is_shown_once(
    host: Host, server: ReferenceServer, client: Client
) -> None:
    restore_id = server.start_restore()
    running = await host.user.start(
        *("run", "--daemon", "always", "--restore-id", restore_id, "--", "sleep", "60")
    )
    await server.wait_until(lambda: server.document(restore_id)["state"] == "in_progress")
    assert list(host.user.spool.glob("*.json"))
    assert [(one["restore_id"], one["owner"]) for one in (await host.shown())["restores"]] == [
        (restore_id, "daemon")
    ]
    running.send_signal(signal.SIGTERM)
    assert (await ended(running)).status == 128 + signal.SIGTERM


async def test_status_shows_the_own_spool_where_the_daemon_is_away_and_says_so(host: Host) -> None:
    await host.start_daemon()
    await host.kill_daemon()
    printed = await host.user.do("status")
    assert printed.status == 0
    assert "Nothing is waiting" in printed.text
    assert f"The daemon is not asked: {host.socket}: no connection: Connection refused." in printed.text


async def test_status_fails_where_only_the_daemon_is_to_be_used_and_is_not_there(host: Host) -> None:
    printed = await host.user.do("status", "--daemon", "always")
    assert printed.status == 1
    assert f"{host.socket}: No such file or directory. Start the daemon" in printed.text
    as_json = await host.user.do("status", "--daemon", "always", "--json")
    assert as_json.status == 1
    assert json.loads(as_json.out)["daemon"]["problem"]


async def test_status_asks_no_daemon_of_another_project(host: Host, client: Client) -> None:
    printed = await host.user.do("status", "--project-id", "999")
    assert printed.status == 0
    assert "This daemon reports for project" in printed.text
    missing = await host.user.do("status", environment={"AGENT_REPORTER_PROJECT_ID": ""})
    assert missing.status == 0
    assert "project_id is not set" in missing.text


async def test_without_a_daemon_status_brings_nothing_that_calls_or_draws(host: Host) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-m", "agent_reporter.cli.main", "status"),
        env=host.user.environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed = await ended(process)
    assert printed.status == 0
    imported = set(re.findall(r"\| +(\S+)$", printed.err.decode(), re.MULTILINE))
    assert "agent_reporter.cli.restores_shown" in imported
    assert not imported & {"aiohttp", "rich.live", "tenacity", "agent_reporter.reporter"}


# --- stop ---------------------------------------------------------------------------------------------------


async def test_stop_is_asked_of_the_daemon_while_the_control_plane_is_away(
    host: Host, server: ReferenceServer, client: Client
) -> None:
    restore_id = await begun(server, client)
    server.add_fault({"status": 503}, times=1000)
    printed = await host.user.do("stop", restore_id)
    assert printed.status == 0
    assert f"restore {restore_id}: a stop was requested through the daemon" in printed.text
    assert (await client.read(restore_id)).document["state"] == "stop_requested"
    (restore,) = (await host.shown())["restores"]
    assert restore["newest"]["stop_requested"]
    assert ", stopping" in (await host.user.do("status", environment={"COLUMNS": "200"})).text


async def test_stop_fails_for_a_restore_of_the_daemon_that_has_ended(
    host: Host, server: ReferenceServer, client: Client
) -> None:
    restore_id = await begun(server, client, state="completed")
    await server.wait_until(lambda: server.document(restore_id)["state"] == "completed")
    printed = await host.user.do("stop", restore_id)
    assert printed.status == 1
    assert "it has ended already, as completed" in printed.text


async def test_stop_asks_the_control_plane_for_a_restore_that_the_daemon_does_not_know(
    host: Host, server: ReferenceServer, client: Client
) -> None:
    restore_id = server.start_restore()
    without_token = await host.user.do("stop", restore_id, "--endpoint", server.url)
    assert without_token.status == 1
    assert "the daemon does not know it, and the control plane cannot be asked: nothing to sign in with" in (
        without_token.text
    )
    assert "endpoint is not set" in (await host.user.do("stop", restore_id)).text
    assert server.document(restore_id)["state"] == "start_requested"
    assert (await host.service.do("stop", restore_id)).status == 0
    assert server.document(restore_id)["state"] == "stop_requested"


async def test_stop_says_that_there_is_no_way_to_ask(host: Host) -> None:
    await host.start_daemon()
    await host.kill_daemon()
    printed = await host.user.do("stop", "r-1", "--timeout", "0.1")
    assert printed.status == 75
    assert f"The daemon: {host.socket}: nobody answers" in printed.text
    assert "The control plane: nothing to sign in with" in printed.text


# --- check --------------------------------------------------------------------------------------------------


def with_endpoint(host: Host, server: ReferenceServer) -> Agent:
    host.user.environment["AGENT_REPORTER_ENDPOINT"] = server.url
    return host.user


async def test_check_says_how_restores_are_reported(host: Host, server: ReferenceServer) -> None:
    alone = await host.service.do("check", "--daemon", "auto")
    assert alone.status == 0
    assert f"daemon         ok: there is none at {host.socket}, each process delivers by itself" in alone.text
    assert "daemon         ok: not used" in (await host.service.do("check", "--daemon", "never")).text
    await host.start_daemon()
    for words in ((), ("--daemon", "always", "--endpoint", "")):
        through_it = await with_endpoint(host, server).do("check", *words)
        assert through_it.status == 0, through_it.text
        assert f"daemon         ok: {host.socket} answers" in through_it.text
        assert "sign-in        ok: the daemon signs in" in through_it.text
    await host.kill_daemon()
    away = await with_endpoint(host, server).do("check")
    assert away.status == 1
    assert f"daemon         {host.socket}: no connection: Connection refused." in away.text
    assert "sign-in        nothing to sign in with" in away.text
    needed = await with_endpoint(host, server).do("check", "--daemon", "always")
    assert needed.status == 1
    assert "sign-in" not in needed.text


async def test_check_says_what_the_daemon_cannot_deliver(
    host: Host, server: ReferenceServer, client: Client
) -> None:
    server.add_fault({"status": 503}, times=1000)
    await begun(server, client)
    while not (await host.shown())["restores"][0]["why"]:  # noqa: ASYNC110 - another process's failure
        await asyncio.sleep(0.1)
    printed = await with_endpoint(host, server).do("check")
    assert printed.status == 1
    assert "control plane  the daemon cannot deliver 1 of 1 restore: " in printed.text
    assert "HTTP 503" in printed.text


# --- flush --------------------------------------------------------------------------------------------------


async def test_flush_hands_what_the_own_spool_holds_to_the_daemon(
    host: Host, server: ReferenceServer
) -> None:
    restore_id = server.start_restore()
    refused = await host.user.run(restore_id, "true", environment={"AGENT_REPORTER_DAEMON": "always"})
    assert refused.status == 0
    assert list(host.user.spool.glob("*.json"))
    await host.start_daemon()
    flushed = await host.user.do("flush", "--daemon", "always")
    assert flushed.status == 0, flushed.text
    assert f"restore {restore_id}: completed, taken by the daemon, which delivers it" in flushed.text
    await server.wait_until(lambda: server.document(restore_id)["state"] == "completed")


async def test_flush_leaves_what_is_the_daemons_and_says_so(
    host: Host, server: ReferenceServer, client: Client
) -> None:
    restore_id = await begun(server, client)
    await host.kill_daemon()
    await host.start_daemon()  # from now on it is in the spool, and not in the journal alone
    assert host.process is not None
    shared = await host.service.do("flush", "--timeout", "5")
    assert shared.status == 75
    goes_on = f"left to the daemon, which goes on with it as process {host.process.pid}"
    assert f"restore {restore_id}: {goes_on}" in shared.text
    await host.kill_daemon()
    alone = await host.service.do("flush", "--timeout", "5", "--daemon", "never")
    assert alone.status == 75
    assert f"restore {restore_id}: left to the daemon, which goes on with it once it runs again" in alone.text
    elsewhere = await host.service.do("flush", "--project-id", "999", "--timeout", "5", "--daemon", "never")
    assert elsewhere.status == 75
    shown = await host.service.do("status", "--daemon", "never", environment={"COLUMNS": "200"})
    assert "once the daemon runs" in shown.text


async def test_flush_says_where_else_a_record_belongs(host: Host, server: ReferenceServer) -> None:
    restore_id = server.start_restore()
    server.add_fault({"status": 503}, times=1000, restore_id=restore_id)
    alone = {"AGENT_REPORTER_DAEMON": "never"}
    assert (await host.service.run(restore_id, "true", environment=alone)).status == 0
    left = await host.service.do("flush", "--project-id", "999", environment=alone)
    assert left.status == 75
    assert f"restore {restore_id}: left in the spool: it is for project" in left.text


# --- another user -------------------------------------------------------------------------------------------


async def as_another_user(host: Host, spool: Path, *words: str) -> Ended:
    environment = host.user.environment | {"AGENT_REPORTER_SPOOL_DIR": str(spool), "COLUMNS": "200"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", AS_ANOTHER_USER, *words),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    return await ended(process)


@needs_root
async def test_another_user_sees_and_stops_nothing_of_ours(
    host: Host, server: ReferenceServer, client: Client
) -> None:
    restore_id = await begun(server, client)
    host.socket.chmod(0o666)
    closed = host.service.spool
    seen = await as_another_user(host, closed, "status")
    assert seen.status == 0
    assert "The daemon has no open restore." in seen.text
    assert f"the spool {closed} cannot be read" in seen.text
    stopped = await as_another_user(host, closed, "stop", restore_id)
    assert stopped.status == 1
    assert f"Restore {restore_id} is another user's." in stopped.text


@needs_root
async def test_a_user_who_may_not_use_the_daemon_is_told_which_group_may(
    host: Host, client: Client, server: ReferenceServer
) -> None:
    own = host.socket.parent / "own"
    checked = await as_another_user(host, own, "check", "--endpoint", server.url)
    assert checked.status == 1
    assert f"{host.socket} is not for this user, but for group root." in checked.text
    assert "is not for this user" in (await as_another_user(host, own, "status")).text


# --- status --watch -----------------------------------------------------------------------------------------


@dataclass
class Terminal:
    """What is written to a terminal. `descriptor` is what a process writes to."""

    _reading: int
    descriptor: int
    content: bytearray = field(default_factory=bytearray)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, pattern: str) -> None:
        """Wait until `pattern` is in what was written since `content` was cleared."""
        async with asyncio.timeout(BOUND):
            while not re.search(pattern, self.content.decode(errors="replace"), re.DOTALL):
                self._changed.clear()
                await self._changed.wait()

    def read(self) -> None:
        try:
            self.content += os.read(self._reading, 65_536)
        except OSError:
            asyncio.get_running_loop().remove_reader(self._reading)  # the other side is closed
        self._changed.set()


@pytest.fixture
async def terminal() -> AsyncIterator[Terminal]:
    reading, writing = os.openpty()
    terminal = Terminal(reading, writing)
    asyncio.get_running_loop().add_reader(reading, terminal.read)
    yield terminal
    asyncio.get_running_loop().remove_reader(reading)
    os.close(reading)
    os.close(writing)


async def watching(host: Host, **options: Any) -> asyncio.subprocess.Process:
    environment = {"COLUMNS": "200", "LINES": "24", "TERM": "xterm"}
    words = ("status", "--watch", "--interval", "0.2")
    return await host.user.start(*words, environment=environment, **options)


async def test_on_a_terminal_a_live_table_survives_the_daemon_and_ends_in_order(
    host: Host, server: ReferenceServer, client: Client, terminal: Terminal
) -> None:
    restore_id = await begun(server, client, bytes_restored=500)
    process = await watching(host, stdout=terminal.descriptor)
    await terminal.until("500/1000 B")
    assert b"\x1b[?1049h" in terminal.content
    await client.tell(restore_id, ME, bytes_restored=600, files_restored=3)
    await terminal.until("600/1000 B")
    await terminal.until("B/s")
    await host.kill_daemon()
    terminal.content.clear()
    await terminal.until(f"The daemon is not asked.*{restore_id}")
    await host.start_daemon()
    async with client_of(host.socket) as again:
        await again.tell(restore_id, ME, bytes_restored=700)
        await terminal.until("700/1000 B")
        await host.user.do("stop", restore_id)
        await terminal.until("stopping")
        await again.tell(restore_id, ME, state="stopped")
        await terminal.until("stopped, delivered")
    terminal.content.clear()
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 0
    await terminal.until(rf"\x1b\[\?25h.*\x1b\[\?1049l.*{restore_id}")


async def test_in_a_pipe_there_is_a_line_for_each_restore(
    host: Host, server: ReferenceServer, client: Client
) -> None:
    restore_id = await begun(server, client, bytes_restored=500)
    process = await watching(host)
    assert process.stdout is not None
    lines = [(await process.stdout.readline()).decode() for _ in range(2)]
    assert all(f"Z restore {restore_id}: in_progress, 500/1000 B" in text for text in lines)
    await client.tell(restore_id, ME, state="completed")
    async with asyncio.timeout(BOUND):
        while "completed, delivered" not in (await process.stdout.readline()).decode():
            pass
    process.send_signal(signal.SIGTERM)
    printed = await ended(process)
    assert (printed.status, printed.err) == (0, b"")
    assert restore_id.encode() not in printed.out


async def test_a_watch_ends_when_nobody_reads_any_more(
    host: Host, server: ReferenceServer, client: Client
) -> None:
    await begun(server, client)
    reading, writing = os.pipe()
    process = await watching(host, stdout=writing)
    os.close(writing)
    os.close(reading)
    assert (await ended(process)).err == b""
    assert process.returncode == 0


async def test_a_watch_of_a_host_without_a_daemon_shows_the_own_spool(
    host: Host, server: ReferenceServer
) -> None:
    restore_id = server.start_restore()
    running = await host.service.start(
        *("run", "--daemon", "never", "--restore-id", restore_id, "--", "sleep", "60")
    )
    host.user.environment["AGENT_REPORTER_SPOOL_DIR"] = str(host.service.spool)
    process = await watching(host)
    assert process.stdout is not None
    async with asyncio.timeout(BOUND):
        assert f"restore {restore_id}" in (await process.stdout.readline()).decode()
    for one in (running, process):
        one.send_signal(signal.SIGTERM)
        await ended(one)


@pytest.mark.parametrize("interval", ["0", "-1", "soon", "nan"])
async def test_an_interval_that_is_none_is_wrong_usage(host: Host, interval: str) -> None:
    assert (await host.user.do("status", "--watch", "--interval", interval)).status == 2
    assert (await host.user.do("status", "--watch", "--json")).status == 2
