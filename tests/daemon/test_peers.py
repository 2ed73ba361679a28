from __future__ import annotations

import asyncio
import math
import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.daemon.peers import BURST_SECONDS, MAX_WAIT, Peer, Rates, peer_of
from tests.builders import FakeClock

ALICE, BOB = 1001, 1002
rates = st.floats(0.5, 1000)
pauses = st.lists(st.floats(0, 3) | st.just(0.0), min_size=1, max_size=300)


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_of(one) == Peer(os.getuid(), os.getgid(), os.getpid())


async def test_a_transport_tells_it_too() -> None:
    one, other = socket.socketpair()
    with other:
        transport, _protocol = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=one)
        assert peer_of(transport) == Peer(os.getuid(), os.getgid(), os.getpid())
        transport.abort()


def test_a_network_connection_tells_nothing() -> None:
    with socket.socket() as connection, pytest.raises(OSError, match="Unix socket"):
        peer_of(connection)


def test_a_closed_connection_tells_nothing() -> None:
    one, other = socket.socketpair()
    one.close()
    with other, pytest.raises(OSError, match="Bad file descriptor"):
        peer_of(one)


def test_a_burst_goes_at_once_and_then_each_waits_for_its_turn() -> None:
    bucket = Rates(10, FakeClock().monotonic)
    assert [bucket.take(ALICE) for _ in range(10)] == pytest.approx([0.0] * 10)
    assert [bucket.take(ALICE) for _ in range(3)] == pytest.approx([0.1, 0.2, 0.3])


def test_who_would_wait_too_long_is_refused_and_has_taken_nothing() -> None:
    clock = FakeClock()
    bucket = Rates(10, clock.monotonic)
    waits = [bucket.take(ALICE) for _ in range(1000)]
    assert sum(wait <= MAX_WAIT for wait in waits) in {29, 30}
    assert all(MAX_WAIT < wait <= MAX_WAIT + 0.2 for wait in waits[30:])
    clock.pass_by(MAX_WAIT + BURST_SECONDS)
    assert bucket.take(ALICE) == 0


def test_whoever_is_quiet_for_a_while_is_forgotten() -> None:
    clock = FakeClock()
    bucket = Rates(10, clock.monotonic)
    for uid in range(10_000):
        bucket.take(uid)
    clock.pass_by(2 * (BURST_SECONDS + MAX_WAIT))
    bucket.take(ALICE)
    assert len(bucket) == 1


@given(rates, pauses)
def test_in_no_time_do_more_go_than_a_burst_and_what_the_rate_allows(
    rate: float, pauses: list[float]
) -> None:
    clock = FakeClock(elapsed=0.0)
    bucket = Rates(rate, clock.monotonic)
    went = []
    for pause in pauses:
        clock.pass_by(pause)
        wait = bucket.take(ALICE)
        assert wait >= 0
        if wait <= MAX_WAIT:
            went.append(clock.monotonic() + wait)
    assert went == sorted(went)
    for first, start in enumerate(went):
        for last in range(first, len(went)):
            assert last - first + 1 <= max(1, rate * BURST_SECONDS) + rate * (went[last] - start) + 1e-6


@given(rates, pauses)
def test_who_keeps_to_the_rate_never_waits(rate: float, pauses: list[float]) -> None:
    clock = FakeClock(elapsed=0.0)
    bucket = Rates(rate, clock.monotonic)
    for pause in pauses:
        clock.pass_by(pause + 1 / rate)
        assert bucket.take(ALICE) == pytest.approx(0)


@given(rates, pauses, st.integers(0, 50))
def test_a_flood_of_one_user_delays_no_other(rate: float, pauses: list[float], flood: int) -> None:
    clock = FakeClock(elapsed=0.0)
    alone, beside = Rates(rate, clock.monotonic), Rates(rate, clock.monotonic)
    for pause in pauses:
        clock.pass_by(pause)
        for _ in range(flood):
            beside.take(BOB)
        assert beside.take(ALICE) == alone.take(ALICE)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1)), max_size=300))
def test_no_more_users_are_kept_than_came_lately(calls: list[tuple[int, float]]) -> None:
    clock = FakeClock(elapsed=0.0)
    bucket = Rates(100, clock.monotonic)
    came: list[tuple[float, int]] = []
    for uid, pause in calls:
        clock.pass_by(pause)
        bucket.take(uid)
        came.append((clock.monotonic(), uid))
        lately = clock.monotonic() - 2 * (BURST_SECONDS + MAX_WAIT) - math.ulp(1e6)
        assert len(bucket) <= len({who for when, who in came if when >= lately})
