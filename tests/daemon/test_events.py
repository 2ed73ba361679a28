"""What engines are told: nothing twice, nothing left out, nothing kept without bound."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.daemon.events import KEPT_EVENTS, KEPT_SECONDS, STOP_REQUEST, Events
from agent_reporter.model.events import read_page
from tests.builders import START, FakeClock

if TYPE_CHECKING:
    from agent_reporter.clock import Waitable
    from agent_reporter.daemon.events import Event
    from tests.daemon.conftest import Client, Daemons

ALICE, BOB = 1001, 1002
STOPPED = "restore_stopped"


@dataclass
class PatientClock(FakeClock):
    """Time that passes only when a test says so: whoever waits, waits for the event."""

    async def wait(self, event: Waitable, seconds: float | None) -> bool:  # noqa: ARG002 - none pass
        await event.wait()
        return True


def anything(_event: Event) -> bool:
    return True


def of(restore_id: str, events: Events, marker: str | None = None) -> list[str]:
    """The kinds of the events of a restore that are newer than `marker`."""
    found = events.after(marker, lambda event: event.restore_id == restore_id, 1000)
    return [event.kind for event in found]


def name(events: Events, event: Event) -> str:
    return str(events.document(event, None)["id"])


def test_a_stop_is_told_to_whoever_asks_and_not_again_to_who_has_seen_it() -> None:
    events = Events(FakeClock())
    events.publish(STOP_REQUEST, "r-1", ALICE)
    events.publish(STOP_REQUEST, "r-2", ALICE)
    [event] = events.after(None, lambda event: event.restore_id == "r-1", 1)
    assert (event.kind, event.uid, event.time) == (STOP_REQUEST, ALICE, START)
    assert of("r-1", events, name(events, event)) == []
    assert of("r-2", events, name(events, event)) == [STOP_REQUEST]


def test_an_event_is_shown_as_the_protocol_does() -> None:
    events = Events(FakeClock())
    events.publish(STOP_REQUEST, "r-1", ALICE)
    events.end(STOPPED, "r-1", ALICE)
    stop, stopped = (events.document(event, "agent-7") for event in events.after(None, anything, 10))
    assert stop == {
        "id": stop["id"],
        "time": "2026-01-02T03:04:05.678901Z",
        "event": "restore_stop_request",
        "agent": {"id": "agent-7"},
        "restore": {"id": "r-1"},
        "request_id": stop["id"],
    }
    assert (stopped["event"], "request_id" in stopped) == (STOPPED, False)
    page = read_page({"events": [stop, stopped]})
    assert page.stop_requests == {"r-1"}
    assert page.marker == stopped["id"]


@pytest.mark.parametrize(
    "marker",
    ["", "-", "x", "x-1", "-1", "1", "LIFE", "LIFE-", "LIFE-x", "LIFE--1", "LIFE-²", f"LIFE-{'9' * 5_000}"],
)
def test_with_a_marker_that_is_not_known_all_that_stands_is_told(marker: str) -> None:
    events = Events(FakeClock())
    events.publish(STOP_REQUEST, "r-1", ALICE)
    [event] = events.after(None, anything, 1)
    life = name(events, event).partition("-")[0]
    assert of("r-1", events, marker.replace("LIFE", life)) == [STOP_REQUEST]


def test_a_marker_of_another_life_of_the_daemon_is_not_known() -> None:
    clock = FakeClock()
    before = Events(clock)
    for number in range(5):
        before.publish(STOP_REQUEST, f"r-{number}", ALICE)
    marker = name(before, before.after(None, anything, 5)[-1])
    clock.pass_by(1)
    events = Events(clock)
    events.publish(STOP_REQUEST, "r-1", ALICE)
    assert of("r-1", events, marker) == [STOP_REQUEST]


def test_an_event_stands_while_its_restore_goes_on_and_a_minute_longer() -> None:
    clock = FakeClock()
    events = Events(clock)
    events.publish(STOP_REQUEST, "r-1", ALICE)
    clock.pass_by(100_000)
    assert of("r-1", events) == [STOP_REQUEST]
    events.end(STOPPED, "r-1", ALICE)
    clock.pass_by(KEPT_SECONDS)
    assert of("r-1", events) == [STOP_REQUEST, STOPPED]
    clock.pass_by(1)
    assert of("r-1", events) == []


def test_a_standing_event_that_is_told_again_is_kept_once() -> None:
    events = Events(FakeClock())
    for _ in range(1000):
        events.publish(STOP_REQUEST, "r-1", ALICE)
    assert of("r-1", events) == [STOP_REQUEST]
    assert len(events._standing) == 1


def test_of_restores_that_are_over_no_more_is_kept_than_there_is_room_for() -> None:
    clock = FakeClock()
    events = Events(clock)
    for number in range(2 * KEPT_EVENTS):
        events.end(STOPPED, f"r-{number}", ALICE)
    assert len(events._past) == KEPT_EVENTS
    assert of(f"r-{2 * KEPT_EVENTS - 1}", events) == [STOPPED]
    assert of("r-0", events) == []
    clock.pass_by(KEPT_SECONDS + 1)
    assert events.after(None, anything, 10) == []
    assert len(events._past) == 0


async def test_who_waits_is_told_of_what_comes_then() -> None:
    events = Events(PatientClock())
    waiting = [asyncio.create_task(events.wait(None, anything, 10, 60)) for _ in range(3)]
    await asyncio.sleep(0)
    events.publish(STOP_REQUEST, "r-1", ALICE)
    async with asyncio.timeout(5):
        assert [[event.restore_id for event in await task] for task in waiting] == [["r-1"]] * 3


async def test_who_waits_is_not_told_of_what_is_not_wanted() -> None:
    events = Events(PatientClock())
    task = asyncio.create_task(events.wait(None, lambda event: event.uid == ALICE, 10, 60))
    for number in range(5):
        await asyncio.sleep(0)
        events.publish(STOP_REQUEST, f"r-{number}", BOB)
    assert not task.done()
    events.publish(STOP_REQUEST, "r-6", ALICE)
    async with asyncio.timeout(5):
        assert [event.restore_id for event in await task] == ["r-6"]


async def test_what_is_there_already_is_told_without_waiting() -> None:
    clock = FakeClock()
    events = Events(clock)
    events.publish(STOP_REQUEST, "r-1", ALICE)
    assert len(await events.wait(None, anything, 10, 60)) == 1
    assert clock.elapsed == FakeClock().elapsed


@pytest.mark.parametrize("seconds", [0, 60])
async def test_nobody_waits_longer_than_said(seconds: float) -> None:
    clock = FakeClock()
    assert await Events(clock).wait(None, anything, 10, seconds) == []
    assert clock.elapsed == FakeClock().elapsed + seconds


async def test_what_is_not_wanted_does_not_prolong_the_wait() -> None:
    class Interrupted(FakeClock):
        """Each wait is ended by an event of somebody else, half of the time before its end."""

        async def wait(self, event: Waitable, seconds: float | None) -> bool:  # noqa: ARG002 - it lets go
            assert seconds is not None
            self.pass_by(max(seconds / 2, 0.001))
            events.publish(STOP_REQUEST, "r-1", BOB)
            return True

    clock = Interrupted()
    events = Events(clock)
    assert await events.wait(None, lambda event: event.uid == ALICE, 10, 60) == []
    assert clock.elapsed == pytest.approx(FakeClock().elapsed + 60, abs=0.01)


happenings = st.lists(
    st.tuples(st.sampled_from(["publish", "end", "look"]), st.integers(0, 4), st.floats(0, 10)), max_size=60
)


@given(happenings, st.integers(1, 3))
def test_who_asks_again_with_his_last_marker_is_told_everything_once_and_in_order(
    happenings: list[tuple[str, int, float]], limit: int
) -> None:
    clock = FakeClock()
    events = Events(clock)
    marker, told, happened = None, [], []

    def look() -> list[str]:
        nonlocal marker
        page = events.after(marker, anything, limit)
        assert len(page) <= limit
        names = [name(events, event) for event in page]
        marker = names[-1] if names else marker
        told.extend([(event.kind, event.restore_id) for event in page])
        return names

    for what, number, seconds in happenings:
        clock.pass_by(min(seconds, KEPT_SECONDS / 60))
        if what == "look":
            look()
        elif what == "end":
            events.end(STOPPED, f"r-{number}", ALICE)
            happened.append((STOPPED, f"r-{number}"))
        elif (STOP_REQUEST, f"r-{number}") not in happened:  # a restore is told to stop once
            events.publish(STOP_REQUEST, f"r-{number}", ALICE)
            happened.append((STOP_REQUEST, f"r-{number}"))
    while look():
        pass
    assert told == happened


async def test_a_page_begins_where_it_is_asked_to_and_has_no_more_than_its_limit(
    daemons: Daemons, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_reporter.daemon.events.KEPT_SECONDS", 3_600.0)  # a slow machine is no matter
    async with daemons.running():
        for number in range(3):
            restore_id = daemons.rig.server.start_restore()
            await client.tell(restore_id, state="in_progress")
            await client.tell(restore_id, state="stop_requested")
            await client.tell(restore_id, state=("stopped", "failed", "completed")[number])

        async def kinds(query: str = "") -> tuple[list[str], list[str]]:
            document = (await client.call("GET", f"/agents/self/events{query}")).document
            return [event["event"] for event in document["events"]], [
                event["id"] for event in document["events"]
            ]

        every, ids = await kinds()
        assert every == [
            *(STOP_REQUEST, "restore_stopped"),
            *(STOP_REQUEST, "restore_failed"),
            *(STOP_REQUEST, "restore_completed"),
        ]
        assert (await kinds("?limit=2"))[1] == ids[:2]
        assert (await kinds(f"?limit=2&marker={ids[1]}"))[1] == ids[2:4]
        assert (await kinds("?sort_dir=desc"))[1] == ids[::-1]
        assert (await kinds(f"?sort_dir=desc&marker={ids[3]}"))[1] == ids[:3:-1]
        assert (await kinds("?sort_dir=desc&limit=2"))[1] == ids[:-3:-1]
        refused = await client.call("GET", "/agents/self/events?sort_dir=up")
        assert refused.status == 400
