"""What a reporter leaves in the spool, and what the next one makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from agent_reporter import (
    Ending,
    RestoreBusyError,
    RestoreEndedError,
    RestoreState,
    SpoolError,
    deliveries,
    processes,
)
from agent_reporter.deliveries import TAKEOVER_INTERVAL
from agent_reporter.model.error_log import ErrorRecord, Errors
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.record import Destination
from agent_reporter.model.report import Report
from agent_reporter.reference.server import AGENT, PROJECT
from agent_reporter.spool import Entry, Spool
from tests.delivery.conftest import Log, Rig, RigMaker, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from agent_reporter.model.process_identity import ProcessIdentity
    from agent_reporter.model.record import Record

UNAVAILABLE = {"status": 503, "headers": {"Retry-After": "200"}}


def unfinished(rig: Rig, restore_id: str) -> Report:
    return Report(
        restore_id,
        revision=3,
        state=RestoreState.IN_PROGRESS,
        started_time=rig.clock.now(),
        bytes_restored=500,
        files_restored=5,
        errors=Errors(1, records=(ErrorRecord("/etc/passwd", "no_access", 13),)),
    )


def finished(rig: Rig, restore_id: str, *, ago: timedelta = timedelta(seconds=1)) -> Report:
    ended = rig.clock.now() - ago
    return replace(
        unfinished(rig, restore_id), state=RestoreState.COMPLETED_WITH_ERRORS, ended_time=ended, revision=4
    )


@contextlib.asynccontextmanager
async def engine_that_lives() -> AsyncIterator[tuple[asyncio.subprocess.Process, ProcessIdentity]]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", "import time; time.sleep(600)", stdin=asyncio.subprocess.DEVNULL
    )
    engine = processes.identity(process.pid)
    assert engine is not None
    try:
        yield process, engine
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def engine_that_is_gone() -> ProcessIdentity:
    async with engine_that_lives() as (_, engine):
        return engine


# Orphans --------------------------------------------------------------------------------------------------


async def test_a_result_that_was_left_is_delivered_by_the_next_reporter(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    await rig.leave_behind(finished(rig, restore_id))
    async with rig.reporter():
        await rig.until_state(restore_id, "completed_with_errors")
        await rig.until_spool_is_empty()
    document = rig.server.document(restore_id)
    assert (document["bytes_restored"], document["files_restored"]) == (500, 5)
    (record,) = rig.server.errors(restore_id)["list"]
    assert record["path"] == "/etc/passwd"
    first, *_ = [request for request in rig.requests() if not request.is_poll]
    assert first.is_read  # its owner may have died with the request in flight
    assert await rig.dead_letters() == []


async def test_what_is_reported_here_without_its_record_is_not_taken_over_here_as_well(
    rig: Rig, log: Log
) -> None:
    restore_id = rig.server.start_restore()
    await rig.leave_behind(unfinished(rig, restore_id), engine=await engine_that_is_gone())
    spool, hidden = rig.spool.directory, rig.directory / "hidden"
    await asyncio.to_thread(spool.rename, hidden)
    await asyncio.to_thread(spool.touch)  # a file in its place: the spool cannot be used
    async with rig.reporter() as reporter, reporter.restore(restore_id) as job:
        job.progress(bytes_restored=600)
        await eventually(lambda: log.named("spool.unusable") != [])
        await asyncio.to_thread(spool.unlink)
        await asyncio.to_thread(hidden.rename, spool)
        await rig.clock.sleep(3 * TAKEOVER_INTERVAL)
    assert await job.delivered(10)
    assert rig.states(restore_id)[-1] == "completed"
    assert "failed" not in rig.states(restore_id)
    log.assert_no_bug_of_ours()


async def test_a_job_is_refused_if_its_restore_is_taken_over_here_just_before_the_spool_breaks(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore_id = rig.server.start_restore()
    await rig.leave_behind(unfinished(rig, restore_id), engine=await engine_that_is_gone())
    async with rig.reporter(takes_over=False) as reporter:
        loop = asyncio.get_running_loop()

        def open_slowly(_: Spool, restore_id: str) -> Entry:
            asyncio.run_coroutine_threadsafe(reporter.take_over(at_once=True), loop).result()
            raise SpoolError(f"restore {restore_id}: the disk is broken")

        monkeypatch.setattr(Spool, "open", open_slowly)
        with pytest.raises(RestoreBusyError, match="this very process"):
            await reporter.open(restore_id)
        await rig.until_state(restore_id, "failed")
    assert rig.states(restore_id)[-1] == "failed"


async def test_a_result_that_had_arrived_is_not_told_again(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    report = finished(rig, restore_id)
    await rig.leave_behind(report)
    values = {
        "state": report.state.value,
        "errors": {"count": 1},
        "bytes_restored": 500,
        "files_restored": 5,
    }
    await rig.patch_elsewhere(restore_id, values)
    async with rig.reporter():
        await rig.until_spool_is_empty()
    assert rig.patches(restore_id) == []
    assert await rig.dead_letters() == []


async def test_a_restore_whose_reporter_and_engine_are_gone_has_failed_and_keeps_its_counters(
    rig: Rig,
) -> None:
    restore_id = rig.server.start_restore()
    await rig.leave_behind(unfinished(rig, restore_id), engine=await engine_that_is_gone())
    async with rig.reporter():
        await rig.until_state(restore_id, "failed")
        await rig.until_spool_is_empty()
    document = rig.server.document(restore_id)
    assert document["errors"]["reason"] == "reporter_lost"
    assert "500 bytes" in document["errors"]["diagnostics"]
    assert (document["bytes_restored"], document["files_restored"]) == (500, 5)
    assert document["errors"]["count"] == 1
    assert document["ended_time"] is not None
    rig.assert_truthful(restore_id)


async def test_counters_that_the_control_plane_has_and_the_spool_has_not_are_kept(rig: Rig) -> None:
    restore_id = rig.server.start_restore(state="in_progress")
    await rig.patch_elsewhere(restore_id, {"bytes_restored": 9_000, "files_restored": 90})
    await rig.leave_behind(unfinished(rig, restore_id), engine=await engine_that_is_gone())
    async with rig.reporter():
        await rig.until_state(restore_id, "failed")
    document = rig.server.document(restore_id)
    assert (document["bytes_restored"], document["files_restored"]) == (9_000, 90)


async def test_an_engine_that_lives_is_followed_until_it_ends(rig: Rig, log: Log) -> None:
    restore_id = rig.server.start_restore()
    async with engine_that_lives() as (process, engine):
        await rig.leave_behind(unfinished(rig, restore_id), engine=engine)
        async with rig.reporter():
            await rig.until_state(restore_id, "in_progress")
            await eventually(lambda: bool(log.named("takeover.engine_lives")))
            looks = rig.clock.monotonic()
            await eventually(lambda: rig.clock.monotonic() > looks + 10)
            assert rig.server.document(restore_id)["state"] == "in_progress"
            process.kill()
            await rig.until_state(restore_id, "failed")
            await rig.until_spool_is_empty()
    (event,) = log.named("takeover.engine_lives")
    assert (event["restore_id"], event["engine"]) == (restore_id, engine.pid)
    errors = rig.server.document(restore_id)["errors"]
    assert errors["reason"] == "reporter_lost"
    assert "outlived it and has ended since" in errors["diagnostics"]


async def test_an_engine_that_outlives_the_next_reporter_too_stays_in_the_spool(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with engine_that_lives() as (_, engine):
        await rig.leave_behind(unfinished(rig, restore_id), engine=engine)
        async with rig.reporter():
            await rig.until_state(restore_id, "in_progress")
        (left,) = await rig.waiting()
        assert left.engine == engine
        assert left.report.state is RestoreState.IN_PROGRESS


async def test_records_of_another_endpoint_or_project_are_left_alone(rig: Rig) -> None:
    restore_ids = [rig.server.start_restore() for _ in range(2)]
    elsewhere = [Destination("https://backup.example.com", PROJECT), Destination(rig.server.url, "220022")]
    for restore_id, destination in zip(restore_ids, elsewhere, strict=True):
        await rig.leave_behind(finished(rig, restore_id), destination=destination)
    mine = rig.server.start_restore()
    await rig.leave_behind(finished(rig, mine))
    before = await files(rig)
    async with rig.reporter() as reporter:
        await rig.until_state(mine, "completed_with_errors")
        with pytest.raises(SpoolError, match=restore_ids[0]):
            await reporter.open(restore_ids[0])
    after = await files(rig)
    del before[f"{mine}.json"]
    assert after == before
    assert all(rig.requests(restore_id) == [] for restore_id in restore_ids)


async def files(rig: Rig) -> dict[str, bytes]:
    def read() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in rig.spool.directory.glob("*.json")}

    return await asyncio.to_thread(read)


KILLED = """
import asyncio, sys
from agent_reporter import Reporter, Settings

async def main():
    endpoint, project, agent, token_file, spool, restore_id = sys.argv[1:]
    settings = Settings.load(endpoint=endpoint, project_id=project, agent_id=agent, token_file=token_file,
                             spool_dir=spool, report_interval=0.05)
    async with Reporter(settings) as reporter, reporter.restore(restore_id) as job:
        job.start()
        job.progress(bytes_restored=700)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_reporter_that_is_killed_with_its_engine_is_made_up_for_by_the_next(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        KILLED,
        *(rig.server.url, PROJECT, AGENT, str(rig.token_file), str(rig.spool.directory), restore_id),
    )
    try:
        await rig.server.wait_until(
            lambda: rig.server.document(restore_id)["bytes_restored"] == 700, within=30
        )
        async with rig.reporter(takes_over=False) as reporter:
            with pytest.raises(RestoreBusyError, match=f"{restore_id}.* process {process.pid}"):
                await reporter.open(restore_id)
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    (left,) = await rig.waiting()
    assert left.engine is not None
    assert left.engine.pid == process.pid
    async with rig.reporter():
        await rig.until_state(restore_id, "failed")
        await rig.until_spool_is_empty()
    document = rig.server.document(restore_id)
    assert document["errors"]["reason"] == "reporter_lost"
    assert document["bytes_restored"] == 700


# Refused --------------------------------------------------------------------------------------------------


async def test_a_restore_that_this_process_reports_is_refused(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter() as reporter, reporter.restore(restore_id):
        with pytest.raises(RestoreBusyError, match=restore_id):
            await reporter.open(restore_id)


async def test_a_restore_that_another_reporter_has_is_refused(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter() as first, first.restore(restore_id), rig.reporter() as second:
        with pytest.raises(RestoreBusyError, match=f"{restore_id}.* process {os.getpid()}"):
            async with second.restore(restore_id):
                pytest.fail("it was opened twice")


async def test_a_restore_whose_engine_still_runs_is_refused(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with engine_that_lives() as (_, engine):
        await rig.leave_behind(unfinished(rig, restore_id), engine=engine)
        async with rig.reporter(takes_over=False) as reporter:
            with pytest.raises(RestoreBusyError, match=f"{restore_id}.* process {engine.pid}"):
                await reporter.open(restore_id)
    async with rig.reporter(takes_over=False) as reporter, reporter.restore(restore_id) as job:
        assert job.state is RestoreState.IN_PROGRESS


async def test_a_restore_whose_result_still_waits_is_refused(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    await rig.leave_behind(finished(rig, restore_id))
    async with rig.reporter(takes_over=False) as reporter:
        with pytest.raises(RestoreEndedError, match=f"{restore_id}.* completed_with_errors"):
            await reporter.open(restore_id)
        await reporter.take_over()  # and nobody holds on to it
        await rig.until_state(restore_id, "completed_with_errors")


async def test_a_new_restore_is_not_refused_because_another_process_looks_for_orphans(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock file that is made, and not locked yet, looks like what a killed process left."""
    flock, discard = fcntl.flock, Entry.discard
    is_made, is_held, was_tried = threading.Event(), threading.Event(), threading.Event()

    def flock_late(descriptor: int, operation: int) -> None:
        if threading.current_thread().name != "another process" and not is_made.is_set():
            is_made.set()
            is_held.wait(0.5)  # in vain, if nobody mistakes it
            try:
                flock(descriptor, operation)
            finally:
                was_tried.set()
        else:
            flock(descriptor, operation)

    def discard_late(entry: Entry) -> None:
        is_held.set()
        was_tried.wait(5)
        discard(entry)

    def look_for_orphans() -> None:
        is_made.wait(5)
        assert list(Spool(rig.spool.directory).orphans()) == []

    monkeypatch.setattr(fcntl, "flock", flock_late)
    monkeypatch.setattr(Entry, "discard", discard_late)
    other = threading.Thread(target=look_for_orphans, name="another process")
    other.start()
    try:
        entry = await asyncio.to_thread(rig.spool.open, "a-new-restore")
        await asyncio.to_thread(entry.release)
    finally:
        await asyncio.to_thread(other.join)


async def test_a_reporter_that_ends_while_it_looks_for_orphans_holds_on_to_none(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore_id = rig.server.start_restore()
    await rig.leave_behind(finished(rig, restore_id))
    orphans, is_looking, may_go_on = Spool.orphans, threading.Event(), threading.Event()
    has_looked = threading.Event()

    def orphans_slowly(spool: Spool) -> Iterator[Entry]:
        is_looking.set()
        may_go_on.wait(5)
        yield from orphans(spool)
        has_looked.set()

    monkeypatch.setattr(Spool, "orphans", orphans_slowly)
    async with rig.reporter():
        await eventually(is_looking.is_set)
    may_go_on.set()
    await eventually(has_looked.is_set)
    await eventually(lambda: not rig.spool._lock_path(restore_id).exists(), within=3.0)
    async with rig.reporter():
        await rig.until_state(restore_id, "completed_with_errors")
        await rig.until_spool_is_empty()


async def test_an_orphan_that_somebody_held_for_a_moment_is_taken_over_all_the_same(rig: Rig) -> None:
    """Another process looks for its own orphans, say, and lets go of this one, which is none of them."""
    restore_id = rig.server.start_restore()
    await rig.leave_behind(finished(rig, restore_id))
    entry = await asyncio.to_thread(rig.spool.open, restore_id)
    async with rig.reporter():
        began = rig.clock.monotonic()
        await eventually(lambda: rig.clock.monotonic() > began + 20)
        await asyncio.to_thread(entry.release)
        await rig.server.wait_until(
            lambda: rig.server.document(restore_id)["state"] == "completed_with_errors", within=5.0
        )
        await rig.until_spool_is_empty()


async def test_a_restore_that_nobody_waited_for_to_be_opened_can_be_opened_again(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    restore_id = rig.server.start_restore()
    open_, is_opening, may_go_on, is_open = Spool.open, asyncio.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def open_slowly(spool: Spool, restore_id: str) -> Entry:
        loop.call_soon_threadsafe(is_opening.set)
        may_go_on.wait(5)
        entry = open_(spool, restore_id)
        loop.call_soon_threadsafe(is_open.set)
        return entry

    async with rig.reporter(takes_over=False) as reporter:
        monkeypatch.setattr(Spool, "open", open_slowly)
        opening = asyncio.create_task(reporter.open(restore_id))
        await is_opening.wait()
        opening.cancel()
        await asyncio.gather(opening, return_exceptions=True)
        may_go_on.set()
        await is_open.wait()
        monkeypatch.setattr(Spool, "open", open_)
        await eventually(lambda: not rig.spool._lock_path(restore_id).exists(), within=3.0)
        async with reporter.restore(restore_id) as job:
            job.start()
    assert rig.server.document(restore_id)["state"] == "completed"


# Waiting --------------------------------------------------------------------------------------------------


async def test_the_backoff_survives_a_restart(make_rig: RigMaker) -> None:
    rig = await make_rig(factor=1_000)
    restore_id = rig.server.start_restore()
    reporter = rig.reporter(drain_timeout=5.0, report_interval=5.0)
    async with reporter, reporter.restore(restore_id) as job:
        job.start()
        await rig.until_state(restore_id, "in_progress")
        rig.server.add_fault(UNAVAILABLE, method="PATCH")
        assert await asyncio.to_thread(job.finish)
        await rig.until(lambda: rig.patches(restore_id)[-1].answer == 503)
        await eventually(lambda: (found := reporter.exchange(job)) is not None and found.attempt == 1)
    refused = [request for request in rig.requests(restore_id) if not request.is_poll][-1]
    (left,) = await rig.waiting()
    assert left.exchange.not_before is not None
    async with rig.reporter(report_interval=5.0):
        await rig.until_state(restore_id, "completed")
    following = [request for request in rig.requests(restore_id) if not request.is_poll]
    first = following[following.index(refused) + 1]
    assert first.time - refused.time >= 200


async def test_what_is_taken_over_is_not_told_by_a_whole_fleet_at_once(rig: Rig) -> None:
    restore_ids = [rig.server.start_restore() for _ in range(12)]
    for restore_id in restore_ids:
        await rig.leave_behind(finished(rig, restore_id))
    async with rig.reporter(report_interval=10.0):
        for restore_id in restore_ids:
            await rig.until_state(restore_id, "completed_with_errors")
    first = [rig.requests(restore_id)[0].time for restore_id in restore_ids]
    assert max(first) - min(first) > 10.0, "over five intervals, and not over one"


async def test_a_flush_does_not_wait_for_the_backoff_of_the_process_before(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    not_before = rig.clock.now() + timedelta(seconds=100_000)
    await rig.leave_behind(finished(rig, restore_id), exchange=Exchange(not_before=not_before, attempt=9))
    async with rig.reporter(takes_over=False) as reporter:
        await reporter.take_over(at_once=True)
        await rig.until_state(restore_id, "completed_with_errors")


async def test_a_clock_that_was_set_back_does_not_hold_a_result_forever(make_rig: RigMaker) -> None:
    rig = await make_rig(factor=1_000)
    restore_id = rig.server.start_restore()
    not_before = rig.clock.now() + timedelta(days=3_650)
    await rig.leave_behind(finished(rig, restore_id), exchange=Exchange(not_before=not_before, attempt=9))
    async with rig.reporter(report_interval=5.0):
        await rig.until_state(restore_id, "completed_with_errors")


async def test_a_result_that_nobody_took_for_too_long_is_a_dead_letter(rig: Rig, log: Log) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter(retention=30.0, retry_cap=5.0) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            rig.server.add_fault({"status": 503}, times=99_999, method="PATCH")
        await eventually(lambda: job.ending is not None, within=5.0)  # not only once the process ends
    assert job.ending is Ending.EXPIRED
    (letter,) = await rig.dead_letters()
    assert letter.report.state is RestoreState.COMPLETED
    assert letter.exchange.failure == "HTTP 503"
    assert await rig.waiting() == []
    (event,) = log.named("delivery.dead_letter")
    assert (event["restore_id"], event["ending"]) == (restore_id, "expired")


async def test_a_result_that_was_left_too_long_ago_is_a_dead_letter_after_one_more_try(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    await rig.leave_behind(finished(rig, restore_id, ago=timedelta(days=8)))
    rig.server.add_fault({"status": 503}, times=99_999, restore_id=restore_id)
    async with rig.reporter():
        await rig.until_spool_is_empty()
    (letter,) = await rig.dead_letters()
    assert letter.exchange.ending is Ending.EXPIRED
    assert [request.answer for request in rig.requests(restore_id) if not request.is_poll] == [503]


async def test_a_result_is_not_old_because_the_clock_was_set(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    rig.server.add_fault({"status": 503}, times=4, restore_id=restore_id, method="PATCH")
    async with rig.reporter() as reporter:
        async with reporter.restore(restore_id):
            pass
        rig.clock._began += timedelta(days=3_650)
        await rig.until_state(restore_id, "completed")
    assert await rig.dead_letters() == []


async def test_a_result_that_was_left_long_ago_is_delivered_if_that_can_be(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    await rig.leave_behind(finished(rig, restore_id, ago=timedelta(days=8)))
    async with rig.reporter():
        await rig.until_state(restore_id, "completed_with_errors")
        await rig.until_spool_is_empty()
    assert await rig.dead_letters() == []


async def test_orphans_are_taken_over_in_portions(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deliveries, "TAKEN_OVER_AT_ONCE", 2)
    restore_ids = sorted(rig.server.start_restore() for _ in range(5))
    for restore_id in restore_ids:
        await rig.leave_behind(finished(rig, restore_id))
    async with rig.reporter(takes_over=False) as reporter:
        for portion in (restore_ids[:2], restore_ids[2:4], restore_ids[4:], []):
            orphans = await reporter.take_over(at_once=True)
            assert [orphan.restore_id for orphan in orphans] == portion
            await reporter.settle_all(1_000.0)
    assert {rig.server.document(restore_id)["state"] for restore_id in restore_ids} == {
        "completed_with_errors"
    }


async def test_a_spool_that_cannot_be_read_is_said_and_looked_at_again(rig: Rig, log: Log) -> None:
    restore_id = rig.server.start_restore()
    await rig.leave_behind(finished(rig, restore_id))
    hidden = rig.directory / "hidden"
    await asyncio.to_thread(rig.spool.directory.rename, hidden)
    await asyncio.to_thread(rig.spool.directory.touch)
    async with rig.reporter():
        await eventually(lambda: log.named("spool.unusable") != [])
        assert "cannot be read" in log.named("spool.unusable")[0]["problem"]
        await asyncio.to_thread(rig.spool.directory.unlink)
        await asyncio.to_thread(hidden.rename, rig.spool.directory)
        await rig.until_state(restore_id, "completed_with_errors")
    log.assert_no_bug_of_ours()


async def test_an_engine_that_another_process_started_cannot_be_stopped_and_that_is_said(
    rig: Rig, log: Log
) -> None:
    restore_id = rig.server.start_restore()
    async with engine_that_lives() as (_, engine):
        await rig.leave_behind(unfinished(rig, restore_id), engine=engine)
        rig.server.request_stop(restore_id)
        async with rig.reporter():
            await eventually(lambda: log.named("takeover.stop_not_possible") != [])
    assert log.named("takeover.stop_not_possible")[0]["engine"] == engine.pid


# The end of a process -------------------------------------------------------------------------------------


async def test_the_drain_is_bounded_and_what_is_left_stays_in_the_spool(rig: Rig, log: Log) -> None:
    restore_ids = sorted(rig.server.start_restore() for _ in range(5))
    began = 0.0
    async with rig.reporter(drain_timeout=20.0) as reporter:
        for restore_id in restore_ids:
            async with reporter.restore(restore_id) as job:
                job.start()
                await rig.until_state(restore_id, "in_progress")
                rig.server.add_fault(
                    {"status": 503}, times=99_999, restore_id=restore_id, path_regex=f"{restore_id}$"
                )
                job.progress(bytes_restored=10)
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    left = await rig.waiting()
    assert sorted(record.report.restore_id for record in left) == restore_ids
    assert {(record.report.state.value, record.report.bytes_restored) for record in left} == {
        ("completed", 10)
    }
    (event,) = log.named("reporter.left_in_spool")
    assert all(restore_id in str(event["restores"]) for restore_id in restore_ids)
    rig.server.faults.clear()
    async with rig.reporter():
        await rig.until_spool_is_empty()
    assert {rig.server.document(restore_id)["state"] for restore_id in restore_ids} == {"completed"}


async def test_a_drain_that_nobody_wants_to_wait_for_ends_at_once(rig: Rig, log: Log) -> None:
    restore_id = rig.server.start_restore()
    reporter = rig.reporter(drain_timeout=1e6)
    async with reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            rig.server.add_fault({"status": 503}, times=99_999, path_regex=f"{restore_id}$")
        asyncio.get_running_loop().call_later(0.1, reporter.end_drain)
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    assert len(log.named("reporter.left_in_spool")) == 1
    (left,) = await rig.waiting()
    assert left.report.state is RestoreState.COMPLETED


async def test_the_drain_waits_for_no_longer_than_it_takes(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter(drain_timeout=3_000.0) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
        began = time.monotonic()
    assert time.monotonic() - began < 5.0
    assert rig.server.document(restore_id)["state"] == "completed"


async def test_a_result_that_comes_while_the_disk_is_busy_with_an_older_record_is_drained_too(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, log: Log
) -> None:
    restore_id = rig.server.start_restore()
    write, has_recovered, is_writing = Entry.write, threading.Event(), threading.Event()

    def write_slowly(entry: Entry, record: Record) -> None:
        if has_recovered.is_set() and not record.report.is_final and not record.exchange.attempt:
            is_writing.set()
            time.sleep(0.3)
        write(entry, record)

    monkeypatch.setattr(Entry, "write", write_slowly)
    async with rig.reporter() as reporter, reporter.restore(restore_id) as job:
        job.start()
        await rig.until_state(restore_id, "in_progress")
        rig.server.add_fault({"status": 503}, method="PATCH")
        job.progress(bytes_restored=10)
        await rig.until(lambda: rig.patches(restore_id)[-1].answer == 503)
        has_recovered.set()
        await rig.until_bytes(restore_id, 10)
        await eventually(is_writing.is_set)
    assert rig.server.document(restore_id)["state"] == "completed"
    assert not log.named("reporter.left_in_spool")
    assert await rig.waiting() == []


async def test_results_of_many_short_restores_are_all_drained(rig: Rig, log: Log) -> None:
    for _ in range(30):
        restore_id = rig.server.start_restore()
        rig.server.add_fault({"status": 503}, method="PATCH", carries="/bytes-restored")
        async with rig.reporter() as reporter, reporter.restore(restore_id) as job:
            job.start()
            job.progress(bytes_restored=10)
            await rig.until_bytes(restore_id, 10)
        assert rig.server.document(restore_id)["state"] == "completed"
    assert not log.named("reporter.left_in_spool")
