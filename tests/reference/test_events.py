"""Events over the socket: what is told, paging, markers, and that they do not last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter.reference.server import AGENT, PROJECT
from tests.reference.conftest import Client, Clock, path_of, replace, state

if TYPE_CHECKING:
    from agent_reporter.reference import ReferenceServer

AGENT_EVENTS = f"/v2/{PROJECT}/agents/{AGENT}/events"


async def events(client: Client, path: str, **query: Any) -> list[dict[str, Any]]:
    status, page = await client.call("GET", path, params={key: str(value) for key, value in query.items()})
    assert status == 200
    found: list[dict[str, Any]] = page["events"]
    return found


async def kinds(client: Client, path: str, **query: Any) -> list[str]:
    return [event["event"] for event in await events(client, path, **query)]


async def test_a_restore_is_told_from_its_start_to_its_end(server: ReferenceServer, client: Client) -> None:
    restore_id = server.start_restore(total_bytes=10)
    for patch in (
        state("queued"),
        state("preparing"),
        state("in_progress"),
        [*state("in_progress"), replace("/bytes-restored", 4)],
        state("stop_requested"),
        [*state("stopped"), replace("/bytes-restored", 12)],
    ):
        assert (await client.patch(restore_id, patch))[0] == 204
    told = await events(client, path_of(restore_id) + "/events")
    assert [event["event"] for event in told] == [
        "restore_start_request",
        "restore_in_progress",
        "restore_progress",
        "restore_stop_request",
        "restore_stopped",
    ]
    start, _, progress, stop, _ = told
    assert start["time"] == "2023-11-14T22:13:20.250000Z"
    assert start["agent"] == {"id": AGENT}
    assert start["request_id"]
    restore = start["restore"]
    assert (restore["id"], restore["destination_path"], restore["inclusions"]) == (restore_id, None, [])
    assert restore["links"] == [{"href": server.url + path_of(restore_id), "rel": "self"}]
    assert (progress["bytes_completed"], progress["bytes_remaining"], progress["total_bytes"]) == (4, 6, 10)
    assert stop["request_id"] != start["request_id"]
    assert await events(client, AGENT_EVENTS) == told


@pytest.mark.parametrize(
    ("final", "kind"),
    [
        ("completed", "restore_completed"),
        ("completed_with_errors", "restore_completed"),
        ("failed", "restore_failed"),
        ("stopped", "restore_stopped"),
    ],
)
async def test_every_end_is_told(server: ReferenceServer, client: Client, final: str, kind: str) -> None:
    restore_id = server.start_restore(state=final)
    assert await kinds(client, path_of(restore_id) + "/events") == ["restore_start_request", kind]


async def test_of_an_unknown_total_nothing_is_told(server: ReferenceServer, client: Client) -> None:
    restore_id = server.start_restore()
    await client.patch(restore_id, [replace("/files_restores", 1)])
    told = (await events(client, path_of(restore_id) + "/events"))[-1]
    assert told["event"] == "restore_progress"
    assert told["bytes_completed"] == 0
    assert not told.keys() & {"total_bytes", "bytes_remaining"}


async def test_only_what_is_newer_than_the_marker_comes_back(server: ReferenceServer, client: Client) -> None:
    first, second = server.start_restore(), server.start_restore()
    one, two = await events(client, AGENT_EVENTS)
    assert (one["restore"]["id"], two["restore"]["id"]) == (first, second)
    assert await events(client, AGENT_EVENTS, marker=one["id"]) == [two]
    assert await events(client, AGENT_EVENTS, marker=one["id"], sort_dir="desc") == [two]
    assert await events(client, AGENT_EVENTS, marker=two["id"]) == []
    assert await events(client, AGENT_EVENTS, marker="unknown") == [one, two]
    assert await events(client, AGENT_EVENTS, sort_dir="desc") == [two, one]
    assert await events(client, f"/v2/{PROJECT}/agents/another/events") == []
    assert await events(client, f"/v2/other/agents/{AGENT}/events", marker=one["id"]) == []


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6])
async def test_links_lead_through_all_pages_and_back(
    server: ReferenceServer, client: Client, order: str, limit: int
) -> None:
    for _ in range(5):
        server.start_restore()
    everything = await events(client, AGENT_EVENTS, sort_dir=order)
    url: str | None = f"{AGENT_EVENTS}?limit={limit}&sort_dir={order}"
    forwards, backwards = [], []
    last: Any = None
    while url is not None:
        _, last = await client.call("GET", url)
        forwards.append(last["events"])
        url = link(last, "next")
    assert [event for page in forwards for event in page] == everything
    assert all(len(page) == limit for page in forwards[:-1])
    backwards.append(last["events"])
    url = link(last, "previous")
    while url is not None:
        _, last = await client.call("GET", url)
        backwards.append(last["events"])
        url = link(last, "previous")
    assert backwards[::-1] == forwards


def link(page: Any, rel: str) -> str | None:
    return next((each["href"] for each in page["links"] if each["rel"] == rel), None)


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=", "limit=-1", "limit=9999999", "sort_dir=up"]
)
async def test_a_bad_limit_or_order_is_refused(server: ReferenceServer, client: Client, query: str) -> None:
    server.start_restore()
    assert (await client.call("GET", f"{AGENT_EVENTS}?{query}"))[0] == 400
    assert len(await events(client, AGENT_EVENTS, limit=1000)) == 1


async def test_events_are_gone_after_their_lifetime(
    server: ReferenceServer, client: Client, clock: Clock
) -> None:
    restore_id = server.start_restore()
    [start] = await events(client, AGENT_EVENTS)
    clock.moment += 59
    server.request_stop(restore_id)
    assert len(await events(client, AGENT_EVENTS)) == 2
    clock.moment += 1
    assert await kinds(client, AGENT_EVENTS) == ["restore_stop_request"]
    assert await kinds(client, AGENT_EVENTS, marker=start["id"]) == ["restore_stop_request"]
    clock.moment += 59
    assert await events(client, path_of(restore_id) + "/events") == []


async def test_an_agent_that_comes_up_is_told_again_what_is_pending(
    server: ReferenceServer, client: Client, clock: Clock
) -> None:
    new, running, ended = (
        server.start_restore(),
        server.start_restore(state="in_progress"),
        server.start_restore(),
    )
    server.request_stop(running)
    await client.patch(ended, state("failed"))
    server.start_restore(agent_id="another")
    before = {event["restore"]["id"]: event.get("request_id") for event in await events(client, AGENT_EVENTS)}
    clock.moment += 60
    assert await client.call("POST", AGENT_EVENTS, json={"event": "startup"}) == (202, None)
    told = {event["restore"]["id"]: event for event in await events(client, AGENT_EVENTS)}
    assert {key: event["event"] for key, event in told.items()} == {
        new: "restore_start_request",
        running: "restore_stop_request",
    }
    assert told[running]["request_id"] == before[running]
    assert server.presence() == "startup"

    assert await client.call("POST", AGENT_EVENTS, json={"event": "shutdown"}) == (202, None)
    assert len(await events(client, AGENT_EVENTS)) == 2
    assert server.presence() == "shutdown"


async def test_a_repeated_stop_request_is_told_again_as_the_same(
    server: ReferenceServer, client: Client
) -> None:
    restore_id = server.start_restore(state="in_progress")
    for _ in range(2):
        await client.patch(restore_id, state("stop_requested"))
    *_, first, second = await events(client, path_of(restore_id) + "/events")
    assert first["event"] == second["event"] == "restore_stop_request"
    assert first["request_id"] == second["request_id"]
    assert first["id"] != second["id"]


@pytest.mark.parametrize("body", [{"event": "sleep"}, {}, {"event": "startup", "at": 1}, []])
async def test_an_agent_says_nothing_else(client: Client, body: Any) -> None:
    assert (await client.call("POST", AGENT_EVENTS, json=body))[0] == 400
