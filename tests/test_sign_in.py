from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter import logs
from agent_reporter.control_plane import token_sources
from agent_reporter.control_plane.connection import connect
from agent_reporter.control_plane.http import HttpSession
from agent_reporter.control_plane.sign_in import SignIn, Token
from agent_reporter.control_plane.token_sources import (
    AgentPassword,
    Grant,
    IdentityApiKey,
    TokenFile,
    choose_source,
)
from agent_reporter.errors import ConfigurationError, SignInError
from agent_reporter.model.backoff import Backoff
from agent_reporter.reference import Accounts, AgentAccount, ReferenceServer, UserAccount
from agent_reporter.reference.server import AGENT, PROJECT
from agent_reporter.settings import CREDENTIAL, Settings
from tests.blocking import no_blocking_calls
from tests.builders import START, FakeClock, http, listening, raw_server, says

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

PASSWORD = "agent-p4ssword"
API_KEY = "user-4pi-key"
LIFETIME = 24 * 3600.0
ACCOUNTS = Accounts([AgentAccount(PROJECT, AGENT, PASSWORD)], [UserAccount(PROJECT, "jo", API_KEY)])


@pytest.fixture(autouse=True)
def _no_blocking_call_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with no_blocking_calls():
        yield


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def server(tmp_path: Path, clock: FakeClock) -> AsyncIterator[ReferenceServer]:
    async with ReferenceServer(
        tmp_path / "server",
        accounts=ACCOUNTS,
        token_lifetime=LIFETIME,
        now=lambda: clock.now().timestamp(),
    ) as server:
        yield server


def secret(tmp_path: Path, content: str, name: str = "secret") -> Path:
    path = tmp_path / name
    path.write_text(content)
    path.chmod(0o600)
    return path


def as_agent(tmp_path: Path, url: str, password: str = PASSWORD, **more: Any) -> Settings:
    return Settings(
        endpoint=url,
        project_id=PROJECT,
        agent_id=AGENT,
        agent_password_file=secret(tmp_path, password),
        request_timeout=5,
        **more,
    )


def as_user(tmp_path: Path, url: str, api_key: str = API_KEY, **more: Any) -> Settings:
    return Settings(
        endpoint=url,
        project_id=PROJECT,
        identity_endpoint=url,
        identity_username="jo",
        identity_api_key_file=secret(tmp_path, api_key, "key"),
        request_timeout=5,
        **more,
    )


def sign_ins(server: ReferenceServer) -> list[Any]:
    return [request["answer"] for request in server.history() if request["method"] == "POST"]


@dataclass
class Script:
    """A source that does what a test says, one thing after the other, and the last one for ever."""

    script: list[Grant | Exception]
    name: str = "the script"
    calls: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    async def fetch(self) -> Grant:
        self.calls += 1
        await self.gate.wait()
        step = self.script[0] if len(self.script) == 1 else self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


def signing_in(clock: FakeClock, *script: Grant | Exception) -> tuple[SignIn, Script]:
    source = Script(list(script))
    return SignIn(source, clock, Backoff(base=1, cap=60, retry_after_cap=300)), source


# --- which source -----------------------------------------------------------------------------------------


def test_a_token_file_comes_before_a_credential_before_a_password_before_an_api_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    everything: dict[str, Any] = {
        "endpoint": "https://host",
        "project_id": PROJECT,
        "agent_id": AGENT,
        "token_file": "/token",
        "agent_password_file": "/password",
        "identity_endpoint": "https://identity",
        "identity_username": "jo",
        "identity_api_key_file": "/key",
    }
    session = HttpSession(Settings.load(**everything))
    assert isinstance(choose_source(Settings.load(**everything), session), TokenFile)
    del everything["token_file"]
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert isinstance(choose_source(Settings.load(**everything), session), AgentPassword)
    secret(credentials, "s3cret", CREDENTIAL)
    source = choose_source(Settings.load(**everything), session)
    assert isinstance(source, TokenFile)
    assert source.path == credentials / CREDENTIAL
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    del everything["agent_password_file"]
    assert isinstance(choose_source(Settings.load(**everything), session), IdentityApiKey)


async def test_nothing_to_sign_in_with_is_said_before_anything_else(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nothing to sign in with\. Set token_file"):
        async with connect(Settings(endpoint="https://host", project_id=PROJECT)):
            raise AssertionError("not to be reached")


async def test_a_credential_of_systemd_signs_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret(tmp_path, "s3cret\n", CREDENTIAL)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    async with (
        ReferenceServer(tmp_path / "server", token="s3cret") as server,
        connect(Settings(endpoint=server.url, project_id=PROJECT)) as control_plane,
    ):
        assert CREDENTIAL in await control_plane.sign_in_source()
        assert (await control_plane.read_restore(server.start_restore())).status == 200


# --- a token file -----------------------------------------------------------------------------------------


async def test_a_token_file_is_read_again_when_it_changes(tmp_path: Path, clock: FakeClock) -> None:
    path = secret(tmp_path, "first")
    sign_in = SignIn(TokenFile(path), clock, Backoff())
    assert await sign_in.token() == Token("first", 1)
    secret(tmp_path, "second")
    assert await sign_in.token() == Token("first", 1), "it is looked at once a second"
    clock.pass_by(1)
    assert await sign_in.token() == Token("second", 2)
    clock.pass_by(1)
    assert await sign_in.token() == Token("second", 2)


async def test_a_token_file_is_read_at_once_when_the_token_was_refused(
    tmp_path: Path, clock: FakeClock
) -> None:
    sign_in = SignIn(TokenFile(secret(tmp_path, "first")), clock, Backoff())
    token = await sign_in.token()
    secret(tmp_path, "second")
    await sign_in.renew(token.generation)
    assert await sign_in.token() == Token("second", 2)


async def test_a_fleet_whose_token_is_refused_does_not_sign_in_at_once(clock: FakeClock) -> None:
    source = Script([Grant("one"), Grant("two")])
    sign_in = SignIn(source, clock, Backoff(), report_interval=2.0)
    token = await sign_in.token()
    before = clock.monotonic()
    await asyncio.gather(*(sign_in.renew(token.generation) for _ in range(5)))
    assert clock.monotonic() - before == 5.0, "half of five intervals, as chance has it, and once for all"
    assert source.calls == 2


async def test_a_sign_in_that_is_held_back_does_not_wait_before_it_says_so(clock: FakeClock) -> None:
    source = Script([Grant("one"), SignInError("broken")])
    sign_in = SignIn(source, clock, Backoff(), report_interval=2.0)
    token = await sign_in.token()
    with pytest.raises(SignInError, match="broken"):
        await sign_in.renew(token.generation)
    before = clock.monotonic()
    with pytest.raises(SignInError, match="broken"):
        await sign_in.renew(token.generation)
    assert clock.monotonic() == before
    assert source.calls == 2


async def test_a_token_file_with_the_same_token_after_a_refusal_says_what_to_do(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = secret(tmp_path, "s3cret")
    sign_in = SignIn(TokenFile(path), clock, Backoff())
    token = await sign_in.token()
    with pytest.raises(SignInError, match=f"refuses the token .401., and token file {path} has no other"):
        await sign_in.renew(token.generation)


async def test_a_rotated_token_file_goes_on_with_the_same_connection(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = secret(tmp_path, "first")
    async with ReferenceServer(tmp_path / "server", token_file=path) as server:
        settings = Settings(endpoint=server.url, project_id=PROJECT, token_file=path)
        async with connect(settings, clock) as control_plane:
            restore_id = server.start_restore()
            assert (await control_plane.read_restore(restore_id)).status == 200
            secret(tmp_path, "second!")
            refused = await control_plane.read_restore(restore_id)
            assert refused.status == 401
            await control_plane.renew_token(refused)
            assert (await control_plane.read_restore(restore_id)).status == 200


# --- an agent's password ----------------------------------------------------------------------------------


async def test_an_agent_signs_in_with_its_password(
    tmp_path: Path, server: ReferenceServer, clock: FakeClock
) -> None:
    settings = as_agent(tmp_path, server.url)
    async with connect(settings, clock) as control_plane:
        assert (await control_plane.read_restore(server.start_restore())).status == 200
        assert await control_plane.sign_in_source() == f"agent {AGENT} with its password"
    assert sign_ins(server) == [200]


async def test_what_an_agent_says_of_its_host_is_what_the_protocol_wants(tmp_path: Path) -> None:
    answer = {"token": {"id": "t0ken", "expires": "2026-01-03T00:00:00.000Z"}}
    async with raw_server(says(http(200, json.dumps(answer).encode()))) as raw:
        settings = as_agent(tmp_path, raw.url)
        async with HttpSession(settings) as http_session:
            grant = await choose_source(settings, http_session).fetch()
    assert (grant.value, grant.expires) == (
        "t0ken",
        START.replace(day=3, hour=0, minute=0, second=0, microsecond=0),
    )
    head, _, body = raw.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(f"POST /v2/{PROJECT}/agents/tokens HTTP/1.1\r\n".encode())
    assert b"X-Auth-Token" not in head
    said = json.loads(body)
    assert set(said) == {"project_id", "id", "password", "name", "version", "host"}
    assert (said["project_id"], said["id"], said["password"]) == (PROJECT, AGENT, PASSWORD)
    assert set(said["host"]) == {"os", "fingerprint", "addresses"}
    assert set(said["host"]["os"]) == {"name", "version", "architecture"}
    assert said["host"]["addresses"] == [{"version": 4, "addr": "127.0.0.1"}]
    assert len(said["host"]["fingerprint"]) == len(hashlib.sha256().hexdigest())


async def test_an_agent_of_another_host_is_refused_with_what_to_do(
    tmp_path: Path, server: ReferenceServer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = as_agent(tmp_path, server.url)
    async with connect(settings, clock) as control_plane:
        await control_plane.sign_in_source()
    monkeypatch.setattr(token_sources, "_machine_id", lambda: "another machine")
    async with connect(settings, clock) as control_plane:
        with pytest.raises(SignInError, match=r"signed in from another host \(409\).*agent of its own"):
            await control_plane.sign_in_source()
    assert sign_ins(server) == [200, 409]


async def test_a_wrong_password_is_refused_with_what_to_do_and_not_quoted(
    tmp_path: Path, server: ReferenceServer, clock: FakeClock
) -> None:
    async with connect(as_agent(tmp_path, server.url, "wr0ng-p4ssword"), clock) as control_plane:
        with pytest.raises(SignInError, match=r"was refused \(HTTP 401.*Check its secret") as caught:
            await control_plane.sign_in_source()
    assert "wr0ng-p4ssword" not in str(caught.value)


async def test_a_service_that_is_down_is_left_alone_for_as_long_as_it_asks(
    tmp_path: Path, server: ReferenceServer, clock: FakeClock
) -> None:
    server.add_fault({"status": 503, "headers": {"Retry-After": "120"}}, path_regex="tokens")
    async with connect(as_agent(tmp_path, server.url), clock) as control_plane:
        with pytest.raises(SignInError, match="failed: HTTP 503") as caught:
            await control_plane.sign_in_source()
        assert caught.value.retry_after == "120"
        for _ in range(5):
            clock.pass_by(20)
            with pytest.raises(SignInError, match="HTTP 503"):
                await control_plane.sign_in_source()
        assert sign_ins(server) == [503]
        clock.pass_by(20 + 0.5)
        await control_plane.sign_in_source()
    assert sign_ins(server) == [503, 200]


async def test_a_service_that_asks_for_a_date_is_left_alone_until_then(
    tmp_path: Path, server: ReferenceServer, clock: FakeClock
) -> None:
    server.add_fault(
        {"status": 503, "headers": {"Retry-After": "Fri, 02 Jan 2026 03:06:05 GMT"}}, path_regex="tokens"
    )
    async with connect(as_agent(tmp_path, server.url), clock) as control_plane:
        with pytest.raises(SignInError):
            await control_plane.sign_in_source()
        clock.pass_by(119)
        with pytest.raises(SignInError):
            await control_plane.sign_in_source()
        assert sign_ins(server) == [503]
        clock.pass_by(2)
        await control_plane.sign_in_source()
    assert sign_ins(server) == [503, 200]


async def test_a_token_is_renewed_before_it_expires(
    tmp_path: Path, server: ReferenceServer, clock: FakeClock
) -> None:
    restore_id = server.start_restore()
    async with connect(as_agent(tmp_path, server.url), clock) as control_plane:
        for _ in range(100):
            clock.pass_by(3600)
            assert (await control_plane.read_restore(restore_id)).status == 200, (
                "it never meets an expired token"
            )
    assert sign_ins(server) == [200] * 5


async def test_a_token_is_renewed_five_minutes_before_its_end_or_at_nine_tenths_of_its_life(
    clock: FakeClock,
) -> None:
    clock.chance = 0.0
    for life, good_for in ((86_400, 86_400 - 300), (3000, 2700), (1000, 900), (100, 90)):
        sign_in, source = signing_in(clock, Grant("one", clock.now() + timedelta(seconds=life)))
        await sign_in.token()
        clock.pass_by(good_for - 0.5)
        await sign_in.token()
        assert source.calls == 1
        clock.pass_by(1)
        await sign_in.token()
        assert source.calls == 2


# --- a user's API key -------------------------------------------------------------------------------------


async def test_a_user_signs_in_with_an_api_key(
    tmp_path: Path, server: ReferenceServer, clock: FakeClock
) -> None:
    async with connect(as_user(tmp_path, server.url), clock) as control_plane:
        assert (await control_plane.read_restore(server.start_restore())).status == 200
        assert await control_plane.sign_in_source() == "Identity user jo"
    assert next(request["path"] for request in server.history()) == "/v2.0/tokens"


async def test_a_wrong_api_key_is_refused_with_what_to_do_and_not_quoted(
    tmp_path: Path, server: ReferenceServer, clock: FakeClock
) -> None:
    async with connect(as_user(tmp_path, server.url, "wr0ng-key"), clock) as control_plane:
        with pytest.raises(SignInError, match=r"Identity user jo was refused \(HTTP 401") as caught:
            await control_plane.sign_in_source()
    assert "wr0ng-key" not in str(caught.value)


# --- answers that hold no token ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        http(200),
        http(200, b"nonsense"),
        http(200, b"[]"),
        http(200, b"{}"),
        http(200, b'{"token": null}'),
        http(200, b'{"token": "text"}'),
        http(200, b'{"token": {"id": 5}}'),
        http(200, b'{"token": {"id": ""}}'),
        http(200, b'{"token": {"id": "two\\nlines"}}'),
        http(200, b'{"token": {"id": "\\u00e9"}}'),
        http(200, b'{"token": {"id": "t0ken", "expires": "soon"}}'),
        http(200, b'{"token": {"id": "t0ken", "expires": 5}}'),
        http(200, b'{"token": ' + b"[" * 100_000),
        http(200, bytes(2 * 1024 * 1024)),
        http(204),
        http(301, Location="http://127.0.0.1:1/"),
        http(500, b'{"message": "broken"}'),
        b"",
        b"nonsense\r\n\r\n",
    ],
    ids=lambda answer: repr(answer[:110]),
)
async def test_an_answer_without_a_usable_token_is_a_failed_sign_in_and_nothing_else(
    tmp_path: Path, answer: bytes
) -> None:
    async with raw_server(says(answer)) as raw:
        settings = as_agent(tmp_path, raw.url)
        async with HttpSession(settings) as http_session:
            with pytest.raises(SignInError) as caught:
                await choose_source(settings, http_session).fetch()
    for private in (PASSWORD, "t0ken"):
        assert private not in f"{caught.value} {caught.value!r}"


async def test_no_connection_is_a_failed_sign_in(tmp_path: Path) -> None:
    settings = as_agent(tmp_path, "http://127.0.0.1:1")
    async with HttpSession(settings) as http_session:
        with pytest.raises(SignInError, match=r"sign-in: POST http://127\.0\.0\.1:1/v2/.* no connection"):
            await choose_source(settings, http_session).fetch()


async def test_a_password_that_the_answer_repeats_is_not_repeated_by_us(tmp_path: Path) -> None:
    body = json.dumps({"message": f"the password {PASSWORD} is wrong", "errors": [PASSWORD]}).encode()
    for status in (401, 500):
        async with raw_server(says(http(status, body))) as raw:
            settings = as_agent(tmp_path, raw.url)
            async with HttpSession(settings) as http_session:
                with pytest.raises(SignInError) as caught:
                    await choose_source(settings, http_session).fetch()
        assert PASSWORD not in str(caught.value)


async def test_a_host_whose_name_cannot_be_looked_up_is_a_failed_sign_in(tmp_path: Path) -> None:
    settings = as_agent(tmp_path, f"https://{64 * 'a'}.example.com")
    async with HttpSession(settings) as http_session:
        with pytest.raises(SignInError):
            await choose_source(settings, http_session).fetch()


# --- one sign-in for everybody ----------------------------------------------------------------------------


async def test_fifty_who_need_a_first_token_at_once_share_one_sign_in(
    tmp_path: Path, server: ReferenceServer, clock: FakeClock
) -> None:
    restore_id = server.start_restore()
    async with connect(as_agent(tmp_path, server.url), clock) as control_plane:
        answers = await asyncio.gather(*(control_plane.read_restore(restore_id) for _ in range(50)))
    assert {answer.status for answer in answers} == {200}
    assert sign_ins(server) == [200]


async def test_fifty_who_meet_a_401_at_once_share_one_sign_in(
    tmp_path: Path, server: ReferenceServer, clock: FakeClock
) -> None:
    restore_id = server.start_restore()
    async with connect(as_agent(tmp_path, server.url), clock) as control_plane:
        await control_plane.read_restore(restore_id)
        server.add_fault({"status": 401}, times=50, method="GET")
        refused = await asyncio.gather(*(control_plane.read_restore(restore_id) for _ in range(50)))
        assert {answer.status for answer in refused} == {401}
        await asyncio.gather(*(control_plane.renew_token(answer) for answer in refused))
        answers = await asyncio.gather(*(control_plane.read_restore(restore_id) for _ in range(50)))
        await control_plane.renew_token(refused[0])
    assert {answer.status for answer in answers} == {200}
    assert sign_ins(server) == [200, 200]


async def test_fifty_who_meet_a_401_while_the_source_is_broken_ask_it_once(clock: FakeClock) -> None:
    sign_in, source = signing_in(clock, Grant("one"), SignInError("broken"), Grant("two"))
    token = await sign_in.token()
    problems = await asyncio.gather(
        *(sign_in.renew(token.generation) for _ in range(50)), return_exceptions=True
    )
    assert [str(problem) for problem in problems] == ["broken"] * 50
    assert source.calls == 2
    clock.pass_by(1)
    await sign_in.renew(token.generation)
    assert await sign_in.token() == Token("two", 2)
    assert source.calls == 3


async def test_a_caller_that_is_cancelled_while_it_signs_in_leaves_the_next_one_free(
    clock: FakeClock,
) -> None:
    sign_in, source = signing_in(clock, Grant("one"))
    source.gate.clear()
    first, second = asyncio.create_task(sign_in.token()), asyncio.create_task(sign_in.token())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    source.gate.set()
    assert await second == Token("one", 1)
    with pytest.raises(asyncio.CancelledError):
        await first


# --- a source that is broken ------------------------------------------------------------------------------


async def test_a_broken_source_holds_and_recovers_by_itself(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "secret"
    sign_in = SignIn(TokenFile(path), clock, Backoff())
    with pytest.raises(SignInError, match="cannot be read"):
        await sign_in.token()
    secret(tmp_path, "s3cret")
    with pytest.raises(SignInError, match="cannot be read"):
        await sign_in.token()
    clock.pass_by(1)
    assert await sign_in.token() == Token("s3cret", 1)


async def test_a_broken_source_is_asked_less_and_less_often(clock: FakeClock) -> None:
    sign_in, source = signing_in(clock, SignInError("broken"))
    for _ in range(3600):
        with pytest.raises(SignInError, match="broken"):
            await sign_in.token()
        clock.pass_by(1)
    assert 3600 / 60 <= source.calls <= 3600 / 30 + 10


async def test_a_source_that_recovered_is_asked_soon_when_it_breaks_again(clock: FakeClock) -> None:
    broken = SignInError("broken")
    sign_in, source = signing_in(clock, *[broken] * 5, Grant("one"), broken, Grant("two"))
    while source.calls < 6:
        clock.pass_by(1)
        await asyncio.gather(sign_in.token(), return_exceptions=True)
    with pytest.raises(SignInError):
        await sign_in.renew(1)
    clock.pass_by(1)
    await sign_in.renew(1)
    assert await sign_in.token() == Token("two", 2)


async def test_a_token_that_is_still_good_is_used_while_it_cannot_be_renewed(clock: FakeClock) -> None:
    expires = clock.now() + timedelta(hours=24)
    sign_in, _source = signing_in(clock, Grant("one", expires), SignInError("broken"))
    assert await sign_in.token() == Token("one", 1)
    clock.pass_by(24 * 3600 - 200)
    with listening() as heard:
        assert await sign_in.token() == Token("one", 1)
    assert heard.named("sign_in.renewal_failed")[0]["problem"] == "broken"
    clock.pass_by(200)
    with pytest.raises(SignInError, match="broken"):
        await sign_in.token()


async def test_a_failed_renewal_is_logged_once_and_not_with_every_request(clock: FakeClock) -> None:
    sign_in, source = signing_in(clock, Grant("one", good_for=1), SignInError("broken", "300"))
    await sign_in.token()
    clock.pass_by(1)
    with listening() as heard:
        for _ in range(100):
            assert await sign_in.token() == Token("one", 1)
            clock.pass_by(1)
    assert source.calls == 2
    assert len(heard.named("sign_in.renewal_failed")) == 1


async def test_a_failure_that_is_told_to_many_does_not_grow_with_each_of_them(clock: FakeClock) -> None:
    sign_in, _source = signing_in(clock, SignInError("broken", "300"))

    def length(problem: BaseException) -> int:
        trace, count = problem.__traceback__, 0
        while trace is not None:
            trace, count = trace.tb_next, count + 1
        return count

    lengths = []
    for _ in range(50):
        with pytest.raises(SignInError) as caught:
            await sign_in.token()
        lengths.append(length(caught.value))
    assert max(lengths) < 20, "its traceback holds on to the frames of everybody it was told to"


async def test_a_token_that_expired_before_it_came_is_not_asked_for_again_and_again(clock: FakeClock) -> None:
    """The clock of this host is a day ahead: whatever is issued looks as if it were over."""
    sign_in, source = signing_in(clock, Grant("one", clock.now() - timedelta(hours=1)))
    for _ in range(600):
        assert (await sign_in.token()).value == "one"
        clock.pass_by(1)
    assert source.calls < 60, "one sign-in a second, for as long as the clock is wrong, of every agent"


# --- secrets ----------------------------------------------------------------------------------------------


async def test_no_representation_shows_a_token(tmp_path: Path, clock: FakeClock) -> None:
    source = TokenFile(secret(tmp_path, "s3cret"))
    sign_in = SignIn(source, clock, Backoff())
    token = await sign_in.token()
    for thing in (token, await source.fetch(), sign_in, source):
        assert "s3cret" not in f"{thing!r} {thing}"


async def test_no_event_shows_a_secret(tmp_path: Path, server: ReferenceServer, clock: FakeClock) -> None:
    with listening() as heard:
        for settings, private in (
            (as_agent(tmp_path, server.url), PASSWORD),
            (as_user(tmp_path, server.url), API_KEY),
        ):
            async with connect(settings, clock) as control_plane:
                await control_plane.sign_in_source()
                assert control_plane.sign_in is not None
                token = await control_plane.sign_in.token()
                logs.get_logger().error("an.event", problem=f"{token.value} {private}")
                assert token.value not in str(heard)
    assert len(heard.named("sign_in.done")) == 2
    for private in (PASSWORD, API_KEY):
        assert private not in str(heard)


def test_a_host_without_a_machine_id_has_a_fingerprint_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "")
    assert token_sources._machine_id()

    def fail(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", fail)
    assert token_sources._machine_id()
