"""Faults of each kind, as a client meets them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.exchange import RefusedError
from agent_reporter.reference.faults import read_faults
from agent_reporter.reference.server import is_loopback
from tests.reference.conftest import PATCH_TYPE, TOKEN, Client, Clock, path_of, replace, state

if TYPE_CHECKING:
    from pathlib import Path


def answers(server: ReferenceServer, restore_id: str) -> list[tuple[Any, bool, Any]]:
    """Of every request about the restore: the answer, whether it was done, and the fault."""
    return [(each["answer"], each["applied"], each["fault"]) for each in server.history(restore_id)]


async def test_an_answer_in_place_of_the_work(server: ReferenceServer, client: Client) -> None:
    restore_id = server.start_restore()
    server.add_fault({"status": 503, "headers": {"Retry-After": "2"}, "body": {"message": "Later."}}, times=2)
    for _ in range(2):
        async with client.session.get(server.url + path_of(restore_id)) as answer:
            assert answer.status == 503
            assert answer.headers["Retry-After"] == "2"
            assert await answer.json() == {"message": "Later."}
    assert (await client.call("GET", path_of(restore_id)))[0] == 200
    assert answers(server, restore_id) == [(503, False, "answer")] * 2 + [(200, True, None)]


async def test_an_answer_with_text_or_with_nothing(server: ReferenceServer, client: Client) -> None:
    server.add_fault({"status": 501, "body": "<html>"})
    server.add_fault({"status": 500})
    async with client.session.get(server.url) as answer:
        assert (answer.status, await answer.text()) == (501, "<html>")
    async with client.session.get(server.url) as answer:
        assert (answer.status, await answer.text()) == (500, "")


@pytest.mark.parametrize(("kind", "applied"), [("drop", False), ("apply_then_drop", True)])
async def test_a_connection_that_is_closed_without_an_answer(
    server: ReferenceServer, client: Client, kind: str, *, applied: bool
) -> None:
    restore_id = server.start_restore()
    server.add_fault(kind)
    with pytest.raises(aiohttp.ServerDisconnectedError):
        await client.patch(restore_id, state("queued"))
    assert server.document(restore_id)["state"] == ("queued" if applied else "start_requested")
    assert answers(server, restore_id) == [("dropped", applied, kind)]
    assert (await client.patch(restore_id, state("preparing")))[0] == 204


async def test_work_that_is_done_and_answered_otherwise(server: ReferenceServer, client: Client) -> None:
    restore_id = server.start_restore()
    server.add_fault({"apply_then_status": {"status": 500, "body": {"message": "Lost."}}})
    assert await client.patch(restore_id, state("queued")) == (500, {"message": "Lost."})
    assert server.document(restore_id)["state"] == "queued"
    assert answers(server, restore_id) == [(500, True, "apply_then_status")]


async def test_a_slow_answer_to_work_that_is_done_at_once(
    server: ReferenceServer, client: Client, clock: Clock
) -> None:
    restore_id = server.start_restore()
    server.add_fault({"slow": 7.5})
    assert (await client.patch(restore_id, state("queued")))[0] == 204
    assert clock.pauses == [7.5]


@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_an_answer_that_is_cut_off(server: ReferenceServer, client: Client, method: str) -> None:
    restore_id = server.start_restore()
    server.add_fault("truncate")
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError)):
        await client.call(
            method, path_of(restore_id), json=state("queued"), headers={"Content-Type": PATCH_TYPE}
        )
    assert answers(server, restore_id)[0][1:] == (True, "truncate")


async def test_any_status_can_be_answered(server: ReferenceServer, client: Client) -> None:
    server.add_fault({"status": 599})
    assert (await client.call("GET", path_of("any")))[0] == 599


async def test_an_answer_that_trickles_is_whole_in_the_end(
    server: ReferenceServer, client: Client, clock: Clock
) -> None:
    restore_id = server.start_restore()
    server.add_fault("trickle")
    assert await client.call("GET", path_of(restore_id)) == (200, server.document(restore_id))
    assert len(clock.pauses) > 500
    assert set(clock.pauses) == {1.0}


async def test_a_trickle_ends_when_the_client_goes_and_does_not_hold_up_the_end(tmp_path: Path) -> None:
    async with ReferenceServer(tmp_path, token=TOKEN) as server, Client(server) as client:
        restore_id = server.start_restore()
        server.add_fault({"trickle": 0.001})
        server.add_fault({"slow": 3600})
        with pytest.raises(TimeoutError):
            await client.call("GET", path_of(restore_id), timeout=aiohttp.ClientTimeout(total=0.05))
        with pytest.raises(TimeoutError):
            await client.call("GET", path_of(restore_id), timeout=aiohttp.ClientTimeout(total=0.05))


async def test_a_fault_meets_only_what_it_matches(server: ReferenceServer, client: Client) -> None:
    mine, other = server.start_restore(), server.start_restore()
    answer = {"status": 503}
    server.add_fault(answer, method="patch", carries="/bytes_restored", restore_id=mine)
    assert (await client.call("GET", path_of(mine)))[0] == 200
    assert (await client.patch(mine, state("in_progress")))[0] == 204
    assert (await client.patch(other, [replace("/bytes-restored", 1)]))[0] == 204
    assert (await client.patch(mine, [replace("/bytes-restored", 1)]))[0] == 503
    assert (await client.patch(mine, [replace("/bytes-restored", 1)]))[0] == 204
    server.add_fault(answer, path_regex="/events$")
    server.add_fault(answer, path=path_of(mine))
    assert (await client.call("GET", path_of(mine)))[0] == 503
    assert (await client.call("GET", path_of(mine)))[0] == 200
    assert (await client.call("GET", path_of(mine) + "/events"))[0] == 503
    server.add_fault(answer, carries="/state")
    assert (await client.call("PATCH", path_of(mine), data=b"no json"))[0] == 400


async def test_a_fault_for_a_time_meets_every_request_in_it(
    server: ReferenceServer, client: Client, clock: Clock
) -> None:
    server.add_fault({"status": 503}, for_seconds=10)
    for _ in range(3):
        assert (await client.call("GET", path_of("any")))[0] == 503
    clock.moment += 4
    assert (await client.call("GET", "/faults"))[1][0]["for_seconds"] == 6
    clock.moment += 6
    assert (await client.call("GET", path_of("any")))[0] == 404


async def test_faults_are_managed_over_http_without_a_token(server: ReferenceServer, client: Client) -> None:
    client.token = None
    faults: list[dict[str, Any]] = [
        {"match": {"method": "PATCH"}, "times": 2, "answer": "drop"},
        {"answer": {"status": 503}},
    ]
    left = [faults[0], {**faults[1], "times": 1}]
    assert await client.call("POST", "/faults", json=faults) == (201, left)
    assert await client.call("GET", "/faults") == (200, left)
    assert (await client.call("GET", "/v3"))[0] == 503
    assert await client.call("GET", "/faults") == (200, left[:1])
    assert await client.call("DELETE", "/faults") == (204, None)
    assert await client.call("GET", "/faults") == (200, [])
    assert (await client.call("PUT", "/faults"))[0] == 405


async def test_history_is_read_over_http(server: ReferenceServer, client: Client) -> None:
    mine, other = server.start_restore(), server.start_restore()
    await client.patch(mine, state("queued"))
    await client.patch(other, state("nonsense"))
    await client.call("PATCH", path_of(other), data=b"no json")
    status, records = await client.call("GET", "/faults/history", params={"restore_id": other})
    assert status == 200
    assert records == server.history(other)
    assert [record["body"] for record in records] == [state("nonsense"), "no json"]
    assert [record["sequence"] for record in server.history()] == [1, 2, 3]
    assert (await client.call("GET", "/faults/history"))[1] == server.history()


async def test_without_the_option_there_is_no_way_to_the_faults(tmp_path: Path) -> None:
    async with ReferenceServer(tmp_path, token=TOKEN) as server, Client(server) as client:
        for method, path in [("GET", "/faults"), ("POST", "/faults"), ("GET", "/faults/history")]:
            assert (await client.call(method, path))[0] == 404


async def test_from_another_machine_the_faults_are_403(
    server: ReferenceServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_reporter.reference.server.is_loopback", lambda _address: False)
    assert (await client.call("GET", "/faults"))[0] == 403
    assert (await client.call("GET", path_of("any")))[0] == 404


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("192.0.2.7", False),
        ("::ffff:192.0.2.7", False),
        ("localhost.example", False),
        (None, False),
    ],
)
def test_a_loopback_address_is_known_in_all_its_forms(address: str | None, *, own: bool) -> None:
    assert is_loopback(address) is own


@pytest.mark.parametrize(
    "fault",
    [
        {},
        {"answer": "explode"},
        {"answer": "answer"},
        {"answer": "slow"},
        {"answer": {"slow": -1}},
        {"answer": {"slow": 1e999}},
        {"answer": {"trickle": "1"}},
        {"answer": {"status": 99}},
        {"answer": {"status": True}},
        {"answer": {"status": 503, "headers": {"Retry-After": 2}}},
        {"answer": {"status": 503, "headers": {"X": "a\r\nb"}}},
        {"answer": {"status": 503, "headers": []}},
        {"answer": {"status": 503, "headers": {"\udcff": ""}}},
        {"answer": {"apply_then_status": {}}},
        {"answer": "drop", "times": -1},
        {"answer": "drop", "times": 1, "for_seconds": 1},
        {"answer": "drop", "match": {"path_regex": "("}},
        {"answer": "drop", "match": {"carries": "/id"}},
        {"answer": "drop", "match": {"verb": "GET"}},
    ],
)
def test_what_is_no_fault_is_refused(fault: Any) -> None:
    with pytest.raises(RefusedError):
        read_faults([fault], 0.0)
