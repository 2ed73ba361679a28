"""One truth on both sides: what a 409 means, what another has done, and what is told how often."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter import Ending, StopRequested
from tests.delivery.conftest import FINAL, Log, Rig, eventually

if TYPE_CHECKING:
    from agent_reporter import Job, Reporter

TIMES = {"started_time": "2026-01-01T00:00:00.000000Z", "ended_time": "2026-01-01T00:00:01.000000Z"}
CONFLICT = {"status": 409, "body": {"message": "said with 409"}}


def unwatched(rig: Rig, **changes: Any) -> Reporter:
    """A reporter whose watcher sees nothing, so that all that is found is found by the delivery."""
    return rig.reporter(
        **({"stop_poll_interval": 1e6, "retry_cap": 1e6, "idle_poll_interval": 1e6} | changes)
    )


# A 409 ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", FINAL)
async def test_a_restore_that_has_ended_there_is_told_no_more_and_its_engine_is_stopped(
    state: str, rig: Rig, log: Log
) -> None:
    restore_id = rig.server.start_restore()
    async with unwatched(rig) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            assert await rig.patch_elsewhere(restore_id, {"state": state, **TIMES}) == 204
            job.progress(bytes_restored=10)
            async with asyncio.timeout(10):
                await job.wait_for_stop()
            patch, read = [each for each in rig.requests(restore_id) if not each.is_poll][-2:]
            assert (patch.is_patch, patch.answer) == (True, 409)
            assert read.is_read
            requests = len(rig.requests())
            job.progress(bytes_restored=20)
        assert not await job.delivered(10) or state == "stopped"
    assert len(rig.requests()) == requests
    assert rig.server.document(restore_id)["state"] == state
    (early,) = log.named("delivery.over_early")
    assert early["restore_id"] == restore_id
    if state == "stopped":  # as the engine was stopped, both sides agree on that, but not on the counts
        assert job.ending is Ending.DELIVERED_BARE
        (letter,) = await rig.dead_letters()
        assert letter.report.bytes_restored == 20
    else:
        assert job.ending is Ending.ENDED_ELSEWHERE
        (letter,) = await rig.dead_letters()
        assert (letter.report.state.value, letter.report.bytes_restored) == ("stopped", 20)
        assert state in letter.exchange.failure


async def test_a_stop_request_that_a_409_leads_to_is_honoured(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with unwatched(rig) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            rig.server.request_stop(restore_id)
            rig.server.add_fault(CONFLICT, method="PATCH")
            job.progress(bytes_restored=10)
            async with asyncio.timeout(10):
                await job.wait_for_stop()
            job.progress(bytes_restored=20)
            await rig.until_bytes(restore_id, 20)
            assert rig.server.document(restore_id)["state"] == "stop_requested"
        assert await job.delivered(10)
    assert job.ending is Ending.DELIVERED
    assert rig.states(restore_id) == ["in_progress", "stopped"]
    assert rig.server.erased_stops(restore_id) == 0


async def test_a_409_without_a_reason_is_backed_off_from_and_then_the_newest_is_told(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with unwatched(rig, retry_base=20.0, stop_poll_interval=2.0, retry_cap=60.0) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            rig.server.add_fault(CONFLICT, times=2, method="PATCH")
            job.progress(bytes_restored=100)
            await rig.until(lambda: rig.patches(restore_id)[-1].answer == 409)
            for number in range(101, 201):
                job.progress(bytes_restored=number)
            await rig.until_bytes(restore_id, 200)
        assert await job.delivered(10)
    requests = [each for each in rig.requests(restore_id) if not each.is_poll]
    for before, after in pairwise(requests):
        if before.answer == 409:
            assert after.is_read
    told = [patch.values["bytes_restored"] for patch in rig.patches(restore_id)[1:-1]]
    assert told == [100, 200, 200]  # the first try, and twice what was newest then


async def test_a_409_to_the_result_of_a_restore_that_goes_on_is_tried_again_until_it_is_taken(
    rig: Rig,
) -> None:
    restore_id = rig.server.start_restore()
    rig.server.add_fault(CONFLICT, times=4, method="PATCH", carries="/ended-time")
    async with rig.reporter() as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
        assert await job.delivered(10)
    assert job.ending is Ending.DELIVERED
    assert [patch.answer for patch in rig.patches(restore_id)].count(409) == 4


@pytest.mark.parametrize(("there", "ending"), [("failed", "ended_elsewhere"), ("completed", "delivered")])
async def test_a_result_after_another_end_is_a_dead_letter_unless_it_is_the_same_end(
    there: str, ending: str, rig: Rig
) -> None:
    restore_id = rig.server.start_restore()
    async with unwatched(rig) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            await rig.patch_elsewhere(restore_id, {"state": there, **TIMES})
        await eventually(lambda: job.ending is not None)
    assert job.ending == ending
    assert rig.server.document(restore_id)["state"] == there
    assert rig.server.document(restore_id)["ended_time"] == TIMES["ended_time"]
    assert len(await rig.dead_letters()) == (there == "failed")
    assert await rig.waiting() == []


async def test_a_restore_that_had_ended_before_the_first_contact_is_not_restored(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    await rig.patch_elsewhere(restore_id, {"state": "failed", **TIMES})
    async with asyncio.timeout(10), rig.reporter() as reporter, reporter.restore(restore_id) as job:
        await reporter.contacted(job, 1_000.0)
        await job.wait_for_stop()
        job.raise_if_stop_requested()
    assert rig.patches(restore_id) == []
    assert job.ending is Ending.ENDED_ELSEWHERE


# Never down, never back -----------------------------------------------------------------------------------


async def test_counters_do_not_go_down_when_a_second_process_starts_from_nothing(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter(spool_dir=rig.directory / "first") as reporter:
        job = await reporter.open(restore_id)
        job.start()
        job.progress(bytes_restored=1_000, files_restored=10)
        await rig.until_bytes(restore_id, 1_000)
        # And it is gone, without a result.
    async with rig.reporter(spool_dir=rig.directory / "second", takes_over=False) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            job.progress(bytes_restored=10, files_restored=20)
            await rig.until(lambda: rig.server.document(restore_id)["files_restored"] == 20)
        assert await job.delivered(10)
    document = rig.server.document(restore_id)
    assert (document["bytes_restored"], document["files_restored"]) == (1_000, 20)
    assert rig.states(restore_id) == ["in_progress", "completed"]
    rig.assert_truthful(restore_id)


async def test_errors_do_not_go_down_when_a_second_process_starts_from_nothing(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter(spool_dir=rig.directory / "first") as reporter:
        job = await reporter.open(restore_id)
        job.start()
        for number in range(5):
            job.error(path=f"/{number}", type="no_access")
        await rig.until(lambda: rig.server.document(restore_id)["errors"]["count"] == 5)
    async with rig.reporter(spool_dir=rig.directory / "second", takes_over=False) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            job.error(path="/late", type="no_access")
        assert await job.delivered(10)
    assert rig.server.document(restore_id)["errors"]["count"] >= 5
    rig.assert_truthful(restore_id)


async def test_a_state_does_not_go_back_when_a_second_process_starts_from_nothing(rig: Rig) -> None:
    restore_id = rig.server.start_restore(state="in_progress")
    async with unwatched(rig) as reporter:
        async with reporter.restore(restore_id) as job:
            job.queued()
            await rig.until_read(restore_id)
            job.preparing()
            job.start()
            job.progress(bytes_restored=10)
            await rig.until_bytes(restore_id, 10)
        assert await job.delivered(10)
    assert rig.states(restore_id) == ["completed"]


async def test_a_process_goes_on_from_what_its_spool_has(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter() as reporter:
        job = await reporter.open(restore_id)
        job.start()
        await rig.until_state(restore_id, "in_progress")
        rig.server.add_fault({"status": 503}, method="PATCH")  # a failure is kept, and what is newest with it
        job.progress(bytes_restored=500)
        job.error(path="/a", type="no_access")
        await rig.until_bytes(restore_id, 500)
    async with rig.reporter(takes_over=False) as reporter:
        async with reporter.restore(restore_id) as job:
            assert job.state.value == "in_progress"
            job.advance(bytes=100)
            await rig.until_bytes(restore_id, 600)
        assert await job.delivered(10)
    document = rig.server.document(restore_id)
    assert (document["state"], document["errors"]["count"]) == ("completed_with_errors", 1)
    rig.assert_truthful(restore_id)


# How often ------------------------------------------------------------------------------------------------


async def test_thousands_of_calls_give_at_most_one_patch_an_interval(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    interval = 5.0
    async with rig.reporter(report_interval=interval) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            began, told, number = rig.clock.monotonic(), len(rig.patches(restore_id)), 0
            while len(rig.patches(restore_id)) < told + 5:
                for _ in range(1_000):
                    number += 1
                    job.progress(bytes_restored=number, files_restored=number // 100)
                await asyncio.sleep(0)
            patches = len(rig.patches(restore_id)) - told
            assert patches <= (rig.clock.monotonic() - began) / interval + 1
        assert await job.delivered(10)
    assert number > 10_000
    assert rig.server.document(restore_id)["bytes_restored"] == number
    rig.assert_truthful(restore_id)


async def test_the_last_progress_before_a_pause_arrives(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter() as reporter, reporter.restore(restore_id) as job:
        job.start()
        for number in range(1, 100):
            job.progress(bytes_restored=number)
            await asyncio.sleep(0)
        await rig.until_bytes(restore_id, 99)  # and nothing is said meanwhile
        job.advance(files=3)
        await rig.until(lambda: rig.server.document(restore_id)["files_restored"] == 3)


async def test_nothing_new_is_no_patch(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter() as reporter, reporter.restore(restore_id) as job:
        job.start()
        job.progress(bytes_restored=5)
        await rig.until_bytes(restore_id, 5)
        patches, polls = len(rig.patches(restore_id)), len(rig.requests())
        job.progress(bytes_restored=5)
        job.progress(bytes_restored=4)
        await rig.until(lambda: len(rig.requests()) > polls + 10)
        assert len(rig.patches(restore_id)) == patches


async def test_states_and_the_result_do_not_wait_for_the_interval(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter(report_interval=1e6) as reporter:
        async with reporter.restore(restore_id) as job:
            for state, tell in (
                ("queued", job.queued),
                ("preparing", job.preparing),
                ("in_progress", job.start),
            ):
                tell()
                await rig.until_state(restore_id, state)
            job.progress(bytes_restored=7)
        assert await job.delivered(10)
    assert rig.server.document(restore_id)["bytes_restored"] == 7


async def test_the_first_error_does_not_wait_for_the_interval(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter(report_interval=1e6) as reporter, reporter.restore(restore_id) as job:
        job.start()
        await rig.until_state(restore_id, "in_progress")
        job.error(path="/etc/passwd", type="no_access", code=13)
        await rig.server.wait_until(
            lambda: rig.server.document(restore_id)["errors"]["count"] == 1, within=2.0
        )


async def test_an_exception_of_the_engine_is_a_failed_restore_and_goes_on(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter() as reporter:
        jobs: list[Job] = []
        with pytest.raises(ZeroDivisionError):
            await break_while_restoring(reporter, restore_id, jobs)
        assert await jobs[0].delivered(10)
    errors = rig.server.document(restore_id)["errors"]
    assert rig.server.document(restore_id)["state"] == "failed"
    assert (errors["reason"], errors["diagnostics"]) == ("engine_error", "ZeroDivisionError: by zero")


async def break_while_restoring(reporter: Reporter, restore_id: str, jobs: list[Job]) -> None:
    async with reporter.restore(restore_id) as job:
        jobs.append(job)
        job.start()
        raise ZeroDivisionError("by zero")


async def test_leaving_by_a_stop_request_is_a_stopped_restore(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter() as reporter:
        job = await reporter.open(restore_id)
        assert await asyncio.to_thread(job.leave, StopRequested(restore_id))
        assert await job.delivered(10)
    assert rig.server.document(restore_id)["state"] == "stopped"


async def test_a_control_plane_that_restarts_misses_nothing(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with unwatched(rig) as reporter:  # no request may be on its way when it stops
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            await rig.server.stop()
            job.progress(bytes_restored=10)
            exchange = reporter.exchange(job)
            assert exchange is not None
            await eventually(lambda: (found := reporter.exchange(job)) is not None and found.attempt >= 2)
            await rig.server.start()
            await rig.until_bytes(restore_id, 10)
        assert await job.delivered(10)
    rig.assert_truthful(restore_id)
