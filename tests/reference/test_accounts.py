"""Signing in over the socket, and the tokens that come of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.accounts import AgentAccount, TokenFile, load_accounts
from agent_reporter.reference.server import PROJECT
from agent_reporter.reference.store import FILE_NAME
from tests.reference.conftest import ACCOUNTS, Client, Clock, path_of

if TYPE_CHECKING:
    from pathlib import Path

AGENT_TOKENS = f"/v2/{PROJECT}/agents/tokens"
HOST = {
    "os": {"name": "linux", "version": "6.1", "architecture": "x86_64"},
    "fingerprint": "host-1",
    "addresses": [{"version": 4, "addr": "192.0.2.7"}],
}
SIGN_IN = {
    "project_id": PROJECT,
    "id": "agent-1",
    "password": "agent-password",
    "name": "web01",
    "version": "0.1.0",
    "host": HOST,
}


def user(username: str = "jo", key: str = "jo-key") -> dict[str, Any]:
    return {"auth": {"RAX-KSKEY:apiKeyCredentials": {"username": username, "apiKey": key}}}


async def test_an_agent_signs_in_and_its_token_works_until_it_expires(
    server: ReferenceServer, client: Client, clock: Clock
) -> None:
    restore_id = server.start_restore()
    client.token = None
    status, document = await client.call("POST", AGENT_TOKENS, json=SIGN_IN)
    assert status == 200
    assert document["token"]["expires"] == "2023-11-15T22:13:20.250Z"
    client.token = document["token"]["id"]
    assert (await client.call("GET", path_of(restore_id)))[0] == 200
    clock.moment += 24 * 60 * 60
    assert (await client.call("GET", path_of(restore_id)))[0] == 401


async def test_a_token_for_another_project_is_403(client: Client) -> None:
    client.token = None
    client.token = (await client.call("POST", AGENT_TOKENS, json=SIGN_IN))[1]["token"]["id"]
    status, document = await client.call("GET", path_of("any", "220022"))
    assert (status, document) == (403, {"message": "The token is for another project."})


@pytest.mark.parametrize("change", [{"password": "wrong"}, {"password": ""}, {"id": "agent-2"}])
async def test_a_wrong_password_or_an_unknown_agent_is_401(client: Client, change: dict[str, str]) -> None:
    assert (await client.call("POST", AGENT_TOKENS, json={**SIGN_IN, **change}))[0] == 401


async def test_a_second_host_under_the_same_agent_is_409(server: ReferenceServer, client: Client) -> None:
    other = {**SIGN_IN, "host": {**HOST, "fingerprint": "host-2"}}
    assert (await client.call("POST", AGENT_TOKENS, json={**other, "password": "wrong"}))[0] == 401
    assert (await client.call("POST", AGENT_TOKENS, json=SIGN_IN))[0] == 200
    status, document = await client.call("POST", AGENT_TOKENS, json=other)
    assert status == 409
    assert "another host" in document["message"]
    assert (await client.call("POST", AGENT_TOKENS, json=SIGN_IN))[0] == 200


@pytest.mark.parametrize(
    "change",
    [
        {"project_id": "another"},
        {"id": 7},
        {"extra": 1},
        {"host": {}},
        {"host": {**HOST, "os": {"name": "linux"}}},
        {"host": {**HOST, "addresses": [{"version": 5, "addr": "192.0.2.7"}]}},
        {"host": {**HOST, "addresses": [{"version": True, "addr": "192.0.2.7"}]}},
        {"host": {**HOST, "fingerprint": ""}},
    ],
)
async def test_a_sign_in_that_is_not_as_the_protocol_says_is_refused(
    client: Client, change: dict[str, Any]
) -> None:
    assert (await client.call("POST", AGENT_TOKENS, json={**SIGN_IN, **change}))[0] == 400


async def test_a_user_signs_in_at_the_identity_service(server: ReferenceServer, client: Client) -> None:
    restore_id = server.start_restore(project_id="220022")
    status, document = await client.call("POST", "/v2.0/tokens", json=user())
    assert status == 200
    access = document["access"]
    assert access["token"]["tenant"] == {"id": "220022"}
    [service] = access["serviceCatalog"]
    assert service["endpoints"] == [{"tenantId": "220022", "publicURL": f"{server.url}/v2/220022"}]
    client.token = access["token"]["id"]
    assert (await client.call("GET", path_of(restore_id, "220022")))[0] == 200
    assert (await client.call("GET", path_of(restore_id)))[0] == 403


async def test_a_wrong_key_or_user_is_401_and_another_shape_400(client: Client) -> None:
    for body in (user(key="wrong"), user(username="al")):
        assert (await client.call("POST", "/v2.0/tokens", json=body))[0] == 401
    wrong: list[dict[str, Any]] = [{}, {"auth": {"passwordCredentials": {}}}, user(username="")]
    for document in wrong:
        assert (await client.call("POST", "/v2.0/tokens", json=document))[0] == 400


async def test_issued_tokens_survive_a_restart_but_are_not_on_the_disk(tmp_path: Path) -> None:
    server = ReferenceServer(tmp_path, accounts=ACCOUNTS)
    async with server, Client(server) as client:
        client.token = None
        token = (await client.call("POST", AGENT_TOKENS, json=SIGN_IN))[1]["token"]["id"]
        restore_id = server.start_restore()
    async with server, Client(server) as client:
        client.token = token
        assert (await client.call("GET", path_of(restore_id)))[0] == 200
    kept = (tmp_path / FILE_NAME).read_bytes()
    assert token.encode() not in kept
    assert b"agent-password" not in kept


async def test_the_token_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "token"
    async with ReferenceServer(tmp_path / "data", token_file=path) as server, Client(server) as client:
        restore_id = server.start_restore()
        client.token = "first"
        assert (await client.call("GET", path_of(restore_id)))[0] == 401
        path.write_text("first\n")
        assert (await client.call("GET", path_of(restore_id)))[0] == 200
        path.write_text("the second\n")
        assert (await client.call("GET", path_of(restore_id)))[0] == 401
        client.token = "the second"
        assert (await client.call("GET", path_of(restore_id)))[0] == 200
        path.write_text("\n")
        client.token = ""
        assert (await client.call("GET", path_of(restore_id)))[0] == 401


def test_a_token_file_that_is_no_text_is_no_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_bytes(b"\xff\xfe")
    assert TokenFile(path)() == ""


def test_accounts_come_from_the_data_directory(tmp_path: Path) -> None:
    assert load_accounts(tmp_path).agents == ()
    agent = {"project_id": "1", "id": "a", "password": "p", "fingerprint": "f"}
    (tmp_path / "accounts.json").write_text(json.dumps({"agents": [agent]}))
    assert load_accounts(tmp_path).agents == [AgentAccount("1", "a", "p", "f")]


@pytest.mark.parametrize("text", ["", "[]", '{"agents": [{}]}', '{"groups": []}'])
def test_a_bad_accounts_file_is_an_error_that_names_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "accounts.json").write_text(text)
    with pytest.raises(ValueError, match=r"accounts\.json"):
        load_accounts(tmp_path)
