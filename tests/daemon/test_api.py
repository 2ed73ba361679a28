"""The local API: what an engine states arrives, what is wrong is refused in words, and a stop comes back."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter.reference.server import PROJECT
from tests.daemon.conftest import ME, client_of

if TYPE_CHECKING:
    from tests.daemon.conftest import Client, Daemons


async def test_what_is_stated_to_the_daemon_is_known_to_the_control_plane(
    daemons: Daemons, client: Client
) -> None:
    rig = daemons.rig
    restore_id = rig.server.start_restore()
    async with daemons.running():
        assert (await client.tell(restore_id, state="preparing")).status == 204
        assert (await client.tell(restore_id, bytes_restored=10, files_restores=1)).status == 204
        await rig.until_bytes(restore_id, 10)
        assert rig.server.document(restore_id)["state"] == "in_progress"
        assert (await client.tell(restore_id, state="completed", bytes_restored=20)).status == 204
        await rig.until_state(restore_id, "completed")
    document = rig.server.document(restore_id)
    assert (document["files_restored"], document["bytes_restored"]) == (1, 20)
    assert document["started_time"] <= document["ended_time"]
    rig.assert_truthful(restore_id)
    assert await rig.waiting() == []


async def test_a_read_shows_the_newest_local_truth_also_while_the_control_plane_is_away(
    daemons: Daemons, client: Client
) -> None:
    restore_id = daemons.rig.server.start_restore()
    daemons.rig.server.add_fault({"status": 503}, for_seconds=10_000)
    async with daemons.running(drain_timeout=1):
        await client.tell(
            restore_id,
            {"X-Engine-Pid": ME, "X-Total-Bytes": "100"},
            bytes_restored=10,
            errors={"count": 1, "reason": "", "list": [{"index": 0, "path": "/a", "type": "gone"}]},
        )
        shown = (await client.read(restore_id)).document
        assert (shown["state"], shown["bytes_restored"], shown["errors"]["count"]) == ("in_progress", 10, 1)
        assert shown["delivery"]["total_bytes"] == 100
        assert shown["delivery"]["pids"] == [int(ME)]
        listed = (await client.call("GET", "/restores")).document["restores"]
        assert [restore["id"] for restore in listed] == [restore_id]
        errors = (await client.call("GET", f"/restores/{restore_id}/errors")).document
        assert errors["list"][0]["path"] == "/a"
        await daemons.rig.until(lambda: len(daemons.rig.requests(restore_id)) > 1)
        assert "503" in (await client.read(restore_id)).document["delivery"]["why"]


async def test_a_restore_that_is_over_can_still_be_read_and_takes_nothing_more(
    daemons: Daemons, client: Client
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        await client.tell(restore_id, state="failed")
        await daemons.rig.until_state(restore_id, "failed")
        again = await client.tell(restore_id, state="in_progress")
        assert again.status == 409
        assert "['completed', 'completed_with_errors', 'failed', 'stopped']" in again.document["message"]
        assert (await client.read(restore_id)).document["state"] == "failed"


async def test_a_restore_that_only_the_control_plane_knows_is_read_there(
    daemons: Daemons, client: Client
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        shown = await client.read(restore_id)
        assert (shown.status, shown.document["state"]) == (200, "start_requested")
        assert (await client.read("no-such-restore")).status == 404
        assert (await client.read("%2e%2e")).status == 404


async def test_a_stop_of_the_control_plane_reaches_whoever_waits_for_an_event(
    daemons: Daemons, client: Client
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        await client.tell(restore_id, state="in_progress")
        await daemons.rig.until_state(restore_id, "in_progress")
        waiting = asyncio.create_task(client.events(restore_id, "?wait=3600"))
        daemons.rig.server.request_stop(restore_id)
        answer = await waiting
        (event,) = answer.document["events"]
        assert (event["event"], event["restore"]["id"]) == ("restore_stop_request", restore_id)
        assert (await client.read(restore_id)).document["state"] == "stop_requested"
        assert (await client.events(restore_id, f"?marker={event['id']}")).document["events"] == []
        at_once = await client.events(restore_id)
        assert [event["event"] for event in at_once.document["events"]] == ["restore_stop_request"]
        ended = asyncio.create_task(client.events(restore_id, f"?wait=3600&marker={event['id']}"))
        await client.tell(restore_id, state="stopped")
        assert [event["event"] for event in (await ended).document["events"]] == ["restore_stopped"]
        await daemons.rig.until_state(restore_id, "stopped")


async def test_a_stop_that_is_asked_for_here_reaches_the_engine_and_the_control_plane(
    daemons: Daemons, client: Client
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        await client.tell(restore_id, state="in_progress")
        assert (await client.tell(restore_id, state="stop_requested")).status == 204
        assert (await client.read(restore_id)).document["state"] == "stop_requested"
        await daemons.rig.until_state(restore_id, "stop_requested")
        await client.tell(restore_id, bytes_restored=5)
        await client.tell(restore_id, state="stopped")
        await daemons.rig.until_state(restore_id, "stopped")
        assert (await client.tell(restore_id, state="stop_requested")).status == 409
    assert daemons.rig.server.erased_stops(restore_id) == 0


async def test_an_end_is_told_once_whatever_is_under_way_beside_the_result(
    daemons: Daemons, client: Client
) -> None:
    restore_ids = [daemons.rig.server.start_restore() for _ in range(10)]
    async with daemons.running():
        for restore_id in restore_ids:
            await client.tell(restore_id, state="in_progress")
            progress = [client.tell(restore_id, bytes_restored=size) for size in range(1, 5)]
            await asyncio.gather(*progress, client.tell(restore_id, state="completed"))
            events = (await client.events(restore_id)).document["events"]
            assert [event["event"] for event in events] == ["restore_completed"]


async def test_calls_that_begin_with_the_same_restore_at_once_are_all_taken(
    daemons: Daemons, client: Client
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        calls = [client.tell(restore_id, bytes_restored=size) for size in range(1, 9)]
        assert [answer.status for answer in await asyncio.gather(*calls)] == [204] * 8
        assert (await client.read(restore_id)).document["bytes_restored"] == 8


async def test_a_stop_that_was_asked_for_here_survives_the_daemon(daemons: Daemons, client: Client) -> None:
    restore_id = daemons.rig.server.start_restore()
    daemons.rig.server.add_fault({"status": 503}, for_seconds=100_000)
    async with daemons.running(drain_timeout=1):
        await client.tell(restore_id, {"X-Engine-Pid": ME}, state="in_progress")
        await client.tell(restore_id, state="stop_requested")
    async with daemons.running(drain_timeout=1):
        assert (await client.read(restore_id)).document["state"] == "stop_requested"
        (event,) = (await client.events(restore_id)).document["events"]
        assert event["event"] == "restore_stop_request"


BAD = [
    (b"", "not valid"),
    (b"{}", "not valid"),
    (b"[]", "at least one operation"),
    (b"[" * 100_000, "not valid"),
    (b'[{"op":"remove","path":"/state","value":"queued"}]', "not valid"),
    (b'[{"op":"add","path":"/state","value":"start_requested"}]', "not valid"),
    (b'[{"op":"add","path":"/backup","value":"x"}]', "not valid"),
    (b'[{"op":"add","path":"/bytes-restored","value":-1}]', "not valid"),
    (b'[{"op":"add","path":"/bytes-restored","value":1.5}]', "not valid"),
    (b'[{"op":"add","path":"/bytes-restored","value":9223372036854775808}]', "not valid"),
    (b'[{"op":"add","path":"/started-time","value":"yesterday"}]', "not valid"),
    (b'[{"op":"add","path":"/started-time","value":"2026-01-01T00:00:00"}]', "not valid"),
    (b'[{"op":"add","path":"/errors","value":{"count":1,"list":[{"path":"\\ud800"}]}}]', "not valid"),
    (b'[{"op":"add","path":"/errors","value":{}}]', "not valid"),
    (
        b'[{"op":"add","path":"/bytes-restored","value":1},{"op":"add","path":"/bytes_restored","value":2}]',
        "not valid",
    ),
    (
        b'[{"op":"add","path":"/state","value":"stop_requested"},{"op":"add","path":"/bytes-restored","value":1}]',
        "stands alone",
    ),
]


@pytest.mark.parametrize(("body", "said"), BAD)
async def test_a_bad_patch_is_refused_in_words_and_loses_nothing(
    daemons: Daemons, client: Client, body: bytes, said: str
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        await client.tell(restore_id, bytes_restored=10)
        before = (await client.read(restore_id)).document
        refused = await client.call("PATCH", f"/restores/{restore_id}", body)
        assert refused.status == 400
        assert said in refused.document["message"]
        after = (await client.read(restore_id)).document
        assert (after["state"], after["bytes_restored"]) == (before["state"], before["bytes_restored"])


async def test_a_patch_of_every_field_in_either_spelling_is_taken(daemons: Daemons, client: Client) -> None:
    times = {"started": "2026-01-01T00:00:00.000001Z", "ended": "2026-01-01T01:00:00.000002Z"}
    async with daemons.running():
        for dash, files in (("-", "files_restores"), ("_", "files_restored")):
            restore_id = daemons.rig.server.start_restore()
            values: dict[str, Any] = {
                "state": "completed_with_errors",
                f"started{dash}time": times["started"],
                f"ended{dash}time": times["ended"],
                files: 7,
                f"bytes{dash}restored": 9,
                "errors": {
                    "count": 1,
                    "reason": "unable_to_process_some_files",
                    "diagnostics": None,
                    "list": [{"index": 0, "path": "/a", "type": "missing", "exception": None}],
                },
            }
            assert (await client.tell(restore_id, **values)).status == 204
            await daemons.rig.until_state(restore_id, "completed_with_errors")
            document = daemons.rig.server.document(restore_id)
            assert (document["started_time"], document["ended_time"]) == (times["started"], times["ended"])
            assert (document["files_restored"], document["bytes_restored"]) == (7, 9)
            assert daemons.rig.server.errors(restore_id)["list"][0]["path"] == "/a"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/restores/a/b/c", 404),
        ("GET", "/restores/r-1/nothing", 404),
        ("DELETE", "/restores/r-1", 405),
        ("POST", "/restores", 405),
        ("GET", "/restores/unknown/events", 404),
        ("GET", "/restores/unknown/errors", 404),
        ("GET", "/agents/self/events?wait=long", 400),
        ("GET", "/agents/self/events?limit=0", 400),
        ("POST", "/agents/self/events", 202),
        ("PATCH", "/restores/-bad", 400),
    ],
)
async def test_what_is_not_there_is_said(
    daemons: Daemons, client: Client, method: str, path: str, status: int
) -> None:
    patch = b'[{"op":"add","path":"/state","value":"queued"}]'
    async with daemons.running():
        answer = await client.call(method, path, patch if method in {"PATCH", "POST"} else None)
        assert answer.status == status
        assert status < 300 or answer.document["message"]


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Engine-Pid": "4194304"},
        {"X-Engine-Pid": "me"},
        {"X-Engine-Pid": ",".join(["1"] * 17)},
        {"X-Total-Bytes": "-1"},
        {"X-Total-Files": "many"},
    ],
)
async def test_a_header_that_cannot_be_true_is_refused(
    daemons: Daemons, client: Client, headers: dict[str, str]
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        answer = await client.tell(restore_id, headers, state="queued")
        assert answer.status == 400
        assert next(iter(headers)) in answer.document["message"]


async def test_another_project_is_not_served(daemons: Daemons) -> None:
    async with daemons.running(project_id="another"), client_of(daemons.socket) as client:
        answer = await client.call("GET", "/restores")
        assert answer.status == 404
        assert "another" in answer.document["message"]


async def test_more_restores_than_allowed_are_put_off(daemons: Daemons, client: Client) -> None:
    daemons.rig.server.add_fault({"status": 503}, for_seconds=100_000)
    async with daemons.running(max_restores=4, drain_timeout=1):  # half of them for one user
        assert [(await client.tell(name, state="queued")).status for name in ("a", "b", "a")] == [204] * 3
        refused = await client.tell("c", state="queued")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "10")


async def test_a_state_that_goes_backwards_is_a_conflict(daemons: Daemons, client: Client) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running():
        await client.tell(restore_id, state="in_progress")
        answer = await client.tell(restore_id, state="preparing")
        assert answer.status == 409
        assert "cannot become preparing" in answer.document["message"]


async def test_who_asks_too_often_waits_and_then_is_put_off(daemons: Daemons, client: Client) -> None:
    async with daemons.running(peer_rate=1):
        answers = await asyncio.gather(*(client.call("GET", f"/nothing/{number}") for number in range(9)))
        statuses = [answer.status for answer in answers]
        assert 503 in statuses
        assert 404 in statuses
        assert all(answer.headers["Retry-After"] for answer in answers if answer.status == 503)


async def test_a_body_that_is_too_large_is_refused_and_the_connection_closed(
    daemons: Daemons, client: Client
) -> None:
    async with daemons.running():
        answer = await client.call("PATCH", "/restores/r-1", b"x" * 1_000_001)
        assert answer.status == 400
        assert "larger than" in answer.document["message"]
        assert answer.headers["Connection"] == "close"


async def test_the_path_of_the_api_is_that_of_the_control_plane(daemons: Daemons) -> None:
    async with daemons.running():
        reader, writer = await asyncio.open_unix_connection(str(daemons.socket))
        writer.write(f"GET /v2/{PROJECT}/restores HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
