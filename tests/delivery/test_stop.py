"""A stop request reaches the engine, whatever else goes wrong, and no patch of ours undoes it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from typing import TYPE_CHECKING, Any, cast

import pytest

from agent_reporter import Job, Progress, StopRequested
from agent_reporter.means import Means
from agent_reporter.model.events import PAGE_SIZE
from agent_reporter.model.verdict import Answer
from agent_reporter.reference.restores import Happening
from agent_reporter.stop import StopWatcher
from tests.delivery.conftest import Log, Request, Rig, RigMaker, eventually, open_rig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from agent_reporter import Reporter

NEVER = 1e7
"""Seconds that no test lasts."""


@contextlib.asynccontextmanager
async def running(
    rig: Rig, *, takes_over: bool = True, **changes: object
) -> AsyncIterator[tuple[str, Job, Reporter]]:
    """A restore in progress, which has to end as stopped."""
    restore_id = rig.server.start_restore()
    async with rig.reporter(takes_over=takes_over, **changes) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            yield restore_id, job, reporter
            assert job.stop_requested
        rig.server.faults.clear()
        assert await job.delivered(10)
    assert rig.server.document(restore_id)["state"] == "stopped"
    rig.assert_truthful(restore_id)


async def seen(job: Job) -> None:
    async with asyncio.timeout(10):
        await job.wait_for_stop()


async def requests_until_seen(
    rig: Rig, restore_id: str, job: Job, which: Callable[[Request], bool]
) -> list[Request]:
    """Of the requests between a stop request and its arrival at the engine, those that `which` picks."""
    before = len(rig.requests())
    rig.server.request_stop(restore_id)
    await seen(job)
    return [request for request in rig.requests()[before:] if which(request)]


def is_poll(request: Request) -> bool:
    return request.is_poll


# Found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_agent", [True, False])
async def test_a_stop_is_seen_within_two_polls(with_agent: bool, make_rig: RigMaker) -> None:  # noqa: FBT001
    rig = await make_rig()
    changes: dict[str, Any] = {} if with_agent else {"agent_id": None}
    async with running(rig, idle_poll_interval=NEVER, **changes) as (restore_id, job, _):
        polls = await requests_until_seen(rig, restore_id, job, is_poll)
    assert 1 <= len(polls) <= 2
    where = "/agents/" if with_agent else f"/restores/{restore_id}/"
    assert all(where in poll.path for poll in polls)
    assert rig.server.erased_stops(restore_id) == 0


async def test_one_poll_serves_every_restore_of_an_agent(rig: Rig) -> None:
    ids = [rig.server.start_restore() for _ in range(5)]
    async with rig.reporter(idle_poll_interval=NEVER) as reporter, contextlib.AsyncExitStack() as stack:
        jobs = [await stack.enter_async_context(reporter.restore(restore_id)) for restore_id in ids]
        for job in jobs:
            job.start()
        await rig.until(lambda: all(rig.states(restore_id) == ["in_progress"] for restore_id in ids))
        before = len(rig.requests())
        for restore_id in ids[::2]:
            rig.server.request_stop(restore_id)
        for job in jobs[::2]:
            await seen(job)
        polls = [request for request in rig.requests()[before:] if request.is_poll]
        assert len(polls) <= 2
        assert [job.stop_requested for job in jobs] == [True, False, True, False, True]
    assert {rig.server.document(restore_id)["state"] for restore_id in ids[1::2]} == {"completed"}


@pytest.mark.parametrize("with_agent", [True, False])
async def test_events_that_vanished_are_made_up_for_by_reading(
    with_agent: bool,  # noqa: FBT001
    make_rig: RigMaker,
) -> None:
    rig = await make_rig(event_lifetime=1e-6)
    changes: dict[str, Any] = {} if with_agent else {"agent_id": None}
    async with running(rig, idle_poll_interval=10.0, **changes) as (restore_id, job, _):
        reads = await requests_until_seen(rig, restore_id, job, lambda each: each.is_read)
    assert 1 <= len(reads) <= 2


@pytest.mark.parametrize("code", [403, 404, 405, 501])
@pytest.mark.parametrize("with_agent", [True, False])
async def test_a_control_plane_without_events_can_stop_a_restore_within_two_polls(
    code: int,
    with_agent: bool,  # noqa: FBT001
    make_rig: RigMaker,
) -> None:
    rig = await make_rig()
    rig.server.add_fault({"status": code}, times=99_999, path_regex="/events$")
    changes: dict[str, Any] = {} if with_agent else {"agent_id": None}
    async with running(rig, idle_poll_interval=NEVER, **changes) as (restore_id, job, _):
        # Once it is known that there are none, the restore itself is read at the pace of the polls.
        await rig.until(lambda: sum(each.is_read for each in rig.requests(restore_id)) >= 4)
        reads = await requests_until_seen(rig, restore_id, job, lambda each: each.is_read)
        assert sum(each.is_poll for each in rig.requests()) <= 2
    assert 1 <= len(reads) <= 2


@pytest.mark.parametrize("with_agent", [True, False])
async def test_events_that_were_refused_once_are_asked_for_again_where_nothing_can_be_read(
    with_agent: bool,  # noqa: FBT001
    rig: Rig,
) -> None:
    rig.server.add_fault({"status": 404}, times=99_999, path_regex="/restores/[^/]+$", method="GET")
    rig.server.add_fault({"status": 403}, times=1, path_regex="/events$", method="GET")
    changes: dict[str, Any] = {} if with_agent else {"agent_id": None}
    async with running(rig, idle_poll_interval=NEVER, **changes) as (restore_id, job, _):
        await rig.until(lambda: sum(each.is_poll for each in rig.requests()) >= 2)
        polls = await requests_until_seen(rig, restore_id, job, is_poll)
    assert 1 <= len(polls) <= 2


@pytest.mark.parametrize("with_agent", [True, False])
async def test_the_look_that_finds_no_events_reads_the_restore_itself(
    with_agent: bool,  # noqa: FBT001
    rig: Rig,
) -> None:
    rig.server.add_fault({"status": 404}, times=99_999, path_regex="/events$")
    changes: dict[str, Any] = {} if with_agent else {"agent_id": None}
    interval = 240.0
    changes |= {"stop_poll_interval": interval, "retry_cap": interval}
    async with running(rig, idle_poll_interval=NEVER, **changes) as (
        restore_id,
        job,
        _,
    ):
        rig.server.request_stop(restore_id)
        await seen(job)
        requests = rig.requests()
    (poll,) = filter(is_poll, requests)
    read = next(each for each in requests if each.is_read and each.time > poll.time)
    assert read.time - poll.time < interval / 2


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 503, "headers": {"Retry-After": "3600"}},
        {"status": 500},
        {"status": 401},
        {"status": 409},
        "drop",
        {"status": 302, "headers": {"Location": "/"}},
    ],
    ids=str,
)
async def test_a_stop_is_seen_within_two_polls_while_every_patch_fails(answer: Any, rig: Rig) -> None:
    async with running(rig, idle_poll_interval=NEVER, retry_after_cap=20.0) as (restore_id, job, reporter):
        rig.server.add_fault(answer, times=99_999, method="PATCH")
        job.progress(bytes_restored=10)
        await eventually(lambda: (found := reporter.exchange(job)) is not None and found.attempt >= 1)
        polls = await requests_until_seen(rig, restore_id, job, is_poll)
        assert len(polls) <= 2  # none, where a read after a failure was faster


async def test_a_stop_is_seen_while_an_hour_of_retry_after_is_waited_out(rig: Rig) -> None:
    hour = {"status": 503, "headers": {"Retry-After": "3600"}}
    restore_id = rig.server.start_restore()
    async with rig.reporter(retry_after_cap=3_600.0, drain_timeout=1.0) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            rig.server.add_fault(hour, times=99_999, method="PATCH")
            job.progress(bytes_restored=10)
            await rig.until(lambda: rig.patches(restore_id)[-1].answer == 503)
            began = rig.clock.monotonic()
            polls = await requests_until_seen(rig, restore_id, job, is_poll)
            assert 1 <= len(polls) <= 2
            assert rig.clock.monotonic() - began < 1_800
        patches = len(rig.patches(restore_id))
    assert len(rig.patches(restore_id)) == patches  # the hour is not over, and the drain ended before
    (left,) = await rig.waiting()
    assert left.report.state.value == "stopped"


async def test_polls_are_not_slowed_down_by_their_own_failures(rig: Rig) -> None:
    async with running(rig, idle_poll_interval=NEVER) as (restore_id, job, _):
        hour = {"status": 503, "headers": {"Retry-After": "3600"}}
        rig.server.add_fault(hour, times=5, path_regex="/events$")
        await rig.until(lambda: sum(each.answer == 503 for each in rig.requests()) == 5)
        polls = await requests_until_seen(rig, restore_id, job, is_poll)
    assert 1 <= len(polls) <= 2


async def test_a_stop_that_was_asked_for_during_a_storm_of_401_is_seen_when_it_is_over(
    rig: Rig, log: Log
) -> None:
    async with running(rig) as (restore_id, job, _):
        rig.server.add_fault({"status": 401}, times=99_999)
        job.progress(bytes_restored=10)
        rig.server.request_stop(restore_id)
        began, before = rig.clock.monotonic(), len(rig.requests())
        await rig.until(lambda: sum(each.is_poll and each.answer == 401 for each in rig.requests()) >= 5)
        storm = len(rig.requests()) - before
        assert storm <= 20 + (rig.clock.monotonic() - began) * 2  # no flood
        assert not job.stop_requested
        rig.server.faults.clear()
        rig.write_token("the-new-token")
        before = len(rig.requests())
        await seen(job)
        polls = [each for each in rig.requests()[before:] if each.is_poll and each.answer == 200]
        assert len(polls) <= 2
    assert log.named("stop.poll_failed")


async def test_a_stop_before_the_start_is_seen_at_first_contact(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    rig.server.request_stop(restore_id)
    async with rig.reporter(stop_poll_interval=NEVER, retry_cap=NEVER) as reporter:
        async with reporter.restore(restore_id) as job:
            job.queued()  # too late to be told
            async with asyncio.timeout(10):
                await reporter.contacted(job, NEVER)
            assert job.stop_requested
            job.raise_if_stop_requested()
        assert await job.delivered(10)
    assert rig.states(restore_id) == ["stopped"]
    assert rig.server.erased_stops(restore_id) == 0


@pytest.mark.parametrize("with_agent", [True, False])
async def test_a_stop_behind_hundreds_of_other_events_is_found_in_the_first_polls(
    with_agent: bool,  # noqa: FBT001
    make_rig: RigMaker,
) -> None:
    rig = await make_rig()
    changes: dict[str, Any] = {} if with_agent else {"agent_id": None}
    async with running(rig, idle_poll_interval=NEVER, **changes) as (restore_id, job, _):
        with rig.server.store.transaction():
            restore = rig.server._restore(restore_id)
            for number in range(350):
                happening = Happening("restore_progress", {"bytes_completed": number})
                rig.server.store.put_event(restore, happening)
        polls = await requests_until_seen(rig, restore_id, job, is_poll)
        assert 4 <= len(polls) <= 5  # pages of 100, and one poll that was on its way
        before = len(rig.requests())
    assert len([each for each in rig.requests()[before:] if each.is_poll]) <= 1


class Forgetful:
    """A control plane whose events are all new: it knows no marker of before."""

    agent_id = "agent-7"
    waits_for_events = False
    events_wait = 0.0

    def __init__(self, refusal: int, page: bytes = b'{"events": [{"id": "e-1"}]}') -> None:
        self.asked: list[str | None] = []
        self.page = page
        self._refusal = refusal

    async def agent_events(self, marker: str | None) -> Answer:
        self.asked.append(marker)
        return Answer(200, self.page) if marker is None else Answer(self._refusal)


@pytest.mark.parametrize("refusal", [400, 404, 410, 414])
async def test_a_marker_that_is_refused_is_given_up_in_the_same_look(rig: Rig, refusal: int) -> None:
    control_plane = Forgetful(refusal)
    means = Means(rig.settings(), rig.clock, cast("Any", control_plane), asyncio.Semaphore())
    watcher = StopWatcher(means, list)
    for _ in range(3):
        await watcher._poll([])
    assert control_plane.asked == [None, "e-1", None, "e-1", None]
    assert not watcher._failure


async def test_a_marker_that_was_refused_is_not_asked_with_again(rig: Rig) -> None:
    control_plane = Forgetful(404)
    watcher = StopWatcher(
        Means(rig.settings(), rig.clock, cast("Any", control_plane), asyncio.Semaphore()), list
    )
    await watcher._poll([])
    control_plane.page = b'{"events": []}'
    for _ in range(3):
        await watcher._poll([])
    assert control_plane.asked == [None, "e-1", None, None, None]


async def test_pages_that_do_not_get_on_are_read_once_in_a_look(rig: Rig) -> None:
    control_plane = Forgetful(404, json.dumps({"events": [{"id": "e" * 1_000}] * PAGE_SIZE}).encode())
    watcher = StopWatcher(
        Means(rig.settings(), rig.clock, cast("Any", control_plane), asyncio.Semaphore()), list
    )
    await watcher._poll([])
    assert control_plane.asked == [None]


@pytest.mark.parametrize("status", [401, 429, 503])
async def test_a_marker_is_kept_through_what_passes(rig: Rig, status: int) -> None:
    control_plane = Forgetful(status)
    control_plane.renew_token = _nothing  # type: ignore[attr-defined]
    means = Means(rig.settings(), rig.clock, cast("Any", control_plane), asyncio.Semaphore())
    watcher = StopWatcher(means, list)
    for _ in range(3):
        await watcher._poll([])
    assert None not in control_plane.asked[1:]
    assert watcher._failure


async def _nothing(_: Answer) -> None:
    pass


async def test_pages_that_are_slow_altogether_are_got_through_all_the_same(make_rig: RigMaker) -> None:
    rig = await make_rig(event_lifetime=NEVER)
    async with running(rig, idle_poll_interval=NEVER, request_timeout=0.3) as (restore_id, job, _):
        with rig.server.store.transaction():
            restore = rig.server._restore(restore_id)
            for number in range(950):
                happening = Happening("restore_progress", {"bytes_completed": number})
                rig.server.store.put_event(restore, happening)
        rig.server.request_stop(restore_id)
        # Each page comes well within the timeout of a request, but not all ten of them together.
        rig.server.add_fault({"slow": 8.0}, times=99_999, path_regex="/events$")
        async with asyncio.timeout(5):
            await job.wait_for_stop()


# Told to the engine ---------------------------------------------------------------------------------------


async def test_callbacks_are_called_once_in_a_thread_of_their_own(rig: Rig) -> None:
    calls: list[threading.Thread] = []
    async with running(rig) as (restore_id, job, _):
        job.on_stop(lambda: calls.append(threading.current_thread()))
        job.on_stop(lambda: 1 / 0)
        job.on_stop(lambda: calls.append(threading.current_thread()))
        rig.server.request_stop(restore_id)
        await seen(job)
        await eventually(lambda: len(calls) == 2)
        rig.server.request_stop(restore_id)  # once more, by an impatient user
        polls = len(rig.requests())
        await rig.until_state(restore_id, "stop_requested")
        job.on_stop(lambda: calls.append(threading.current_thread()))  # too late, and told at once
        await eventually(lambda: len(calls) == 3)
        with pytest.raises(StopRequested, match=restore_id):
            job.raise_if_stop_requested()
        assert len(rig.requests()) >= polls
    assert len(calls) == 3
    assert threading.main_thread() not in calls


async def test_an_engine_that_finished_in_spite_of_a_stop_has_finished(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter() as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            rig.server.request_stop(restore_id)
            await seen(job)
            assert await asyncio.to_thread(job.finish, "completed")
        assert await job.delivered(10)
    assert rig.server.document(restore_id)["state"] == "completed"


async def test_a_watcher_that_fails_by_a_bug_of_ours_goes_on_watching(
    rig: Rig, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    poll, failed = StopWatcher._poll, asyncio.Event()

    async def fail_once(watcher: StopWatcher, restores: Any) -> None:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("a bug")
        await poll(watcher, restores)

    async with running(rig, idle_poll_interval=NEVER) as (restore_id, job, _):
        monkeypatch.setattr(StopWatcher, "_poll", fail_once)
        await failed.wait()
        rig.server.request_stop(restore_id)
        async with asyncio.timeout(3):
            await job.wait_for_stop()
    assert log.named("reporter.loop_failed")


# Never erased ---------------------------------------------------------------------------------------------


async def test_a_stop_between_the_first_contact_and_the_first_state_is_not_erased(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    quiet: dict[str, Any] = {"stop_poll_interval": NEVER, "retry_cap": NEVER, "idle_poll_interval": NEVER}
    async with rig.reporter(**quiet) as reporter:
        async with reporter.restore(restore_id) as job:
            async with asyncio.timeout(10):
                await reporter.contacted(job, NEVER)
            rig.server.request_stop(restore_id)
            job.queued()
            await seen(job)
        assert await job.delivered(10)
    assert rig.server.erased_stops(restore_id) == 0
    assert rig.states(restore_id) == ["stopped"]


async def test_a_stop_known_by_its_event_is_not_erased_where_nothing_can_be_read(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    path = f"/v2/110011/restores/{restore_id}"
    rig.server.add_fault({"status": 404}, times=99_999, method="GET", path=path)
    async with rig.reporter() as reporter:
        async with reporter.restore(restore_id) as job:
            job.queued()
            await rig.until_state(restore_id, "queued")
            rig.server.request_stop(restore_id)
            await seen(job)
            job.start()  # the engine has not looked yet
            job.progress(bytes_restored=5)
            before = len(rig.requests())
            await rig.until(lambda: len(rig.requests()) > before)
        assert await job.delivered(10)
    assert rig.server.erased_stops(restore_id) == 0
    assert rig.states(restore_id) == ["queued", "stopped"]


async def test_a_stop_is_not_erased_though_the_first_read_of_all_was_refused(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    quiet: dict[str, Any] = {"stop_poll_interval": NEVER, "retry_cap": NEVER, "idle_poll_interval": NEVER}
    rig.server.add_fault({"status": 404}, method="GET", restore_id=restore_id)
    async with rig.reporter(**quiet) as reporter:
        async with reporter.restore(restore_id) as job:
            job.queued()
            await rig.until_state(restore_id, "queued")
            rig.server.request_stop(restore_id)
            job.start()
            await seen(job)
        assert await job.delivered(10)
    assert rig.server.erased_stops(restore_id) == 0
    assert rig.states(restore_id) == ["queued", "stopped"]


async def test_a_state_does_not_wait_for_its_turn_between_the_read_and_the_patch(rig: Rig) -> None:
    """However busy the process is with other restores, a state goes out straight after its read."""
    mine, other = rig.server.start_restore(), rig.server.start_restore()
    quiet: dict[str, Any] = {"stop_poll_interval": NEVER, "retry_cap": NEVER, "idle_poll_interval": NEVER}
    reporter = rig.reporter(concurrency=1, **quiet)
    async with reporter, reporter.restore(mine) as job, reporter.restore(other) as other_job:
        for each in (job, other_job):
            async with asyncio.timeout(10):
                await reporter.contacted(each, NEVER)
        rig.server.add_fault({"slow": 20.0}, method="GET", restore_id=mine)
        job.queued()
        await rig.until(lambda: sum(each.is_read for each in rig.requests(mine)) == 2)
        rig.server.add_fault({"slow": 20.0}, times=9, method="GET", restore_id=other)
        other_job.queued()  # it waits for its turn now
        # The next request is either our patch, or that of the other restore in between.
        before = len(rig.requests())
        await rig.until(lambda: len(rig.requests()) > before)
        if rig.requests()[before].is_read:
            rig.server.request_stop(mine)
            await rig.until(lambda: bool(rig.patches(mine)))
        assert rig.server.erased_stops(mine) == 0


def is_in_the_window(requests: list[Request], stop: int, *, reads_of_others: int = 0) -> bool:
    """Whether a stop, made after so many requests, came between a read and the state told straight after.

    No reporter can help that: the protocol has no patch with a condition. It is one round trip long, in
    which the watcher may happen to read as well: `reads_of_others` is how often.
    """
    after = [request for request in requests[stop:] if not request.is_poll]
    before = [request for request in requests[:stop] if not request.is_poll]
    reads = next((number for number, request in enumerate(after) if request.is_patch), len(after))
    return reads <= reads_of_others and reads < len(after) and bool(before) and before[-1].is_read


@pytest.mark.parametrize("seed", range(3))
async def test_stops_at_random_moments_are_all_honoured_and_never_erased(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    hit = 0
    async with open_rig(tmp_path, seed=seed) as rig:
        for _ in range(12):
            progress = chance.choice([Progress.AUTO, Progress.WITH_STATE])
            restore_id = rig.server.start_restore()
            async with rig.reporter(
                idle_poll_interval=NEVER,
                progress=progress,
                agent_id=chance.choice([None, "8f135b4f-7a69-4b8a-947f-5e80d772fd97"]),
            ) as reporter:
                stopping = asyncio.create_task(stop_some_time(rig, restore_id, chance.random() * 8))
                async with reporter.restore(restore_id) as job:
                    for tell in (job.queued, job.preparing, job.start):
                        tell()
                        await rig.clock.sleep(chance.random() * 3)
                    number = 0
                    async with asyncio.timeout(10):
                        while not job.stop_requested:
                            number += 1
                            job.progress(bytes_restored=number)
                            await rig.clock.sleep(0.2)
                assert await job.delivered(10)
            moment = await stopping
            assert rig.server.document(restore_id)["state"] == "stopped"
            rig.assert_truthful(restore_id)
            excused = is_in_the_window(rig.requests(restore_id), moment)
            assert rig.server.erased_stops(restore_id) <= excused
            hit += excused
    assert hit < 12


async def stop_some_time(rig: Rig, restore_id: str, seconds: float) -> int:
    """Ask for a stop after `seconds`, and return how many requests had arrived before."""
    await rig.clock.sleep(seconds)
    rig.server.request_stop(restore_id)
    return len(rig.requests(restore_id))


async def stop_in_the_window(rig: Rig, restore_id: str, job: Job) -> None:
    """Ask for a stop between the read that a state needs and the patch that tells it."""
    reads = sum(each.is_read for each in rig.requests(restore_id))
    job.start()
    await rig.until(lambda: sum(each.is_read for each in rig.requests(restore_id)) > reads)
    rig.server.request_stop(restore_id)
    await rig.until(lambda: "in_progress" in rig.states(restore_id))


async def test_a_stop_in_the_one_round_trip_that_cannot_be_guarded_is_honoured_by_its_event(
    rig: Rig,
) -> None:
    restore_id = rig.server.start_restore()
    async with rig.reporter() as reporter:
        async with reporter.restore(restore_id) as job:
            async with asyncio.timeout(10):
                await reporter.contacted(job, NEVER)
            await stop_in_the_window(rig, restore_id, job)
            await seen(job)
        assert await job.delivered(10)
    assert rig.server.document(restore_id)["state"] == "stopped"


@pytest.mark.xfail(  # not strict: a stop that comes a moment before the window or after it is honoured
    strict=False,
    reason="the protocol has no patch with a condition, and here no event that tells of the stop",
)
async def test_a_stop_in_that_round_trip_is_honoured_where_there_are_no_events(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    rig.server.add_fault({"status": 404}, times=99_999, path_regex="/events$")
    async with rig.reporter(idle_poll_interval=5.0) as reporter, reporter.restore(restore_id) as job:
        async with asyncio.timeout(10):
            await reporter.contacted(job, NEVER)
        await stop_in_the_window(rig, restore_id, job)
        polls = len(rig.requests())
        await rig.until(lambda: job.stop_requested or len(rig.requests()) > polls + 10)
        assert job.stop_requested
