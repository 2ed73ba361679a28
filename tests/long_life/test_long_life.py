"""A short form of both: two days on virtual time, five seconds of a real daemon; and that growth is found."""

from __future__ import annotations

import os
from collections import Counter, deque
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent_reporter.stop import StopWatcher
from tests.long_life.__main__ import main
from tests.long_life.containers import sizes
from tests.long_life.days import Days
from tests.long_life.growth import slope, trend
from tests.long_life.readings import Reading, left_over, read
from tests.long_life.soak import soak


def test_two_days_leave_nothing_behind() -> None:
    figures = Days(2, 0, 120).run()
    assert figures.results > 150
    assert not figures.troubles
    assert not [f"{each.name}: {each.slope}" for each in figures.grown]


def test_what_is_kept_of_each_restore_is_found_and_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(StopWatcher, "_forget_all_but", lambda _watcher, _restore_ids: None)
    assert main(["days", "--days", "1"]) == 1
    assert "wrong: Reporter._deliveries.watcher._next_reading grows by" in capsys.readouterr().out


async def test_a_daemon_is_at_rest_after_some_seconds_as_it_was_before() -> None:
    figures = await soak(5.0, 8, 0, judges_memory=False)
    assert figures.restores > 10
    assert figures.before is not None
    assert figures.after is not None
    assert not figures.left
    assert not figures.troubles


def test_what_is_left_over_is_said() -> None:
    before = Reading(resident=9, own=9, threads=3, descriptors=Counter({"socket:[N]": 2, "/dev/null": 1}))
    after = Reading(resident=9, own=9, threads=4, descriptors=Counter({"socket:[N]": 4}))
    assert left_over(before, after) == ["2 descriptors of socket:[N]", "1 threads"]
    assert not left_over(after, after)


def test_a_process_is_read_from_outside() -> None:
    with Path("/dev/null").open() as file:
        is_open = read(os.getpid())
        assert is_open.descriptors["/dev/null"] >= 1
        assert is_open.resident >= is_open.own > 0
        assert is_open.threads >= 1
        assert file.readable()


def test_growth_is_seen_beside_restores_that_come_and_go() -> None:
    opened = [hour * 7 % 11 for hour in range(200)]
    steady = [100 + 3 * count for count in opened]
    assert trend("steady", steady, opened).slope == 0
    assert trend("steady", steady, opened).values == (100.0,) * 200
    growing = [value + hour // 10 for hour, value in enumerate(steady)]
    assert trend("growing", growing, opened).slope == pytest.approx(0.1)


def test_one_bad_day_is_no_growth() -> None:
    values = [5.0] * 100
    values[70:80] = [900.0] * 10
    assert slope(values) == 0


def test_growth_before_the_warm_up_is_over_is_none() -> None:
    values = [*range(100), *(100 for _ in range(200))]
    assert trend("cache", values, [0] * 300).slope > 0
    assert trend("cache", values, [0] * 300, 1 / 3).slope == 0


def test_growth_goes_by_what_was_done_and_not_by_when() -> None:
    at = [0, 10, 10, 500, 1_000, 2_000]
    assert slope([each / 50 for each in at], at) == pytest.approx(0.02)


def test_no_looks_show_no_growth() -> None:
    assert trend("nothing", [], []).slope == 0


def test_a_container_is_found_wherever_it_is_held() -> None:
    @lru_cache
    def remembered(number: int) -> int:
        return number

    remembered(1)
    held = deque([1, 2, 3])

    def call() -> object:
        return held

    async def wait() -> None:
        waited_for = [1, 2]
        del waited_for

    waiting = wait()
    inside = SimpleNamespace(one={"a": {1, 2}}, calls=[call], cache=remembered)
    inside.itself = inside
    holder = type("Holder", (), {"__slots__": ("part",), "__module__": "somewhere"})()
    holder.part = inside
    found = sizes([("root", holder), ("waiting", waiting)])
    waiting.close()
    assert found["root.part.one"] == 1
    assert found["root.part.one[]"] == 2
    assert found["root.part.calls[](held)"] == 3
    assert found["root.part.cache"] == 1
