"""One delivery by itself, on virtual time: what it asks, in which second, and what it makes of the answers."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter.errors import SignInError, TransportError
from agent_reporter.keeper import PROGRESS_INTERVAL
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.error_log import Errors
from agent_reporter.model.exchange import Ending, Exchange
from agent_reporter.model.record import Record
from agent_reporter.model.state import RestoreState
from agent_reporter.model.verdict import Answer
from agent_reporter.settings import WhenRefused
from agent_reporter.spool import Spool
from tests.builders import START, a_record, a_report, a_result, listening, names
from tests.delivery.virtual import (
    CHANCE,
    INTERVAL,
    REAL_BOUND,
    SETTINGS,
    Plane,
    Scene,
    at,
    on_virtual_time,
    seconds,
    until,
)

if TYPE_CHECKING:
    from pathlib import Path

LOST = TransportError("the connection was dropped", uncertain=True)
UNREACHABLE = TransportError("nobody is there", uncertain=False)
BUSY = Answer(503)
GONE = Answer(404)
FIRST_RETRY, SECOND_RETRY, THIRD_RETRY = CHANCE * 1, CHANCE * 2, CHANCE * 4
"""Seconds that a delivery waits after that many failures."""


def in_progress(**fields: object) -> Exchange:
    """The control plane has the start, and nothing else."""
    known = Acknowledged(state=RestoreState.IN_PROGRESS, started_time=START, revision=1)
    return Exchange(acknowledged=replace(known, **fields))  # type: ignore[arg-type]  # fields of it


def under_way(**settings: object) -> Scene:
    """A restore of which the start was told before."""
    plane = Plane({"state": "in_progress", "started_time": "2026-01-02T03:04:05.678901Z"})
    return Scene(exchange=in_progress(), plane=plane, **settings)  # type: ignore[arg-type]  # settings


# When -----------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_state_is_told_straight_after_a_read_and_the_result_when_it_is_there() -> None:
    scene = Scene()
    async with scene.delivering():
        await until(7)
        scene.engine.ends()
        scene.delivery.wake(urgent=True)
        await scene.delivery.over.wait()
    assert scene.plane.timed == [(0, "read"), (0, "in_progress"), (7, "completed")]
    assert scene.engine.settled == [Ending.DELIVERED]
    assert scene.delivery.drained.has_happened
    assert scene.delivery.exchange.ending is Ending.DELIVERED
    assert scene.answers == {"read": 1, "delivered": 2}


@pytest.mark.parametrize(
    ("hold", "left", "first"),
    [(0.0, None, 0.0), (7.0, None, 7.0), (7.0, 20.0, 20.0), (30.0, 20.0, 30.0), (0.0, -5.0, 0.0)],
)
@on_virtual_time
async def test_the_first_request_waits_for_what_it_is_held_and_for_the_backoff_of_the_process_before(
    hold: float, left: float | None, first: float
) -> None:
    waits = None if left is None else at(left)
    scene = Scene(a_result(), exchange=Exchange(not_before=waits, uncertain=True), is_live=False, hold=hold)
    assert not scene.delivery.contacted.has_happened
    await scene.until_over()
    assert scene.plane.timed == [(first, "read"), (first, "completed")]


@on_virtual_time
async def test_no_wait_that_is_found_in_the_spool_is_longer_than_one_can_be() -> None:
    scene = Scene(a_result(), exchange=Exchange(not_before=at(1e6), uncertain=True), is_live=False)
    await scene.until_over()
    assert scene.plane.calls[0].time == SETTINGS.retry_cap + SETTINGS.retry_after_cap


@on_virtual_time
async def test_progress_is_looked_for_and_told_once_an_interval_without_being_woken() -> None:
    scene = Scene()
    async with scene.delivering():
        for number in range(1, 40):
            await until(number * 0.25 + 0.1)
            scene.engine.states(bytes_restored=number)
    progress = [call for call in scene.plane.calls if call.kind == "progress"]
    assert [round(call.time, 3) for call in progress] == [INTERVAL, 2 * INTERVAL, 3 * INTERVAL, 4 * INTERVAL]
    assert [call.told for call in progress] == [{"bytes_restored": told} for told in (7, 15, 23, 31)]


@on_virtual_time
async def test_what_is_told_to_a_daemon_is_told_twice_as_often() -> None:
    scene = under_way()
    scene.plane.is_daemon = True
    async with scene.delivering():
        for number in range(1, 20):
            await until(number * 0.25 + 0.1)
            scene.engine.states(bytes_restored=number)
    assert [time for time, _ in scene.plane.timed] == [INTERVAL / 2, INTERVAL, 3 * INTERVAL / 2, 2 * INTERVAL]


@on_virtual_time
async def test_a_gentle_wake_has_the_newest_looked_at_but_does_not_hurry_its_tick() -> None:
    scene = under_way(report_interval=100.0)
    async with scene.delivering():
        await until(3)
        scene.engine.states(bytes_restored=3)
        scene.delivery.wake(urgent=False)
        await until(20)
        scene.engine.states(bytes_restored=20)
        scene.delivery.wake(urgent=False)
        await until(250)
    assert scene.plane.timed == [(3, "progress"), (103, "progress")]
    assert scene.plane.calls[1].told == {"bytes_restored": 20}


@on_virtual_time
async def test_what_waits_for_its_tick_is_not_even_looked_at_for_a_gentle_wake() -> None:
    scene = under_way(report_interval=100.0)
    scene.engine.states(bytes_restored=1)
    async with scene.delivering():
        scene.delivery.wake(urgent=True)  # which makes no later one urgent
        await until(0)
        scene.engine.states(bytes_restored=2)
        await until(101)  # the wait for news is over, and the next tick is at 200
        scene.engine.states(bytes_restored=3)
        looks = len(scene.engine.asked)
        scene.delivery.wake(urgent=False)
        await until(101.5)
        assert len(scene.engine.asked) == looks + 1, "it waited for news, and now waits for its tick"
        scene.delivery.wake(urgent=False)
        await until(102)
        assert len(scene.engine.asked) == looks + 1


@on_virtual_time
async def test_what_is_urgent_is_told_at_once_whatever_else_woke_before_it() -> None:
    scene = under_way(report_interval=100.0)
    async with scene.delivering():
        scene.engine.states(bytes_restored=1)
        await until(2)
        scene.engine.states(bytes_restored=2)
        await until(6)
        scene.engine.ends()
        scene.delivery.wake(urgent=False)
        scene.delivery.wake(urgent=True)
        scene.delivery.wake(urgent=False)
        await scene.delivery.over.wait()
    assert scene.plane.timed == [(0, "progress"), (6, "completed")]


@on_virtual_time
async def test_one_urgent_wake_makes_no_later_one_urgent() -> None:
    scene = under_way(report_interval=100.0)
    async with scene.delivering():
        scene.engine.states(bytes_restored=1)
        await until(1)
        scene.delivery.wake(urgent=True)
        await until(2)
        scene.engine.states(bytes_restored=2)
        await until(3)
        scene.delivery.wake(urgent=False)
        looked = len(scene.engine.asked)
        scene.delivery.wake(urgent=False)
        await until(4)
        assert len(scene.engine.asked) <= looked + 1
        await until(150)
    assert scene.plane.timed == [(0, "progress"), (100, "progress")]


@on_virtual_time
async def test_many_wakes_before_the_loop_looks_cost_it_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = under_way()
    calls: list[object] = []
    loop = asyncio.get_running_loop()
    real = loop.call_soon_threadsafe

    def count(*args: Any) -> asyncio.Handle:
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", count)
    async with scene.delivering():
        await until(1)
        for number in range(50):
            scene.delivery.wake(urgent=number % 2 == 1)
        assert len(calls) == 1
        await until(3)
        scene.delivery.wake(urgent=False)
        assert len(calls) == 2


def test_a_wake_after_the_loop_was_closed_is_nothing() -> None:
    made: list[Scene] = []

    @on_virtual_time
    async def make() -> None:
        made.append(Scene())

    make()
    made[0].delivery.wake(urgent=True)


@on_virtual_time
async def test_a_record_is_kept_every_few_seconds_though_its_next_patch_is_far_off() -> None:
    scene = under_way(report_interval=60.0)
    async with scene.delivering():
        scene.engine.states(bytes_restored=1)
        await until(1)
        scene.engine.states(bytes_restored=2)
        scene.delivery.wake(urgent=False)
        await until(59)
    looks = [moment for moment in scene.engine.asked if 1 < moment < 59]
    assert looks
    assert max(after - before for before, after in pairwise(looks)) < PROGRESS_INTERVAL + 0.1
    assert looks[-1] >= 59 - PROGRESS_INTERVAL


@on_virtual_time
async def test_nobody_looks_again_and_again_at_a_restore_without_an_engine() -> None:
    scene = Scene(a_result(), exchange=Exchange(not_before=at(100), uncertain=True), is_live=False)
    await scene.until_over()
    assert scene.plane.calls[0].time == 100
    assert [moment for moment in scene.engine.asked if 0 < moment < 100] == []


@on_virtual_time
async def test_an_orphan_that_has_told_all_it_knows_waits_until_somebody_wakes_it() -> None:
    scene = Scene(is_live=False, exchange=in_progress())
    async with scene.delivering():
        await until(1_000)
        assert [moment for moment in scene.engine.asked if moment > 0] == []
        scene.engine.ends(RestoreState.FAILED)
        scene.delivery.wake(urgent=True)
        await scene.delivery.over.wait()
    assert scene.plane.timed == [(1_000, "failed")]


@on_virtual_time
async def test_one_request_is_in_flight_however_many_restores_want_to_tell() -> None:
    scene = under_way()
    await scene.means.turns.acquire()
    async with scene.delivering():
        scene.engine.states(bytes_restored=1)
        await until(10)
        assert scene.plane.calls == []
        scene.means.turns.release()
        await until(11)
        assert scene.means.turns.locked() is False
    assert scene.plane.timed[0] == (10, "progress")


# Failures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trouble", "counted", "asks_first"),
    [
        (LOST, "no_answer", True),
        (UNREACHABLE, "no_answer", False),
        (SignInError("no token"), "no_token", False),
        (BUSY, "retry", True),
        (Answer(429), "retry", False),
    ],
)
@on_virtual_time
async def test_a_result_that_met_trouble_is_told_again_after_a_read_if_it_may_have_been_taken(
    trouble: Answer | Exception,
    counted: str,
    asks_first: bool,  # noqa: FBT001 - a parameter
) -> None:
    scene = under_way()
    scene.plane.answers = [trouble]
    scene.engine.ends()
    with listening() as heard:
        await scene.until_over()
    again = [(FIRST_RETRY, "read")] if asks_first else []
    assert scene.plane.timed == [(0, "completed"), *again, (FIRST_RETRY, "completed")]
    assert scene.answers == {counted: 1, "delivered": 1} | ({"read": 1} if asks_first else {})
    (failed,) = heard.named("delivery.failed")
    assert (failed["attempt"], failed["restore_id"]) == (1, "r-1")
    assert failed["why"] == (f"HTTP {trouble.status}" if isinstance(trouble, Answer) else str(trouble))
    (recovered,) = heard.named("delivery.recovered")
    assert recovered["after"] == 1


@pytest.mark.parametrize(
    ("trouble", "counted"), [(UNREACHABLE, "no_answer"), (SignInError("no token"), "no_token")]
)
@on_virtual_time
async def test_each_request_that_came_to_nothing_is_counted(trouble: Exception, counted: str) -> None:
    scene = under_way()
    scene.plane.answers = [trouble, trouble, trouble]
    scene.engine.ends()
    await scene.until_over()
    assert scene.answers == {counted: 3, "delivered": 1}
    assert scene.plane.timed[-1] == (FIRST_RETRY + SECOND_RETRY + THIRD_RETRY, "completed")


@on_virtual_time
async def test_a_200_to_a_patch_is_no_read_and_no_delivery() -> None:
    scene = under_way()
    scene.plane.answers = [Answer(200)]
    scene.engine.ends()
    await scene.until_over()
    assert scene.plane.kinds[:2] == ["completed", "read"]
    assert scene.answers["reconcile"] == 1
    assert scene.answers["read"] == scene.plane.kinds.count("read")


@on_virtual_time
async def test_each_failure_waits_longer_and_is_said_once_for_as_long_as_it_is_the_same() -> None:
    scene = under_way()
    scene.plane.answers = [BUSY, BUSY, Answer(500), BUSY]
    scene.engine.ends()
    with listening() as heard:
        await scene.until_over()
    times = [call.time for call in scene.plane.calls]
    first, second = FIRST_RETRY, FIRST_RETRY + SECOND_RETRY
    third = second + THIRD_RETRY
    last = third + 2 * THIRD_RETRY
    assert times == [0, first, second, third, last, last]
    said = [(each["why"], each["attempt"]) for each in heard.named("delivery.failed")]
    assert said == [("HTTP 503", 1), ("HTTP 500", 3), ("HTTP 503", 4)]
    assert [each["after"] for each in heard.named("delivery.recovered")] == [4]


@on_virtual_time
async def test_a_retry_tells_what_is_newest_then_and_counts_what_was_never_told_by_itself() -> None:
    scene = under_way()
    scene.plane.answers = [BUSY, BUSY]
    scene.engine.states(bytes_restored=1)
    async with scene.delivering():
        for number in (2, 3, 4):
            await until(number / 10)
            scene.engine.states(bytes_restored=number)
        await until(INTERVAL)
        scene.engine.states(bytes_restored=9)
        await until(10)
    told = [call.told for call in scene.plane.calls if call.kind == "progress"]
    assert told[0] == {"bytes_restored": 1}
    assert told[-1] == {"bytes_restored": 9}
    assert scene.means.tally.conflated == 4


@on_virtual_time
async def test_all_that_was_never_told_by_itself_is_counted_together() -> None:
    scene = under_way()
    async with scene.delivering():
        scene.engine.states(bytes_restored=1)
        for second in (0, 2, 4):
            await until(second)
            for number in range(3):
                scene.engine.states(bytes_restored=second * 10 + number + 2)
        await until(10)
    assert [call.told for call in scene.plane.calls] == [{"bytes_restored": told} for told in (1, 4, 24, 44)]
    assert scene.means.tally.conflated == 6


@on_virtual_time
async def test_what_is_told_one_by_one_is_not_counted_as_conflated() -> None:
    scene = under_way()
    async with scene.delivering():
        for number in range(1, 5):
            scene.engine.states(bytes_restored=number)
            await until(number * INTERVAL)
    assert scene.means.tally.conflated == 0


@on_virtual_time
async def test_a_retry_of_progress_waits_for_its_tick_and_one_of_a_result_does_not() -> None:
    scene = under_way(report_interval=30.0)
    scene.plane.answers = [Answer(429)]
    async with scene.delivering():
        scene.engine.states(bytes_restored=1)
        await until(40)
        scene.plane.answers = [Answer(429)]
        scene.engine.ends()
        scene.delivery.wake(urgent=True)
        await scene.delivery.over.wait()
    assert scene.plane.timed == [(0, "progress"), (30, "progress"), (40, "completed"), (40.5, "completed")]


@on_virtual_time
async def test_a_retry_after_is_a_floor_that_not_even_an_urgent_wake_breaks_through() -> None:
    scene = under_way()
    scene.plane.answers = [Answer(429, retry_after="20")]
    scene.engine.ends()
    async with scene.delivering():
        for second in range(1, 15):
            await until(second)
            scene.delivery.wake(urgent=True)
        await scene.delivery.over.wait()
    assert scene.plane.timed == [(0, "completed"), (20 + FIRST_RETRY, "completed")]


@on_virtual_time
async def test_a_401_is_mended_by_a_new_token_and_going_on_at_once() -> None:
    scene = under_way()
    refused = Answer(401, signed_with=3)
    scene.plane.answers = [refused]
    scene.engine.ends()
    await scene.until_over()
    assert scene.plane.renewed == [401]
    assert scene.plane.timed == [(0, "completed"), (0, "completed")]
    assert scene.answers == {"sign_in": 1, "delivered": 1}


@on_virtual_time
async def test_a_token_that_cannot_be_renewed_is_waited_for() -> None:
    scene = under_way()
    scene.plane.answers = [Answer(401)]
    scene.plane.sign_in = SignInError("nobody signs in today")
    scene.engine.ends()
    with listening() as heard:
        await scene.until_over()
    assert scene.plane.timed == [(0, "completed"), (FIRST_RETRY, "completed")]
    assert scene.answers == {"sign_in": 1, "no_token": 1, "delivered": 1}
    assert [each["why"] for each in heard.named("delivery.failed")] == ["nobody signs in today"]


@on_virtual_time
async def test_a_token_is_renewed_after_a_401_and_after_nothing_else() -> None:
    scene = under_way()
    scene.plane.answers = [BUSY, Answer(500), Answer(409), Answer(400)]
    scene.engine.ends()
    await scene.until_over()
    assert scene.plane.renewed == []


@on_virtual_time
async def test_the_control_plane_was_asked_also_if_it_did_not_answer() -> None:
    scene = Scene()
    scene.plane.always = UNREACHABLE
    async with scene.delivering():
        await until(0)
        assert scene.delivery.contacted.has_happened
        assert not scene.delivery.over.has_happened


@on_virtual_time
async def test_a_read_that_fails_is_not_counted_as_one() -> None:
    scene = Scene()
    scene.plane.answers = [BUSY, Answer(204)]
    async with scene.delivering():
        await until(10)
    assert scene.plane.kinds == ["read", "read", "read", "in_progress"]
    assert scene.answers["read"] == 1
    assert scene.answers["retry"] == 1


@on_virtual_time
async def test_what_goes_with_a_patch_to_the_daemon_says_how_much_there_is_in_all() -> None:
    scene = under_way()
    scene.plane.is_daemon = True
    scene.engine.states(bytes_restored=5, total_bytes=500, total_files=7)
    async with scene.delivering():
        await until(0)
    facts = scene.plane.calls[0].facts
    assert facts is not None
    assert (facts.total_bytes, facts.total_files, len(facts.pids)) == (500, 7, 1)


@on_virtual_time
async def test_nothing_goes_with_a_patch_to_the_control_plane_itself() -> None:
    scene = under_way()
    scene.engine.states(bytes_restored=5, total_bytes=500, total_files=7)
    async with scene.delivering():
        await until(0)
    assert scene.plane.calls[0].facts is None


# Stops ----------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_stop_that_a_read_shows_is_told_to_the_engine_and_never_erased() -> None:
    scene = Scene()
    scene.plane.document["state"] = "stop_requested"
    async with scene.delivering():
        await until(30)
        assert scene.engine.stops == 1
        assert scene.plane.kinds == ["read"]
        scene.engine.ends(RestoreState.STOPPED)
        scene.delivery.wake(urgent=True)
        await scene.delivery.over.wait()
    assert scene.plane.kinds == ["read", "stopped"]


@on_virtual_time
async def test_no_stop_is_told_to_an_engine_that_nobody_asked_to_stop() -> None:
    scene = Scene()
    async with scene.delivering():
        await until(30)
    assert scene.engine.stops == 0
    assert not scene.delivery.exchange.stop_requested


@on_virtual_time
async def test_a_state_is_not_told_any_more_once_the_engine_was_told_to_stop() -> None:
    scene = Scene()
    scene.engine.knows_of_stop = True
    async with scene.delivering():
        await until(30)
    assert scene.plane.kinds == ["read"]
    assert scene.delivery.exchange.stop_requested


@on_virtual_time
async def test_a_stop_that_comes_while_a_turn_is_waited_for_is_not_erased() -> None:
    scene = Scene()
    await scene.means.turns.acquire()
    async with scene.delivering():
        await until(3)
        scene.engine.knows_of_stop = True
        scene.means.turns.release()
        await until(30)
    assert scene.plane.kinds == ["read"]


@on_virtual_time
async def test_a_stop_that_comes_while_the_restore_is_read_is_not_erased() -> None:
    scene = Scene()
    scene.plane.takes = 3.0
    async with scene.delivering():
        await until(2)
        scene.engine.knows_of_stop = True
        await until(30)
    assert scene.plane.kinds == ["read"]


@on_virtual_time
async def test_what_became_needless_while_a_turn_was_waited_for_is_not_asked() -> None:
    scene = under_way()
    await scene.means.turns.acquire()
    async with scene.delivering():
        scene.engine.states(bytes_restored=1)
        await until(1)
        scene.engine.ends()
        scene.delivery.wake(urgent=True)
        scene.keeper.exchange = replace(scene.keeper.exchange, ending=Ending.GONE)
        scene.means.turns.release()
        await scene.delivery.over.wait()
    assert scene.plane.calls == []


@on_virtual_time
async def test_a_stop_of_a_restore_without_an_engine_is_no_news_of_a_stop() -> None:
    scene = Scene(a_result(), is_live=False)
    await scene.until_over()
    assert not scene.delivery.exchange.stop_requested


@on_virtual_time
async def test_a_stop_that_is_asked_for_here_is_told_to_the_control_plane_at_once() -> None:
    scene = under_way(report_interval=100.0)
    async with scene.delivering():
        scene.engine.states(bytes_restored=1)
        await until(1)
        scene.engine.states(bytes_restored=2)
        scene.delivery.wake(urgent=False)  # from now on it waits for its tick
        await until(5)
        scene.delivery.ask_stop()
        await until(6)
    assert scene.plane.timed == [(0, "progress"), (5, "stop_requested")]
    assert scene.delivery.exchange.stop_wanted


# Results that have to be durable --------------------------------------------------------------------------


@on_virtual_time
async def test_a_result_that_is_on_the_disk_is_kept_and_nobody_waits_for_its_delivery(
    tmp_path: Path,
) -> None:
    entry = await asyncio.to_thread(Spool(tmp_path / "spool").open, "r-1")
    scene = Scene(entry=entry)
    assert await asyncio.to_thread(scene.delivery.keep_result, scene.engine.ends())
    assert Record.decode((tmp_path / "spool" / "r-1.json").read_bytes()).report == scene.engine.report
    await asyncio.to_thread(entry.release)


@on_virtual_time
async def test_a_result_that_no_disk_has_is_kept_once_it_is_delivered() -> None:
    scene = Scene(drain_timeout=60.0, is_live=False)  # nobody looks without being woken

    def finish() -> bool:
        return scene.delivery.keep_result(scene.engine.states(state=RestoreState.COMPLETED, ended_time=at(5)))

    with listening() as heard:
        async with scene.delivering():
            await until(5)
            await scene.means.turns.acquire()
            finished = asyncio.create_task(asyncio.to_thread(finish))
            began = time.monotonic()
            while not heard.named("delivery.result_not_durable"):  # it comes from a thread
                assert time.monotonic() - began < REAL_BOUND
                await asyncio.sleep(0)
            scene.means.turns.release()
            assert await finished
    assert scene.plane.kinds[-1] == "completed"
    (said,) = heard.named("delivery.result_not_durable")
    assert (said["problem"], said["hint"]) == ("there is no spool", "waiting for its delivery")


@on_virtual_time
async def test_a_result_that_neither_disk_nor_control_plane_takes_is_waited_for_a_while_and_not_said_to_be_kept() -> (
    None
):
    scene = Scene(drain_timeout=0.2)
    report, kept = scene.engine.ends(), []
    engine = threading.Thread(target=lambda: kept.append(scene.delivery.keep_result(report)), daemon=True)
    began = time.monotonic()
    engine.start()
    engine.join(REAL_BOUND)
    assert kept == [False]
    assert time.monotonic() - began >= 0.2


@on_virtual_time
async def test_a_result_that_is_stated_in_the_loop_of_its_delivery_does_not_hold_it_up() -> None:
    scene = under_way(report_interval=100.0, drain_timeout=1.0)
    with listening() as heard:
        async with scene.delivering():
            scene.engine.states(bytes_restored=1)
            await until(0.1)
            scene.engine.states(bytes_restored=2)
            scene.delivery.wake(urgent=False)  # from now on it waits for its tick
            await until(0.5)
            assert not scene.delivery.keep_result(scene.engine.ends())
            assert heard.named("delivery.result_not_durable") == []
            await scene.delivery.over.wait()
            assert scene.plane.timed == [(0, "progress"), (0.5, "completed")], "it was woken"
            assert scene.delivery.keep_result(scene.engine.report), "it is delivered"


@on_virtual_time
async def test_a_result_that_comes_after_the_drain_is_not_waited_for() -> None:
    scene = under_way(drain_timeout=60.0)
    async with scene.delivering() as task:
        scene.delivery.drain(0.0)
        await task
    with listening() as heard:
        assert not await asyncio.to_thread(scene.delivery.keep_result, scene.engine.ends())
    assert heard.named("delivery.result_not_durable") == []


# The drain ------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_drain_leaves_a_restore_that_goes_on_at_once() -> None:
    scene = under_way()
    async with scene.delivering() as task:
        await until(1)
        scene.delivery.drain(500.0)
        await task
        assert seconds() < 2
    assert scene.delivery.drained.has_happened
    assert not scene.delivery.over.has_happened
    await scene.delivery.release()
    assert scene.engine.settled == [None]


@on_virtual_time
async def test_a_drain_tells_what_waits_for_its_tick_no_more_but_a_state_that_is_due() -> None:
    scene = Scene(a_report(state=RestoreState.PREPARING, started_time=None))
    async with scene.delivering() as task:
        await until(1)
        scene.engine.states(state=RestoreState.IN_PROGRESS, started_time=START)
        scene.delivery.drain(500.0)
        await task
    assert scene.plane.timed == [(0, "read"), (0, "preparing"), (1, "read"), (1, "in_progress")]


@pytest.mark.parametrize(("until_second", "tries"), [(0.4, 1), (0.6, 2), (1.4, 2), (1.6, 3), (0.5, 1)])
@on_virtual_time
async def test_a_drain_tries_a_result_for_as_long_as_it_was_given(until_second: float, tries: int) -> None:
    scene = under_way()
    scene.plane.always = Answer(429)
    scene.engine.ends()
    async with scene.delivering() as task:
        scene.delivery.drain(until_second)
        await task
        assert seconds() <= until_second
    assert len(scene.plane.calls) == tries
    assert scene.delivery.drained.has_happened
    assert not scene.delivery.over.has_happened


@on_virtual_time
async def test_a_drain_ends_a_wait_that_is_under_way() -> None:
    scene = under_way()
    scene.plane.always = Answer(429, retry_after="100")
    scene.engine.ends()
    async with scene.delivering() as task:
        await until(10)
        scene.delivery.drain(50.0)
        await task
        assert seconds() < 11


@on_virtual_time
async def test_the_dead_letter_of_a_restore_that_was_refused_has_its_result(tmp_path: Path) -> None:
    entry = await asyncio.to_thread(Spool(tmp_path / "spool").open, "r-1")
    scene = Scene(entry=entry, plane=Plane({"state": "start_requested"}, always=GONE))
    async with scene.delivering() as task:
        scene.engine.ends(bytes_restored=7)
        await task
    record = Record.decode((tmp_path / "spool" / "dead" / "r-1.json").read_bytes())
    assert record.report == scene.engine.report


@on_virtual_time
async def test_a_result_that_is_stated_just_when_the_drain_looks_is_delivered_by_it() -> None:
    scene = under_way()
    async with scene.delivering() as task:
        await until(1)
        first = len(scene.engine.asked) + 1

        def end_at_the_second_look() -> None:
            if len(scene.engine.asked) == first + 1:
                scene.engine.ends()

        scene.engine.on_asked = end_at_the_second_look
        scene.delivery.drain(500.0)
        await task
    assert scene.plane.kinds == ["completed"]
    assert scene.engine.settled == [Ending.DELIVERED]


@on_virtual_time
async def test_what_is_over_is_not_released_as_well() -> None:
    scene = Scene(a_result(), is_live=False)
    await scene.until_over()
    await scene.delivery.release()
    assert scene.engine.settled == [Ending.DELIVERED]


@on_virtual_time
async def test_what_is_released_stays_in_the_spool_for_whoever_comes_next(tmp_path: Path) -> None:
    entry = await asyncio.to_thread(Spool(tmp_path / "spool").open, "r-1")
    scene = Scene(entry=entry)
    await asyncio.to_thread(entry.write, a_record())
    await scene.delivery.release()
    assert names(tmp_path / "spool") == ["aside", "dead", "r-1.json"]


# Ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when_refused", WhenRefused)
@on_virtual_time
async def test_after_a_refusal_the_engine_goes_on_unless_it_is_not_to_and_its_result_is_a_dead_letter(
    when_refused: WhenRefused,
) -> None:
    scene = Scene(when_refused=when_refused)
    scene.plane.answers = [None, GONE]
    with listening() as heard:
        async with scene.delivering():
            await until(10)
            assert scene.engine.stops == (when_refused is WhenRefused.STOP)
            assert not scene.delivery.over.has_happened
            scene.engine.ends()
            scene.delivery.wake(urgent=False)
            await scene.delivery.over.wait()
    assert scene.plane.kinds == ["read", "in_progress"]
    assert scene.engine.settled == [Ending.GONE]
    assert scene.delivery.drained.has_happened
    (early,) = heard.named("delivery.over_early")
    assert (early["ending"], early["why"]) == ("gone", "HTTP 404")
    (dead,) = heard.named("delivery.dead_letter")
    assert (dead["ending"], dead["why"]) == ("gone", "HTTP 404")


@pytest.mark.parametrize("when_refused", WhenRefused)
@on_virtual_time
async def test_an_end_that_comes_in_its_time_stops_nobody(when_refused: WhenRefused) -> None:
    scene = under_way(when_refused=when_refused)
    scene.plane.always = GONE
    scene.engine.ends()
    with listening() as heard:
        await scene.until_over()
    assert scene.engine.stops == 0
    assert heard.named("delivery.over_early") == []
    assert scene.engine.settled == [Ending.GONE]


@pytest.mark.parametrize(
    ("ends", "ending"),
    [
        ({"state": RestoreState.COMPLETED}, Ending.DELIVERED),
        ({"state": RestoreState.COMPLETED, "bytes_restored": 9}, Ending.DELIVERED_BARE),
        ({"state": RestoreState.FAILED}, Ending.ENDED_ELSEWHERE),
    ],
)
@on_virtual_time
async def test_a_restore_that_has_ended_there_is_stopped_here_and_its_result_compared(
    ends: dict[str, object], ending: Ending
) -> None:
    scene = Scene()
    scene.plane.document["state"] = "completed"
    with listening() as heard:
        async with scene.delivering():
            await until(10)
            assert scene.engine.stops == 1
            scene.engine.ends(**ends)  # type: ignore[arg-type]  # a state and counts
            scene.delivery.wake(urgent=True)
            await scene.delivery.over.wait()
    assert scene.engine.settled == [ending]
    assert scene.delivery.exchange.ending is ending
    assert scene.plane.kinds == ["read"]
    dead = [each["ending"] for each in heard.named("delivery.dead_letter")]
    assert dead == ([] if ending is Ending.DELIVERED else [ending.value])


@on_virtual_time
async def test_an_end_that_was_never_read_is_taken_as_another() -> None:
    scene = Scene(a_result(), exchange=Exchange(ending=Ending.ENDED_ELSEWHERE), is_live=False)
    await scene.until_over()
    assert scene.engine.settled == [Ending.ENDED_ELSEWHERE]


@pytest.mark.parametrize("is_later", [False, True])
@on_virtual_time
async def test_a_drain_does_not_wait_for_the_result_of_a_restore_that_nobody_wants_to_hear_of(
    is_later: bool,  # noqa: FBT001 - a parameter
) -> None:
    scene = Scene()
    scene.plane.answers = [GONE, GONE]
    scene.plane.always = GONE
    async with scene.delivering() as task:
        if is_later:
            await until(10)
        scene.delivery.drain(500.0)
        await task
        assert seconds() < 11
    assert scene.delivery.drained.has_happened
    assert not scene.delivery.over.has_happened
    assert scene.engine.settled == []


@on_virtual_time
async def test_the_record_of_a_refused_result_says_why_it_is_a_dead_letter(tmp_path: Path) -> None:
    entry = await asyncio.to_thread(Spool(tmp_path / "spool").open, "r-1")
    scene = Scene(a_result(), entry=entry, exchange=in_progress(), is_live=False)
    scene.plane.always = GONE
    await scene.until_over()
    record = Record.decode((tmp_path / "spool" / "dead" / "r-1.json").read_bytes())
    assert (record.report, record.exchange.ending) == (a_result(), Ending.GONE)


# Too old --------------------------------------------------------------------------------------------------


@on_virtual_time
async def test_a_result_that_was_stated_here_is_given_up_by_the_clock_that_is_never_set() -> None:
    scene = under_way(retention=1_000.0, retry_cap=60.0)
    scene.plane.always = Answer(429)
    scene.engine.ends()
    async with scene.delivering():
        await until(100)
        scene.clock.skew = timedelta(days=400)
        await until(900)
        assert not scene.delivery.over.has_happened
        await scene.delivery.over.wait()
    assert 1_000 <= seconds() <= 1_000 + SETTINGS.retry_cap
    assert scene.engine.settled == [Ending.EXPIRED]


@on_virtual_time
async def test_a_result_is_too_old_from_the_moment_on_that_its_time_is_over() -> None:
    third_retry_at_the_cap = 31.5 + 3 * 30.0
    scene = under_way(retention=third_retry_at_the_cap)
    scene.plane.always = Answer(429)
    async with scene.delivering() as task:
        await asyncio.sleep(1)
        scene.engine.ends()
        scene.delivery.wake(urgent=True)
        await asyncio.sleep(1)
        scene.clock.skew = timedelta(days=400)
        await task
    assert seconds() == 1 + third_retry_at_the_cap


@on_virtual_time
async def test_a_result_that_was_found_too_old_is_tried_once() -> None:
    old = replace(a_result(), ended_time=at(-2_000))
    scene = Scene(old, since=at(-1_990), is_live=False)
    scene.plane.always = BUSY
    await scene.until_over()
    assert scene.plane.timed == [(0, "read")]
    assert scene.engine.settled == [Ending.EXPIRED]


@on_virtual_time
async def test_a_result_that_was_found_is_given_up_when_it_is_too_old() -> None:
    scene = Scene(replace(a_result(), ended_time=at(-950)), since=at(-900), is_live=False)
    scene.plane.always = BUSY
    await scene.until_over()
    assert 100 <= seconds() <= 100 + SETTINGS.retry_cap
    assert scene.engine.settled == [Ending.EXPIRED]


@on_virtual_time
async def test_a_restore_that_goes_on_is_never_too_old() -> None:
    scene = under_way(retention=10.0)
    scene.plane.always = Answer(429)
    scene.engine.states(bytes_restored=1, errors=Errors(1))
    async with scene.delivering():
        await until(10_000)
        assert not scene.delivery.over.has_happened
        assert scene.delivery.exchange.ending is None
