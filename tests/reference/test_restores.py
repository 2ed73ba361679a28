"""Starting, reading and updating a restore over the socket: every answer of the table."""

from __future__ import annotations

import asyncio
import logging
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter.reference import ReferenceServer, Spelling
from agent_reporter.reference.patches import FINAL_STATES
from agent_reporter.reference.server import AGENT, PROJECT
from tests.blocking import no_blocking_calls
from tests.reference.conftest import PATCH_TYPE, TOKEN, Client, path_of, replace, state
from tests.reference.test_patches import ERRORS, TIME

if TYPE_CHECKING:
    from pathlib import Path

START = {"backup_id": "backup-1", "destination_agent_id": "agent-1"}
RESTORES = f"/v2/{PROJECT}/restores"


async def test_a_new_restore_is_shown_as_the_protocol_says(server: ReferenceServer, client: Client) -> None:
    selection = [{"type": "folder", "path": "/srv"}]
    body = {
        **START,
        "destination_path": "/tmp/there",
        "inclusions": selection,
        "encrypted_password_hex": "c0ffee",
    }
    async with client.session.post(
        server.url + RESTORES, json=body, headers={"X-Auth-Token": TOKEN}
    ) as answer:
        assert answer.status == 201
        document = await answer.json()
        assert answer.headers["Location"] == document["links"][0]["href"]
    restore_id = document["id"]
    assert str(uuid.UUID(restore_id)) == restore_id
    own = server.url + path_of(restore_id)

    def links(href: str) -> list[dict[str, str]]:
        return [{"href": href, "rel": "self"}]

    assert document == {
        "project_id": PROJECT,
        "id": restore_id,
        "backup": {"id": "backup-1", "links": links(f"{server.url}/v2/{PROJECT}/backups/backup-1")},
        "destination_agent": {"id": "agent-1", "links": links(f"{server.url}/v2/{PROJECT}/agents/agent-1")},
        "destination_path": "/tmp/there",
        "overwrite_files": False,
        "inclusions": selection,
        "exclusions": [],
        "state": "start_requested",
        "started_time": None,
        "ended_time": None,
        "errors": {"count": 0, "reason": "", "diagnostics": "", "links": links(f"{own}/errors")},
        "files_restored": 0,
        "bytes_restored": 0,
        "links": links(own),
    }
    assert await client.call("GET", path_of(restore_id)) == (200, document)
    assert await client.call("GET", document["links"][0]["href"]) == (200, document)
    assert server.document(restore_id) == document


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {**START, "id": "mine"},
        {**START, "backup_id": ""},
        {**START, "overwrite_files": "yes"},
        {**START, "destination_path": 3},
        {**START, "inclusions": [{"type": "socket", "path": "/"}]},
        {**START, "destination_agent_id": "\udcff"},
    ],
)
async def test_a_restore_that_is_not_as_the_protocol_says_is_not_started(client: Client, body: Any) -> None:
    status, document = await client.call("POST", RESTORES, json=body)
    assert status == 400
    assert document["message"] == "The restore is not valid."
    assert document["errors"]


async def test_a_finished_restore_holds_everything_that_was_reported(
    server: ReferenceServer, client: Client
) -> None:
    restore_id = server.start_restore()
    patch = [
        *state("completed_with_errors"),
        replace("/started-time", TIME),
        replace("/ended-time", TIME),
        replace("/errors", ERRORS),
        replace("/files_restores", 8),
        replace("/bytes-restored", 2**40),
    ]
    assert await client.patch(restore_id, patch, X_Agent_Id="agent-1") == (204, None)
    document = server.document(restore_id)
    assert document["state"] == "completed_with_errors"
    assert document["started_time"] == document["ended_time"] == TIME
    assert document["files_restored"] == 8
    assert document["bytes_restored"] == 2**40
    assert document["errors"]["count"] == 1
    assert "list" not in document["errors"]

    status, errors = await client.call("GET", path_of(restore_id) + "/errors")
    assert status == 200
    assert errors.pop("links") == [{"href": f"{server.url}{path_of(restore_id)}/errors", "rel": "self"}]
    assert errors == ERRORS
    [record] = [record for record in server.history(restore_id) if record["method"] == "PATCH"]
    assert record["body"] == patch
    assert record["agent_id"] == "agent-1"
    assert (record["answer"], record["applied"], record["state"]) == (204, True, "completed_with_errors")


async def test_counters_are_taken_as_they_are_sent_even_downwards(
    server: ReferenceServer, client: Client
) -> None:
    restore_id = server.start_restore(state="in_progress")
    for count in (5, 3):
        assert (await client.patch(restore_id, [replace("/bytes_restored", count)]))[0] == 204
    assert server.document(restore_id)["bytes_restored"] == 3
    assert [record["body"][0]["value"] for record in server.history(restore_id)] == [5, 3]


@pytest.mark.parametrize("final", FINAL_STATES)
async def test_a_restore_that_has_ended_is_not_modified(
    server: ReferenceServer, client: Client, final: str
) -> None:
    restore_id = server.start_restore(state=final)
    for patch in (
        state("in_progress"),
        state("stop_requested"),
        state(final),
        [replace("/bytes-restored", 1)],
    ):
        status, document = await client.patch(restore_id, patch)
        assert status == 409
        assert document == {
            "message": "Modifying a restore that is already in a state of ['completed', "
            "'completed_with_errors', 'failed', 'stopped'] is not allowed."
        }
    assert server.document(restore_id)["state"] == final
    assert server.document(restore_id)["bytes_restored"] == 0
    assert not any(record["applied"] for record in server.history(restore_id))


async def test_a_state_overwrites_a_stop_request_and_that_is_remembered(
    server: ReferenceServer, client: Client
) -> None:
    restore_id = server.start_restore(state="in_progress")
    assert (await client.patch(restore_id, state("stop_requested")))[0] == 204
    assert (await client.patch(restore_id, [replace("/bytes-restored", 1)]))[0] == 204
    assert server.document(restore_id)["state"] == "stop_requested"
    assert server.erased_stops(restore_id) == 0
    assert (await client.patch(restore_id, state("in_progress")))[0] == 204
    assert server.document(restore_id)["state"] == "in_progress"
    assert server.erased_stops(restore_id) == 1
    server.request_stop(restore_id)
    assert (await client.patch(restore_id, state("stopped")))[0] == 204
    assert server.erased_stops(restore_id) == 1
    states = [record["state"] for record in server.history(restore_id)]
    assert states == ["stop_requested", "stop_requested", "in_progress", "stopped"]


@pytest.mark.parametrize(
    ("body", "content_type", "sentence"),
    [
        (b"[]", PATCH_TYPE, "at least one operation"),
        (b"", PATCH_TYPE, "not JSON"),
        (b"\xff", PATCH_TYPE, "not JSON"),
        (b"[NaN]", PATCH_TYPE, "not JSON"),
        (b"[" * 100_000, PATCH_TYPE, "not JSON"),
        (b'[{"op":"add","path":"/state","value":"queued"}]', "application/json", "content type"),
        (b'[{"op":"add","path":"/state","value":"queued"}]', "", "content type"),
        (b" " * 1_000_001, PATCH_TYPE, "larger than 1000000 bytes"),
    ],
)
async def test_a_bad_request_is_answered_400_with_the_reason(
    server: ReferenceServer, client: Client, body: bytes, content_type: str, sentence: str
) -> None:
    restore_id = server.start_restore()
    status, document = await client.call(
        "PATCH", path_of(restore_id), data=body, headers={"Content-Type": content_type}
    )
    assert status == 400
    assert sentence in document["message"]
    assert server.history(restore_id)[0]["answer"] == 400


async def test_a_patch_of_just_a_megabyte_is_taken(server: ReferenceServer, client: Client) -> None:
    restore_id = server.start_restore()
    body = b'[{"op":"add","path":"/state","value":"queued"}]'.ljust(1_000_000)
    headers = {"Content-Type": f"{PATCH_TYPE}; charset=utf-8"}
    assert (await client.call("PATCH", path_of(restore_id), data=body, headers=headers))[0] == 204


@pytest.mark.parametrize("token", [None, "", "another"])
async def test_without_a_known_token_every_answer_is_401(
    server: ReferenceServer, client: Client, token: str | None
) -> None:
    restore_id = server.start_restore()
    client.token = token
    agent = f"/v2/{PROJECT}/agents/{AGENT}/events"
    for method, path in [
        ("POST", RESTORES),
        ("GET", path_of(restore_id)),
        ("PATCH", path_of(restore_id)),
        ("GET", path_of(restore_id) + "/errors"),
        ("GET", path_of(restore_id) + "/events"),
        ("GET", agent),
        ("POST", agent),
    ]:
        status, document = await client.call(method, path)
        assert status == 401, (method, path)
        assert "X-Auth-Token" in document["message"]


async def test_an_unknown_restore_is_404_as_is_one_of_another_project(
    server: ReferenceServer, client: Client
) -> None:
    restore_id = server.start_restore(project_id="other")
    for path in (path_of("unknown"), path_of(restore_id)):
        for method in ("GET", "PATCH"):
            status, document = await client.call(method, path, headers={"Content-Type": PATCH_TYPE})
            assert (status, document) == (404, {"message": "There is no such restore."})
    assert (await client.call("GET", path_of(restore_id, "other")))[0] == 200
    assert (await client.call("GET", "/v3"))[0] == 404


@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST", "OPTIONS"])
async def test_a_wrong_method_is_405_and_names_the_right_ones(
    server: ReferenceServer, client: Client, method: str
) -> None:
    url = server.url + path_of(server.start_restore())
    async with client.session.request(method, url) as answer:
        assert answer.status == 405
        assert answer.headers["Allow"] == "GET,PATCH"
        assert "Method Not Allowed" in (await answer.json())["message"]


async def test_a_bug_is_answered_500_and_logged_and_leaves_nothing_half_done(
    server: ReferenceServer, client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    restore_id = server.start_restore()

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(server.store, "put_event", broken)
    with caplog.at_level(logging.ERROR):
        status, document = await client.patch(restore_id, state("in_progress"))
    assert status == 500
    assert "bug" in document["message"]
    assert "broken" in caplog.text
    assert TOKEN not in caplog.text
    assert server.document(restore_id)["state"] == "start_requested"
    assert server.history(restore_id)[0]["answer"] == 500


async def test_the_strict_mode_and_one_spelling_are_chosen_at_the_start(tmp_path: Path) -> None:
    async with (
        ReferenceServer(tmp_path, token=TOKEN, strict=True, spelling=Spelling.AUTHORITY) as server,
        Client(server) as client,
    ):
        restore_id = server.start_restore()
        alone, document = replace("/bytes-restored", 1), replace("/bytes_restored", 1)
        status, refused = await client.patch(restore_id, [alone])
        assert status == 400
        assert refused["message"] == "The patch is none of the three scenarios."
        assert refused["errors"] == ["bytes_restored may only be reported beside a state."]
        assert (await client.patch(restore_id, [*state("in_progress"), document]))[0] == 400
        assert (await client.patch(restore_id, [*state("in_progress"), alone]))[0] == 204


async def test_everything_survives_a_restart_on_the_same_port(tmp_path: Path) -> None:
    server = ReferenceServer(tmp_path, token=TOKEN)
    async with server, Client(server) as client:
        restore_id = server.start_restore(total_bytes=10)
        await client.patch(restore_id, [*state("in_progress"), replace("/errors", ERRORS)])
        server.request_stop(restore_id)
        document, history, port = server.document(restore_id), server.history(), server.port
    async with server, Client(server) as client:
        assert server.port == port
        assert server.history() == history
        assert await client.call("GET", path_of(restore_id)) == (200, document)
        _, page = await client.call("GET", path_of(restore_id) + "/events")
        assert [event["event"] for event in page["events"]] == [
            "restore_start_request",
            "restore_in_progress",
            "restore_stop_request",
        ]
        assert server.errors(restore_id)["list"] == ERRORS["list"]


async def test_a_test_can_wait_for_what_requests_make_so(server: ReferenceServer, client: Client) -> None:
    restore_id = server.start_restore()
    with pytest.raises(TimeoutError):
        await server.wait_until(lambda: False, within=0.01)
    await client.patch(restore_id, state("queued"))
    await server.wait_until(lambda: server.document(restore_id)["state"] == "queued")


async def test_asking_the_handle_for_an_unknown_restore_is_a_key_error(server: ReferenceServer) -> None:
    with pytest.raises(KeyError):
        server.document("unknown")


async def test_a_port_in_use_is_an_error_and_leaves_nothing_open(
    tmp_path: Path, server: ReferenceServer
) -> None:
    second = ReferenceServer(tmp_path / "second", token=TOKEN, port=server.port)
    with pytest.raises(OSError, match="address already in use"):
        await second.start()
    second.port = 0
    async with second:
        assert second.start_restore()


@pytest.mark.parametrize(
    "line",
    [
        b"GET /v2/110011/restores/%ff HTTP/1.1\r\nX-Auth-Token: fixed-token\r\n",
        b"GET /v2/110011/restores/%00 HTTP/1.1\r\nX-Auth-Token: fixed-token\r\n",
        b"GET /v2/110011/restores/x HTTP/1.1\r\nX-Auth-Token: fixed-token\r\nX-Agent-Id: \xff\r\n",
        b"GET /v2/110011/restores/x HTTP/1.1\r\nX-Auth-Token: \xff\r\n",
        b"GET /v2/%0d%0aX:%20y/restores/x HTTP/1.1\r\nX-Auth-Token: fixed-token\r\n",
        b"GET /v2/110011/agents/a%20b/events HTTP/1.1\r\nX-Auth-Token: fixed-token\r\n",
        b"GET /v2/110011/agents/a/events?marker=%ff HTTP/1.1\r\nX-Auth-Token: fixed-token\r\n",
    ],
)
async def test_strange_bytes_are_no_bug(server: ReferenceServer, line: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(line + b"Host: there\r\nConnection: close\r\n\r\n")
    status = int((await reader.read()).split()[1])
    writer.close()
    await writer.wait_closed()
    assert status in (200, 401, 404)
    [record] = server.history()
    assert record["answer"] == status


async def test_a_new_restore_of_a_strange_project_has_an_address(client: Client) -> None:
    status, document = await client.call("POST", "/v2/a%0d%0ab/restores", json=START)
    assert status == 201
    assert document["project_id"] == "a\r\nb"
    assert await client.call("GET", document["links"][0]["href"]) == (200, document)


async def test_where_blocking_calls_are_looked_for_the_server_can_be_left_out(tmp_path: Path) -> None:
    with no_blocking_calls():
        async with ReferenceServer(tmp_path, token=TOKEN) as server, Client(server) as client:
            assert (await client.patch(server.start_restore(), state("queued")))[0] == 204
