"""What the daemon goes on with, and what it says when nobody is left to say it."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from agent_reporter.daemon import liveness
from agent_reporter.model.client import Client as Facts
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.record import Record
from agent_reporter.model.report import Report
from agent_reporter.reference.server import AGENT
from tests.builders import listening
from tests.daemon.conftest import ME, client_of

if TYPE_CHECKING:
    import pytest

    from tests.daemon.conftest import Client, Daemons


async def sleeper() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec("sleep", "600")


async def test_an_engine_that_ends_without_a_result_is_lost_with_the_counters_it_had(
    daemons: Daemons, client: Client
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        engine = await sleeper()
        await client.tell(restore_id, {"X-Engine-Pid": str(engine.pid)}, bytes_restored=7)
        engine.kill()
        await engine.wait()
        await daemons.rig.until_state(restore_id, "failed")
        assert (await client.tell(restore_id, bytes_restored=8)).status == 409
    document = daemons.rig.server.document(restore_id)
    assert (document["errors"]["reason"], document["bytes_restored"]) == ("engine_lost", 7)
    assert str(engine.pid) in document["errors"]["diagnostics"]


async def test_a_call_that_is_refused_begins_nothing_and_a_result_needs_no_process(
    daemons: Daemons, client: Client
) -> None:
    refused, ended = daemons.rig.server.start_restore(), daemons.rig.server.start_restore()
    nobody = {"X-Engine-Pid": "4194304"}
    async with daemons.running(silence_limit=60):
        assert (await client.tell(refused, nobody, state="in_progress")).status == 400
        assert (await client.call("GET", "/restores")).document["restores"] == []
        assert (await client.tell(ended, nobody, state="completed", bytes_restored=5)).status == 204
        await daemons.rig.until_state(ended, "completed")
        await daemons.rig.clock.sleep(200)
    assert daemons.rig.server.document(refused)["state"] == "start_requested"


async def test_a_process_that_has_ended_is_passed_over_while_another_goes_on_to_report(
    daemons: Daemons, client: Client
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        engine = await sleeper()
        both = {"X-Engine-Pid": f"{ME}, {engine.pid}"}
        assert (await client.tell(restore_id, both, bytes_restored=1)).status == 204
        engine.kill()
        await engine.wait()
        assert (await client.tell(restore_id, both, bytes_restored=2)).status == 204
        await daemons.rig.clock.sleep(30)
        assert (await client.tell(restore_id, both, bytes_restored=3)).status == 204
        pids = (await client.read(restore_id)).document["delivery"]["pids"]
        assert set(pids) == {int(ME), engine.pid}


async def test_a_restore_goes_on_while_one_of_its_processes_lives(daemons: Daemons, client: Client) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        engine, other = await sleeper(), await sleeper()
        await client.tell(restore_id, {"X-Engine-Pid": f"{engine.pid}, {other.pid}"}, state="in_progress")
        engine.kill()
        await engine.wait()
        await daemons.rig.clock.sleep(100)
        assert (await client.read(restore_id)).document["state"] == "in_progress"
        other.kill()
        await other.wait()
        await daemons.rig.until_state(restore_id, "failed")


async def test_a_result_that_comes_just_after_the_end_of_its_process_counts(
    daemons: Daemons, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "GRACE_SECONDS", 3_000.0)  # half a minute of real time, on a busy machine
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        engine = await sleeper()
        await client.tell(restore_id, {"X-Engine-Pid": str(engine.pid)}, state="in_progress")
        engine.kill()
        await engine.wait()
        assert (await client.tell(restore_id, state="completed")).status == 204
        await daemons.rig.until_state(restore_id, "completed")


async def test_a_restore_without_a_process_is_lost_after_its_silence(
    daemons: Daemons, client: Client
) -> None:
    quiet, asking = daemons.rig.server.start_restore(), daemons.rig.server.start_restore()
    async with daemons.running(silence_limit=60):
        await client.tell(quiet, bytes_restored=7)
        await client.tell(asking, bytes_restored=7)

        async def ask() -> None:
            while True:
                await client.read(asking)
                await daemons.rig.clock.sleep(20)

        task = asyncio.create_task(ask())
        await daemons.rig.until_state(quiet, "failed")
        assert daemons.rig.server.document(asking)["state"] == "in_progress"
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert "60 s" in daemons.rig.server.document(quiet)["errors"]["diagnostics"]


async def test_a_daemon_goes_on_with_what_another_left(daemons: Daemons, client: Client) -> None:
    ended, running = daemons.rig.server.start_restore(), daemons.rig.server.start_restore()
    daemons.rig.server.add_fault({"status": 503}, for_seconds=100_000)
    async with daemons.running(drain_timeout=1):
        await client.tell(ended, state="completed", bytes_restored=9)
        await client.tell(running, {"X-Engine-Pid": ME}, bytes_restored=5)
    daemons.rig.server.faults.clear()
    async with daemons.running(), client_of(daemons.socket) as again:
        await daemons.rig.until_state(ended, "completed")
        assert (await again.read(running)).document["bytes_restored"] == 5
        assert (await again.tell(running, state="completed", bytes_restored=6)).status == 204
        await daemons.rig.until_state(running, "completed")
    for restore_id, size in ((ended, 9), (running, 6)):
        assert daemons.rig.server.document(restore_id)["bytes_restored"] == size
        daemons.rig.assert_truthful(restore_id)
    assert await daemons.rig.waiting() == []


async def test_an_engine_that_ended_while_there_was_no_daemon_has_some_time_to_be_told_of(
    daemons: Daemons, client: Client
) -> None:
    told, lost = daemons.rig.server.start_restore(), daemons.rig.server.start_restore()
    engine = await sleeper()
    async with daemons.running():
        for restore_id in (told, lost):
            await client.tell(restore_id, {"X-Engine-Pid": str(engine.pid)}, bytes_restored=3)
    engine.kill()
    await engine.wait()
    async with daemons.running(), client_of(daemons.socket) as again:
        assert (await again.tell(told, state="completed")).status == 204
        await daemons.rig.until_state(lost, "failed")
    assert daemons.rig.server.document(told)["state"] == "completed"
    assert daemons.rig.server.document(lost)["errors"]["reason"] == "engine_lost"


async def test_orphans_of_engines_without_a_daemon_are_taken_over(daemons: Daemons) -> None:
    restore_id = daemons.rig.server.start_restore()
    await daemons.rig.leave_behind(Report(restore_id))
    async with daemons.running():
        await daemons.rig.until_state(restore_id, "failed")
    assert daemons.rig.server.document(restore_id)["errors"]["reason"] == "reporter_lost"


async def test_a_reporter_leaves_what_is_the_daemons(daemons: Daemons, client: Client) -> None:
    restore_id = daemons.rig.server.start_restore()
    record = Record(daemons.rig.destination, Report(restore_id), Exchange(), client=Facts(os.getuid()))

    def leave() -> None:
        entry = daemons.rig.spool.open(restore_id)
        entry.write(record)
        entry.release()

    await asyncio.to_thread(leave)
    async with daemons.rig.reporter(takes_over=False) as alone:
        assert await alone.take_over() == []
    assert [kept.client for kept in await daemons.rig.waiting()] == [record.client]
    async with daemons.running():
        assert (await client.tell(restore_id, state="completed")).status == 204
        await daemons.rig.until_state(restore_id, "completed")


async def test_the_daemon_says_when_it_comes_and_when_it_goes(daemons: Daemons) -> None:
    async with daemons.running():
        await daemons.rig.until(lambda: daemons.rig.server.presence(AGENT) == "startup")
    assert daemons.rig.server.presence(AGENT) == "shutdown"


async def test_an_announcement_is_repeated_until_it_is_taken(daemons: Daemons) -> None:
    daemons.rig.server.add_fault({"status": 503}, times=3)
    async with daemons.running():
        await daemons.rig.until(lambda: daemons.rig.server.presence(AGENT) == "startup")


async def test_a_reload_takes_over_what_can_be_and_says_what_cannot(daemons: Daemons, client: Client) -> None:
    with listening() as heard:
        async with daemons.running(loaded={"peer_rate": 1, "max_restores": 5}) as service:
            service.reload()
            async with asyncio.timeout(20):
                statuses: list[int] = []
                while 503 not in statuses:
                    answers = [client.call("GET", f"/nothing/{number}") for number in range(8)]
                    statuses = [answer.status for answer in await asyncio.gather(*answers)]
        (told,) = heard.named("daemon.needs_restart")
        assert "max_restores" in str(told["settings"])


async def test_a_reload_of_settings_that_are_wrong_changes_nothing(daemons: Daemons, client: Client) -> None:
    with listening() as heard:
        async with daemons.running(loaded={"retry_cap": 0.5, "peer_rate": 1}) as service:
            service.reload()
            async with asyncio.timeout(20):
                while not heard.named("daemon.not_reloaded"):
                    await client.call("GET", "/restores")
            answers = await asyncio.gather(*(client.call("GET", "/restores") for _ in range(20)))
            assert {answer.status for answer in answers} == {200}
