"""Engines in Python report through the daemon, with the same job, and no token of their own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter import ConfigurationError, DaemonUse, Reporter, Settings, StopRequested
from agent_reporter.reference.server import PROJECT
from agent_reporter.spool import Spool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.daemon.conftest import Client, Daemons


def reporter(daemons: Daemons, tmp_path: Path, **changes: object) -> Reporter:
    """One whose process knows no token, and not where the control plane is."""
    plain: dict[str, object] = {
        "project_id": PROJECT,
        "socket": daemons.socket,
        "spool_dir": tmp_path / "own-spool",
        "daemon": DaemonUse.ALWAYS,
        "drain_timeout": 3_000.0,
    }
    return Reporter(Settings(**(plain | changes)), clock=daemons.rig.clock)  # type: ignore[arg-type]  # checked when made


@asynccontextmanager
async def both(daemons: Daemons, tmp_path: Path) -> AsyncIterator[Reporter]:
    async with daemons.running(), reporter(daemons, tmp_path) as through_it:
        yield through_it


async def test_a_restore_is_reported_through_the_daemon(daemons: Daemons, tmp_path: Path) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with both(daemons, tmp_path) as through_it:
        async with through_it.restore(restore_id) as job:
            job.start(total_bytes=100, total_files=2)
            job.progress(bytes_restored=50, files_restored=1)
            await daemons.rig.until_bytes(restore_id, 50)
            job.error(path="/a", type="missing", code=2)
        assert await job.delivered(10)
        await daemons.rig.until_state(restore_id, "completed_with_errors")
    assert daemons.rig.server.errors(restore_id)["list"][0]["path"] == "/a"
    daemons.rig.assert_truthful(restore_id)


async def test_the_daemon_knows_the_totals_and_the_process(
    daemons: Daemons, tmp_path: Path, client: Client
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with both(daemons, tmp_path) as through_it, through_it.restore(restore_id) as job:
        job.start(total_bytes=100, total_files=2)
        job.progress(bytes_restored=50)
        await daemons.rig.until_bytes(restore_id, 50)
        told = (await client.read(restore_id)).document["delivery"]
        assert (told["total_bytes"], told["total_files"], len(told["pids"])) == (100, 2, 1)


async def test_a_stop_comes_through_the_daemon(daemons: Daemons, tmp_path: Path) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with both(daemons, tmp_path) as through_it:
        async with through_it.restore(restore_id) as job:
            job.start()
            await daemons.rig.until_state(restore_id, "in_progress")
            daemons.rig.server.request_stop(restore_id)
            await asyncio.wait_for(job.wait_for_stop(), 10)
            job.raise_if_stop_requested()
        await daemons.rig.until_state(restore_id, "stopped")
    assert daemons.rig.server.erased_stops(restore_id) == 0


async def test_a_stop_that_came_before_the_start_is_known_at_the_first_contact(
    daemons: Daemons, tmp_path: Path
) -> None:
    restore_id = daemons.rig.server.start_restore()
    daemons.rig.server.request_stop(restore_id)
    async with both(daemons, tmp_path) as through_it:
        job = await through_it.open(restore_id)
        await through_it.contacted(job, 60)
        assert job.stop_requested
        await asyncio.to_thread(job.leave, StopRequested(restore_id))
        await daemons.rig.until_state(restore_id, "stopped")


async def test_nothing_is_lost_while_the_daemon_is_away_in_the_middle(
    daemons: Daemons, tmp_path: Path
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with reporter(daemons, tmp_path) as through_it:
        async with through_it.restore(restore_id) as job:
            job.start()
            job.progress(bytes_restored=1)
            async with daemons.running():
                await daemons.rig.until_bytes(restore_id, 1)
            job.progress(bytes_restored=2, files_restored=1)
            job.error(path="/a")
            async with daemons.running():
                await daemons.rig.until_bytes(restore_id, 2)
        async with daemons.running():
            await daemons.rig.until_state(restore_id, "completed_with_errors")
            assert await job.delivered(10)
    daemons.rig.assert_truthful(restore_id)


async def test_a_result_that_found_no_daemon_waits_in_the_spool_of_its_own_user(
    daemons: Daemons, tmp_path: Path
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with reporter(daemons, tmp_path, drain_timeout=1), asyncio.timeout(20):
        through_it = reporter(daemons, tmp_path, drain_timeout=1)
        async with through_it, through_it.restore(restore_id) as job:
            job.start()
    assert len(await asyncio.to_thread(Spool(tmp_path / "own-spool").listing)) == 1
    async with both(daemons, tmp_path):
        await daemons.rig.until_state(restore_id, "completed")


async def test_without_a_daemon_a_process_delivers_by_itself(daemons: Daemons) -> None:
    restore_id = daemons.rig.server.start_restore()
    settings = daemons.settings(daemon=DaemonUse.AUTO)
    async with Reporter(settings, clock=daemons.rig.clock) as alone, alone.restore(restore_id) as job:
        job.start()
    await daemons.rig.until_state(restore_id, "completed")


@pytest.mark.parametrize("use", [DaemonUse.AUTO, DaemonUse.NEVER])
async def test_the_setting_says_whether_the_daemon_is_used(
    daemons: Daemons, tmp_path: Path, client: Client, use: DaemonUse
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        settings = daemons.settings(daemon=use, spool_dir=tmp_path / "own-spool")
        async with Reporter(settings, clock=daemons.rig.clock) as one, one.restore(restore_id) as job:
            job.start()
            await daemons.rig.until_state(restore_id, "in_progress")
            listed = (await client.call("GET", "/restores")).document["restores"]
            assert bool(listed) is (use is DaemonUse.AUTO)
        await daemons.rig.until_state(restore_id, "completed")


async def test_a_daemon_that_does_not_answer_is_named_where_a_process_cannot_deliver_by_itself(
    daemons: Daemons, tmp_path: Path
) -> None:
    daemons.socket.touch()
    settings = daemons.settings(daemon=DaemonUse.AUTO, token_file=None, spool_dir=tmp_path / "own-spool")
    with pytest.raises(ConfigurationError, match=r"nothing to sign in with.*api\.sock is there, but"):
        async with Reporter(settings, clock=daemons.rig.clock):
            pass


@pytest.mark.parametrize("other", [{"endpoint": "https://elsewhere.example.com"}, {"project_id": "another"}])
async def test_a_daemon_of_another_control_plane_or_project_is_not_used(
    daemons: Daemons, tmp_path: Path, client: Client, other: Any
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running(**other):
        settings = daemons.settings(spool_dir=tmp_path / "own-spool")
        async with Reporter(settings, clock=daemons.rig.clock) as one, one.restore(restore_id) as job:
            job.start()
        await daemons.rig.until_state(restore_id, "completed")
        assert (await client.call("GET", "/restores")).document.get("restores", []) == []
