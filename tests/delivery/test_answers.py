"""Every answer there is to a state, to progress and to a result: what arrives, what is kept, what is said."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from email.utils import format_datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter import Ending, Reporter, WhenRefused
from tests.delivery.conftest import TOKEN, Log, Request, Rig, RigMaker, eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from datetime import timedelta

    from agent_reporter import Job

SLOW_TIMEOUT = 0.25
"""Real seconds after which the tests of slow answers give a request up."""


def status(code: int, **headers: str) -> dict[str, Any]:
    return {"status": code, "headers": headers, "body": {"message": f"said with {code}"}}


@dataclass(frozen=True)
class Scene:
    """A restore that is about to be told something that meets a fault."""

    rig: Rig
    reporter: Reporter
    job: Job
    restore_id: str

    @property
    def patches(self) -> list[Request]:
        return self.rig.patches(self.restore_id)

    def requests(self) -> list[Request]:
        """What arrived of the delivery."""
        return [each for each in self.rig.requests(self.restore_id) if not each.is_poll]

    def since_fault(self) -> list[Request]:
        """What arrived of the delivery, from the first request that met a fault on."""
        requests = self.requests()
        first = next(number for number, each in enumerate(requests) if each.fault)
        return requests[first:]


@pytest.fixture
async def scene(rig: Rig) -> AsyncIterator[Scene]:
    """A restore in progress. The watcher reads nothing, so that each read is the delivery's."""
    restore_id = rig.server.start_restore()
    # The clock of the sockets is real, and only the tests of slowness wait for it.
    reporter = rig.reporter(request_timeout=1.0, idle_poll_interval=1e6, report_interval=2.0)
    async with reporter, reporter.restore(restore_id) as job:
        yield Scene(rig, reporter, job, restore_id)
    rig.assert_truthful(restore_id)
    assert rig.server.erased_stops(restore_id) == 0


async def tell_state(scene: Scene, answer: Any, times: int) -> None:
    """A state meets the fault, and what is told arrives."""
    await scene.rig.until_read(scene.restore_id)
    scene.rig.server.add_fault(answer, times=times, method="PATCH", carries="/state")
    scene.job.preparing()
    await scene.rig.until_state(scene.restore_id, "preparing")
    await eventually(lambda: scene.requests()[-1].fault is None)


async def tell_progress(scene: Scene, answer: Any, times: int) -> None:
    """Progress meets the fault, and what is told arrives."""
    scene.job.start()
    await scene.rig.until_state(scene.restore_id, "in_progress")
    scene.rig.server.add_fault(answer, times=times, method="PATCH", carries="/bytes-restored")
    scene.job.progress(bytes_restored=100, files_restored=1)
    await scene.rig.until_bytes(scene.restore_id, 100)


async def tell_result(scene: Scene, answer: Any, times: int) -> None:
    """A result meets the fault, and what is told arrives."""
    scene.job.start()
    scene.job.progress(bytes_restored=100, files_restored=1)
    await scene.rig.until_bytes(scene.restore_id, 100)
    scene.rig.server.add_fault(answer, times=times, method="PATCH", carries="/ended-time")
    assert await asyncio.to_thread(scene.job.finish)
    assert await scene.job.delivered(10)


TELLINGS: dict[str, Callable[[Scene, Any, int], Awaitable[None]]] = {
    "a_state": tell_state,
    "progress": tell_progress,
    "a_result": tell_result,
}

# Answers after which the same is told again. Those that leave it open whether the patch was carried out:
UNCERTAIN = {
    "500": status(500),
    "501": status(501),
    "503": status(503),
    "a dropped connection": "drop",
    "done and dropped": "apply_then_drop",
    "done and 500": {"apply_then_status": status(500)},
    "a truncated answer": "truncate",
}
# Those that say that it was not:
CERTAIN = {
    "408": status(408),
    "409": status(409),
    "425": status(425),
    "429": status(429),
    "200": status(200),
    "202": status(202),
    "301": status(301, Location="/v2/elsewhere"),
    "302": status(302, Location="/v2/elsewhere"),
    "307": status(307, Location="/v2/elsewhere"),
    "401": status(401),
}
AGAIN = UNCERTAIN | CERTAIN


@pytest.mark.parametrize("telling", TELLINGS)
async def test_a_204_needs_no_second_patch(telling: str, scene: Scene, log: Log) -> None:
    await TELLINGS[telling](scene, status(204), 0)
    patches = scene.patches
    assert {patch.answer for patch in patches} == {204}
    assert not log.named("delivery.failed")
    assert len(patches) == len({str(patch.operations) for patch in patches})


@pytest.mark.parametrize("telling", TELLINGS)
@pytest.mark.parametrize("answer", AGAIN)
async def test_what_was_answered_with_trouble_arrives_in_the_end(
    telling: str, answer: str, scene: Scene, log: Log
) -> None:
    await TELLINGS[telling](scene, AGAIN[answer], 3)
    assert scene.job.ending in {None, Ending.DELIVERED}
    if telling == "a_result":
        assert scene.job.ending is Ending.DELIVERED
        assert scene.rig.server.document(scene.restore_id)["state"] == "completed"
        assert await scene.rig.waiting() == []
    assert await scene.rig.dead_letters() == []
    await eventually(lambda: bool(log.named("delivery.failed")))
    failures = log.named("delivery.failed")
    assert {failure["restore_id"] for failure in failures} == {scene.restore_id}
    if answer.isdigit() and answer != "401":
        assert any(f"HTTP {answer}: said with {answer}" in failure["why"] for failure in failures)
    log.assert_no_bug_of_ours()


@pytest.mark.parametrize("telling", ["a_state", "a_result"])
@pytest.mark.parametrize("answer", UNCERTAIN)
async def test_a_state_is_never_repeated_blindly_after_an_uncertain_outcome(
    telling: str, answer: str, scene: Scene
) -> None:
    await TELLINGS[telling](scene, UNCERTAIN[answer], 2)
    requests = scene.since_fault()
    for before, after in pairwise(requests):
        if before.is_patch and before.fault:
            assert after.is_read, "a patch was not followed by a read"


@pytest.mark.parametrize("telling", ["a_state", "a_result"])
@pytest.mark.parametrize("answer", ["done and dropped", "done and 500", "a truncated answer"])
async def test_what_was_carried_out_is_not_told_again(telling: str, answer: str, scene: Scene) -> None:
    await TELLINGS[telling](scene, UNCERTAIN[answer], 1)
    patch, *others = scene.since_fault()
    assert patch.applied
    assert not any("state" in other.values for other in others if other.values != patch.values)
    assert [other for other in others if other.values == patch.values] == []


@pytest.mark.parametrize("telling", ["a_state", "a_result"])
async def test_an_answer_slower_than_the_timeout_is_a_read_later_and_no_second_patch(
    telling: str, make_rig: RigMaker
) -> None:
    rig = await make_rig()
    restore_id = rig.server.start_restore()
    reporter = rig.reporter(request_timeout=SLOW_TIMEOUT, idle_poll_interval=1e6)
    async with reporter, reporter.restore(restore_id) as job:
        scene = Scene(rig, reporter, job, restore_id)
        await TELLINGS[telling](scene, {"slow": 100 * SLOW_TIMEOUT * 2}, 1)
        patch, read, *rest = scene.since_fault()
        assert patch.applied
        assert read.is_read
        assert [each for each in rest if each.values == patch.values] == []


async def test_progress_that_timed_out_is_told_again_newest_first(make_rig: RigMaker) -> None:
    rig = await make_rig()
    restore_id = rig.server.start_restore()
    reporter = rig.reporter(request_timeout=SLOW_TIMEOUT, idle_poll_interval=1e6)
    async with reporter, reporter.restore(restore_id) as job:
        scene = Scene(rig, reporter, job, restore_id)
        await tell_progress(scene, {"slow": 100 * SLOW_TIMEOUT * 2}, 1)
        job.progress(bytes_restored=700)
        await rig.until_bytes(restore_id, 700)
    rig.assert_truthful(restore_id)


# Refusals -------------------------------------------------------------------------------------------------


async def test_a_state_that_is_refused_goes_alone(scene: Scene) -> None:
    await scene.rig.until_read(scene.restore_id)
    scene.rig.server.add_fault(status(400), method="PATCH", carries="/state")
    scene.job.start()
    await scene.rig.until_state(scene.restore_id, "in_progress")
    first, *_, last = scene.patches
    assert first.values.keys() == {"state", "started_time"}
    assert last.values.keys() == {"state"}


async def test_a_state_that_is_refused_in_every_way_is_skipped_and_the_result_arrives(
    scene: Scene, log: Log
) -> None:
    await scene.rig.until_read(scene.restore_id)
    scene.rig.server.add_fault(status(400), times=2, method="PATCH", carries="/state")
    scene.job.start()
    await scene.rig.until(lambda: len(scene.patches) == 2)
    scene.job.progress(bytes_restored=7)
    await scene.rig.until_bytes(scene.restore_id, 7)
    assert await asyncio.to_thread(scene.job.finish)
    assert await scene.job.delivered(10)
    assert scene.job.ending is Ending.DELIVERED
    assert scene.rig.states(scene.restore_id) == ["completed"]
    assert "HTTP 400: said with 400" in [failure["why"] for failure in log.named("delivery.failed")]


async def test_progress_that_is_refused_is_told_no_more_and_the_result_has_it(scene: Scene) -> None:
    scene.job.start()
    await scene.rig.until_state(scene.restore_id, "in_progress")
    scene.rig.server.add_fault(status(400), method="PATCH", carries="/bytes-restored")
    scene.job.progress(bytes_restored=10)
    await scene.rig.until(lambda: scene.patches[-1].answer == 400)
    scene.job.progress(bytes_restored=20)
    assert await asyncio.to_thread(scene.job.finish)
    assert await scene.job.delivered(10)
    assert scene.job.ending is Ending.DELIVERED
    assert [patch.answer for patch in scene.patches] == [204, 400, 204]
    assert scene.rig.server.document(scene.restore_id)["bytes_restored"] == 20


async def test_a_result_that_is_refused_goes_as_state_and_times_and_the_rest_is_a_dead_letter(
    scene: Scene, log: Log
) -> None:
    scene.job.start()
    scene.job.error(path="/etc/passwd", type="no_access", code=13)
    scene.job.progress(bytes_restored=100)
    await scene.rig.until_bytes(scene.restore_id, 100)
    scene.rig.server.add_fault(status(400), method="PATCH", carries="/ended-time")
    assert await asyncio.to_thread(scene.job.finish)
    assert await scene.job.delivered(10)
    assert scene.job.ending is Ending.DELIVERED_BARE
    refused, taken = scene.patches[-2:]
    assert "errors" in refused.values
    assert taken.values.keys() == {"state", "started_time", "ended_time"}
    (letter,) = await scene.rig.dead_letters()
    assert letter.report.errors.count == 1
    assert letter.report.bytes_restored == 100
    assert await scene.rig.waiting() == []
    (event,) = log.named("delivery.dead_letter")
    assert event["restore_id"] == scene.restore_id
    assert "HTTP 400: said with 400" in event["why"]


async def test_what_a_refused_result_left_out_is_a_dead_letter_also_when_the_rest_was_done_and_dropped(
    scene: Scene,
) -> None:
    scene.job.start()
    await scene.rig.until_state(scene.restore_id, "in_progress")
    scene.rig.server.add_fault(status(400), method="PATCH", carries="/errors", times=2)
    scene.rig.server.add_fault("apply_then_drop", method="PATCH", carries="/ended-time")
    scene.job.error(path="/etc/passwd", type="no_access", code=13)
    await scene.rig.until(lambda: scene.patches[-1].answer == 400)
    assert await asyncio.to_thread(scene.job.finish)
    assert await scene.job.delivered(10)
    document = scene.rig.server.document(scene.restore_id)
    assert (document["state"], document["errors"]["count"]) == ("completed_with_errors", 0)
    assert scene.job.ending is Ending.DELIVERED_BARE
    (letter,) = await scene.rig.dead_letters()
    assert letter.report.errors.count == 1


async def test_a_result_that_is_refused_in_every_way_is_a_dead_letter(scene: Scene, log: Log) -> None:
    scene.job.start()
    scene.job.progress(bytes_restored=100)
    await scene.rig.until_bytes(scene.restore_id, 100)
    scene.rig.server.add_fault(status(400), method="PATCH", times=99)
    assert await asyncio.to_thread(scene.job.finish)
    assert not await scene.job.delivered(10)
    assert scene.job.ending is Ending.REJECTED
    (letter,) = await scene.rig.dead_letters()
    assert letter.report.state.value == "completed"
    assert letter.exchange.failure == "HTTP 400: said with 400"
    assert log.named("delivery.dead_letter")


@pytest.mark.parametrize("code", [403, 404, 405])
@pytest.mark.parametrize("carries", ["/state", "/bytes-restored", "/ended-time"])
async def test_after_a_403_404_or_405_nothing_more_is_told_and_the_result_is_a_dead_letter(
    code: int, carries: str, scene: Scene, log: Log
) -> None:
    await scene.rig.until_read(scene.restore_id)
    scene.rig.server.add_fault(status(code), times=99, method="PATCH", carries=carries)
    scene.job.start()
    if carries != "/state":
        await scene.rig.until_state(scene.restore_id, "in_progress")
    if carries == "/bytes-restored":
        scene.job.progress(bytes_restored=10)
    if carries != "/ended-time":
        await scene.rig.until(lambda: [patch.answer for patch in scene.patches][-1:] == [code])
        await eventually(lambda: bool(log.named("delivery.over_early")))
        assert not scene.job.stop_requested  # when_refused=continue
    scene.job.progress(bytes_restored=20)
    assert await asyncio.to_thread(scene.job.finish)
    assert not await scene.job.delivered(10)
    assert scene.job.ending is Ending.GONE
    assert [patch.answer for patch in scene.patches].count(code) == 1
    assert scene.patches[-1].answer == code
    (letter,) = await scene.rig.dead_letters()
    assert (letter.report.state.value, letter.report.bytes_restored) == ("completed", 20)
    assert f"HTTP {code}: said with {code}" in letter.exchange.failure
    assert await scene.rig.waiting() == []
    assert log.named("delivery.dead_letter")
    assert bool(log.named("delivery.over_early")) == (carries != "/ended-time")


@pytest.mark.parametrize("code", [403, 404, 405])
async def test_an_engine_that_is_not_to_go_on_unreported_is_stopped_after_a_refusal(
    code: int, rig: Rig
) -> None:
    restore_id = rig.server.start_restore()
    rig.server.add_fault(status(code), times=99, method="PATCH")
    reporter = rig.reporter(when_refused=WhenRefused.STOP)
    async with asyncio.timeout(10), reporter, reporter.restore(restore_id) as job:
        job.start()
        await job.wait_for_stop()
    assert job.state.value == "stopped"
    (letter,) = await rig.dead_letters()
    assert letter.report.state.value == "stopped"


async def test_a_control_plane_that_serves_no_reads_is_reported_to_all_the_same(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    path = f"/v2/110011/restores/{restore_id}"
    rig.server.add_fault(status(404), times=9_999, method="GET", path=path)
    async with rig.reporter() as reporter:
        async with reporter.restore(restore_id) as job:
            job.queued()
            await rig.until_state(restore_id, "queued")
            job.start()
            job.progress(bytes_restored=10)
            await rig.until_bytes(restore_id, 10)
            rig.server.add_fault("apply_then_drop", method="PATCH", carries="/ended-time")
        assert await job.delivered(10)
    assert rig.states(restore_id) == ["queued", "in_progress", "completed"]
    assert await rig.dead_letters() == []


@pytest.mark.parametrize(
    "lies",
    [[status(200)], [status(503), status(409)], ["drop", status(409)]],
    ids=["200", "503-409", "drop-409"],
)
async def test_one_read_that_was_refused_does_not_make_us_believe_whatever_is_answered_to_a_result(
    lies: list[Any], rig: Rig
) -> None:
    restore_id = rig.server.start_restore()
    path = f"/v2/110011/restores/{restore_id}"
    rig.server.add_fault(status(404), method="GET", path=path)  # a balancer that was just being changed
    for lie in lies:
        rig.server.add_fault(lie, method="PATCH", carries="/ended-time")
    async with rig.reporter(idle_poll_interval=1e6) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            job.progress(bytes_restored=10)
            await rig.until_bytes(restore_id, 10)
        assert await job.delivered(10)
    assert job.ending is Ending.DELIVERED
    assert rig.server.document(restore_id)["state"] == "completed"


# The spool meanwhile --------------------------------------------------------------------------------------


async def test_a_result_that_cannot_be_delivered_sits_in_the_spool_with_the_reason(scene: Scene) -> None:
    scene.job.start()
    await scene.rig.until_state(scene.restore_id, "in_progress")
    scene.rig.server.add_fault(status(503), times=9_999, method="PATCH")
    scene.job.progress(bytes_restored=123)
    assert await asyncio.to_thread(scene.job.finish)
    (at_once,) = await scene.rig.waiting()
    assert at_once.report.is_final
    assert at_once.report.bytes_restored == 123
    await scene.rig.until(lambda: scene.patches[-1].answer == 503 and "state" in scene.patches[-1].values)
    failures = ["HTTP 503: said with 503"]
    await scene.rig.until_waiting(lambda kept: [record.exchange.failure for record in kept] == failures)
    scene.rig.server.faults.clear()
    assert await scene.job.delivered(10)
    assert await scene.rig.waiting() == []


# Retry-After ----------------------------------------------------------------------------------------------


async def hold_for(rig: Rig, header: str | Callable[[], str], telling: str = "a_state") -> float:
    """Seconds that pass between an answer with Retry-After and the next request of the delivery."""
    restore_id = rig.server.start_restore()
    reporter = rig.reporter(
        idle_poll_interval=1e6, report_interval=5.0, retry_cap=10.0, stop_poll_interval=5.0
    )
    async with reporter, reporter.restore(restore_id) as job:
        scene = Scene(rig, reporter, job, restore_id)
        value = header if isinstance(header, str) else header()
        answer = {"status": 503, "headers": {"Retry-After": value}}
        await TELLINGS[telling](scene, answer, 1)
        refused, following = scene.since_fault()[:2]
    return following.time - refused.time


def in_seconds(rig: Rig, duration: timedelta) -> str:
    return format_datetime((rig.clock.now() + duration).replace(microsecond=0), usegmt=True)


@pytest.mark.parametrize("telling", TELLINGS)
async def test_retry_after_in_seconds_is_a_floor(telling: str, make_rig: RigMaker) -> None:
    rig = await make_rig(factor=1_000)
    assert 120 <= await hold_for(rig, "120", telling) < 1_000


async def test_retry_after_as_a_date_is_a_floor(make_rig: RigMaker) -> None:
    from datetime import timedelta

    rig = await make_rig(factor=500)
    # The date is of whole seconds, and some are gone until the answer is given.
    held = await hold_for(rig, lambda: in_seconds(rig, timedelta(seconds=250)))
    assert 150 <= held < 1_000


async def test_a_date_in_the_past_and_nonsense_hold_nothing_back(make_rig: RigMaker) -> None:
    from datetime import timedelta

    rig = await make_rig()
    for header in (in_seconds(rig, -timedelta(days=1)), "soon", "-5", "1e9", ""):
        assert await hold_for(rig, header) < 100


@pytest.mark.parametrize("header", ["3600", "999999999999", "Fri, 31 Dec 2999 23:59:59 GMT"])
async def test_a_retry_after_of_more_than_the_cap_is_taken_as_the_cap(
    header: str, make_rig: RigMaker
) -> None:
    rig = await make_rig(factor=1_000)
    assert 240 <= await hold_for(rig, header) < 3_000


async def test_jitter_comes_on_top_of_retry_after(make_rig: RigMaker) -> None:
    rig = await make_rig(factor=1_000)
    delays = {round(await hold_for(rig, "50"), 1) for _ in range(4)}
    assert len(delays) > 1
    assert min(delays) >= 50


async def test_retry_after_right_after_a_renewed_token_is_a_floor_too(make_rig: RigMaker) -> None:
    rig = await make_rig(factor=1_000)
    restore_id = rig.server.start_restore()
    path = f"/v2/110011/restores/{restore_id}"
    rig.server.add_fault(status(401), method="GET", path=path)
    rig.server.add_fault({"status": 503, "headers": {"Retry-After": "200"}}, method="GET", path=path)
    reporter = rig.reporter(idle_poll_interval=1e6, report_interval=50.0)
    async with reporter, reporter.restore(restore_id) as job:
        await rig.until(lambda: any(each.answer == 401 for each in rig.requests()))
        rig.write_token("another-good-token")
        job.start()
        await rig.until_state(restore_id, "in_progress")
    reads = [each for each in rig.requests(restore_id) if each.is_read]
    assert [each.answer for each in reads[:3]] == [401, 503, 200]
    assert reads[2].time - reads[1].time >= 200


# Redirects ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed_and_the_token_goes_nowhere_else(
    code: int, make_rig: RigMaker
) -> None:
    rig, other = await make_rig(), await make_rig()
    restore_id = rig.server.start_restore()
    elsewhere = f"{other.server.url}/v2/110011/restores/{restore_id}"
    for method in ("GET", "PATCH"):
        rig.server.add_fault(status(code, Location=elsewhere), times=2, method=method)
    async with rig.reporter() as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            job.progress(bytes_restored=5)
        assert await job.delivered(10)
    assert job.ending is Ending.DELIVERED
    assert other.requests() == []


async def test_the_token_is_in_no_event(rig: Rig, log: Log) -> None:
    restore_id = rig.server.start_restore()
    body = {"message": f"the token {TOKEN} is bad", "errors": [TOKEN]}
    for code in (500, 503, 409, 401, 302):
        rig.server.add_fault({"status": code, "body": body}, method="PATCH")
    async with rig.reporter() as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
        assert await job.delivered(10)
    assert log.named("delivery.failed")
    assert TOKEN not in str(log.events)
