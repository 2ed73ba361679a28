from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from agent_reporter.moment import Bell, Moment
from tests.blocking import no_blocking_calls

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def _no_blocking_call_in_a_loop() -> Iterator[None]:
    with no_blocking_calls():
        yield


async def test_it_has_not_happened_until_it_does_and_then_for_ever() -> None:
    moment = Moment()
    seen = [moment.has_happened]
    moment.happen()
    moment.happen()
    seen.append(moment.has_happened)
    assert seen == [False, True]
    await moment.wait()
    await moment.wait()
    assert moment.wait_blocking(0)


def test_waiting_in_a_thread_has_an_end() -> None:
    assert not Moment().wait_blocking(0)
    assert not Moment().wait_blocking(0.001)


async def test_everybody_who_waits_goes_on_when_it_happens_in_another_thread() -> None:
    moment = Moment()
    waiters = [asyncio.create_task(moment.wait()) for _ in range(100)]
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiters)
    await asyncio.to_thread(moment.happen)
    async with asyncio.timeout(10):
        await asyncio.gather(*waiters)
    assert not moment._waiters


async def test_a_waiter_that_is_cancelled_is_forgotten_and_keeps_nobody_from_going_on() -> None:
    moment = Moment()
    cancelled, other = asyncio.create_task(moment.wait()), asyncio.create_task(moment.wait())
    await asyncio.sleep(0)
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert len(moment._waiters) == 1
    moment.happen()
    await other


async def test_a_waiter_that_is_cancelled_in_the_same_turn_as_it_happens_is_no_trouble() -> None:
    moment = Moment()
    waiter = asyncio.create_task(moment.wait())
    await asyncio.sleep(0)
    moment.happen()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter


async def test_a_wait_that_times_out_leaves_nothing_behind() -> None:
    moment = Moment()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await moment.wait()
    assert not moment._waiters


def test_those_who_wait_in_several_loops_and_threads_all_go_on() -> None:
    moment = Moment()
    ready = threading.Barrier(7)
    done: list[str] = []

    async def wait() -> None:
        task = asyncio.create_task(moment.wait())
        await asyncio.sleep(0)
        await asyncio.to_thread(ready.wait)
        async with asyncio.timeout(10):
            await task
        done.append("loop")

    def wait_blocking() -> None:
        ready.wait()
        if moment.wait_blocking(10):
            done.append("thread")

    threads = [threading.Thread(target=asyncio.run, args=(wait(),)) for _ in range(3)]
    threads += [threading.Thread(target=wait_blocking) for _ in range(3)]
    for thread in threads:
        thread.start()
    ready.wait()
    moment.happen()
    for thread in threads:
        thread.join()
    assert sorted(done) == ["loop"] * 3 + ["thread"] * 3


def test_a_loop_that_was_closed_while_it_waited_keeps_nobody_else_waiting() -> None:
    moment = Moment()
    closed = asyncio.new_event_loop()
    left = closed.create_task(moment.wait())
    closed.run_until_complete(asyncio.sleep(0))
    closed.close()

    async def wait() -> None:
        waiter = asyncio.create_task(moment.wait())
        await asyncio.sleep(0)
        moment.happen()
        async with asyncio.timeout(10):
            await waiter

    asyncio.run(wait())
    assert moment.has_happened
    left._log_destroy_pending = False  # type: ignore[attr-defined]  # what was left in a closed loop is the test's doing


def test_it_happens_only_once_for_a_waiter_whoever_is_first() -> None:
    async def race() -> None:
        moment = Moment()
        threads = [threading.Thread(target=moment.happen) for _ in range(4)]
        waiters = [asyncio.create_task(moment.wait()) for _ in range(4)]
        for thread in threads:
            thread.start()
        async with asyncio.timeout(10):
            await asyncio.gather(*waiters)
        for thread in threads:
            thread.join()

    for _ in range(30):
        asyncio.run(race())


async def test_a_bell_lets_go_on_who_waits_and_whoever_comes_until_it_is_cleared() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    bell.ring()
    bell.ring()
    async with asyncio.timeout(10):
        await waiting
        await bell.wait()
    bell.clear()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await bell.wait()


async def test_a_bell_that_was_rung_and_cleared_at_once_has_let_go_on_who_waited() -> None:
    bell = Bell()
    waiting = asyncio.create_task(bell.wait())
    await asyncio.sleep(0)
    bell.ring()
    bell.clear()
    async with asyncio.timeout(10):
        await waiting


async def test_a_waiter_for_a_bell_that_is_cancelled_is_forgotten() -> None:
    bell = Bell()
    cancelled = asyncio.create_task(bell.wait())
    await asyncio.sleep(0)
    bell.ring()
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert bell._waiter is None
    await bell.wait()
