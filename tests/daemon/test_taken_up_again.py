"""What a daemon goes on with, where something was in the way at its start, or somebody comes first."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent_reporter import processes
from agent_reporter.daemon.journal import Journal
from agent_reporter.daemon.journaled import OVER
from agent_reporter.daemon.left_behind import LeftBehind
from agent_reporter.daemon.peers import Peer
from agent_reporter.errors import SpoolError
from agent_reporter.model.client import Client as Facts
from agent_reporter.model.record import Record
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState
from agent_reporter.spool import Entry, Spool
from tests.builders import listening
from tests.daemon.conftest import ME, client_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

    from agent_reporter.model.process_identity import ProcessIdentity
    from tests.daemon.conftest import Client, Daemons

STRANGER = Peer(12_345, 12_345, 1)


def running(daemons: Daemons, restore_id: str, *named: ProcessIdentity) -> Record:
    """A restore of the daemon, as its file shows it."""
    report = Report(restore_id, revision=1, state=RestoreState.IN_PROGRESS)
    return Record(daemons.rig.destination, report, client=Facts(os.getuid(), named))


async def keep(daemons: Daemons, record: Record) -> None:
    def write() -> None:
        entry = daemons.rig.spool.open(record.report.restore_id)
        entry.write(record)
        entry.release()

    await asyncio.to_thread(write)


async def journal(daemons: Daemons, record: Record) -> None:
    lines = Journal(daemons.rig.spool.directory)
    await asyncio.to_thread(lines.replay)
    await lines.start()
    await lines.append(record.report.restore_id, {**record.changes_since(None), OVER: False})
    await lines.close()


@asynccontextmanager
async def busy_at_the_start(daemons: Daemons, restore_id: str) -> AsyncIterator[None]:
    """A daemon that could not own the restore, as somebody just looked at it."""
    entry = await asyncio.to_thread(daemons.rig.spool.open, restore_id)
    async with daemons.running():
        await asyncio.to_thread(entry.release)
        yield


async def told(client: Client, restore_id: str, **values: Any) -> int:
    """The status of a call that is made again while somebody looks at the restore."""
    while (answer := await client.tell(restore_id, {"X-Engine-Pid": ME}, **values)).status == 503:
        assert answer.headers["Retry-After"]
    return answer.status


async def test_a_spool_that_cannot_be_looked_through_is_looked_through_again(
    daemons: Daemons, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore_id = daemons.rig.server.start_restore()
    await journal(daemons, running(daemons, restore_id, processes.own_identity()))
    with listening() as heard:
        async with busy_at_the_start(daemons, restore_id), asyncio.timeout(30):
            with monkeypatch.context() as patched:
                patched.setattr(Spool, "listing", _fail)
                while len(heard.named("spool.unusable")) < 2:
                    await daemons.rig.clock.sleep(10)
            while not (await client.call("GET", "/restores")).document["restores"]:
                await daemons.rig.clock.sleep(10)
    assert heard.named("reporter.loop_failed") == []


def _fail(spool: Spool) -> None:
    raise SpoolError(f"the spool {spool.directory} cannot be read")


async def test_a_restore_that_was_busy_at_the_start_is_gone_on_with(daemons: Daemons, client: Client) -> None:
    restore_id = daemons.rig.server.start_restore()
    await keep(daemons, running(daemons, restore_id, processes.own_identity()))
    async with busy_at_the_start(daemons, restore_id), asyncio.timeout(30):
        while not (await client.call("GET", "/restores")).document["restores"]:
            await daemons.rig.clock.sleep(10)


async def test_a_file_that_could_not_be_deleted_goes_at_the_next_start_though_its_engine_lives(
    daemons: Daemons, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore_id = daemons.rig.server.start_restore()
    await keep(daemons, running(daemons, restore_id, processes.own_identity()))
    with monkeypatch.context() as patched, listening() as heard:
        patched.setattr(Entry, "discard", _fail_to_delete)
        async with daemons.running():
            assert (await client.tell(restore_id, {"X-Engine-Pid": ME}, state="completed")).status == 204
            while not heard.named("spool.clearing_failed"):
                await daemons.rig.clock.sleep(1)
    async with daemons.running():
        assert await asyncio.to_thread(daemons.rig.spool.listing) == []


def _fail_to_delete(entry: Entry) -> None:
    raise OSError(errno.EIO, "Input/output error", entry.restore_id)


async def test_a_result_in_the_journal_is_not_undone_by_a_call_that_finds_an_older_file(
    daemons: Daemons, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_reporter.daemon.checkpoints.CHECKPOINT_INTERVAL", 50.0)
    restore_id = daemons.rig.server.start_restore()
    old = running(daemons, restore_id)
    await keep(daemons, old)
    result = replace(old.report, revision=2, state=RestoreState.COMPLETED, bytes_restored=100)
    await journal(daemons, replace(old, report=result))
    async with busy_at_the_start(daemons, restore_id):
        assert await told(client, restore_id, bytes_restored=5) == 409
        await daemons.rig.until_state(restore_id, "completed")


async def test_a_stop_in_the_journal_is_known_to_a_call_that_finds_an_older_file(
    daemons: Daemons, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_reporter.daemon.checkpoints.CHECKPOINT_INTERVAL", 50.0)
    restore_id = daemons.rig.server.start_restore()
    old = running(daemons, restore_id)
    await keep(daemons, old)
    stop = replace(old, report=replace(old.report, revision=2), client=Facts(os.getuid(), (), True))
    await journal(daemons, stop)
    async with busy_at_the_start(daemons, restore_id):
        assert await told(client, restore_id, bytes_restored=5) == 204
        assert (await client.read(restore_id)).document["state"] == "stop_requested"
        assert (await client.tell(restore_id, state="completed")).status == 204
        await daemons.rig.until_state(restore_id, "completed")
        await daemons.rig.clock.sleep(200)
        assert (await client.read(restore_id)).document["state"] == "completed"


async def test_a_stop_that_alone_is_in_the_journal_survives_a_kill(
    daemons: Daemons, client: Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wants = [True]
    monkeypatch.setattr(Journal, "wants_rotation", property(lambda _: wants[0]))
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        await client.tell(restore_id, {"X-Engine-Pid": ME}, state="in_progress", bytes_restored=1)
        await daemons.rig.clock.sleep(20)
        wants[0] = False
        await daemons.rig.clock.sleep(10)
        assert (await client.tell(restore_id, state="stop_requested")).status == 204
        killed = tmp_path / "killed"
        await asyncio.to_thread(shutil.copytree, daemons.rig.spool.directory, killed)

    def own() -> Any:
        lines = Journal(killed).replay()
        ((_, record),) = LeftBehind(Spool(killed), daemons.rig.destination, lines).own()
        return record.client

    assert (await asyncio.to_thread(own)).stop_requested


async def test_a_process_that_has_the_number_of_a_dead_one_is_another(
    daemons: Daemons, client: Client
) -> None:
    restore_id = daemons.rig.server.start_restore()
    me = processes.own_identity()
    await keep(daemons, running(daemons, restore_id, replace(me, start_ticks=me.start_ticks - 1)))
    async with daemons.running():
        assert (await client.tell(restore_id, {"X-Engine-Pid": ME}, bytes_restored=5)).status == 204
        await daemons.rig.clock.sleep(150)
        assert (await client.read(restore_id)).document["state"] == "in_progress"


async def test_nobody_takes_over_the_restore_of_a_library_beside_the_daemon(
    daemons: Daemons, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        await daemons.rig.clock.sleep(5)
        report = Report(restore_id, revision=3, state=RestoreState.IN_PROGRESS)
        await daemons.rig.leave_behind(report, engine=processes.own_identity())
        assert await told(client, restore_id, state="completed") == 409
        monkeypatch.setattr("agent_reporter.daemon.door.peer_of", lambda _: STRANGER)
        async with client_of(daemons.socket) as stranger:
            assert (await stranger.tell(restore_id, state="completed")).status == 403


async def test_more_processes_than_one_restore_can_end_with_are_refused(
    daemons: Daemons, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_reporter.daemon.liveness.MAX_PROCESSES", 1)
    async with daemons.running():
        answer = await client.tell("r-1", {"X-Engine-Pid": f"{ME}, {os.getppid()}"}, state="queued")
        assert (answer.status, "at most 1" in answer.document["message"]) == (400, True)
