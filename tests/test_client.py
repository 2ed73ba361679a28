from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import ssl
import subprocess
import threading
import traceback
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from agent_reporter import logs
from agent_reporter.control_plane.client import ControlPlane
from agent_reporter.control_plane.connection import connect
from agent_reporter.control_plane.http import MAX_BODY, READ_BYTES, HttpSession, _Unread
from agent_reporter.control_plane.sign_in import SignIn
from agent_reporter.control_plane.token_sources import Grant
from agent_reporter.errors import ConfigurationError, MalformedError, SignInError, TransportError
from agent_reporter.model.backoff import Backoff
from agent_reporter.model.verdict import MAX_FAULT_TEXT, Answer, explain
from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.server import AGENT, PROJECT
from agent_reporter.settings import Settings
from tests.blocking import no_blocking_calls
from tests.builders import FakeClock, RawServer, http, listening, raw_server, says

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    Answerer = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

TOKEN = "s3cret-t0ken"
STATE = [{"op": "replace", "path": "/state", "value": "in_progress"}]


@pytest.fixture(autouse=True)
def _no_blocking_call_in_a_loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with no_blocking_calls():
        yield


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return path


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ReferenceServer]:
    async with ReferenceServer(tmp_path / "server", token=TOKEN) as server:
        yield server


def settings_for(url: str, token_file: Path, **more: Any) -> Settings:
    given: dict[str, Any] = {
        "endpoint": url,
        "project_id": PROJECT,
        "token_file": token_file,
        "request_timeout": 5,
    }
    return Settings(**{**given, **more})


async def read_from(answerer: Answerer, token_file: Path, **more: Any) -> Answer:
    """Read a restore from a server that answers so."""
    async with (
        raw_server(answerer) as raw,
        connect(settings_for(raw.url, token_file, **more)) as control_plane,
    ):
        return await control_plane.read_restore("r-1")


async def failure_of(answerer: Answerer, token_file: Path, **more: Any) -> TransportError:
    with pytest.raises(TransportError) as caught:
        await read_from(answerer, token_file, **more)
    return caught.value


def head_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].decode().split("\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


# --- the calls --------------------------------------------------------------------------------------------


async def test_a_restore_is_read_and_updated(server: ReferenceServer, token_file: Path) -> None:
    restore_id = server.start_restore()
    async with connect(settings_for(server.url, token_file)) as control_plane:
        assert (await control_plane.update_restore(restore_id, STATE)).status == 204
        answer = await control_plane.read_restore(restore_id)
        assert answer.status == 200
        assert answer.document()["state"] == "in_progress"
        assert (await control_plane.read_restore("nobody")).status == 404
    assert server.document(restore_id)["state"] == "in_progress"


async def test_a_patch_is_sent_as_the_protocol_wants_it(token_file: Path) -> None:
    async with raw_server(says(http(204))) as raw:
        settings = settings_for(f"{raw.url}/base", token_file, agent_id=AGENT)
        async with connect(settings) as control_plane:
            await control_plane.update_restore("r~1.a", STATE)
    (request,) = raw.requests
    assert request.startswith(f"PATCH /base/v2/{PROJECT}/restores/r~1.a HTTP/1.1\r\n".encode())
    head = head_of(request)
    assert head["x-auth-token"] == TOKEN
    assert head["x-agent-id"] == AGENT
    assert head["content-type"] == "application/json-patch+json"
    assert head["accept-encoding"] == "identity"
    assert head["user-agent"].startswith("agent-reporter/")
    assert "cookie" not in head
    assert "authorization" not in head
    assert json.loads(request.partition(b"\r\n\r\n")[2]) == STATE


async def test_a_reporter_that_is_no_agent_sends_no_agent_id(token_file: Path) -> None:
    async with raw_server(says(http(200, b"{}"))) as raw, connect(settings_for(raw.url, token_file)) as plane:
        await plane.read_restore("r-1")
    assert "x-agent-id" not in head_of(raw.requests[0])
    assert "content-type" not in head_of(raw.requests[0])


async def test_events_are_read_from_a_marker_on(server: ReferenceServer, token_file: Path) -> None:
    restore_id = server.start_restore()
    async with connect(settings_for(server.url, token_file, agent_id=AGENT)) as control_plane:
        first = (await control_plane.agent_events(None)).document()["events"]
        assert [event["event"] for event in first] == ["restore_start_request"]
        server.request_stop(restore_id)
        marker = str(first[-1]["id"])
        for answer in (
            await control_plane.agent_events(marker),
            await control_plane.restore_events(restore_id, marker),
        ):
            assert [event["event"] for event in answer.document()["events"]] == ["restore_stop_request"]


async def test_a_marker_with_any_letters_stays_one_value(token_file: Path) -> None:
    async with raw_server(says(http(200, b"{}"))) as raw, connect(settings_for(raw.url, token_file)) as plane:
        await plane.restore_events("r-1", "a&limit=1 #é")
    target = raw.requests[0].split(b" ")[1].decode()
    assert dict(URL(target).query) == {"sort_dir": "asc", "limit": "100", "marker": "a&limit=1 #é"}


async def test_an_answer_carries_what_the_delivery_needs_of_it(token_file: Path) -> None:
    answer = await read_from(says(http(503, b'{"message": "busy"}', Retry_After="7")), token_file)
    assert (answer.status, answer.retry_after, answer.signed_with) == (503, "7", 1)
    assert explain(answer) == "HTTP 503: busy"


async def test_a_session_is_for_the_time_it_is_open(token_file: Path) -> None:
    session = HttpSession(settings_for("http://127.0.0.1:1", token_file))
    with pytest.raises(RuntimeError, match="not open"):
        await session.request("GET", URL("http://127.0.0.1:1"))
    async with session:
        pass
    with pytest.raises(RuntimeError, match="not open"):
        await session.request("GET", URL("http://127.0.0.1:1"))


async def test_fifty_requests_at_once_wait_for_no_connection(
    server: ReferenceServer, token_file: Path
) -> None:
    restore_id = server.start_restore()
    everybody = asyncio.Barrier(51)

    async def answer(_request: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await everybody.wait()
        writer.write(http(200, b"{}"))
        await writer.drain()

    async with raw_server(answer) as raw, connect(settings_for(raw.url, token_file)) as control_plane:
        readers = [asyncio.create_task(control_plane.read_restore(restore_id)) for _ in range(50)]
        async with asyncio.timeout(10):
            await everybody.wait()
        assert {answer.status for answer in await asyncio.gather(*readers)} == {200}


# --- where a token goes -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "PATCH"])
async def test_a_redirect_is_never_followed(token_file: Path, status: int, method: str) -> None:
    async with raw_server(says(http(200, b"{}"))) as other:

        async def answer(
            _request: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(http(status, Location=f"{other.url}/v2/elsewhere"))
            await writer.drain()

        async with raw_server(answer) as raw, connect(settings_for(raw.url, token_file)) as control_plane:
            if method == "GET":
                got = await control_plane.read_restore("r-1")
            else:
                got = await control_plane.update_restore("r-1", STATE)
        assert got.status == status
        assert len(raw.requests) == 1
        assert other.requests == [], "the other origin got the token"


async def test_a_refresh_or_an_alternative_service_is_not_followed_either(token_file: Path) -> None:
    async with raw_server(says(http(200, b"{}"))) as other:
        answerer = says(
            http(200, b"{}", Refresh=f"0; url={other.url}", Alt_Svc=f'h2="127.0.0.1:{other.port}"')
        )
        async with raw_server(answerer) as raw, connect(settings_for(raw.url, token_file)) as control_plane:
            for _ in range(2):
                await control_plane.read_restore("r-1")
    assert (len(raw.requests), other.requests) == (2, [])


async def test_proxies_and_passwords_of_the_environment_are_ignored(
    token_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login jo password s3cret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    async with raw_server(says(http(200, b"{}"))) as proxy, raw_server(says(http(200, b"{}"))) as raw:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        async with connect(settings_for(raw.url, token_file)) as control_plane:
            assert (await control_plane.read_restore("r-1")).status == 200
    assert proxy.requests == []
    assert "authorization" not in head_of(raw.requests[0])


async def test_cookies_are_ignored(token_file: Path) -> None:
    answerer = says(http(200, b"{}", Set_Cookie="session=evil; Path=/"))
    async with raw_server(answerer) as raw, connect(settings_for(raw.url, token_file)) as control_plane:
        for _ in range(2):
            await control_plane.read_restore("r-1")
    assert ["cookie" in head_of(request) for request in raw.requests] == [False, False]


async def test_an_https_endpoint_is_not_spoken_to_in_plain(token_file: Path) -> None:
    async with raw_server(says(http(200, b"{}"))) as raw:
        settings = settings_for(f"https://127.0.0.1:{raw.port}", token_file, request_timeout=1)
        async with connect(settings) as control_plane:
            with pytest.raises(TransportError):
                await control_plane.read_restore("r-1")
    assert raw.requests == []


async def test_a_file_of_certificates_that_cannot_be_used_is_named(token_file: Path, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    for path in (tmp_path / "ca.pem", tmp_path / "nowhere.pem"):
        with pytest.raises(ConfigurationError, match=f"ca_file: {path} cannot be used"):
            HttpSession(settings_for("https://host", token_file, ca_file=path))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 that nobody else trusts, with its key."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(path), "-out", str(path) + ".crt"]
    if shutil.which("openssl") is None:
        pytest.skip("certificates cannot be made here: needs openssl")
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_name("server.pem.crt").read_text())
    return path


@pytest.mark.parametrize("trusted", [True, False])
async def test_a_token_goes_only_to_a_server_with_a_certificate_that_is_trusted(
    token_file: Path,
    certificate: Path,
    trusted: bool,  # noqa: FBT001 - a parameter
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(http(200, b"{}"))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as tls_server:
        port = tls_server.sockets[0].getsockname()[1]
        more = {"ca_file": certificate.with_name("server.pem.crt")} if trusted else {}
        settings = settings_for(f"https://127.0.0.1:{port}", token_file, **more)
        async with connect(settings) as control_plane:
            if trusted:
                assert (await control_plane.read_restore("r-1")).status == 200
            else:
                with pytest.raises(TransportError, match="no connection") as caught:
                    await control_plane.read_restore("r-1")
                assert not caught.value.uncertain
    assert len(requests) == int(trusted)


# --- no answer --------------------------------------------------------------------------------------------


async def test_a_connection_that_is_refused_carried_nothing_out(token_file: Path) -> None:
    async with connect(settings_for("http://127.0.0.1:1", token_file)) as control_plane:
        with pytest.raises(
            TransportError, match=r"GET http://127\.0\.0\.1:1/v2/.*: no connection: "
        ) as caught:
            await control_plane.read_restore("r-1")
    assert not caught.value.uncertain


async def test_a_host_that_is_not_known_carried_nothing_out(token_file: Path) -> None:
    async with connect(settings_for("https://host.invalid", token_file)) as control_plane:
        with pytest.raises(TransportError, match="no connection") as caught:
            await control_plane.read_restore("r-1")
    assert not caught.value.uncertain


async def never(_request: bytes, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_no_answer_within_the_time_may_have_been_carried_out(token_file: Path) -> None:
    failure = await failure_of(never, token_file, request_timeout=0.2)
    assert failure.uncertain
    assert "no answer within 0.2 s" in str(failure)


@pytest.mark.parametrize("place", ["head", "body"])
async def test_an_answer_of_one_byte_a_second_is_given_up_in_time(token_file: Path, place: str) -> None:
    content = http(200, bytes(100))
    start = 0 if place == "head" else content.index(b"\r\n\r\n") + 4

    async def trickle(_request: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(content[:start])
        for byte in content[start:]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(1)

    async with asyncio.timeout(5):
        failure = await failure_of(trickle, token_file, request_timeout=0.3)
    assert failure.uncertain


@pytest.mark.parametrize("fault", ["drop", "apply_then_drop", "truncate"])
async def test_a_patch_whose_connection_breaks_may_have_been_carried_out(
    server: ReferenceServer, token_file: Path, fault: str
) -> None:
    restore_id = server.start_restore()
    server.add_fault(fault, method="PATCH")
    async with connect(settings_for(server.url, token_file)) as control_plane:
        with pytest.raises(TransportError) as caught:
            await control_plane.update_restore(restore_id, STATE)
    assert caught.value.uncertain
    assert len(server.history()) == 1, "a patch is never sent a second time down here"


async def test_a_patch_on_a_kept_connection_that_breaks_is_not_sent_again(token_file: Path) -> None:
    async def once(_request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http(204).replace(b"Connection: close\r\n", b""))
        await writer.drain()
        second.append(await reader.readuntil(b"\r\n\r\n"))

    second: list[bytes] = []
    async with raw_server(once) as raw, connect(settings_for(raw.url, token_file)) as control_plane:
        await control_plane.update_restore("r-1", STATE)
        with pytest.raises(TransportError) as caught:
            await control_plane.update_restore("r-1", STATE)
    assert caught.value.uncertain
    assert (len(raw.requests), len(second)) == (1, 1)


NO_HTTP = {
    "nothing": b"",
    "nonsense": b"nonsense\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nhalf",
    "a chunk of no size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nxx",
    "a negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nxx",
    "a status that is none": b"HTTP/1.1 abc OK\r\n\r\n",
    "a long line": b"HTTP/1.1 200 " + b"x" * 1_000_000 + b"\r\n\r\n",
    "a long header": b"HTTP/1.1 200 OK\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n",
}


@pytest.mark.parametrize("content", NO_HTTP.values(), ids=NO_HTTP)
async def test_what_is_no_whole_http_is_no_answer_and_nothing_else(token_file: Path, content: bytes) -> None:
    failure = await failure_of(says(content), token_file)
    assert failure.uncertain
    assert str(failure).startswith("GET http://127.0.0.1:")


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nX: \xff\xfe\r\nRetry-After: \xff\r\nContent-Length: 0\r\n\r\n", 200),
        (b"HTTP/1.0 200 OK\r\n\r\n{}", 200),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 OK\r\n\r\n", 204),
        (b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", 999),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: nonsense; charset=none\r\nContent-Length: 2\r\n\r\n\xff\xfe",
            200,
        ),
    ],
)
async def test_odd_answers_are_answers(token_file: Path, content: bytes, status: int) -> None:
    answer = await read_from(says(content), token_file)
    assert answer.status == status
    assert explain(answer).startswith(f"HTTP {status}")


@pytest.mark.parametrize(
    "content",
    [
        b"SSH-2.0-" + TOKEN.encode() + b"\r\n",
        b"HTTP/1.1 200 OK\r\nbad " + TOKEN.encode() + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 10_000 + TOKEN.encode() + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + TOKEN.encode() + b"\r\n\r\n",
    ],
)
async def test_nothing_of_an_answer_that_is_no_http_is_quoted(token_file: Path, content: bytes) -> None:
    with pytest.raises(TransportError) as caught:
        await read_from(says(content), token_file)
    assert "no valid HTTP: " in str(caught.value)
    assert "b'" not in str(caught.value)
    assert not any(TOKEN[at : at + 5] in str(caught.value) for at in range(len(TOKEN) - 4))


async def test_of_a_flood_little_is_read_in_one_go(token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    take = ResponseHandler.data_received

    def noted(handler: ResponseHandler, data: bytes) -> None:
        read.append(len(data))
        take(handler, data)

    monkeypatch.setattr(ResponseHandler, "data_received", noted)
    flood = b"HTTP/1.1 100 Continue\r\n\r\n" * 40_000
    assert (await read_from(says(flood + http(200, b"{}")), token_file)).status == 200
    assert sum(read) > len(flood)
    assert max(read) <= READ_BYTES


async def test_connections_of_every_kind_are_looked_at_before_they_are_used_again(
    token_file: Path, tmp_path: Path
) -> None:
    settings = settings_for("http://127.0.0.1:1", token_file)
    async with HttpSession(settings) as direct, HttpSession(settings, tmp_path / "way-out.sock") as through:
        for session in (direct, through):
            assert session._session is not None
            assert isinstance(session._session.connector, _Unread)


async def test_an_answer_that_nobody_asked_for_is_not_taken_for_the_next(token_file: Path) -> None:
    first_was_read, came = asyncio.Event(), asyncio.Event()

    async def answers_twice(
        _request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        if first_was_read.is_set():
            writer.write(http(503, b""))
            return
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await first_was_read.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        came.set()
        await reader.read()

    async with raw_server(answers_twice) as raw, HttpSession(settings_for(raw.url, token_file)) as session:
        assert (await session.request("PATCH", URL(raw.url), body=[])).status == 204
        assert session._session is not None
        assert session._session.connector is not None
        [[(idle, _)]] = session._session.connector._conns.values()
        first_was_read.set()
        await came.wait()
        async with asyncio.timeout(10):
            while not idle.should_close:  # noqa: ASYNC110 - nothing tells when it was read
                await asyncio.sleep(0)
        assert (await session.request("PATCH", URL(raw.url), body=[])).status == 503


# --- answers that are too much ----------------------------------------------------------------------------


async def test_a_body_of_ten_megabytes_is_not_taken(token_file: Path) -> None:
    answer = await read_from(says(http(200, b" " * 10_000_000)), token_file)
    assert (answer.status, answer.body) == (200, b"")


async def test_a_body_without_end_is_not_taken(token_file: Path) -> None:
    sent = 0

    async def endless(_request: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + bytes(65_536) + b"\r\n")
            sent += 65_536
            await writer.drain()

    answer = await read_from(endless, token_file)
    assert (answer.status, answer.body) == (200, b"")
    assert sent < 20 * MAX_BODY


async def test_a_body_of_the_most_that_is_allowed_is_taken_whole(token_file: Path) -> None:
    assert MAX_BODY >= 1_000_000, "one document of the API may have 1 MB"
    body = json.dumps({"x": "x" * (MAX_BODY - 100)}).encode()
    assert (await read_from(says(http(200, body)), token_file)).document()["x"]
    answer = await read_from(says(http(200, bytes(MAX_BODY))), token_file)
    assert len(answer.body) == MAX_BODY


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x-gzip", "gzip, gzip"])
async def test_a_body_that_is_packed_is_not_unpacked(token_file: Path, encoding: str) -> None:
    bomb = gzip.compress(bytes(50_000_000))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        answer = await read_from(says(http(200, bomb, Content_Encoding=encoding)), token_file)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (answer.status, answer.body) == (200, b"")
    assert peak - before < 5_000_000


async def test_headers_without_end_are_given_up(token_file: Path) -> None:
    sent = 0

    async def endless(_request: bytes, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"X-Header: value\r\n" * 1000)
            sent += 17_000
            await writer.drain()

    failure = await failure_of(endless, token_file, request_timeout=2)
    assert failure.uncertain
    assert sent < 20_000_000, "they are given up for their size, not for the time they take"


@pytest.mark.parametrize(
    "body",
    [b"[" * 500_000, b'{"a":' * 100_000, b'{"message": ' + b"[" * 900_000, b'{"message": "\xff"}', b'"'],
)
async def test_json_that_is_bottomless_or_none_is_an_answer_without_words(
    token_file: Path, body: bytes
) -> None:
    answer = await read_from(says(http(400, body)), token_file)
    assert answer.status == 400
    with pytest.raises(MalformedError):
        answer.document()
    assert explain(answer) == "HTTP 400"


# --- secrets ----------------------------------------------------------------------------------------------


async def test_a_token_that_a_document_repeats_in_escapes_is_not_in_it(token_file: Path) -> None:
    spelled = "".join(f"\\u{ord(letter):04x}" for letter in TOKEN)
    answer = await read_from(says(http(200, b'{"state": "' + spelled.encode() + b'"}')), token_file)
    assert answer.document() == {"state": "[concealed]"}


@pytest.mark.parametrize("in_front", [0, MAX_FAULT_TEXT - len(TOKEN) // 2])
@pytest.mark.parametrize("spelled", [TOKEN, "".join(f"\\u{ord(letter):04x}" for letter in TOKEN)])
async def test_nothing_is_left_of_a_token_that_a_refusal_repeats(
    token_file: Path, in_front: int, spelled: str
) -> None:
    body = b'{"message": "' + b"x" * in_front + spelled.encode() + b'"}'
    said = explain(await read_from(says(http(400, body)), token_file))
    assert TOKEN[: len(TOKEN) // 2] not in said
    assert said.startswith("HTTP 400: ")


def everything_of(problem: BaseException) -> str:
    """All that can be seen of an exception, and of those that led to it."""
    seen, texts = set(), []
    waiting: list[BaseException | None] = [problem]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            texts += [str(each), repr(each), repr(each.args), *traceback.format_exception(each)]
            waiting += [each.__cause__, each.__context__]
    return "\n".join(texts)


@pytest.mark.parametrize("content", NO_HTTP.values(), ids=NO_HTTP)
async def test_no_failure_shows_the_token_nor_do_those_that_led_to_it(
    token_file: Path, content: bytes
) -> None:
    with listening() as heard:
        failure = await failure_of(says(content), token_file)
        logs.get_logger().error("an.event", problem=str(failure), exc_info=failure)
    assert TOKEN not in everything_of(failure)
    assert TOKEN not in str(heard)


async def test_no_connection_and_no_answer_show_no_token(token_file: Path) -> None:
    async with connect(settings_for("http://127.0.0.1:1", token_file)) as control_plane:
        with pytest.raises(TransportError) as caught:
            await control_plane.update_restore("r-1", STATE)
    assert TOKEN not in everything_of(caught.value)
    assert TOKEN not in everything_of(await failure_of(never, token_file, request_timeout=0.1))


async def test_a_token_that_the_answer_repeats_is_not_repeated_by_us(token_file: Path) -> None:
    body = json.dumps({"message": f"the token {TOKEN} has expired", "errors": [TOKEN]}).encode()
    answer = await read_from(says(http(400, body)), token_file)
    assert TOKEN not in explain(answer), "it would be written into the spool, and shown"
    assert TOKEN not in repr(answer)


async def test_a_broken_header_that_repeats_the_token_is_not_repeated_by_us(token_file: Path) -> None:
    for content in (f"HTTP/1.1 200 OK\r\n{TOKEN}\r\n\r\n", f"{TOKEN}\r\n\r\n"):
        failure = await failure_of(says(content.encode()), token_file)
        assert TOKEN not in f"{failure} {failure!r}"


async def test_nothing_of_ours_shows_the_token(server: ReferenceServer, token_file: Path) -> None:
    async with connect(settings_for(server.url, token_file)) as control_plane:
        answer = await control_plane.read_restore(server.start_restore())
        for thing in (
            control_plane,
            answer,
            control_plane._http,
            control_plane.sign_in,
        ):
            assert TOKEN not in f"{thing!r} {thing}"


async def test_a_token_that_no_header_can_hold_is_never_sent_nor_shown(token_file: Path) -> None:
    class Source:
        name = "a source without care"

        async def fetch(self) -> Grant:
            return Grant(f"{TOKEN}\r\nX-Evil: 1")

    async with raw_server(says(http(200, b"{}"))) as raw:
        settings = settings_for(raw.url, token_file)
        async with HttpSession(settings) as session:
            control_plane = ControlPlane(settings, session, SignIn(Source(), FakeClock(), Backoff()))
            with pytest.raises((TransportError, SignInError)) as caught:
                await control_plane.read_restore("r-1")
    assert raw.requests == []
    assert TOKEN not in f"{caught.value} {caught.value!r}"


async def test_a_request_that_is_cancelled_is_cancelled(token_file: Path) -> None:
    came = asyncio.Event()

    async def wait(_request: bytes, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        came.set()
        await reader.read()

    raw: RawServer
    async with raw_server(wait) as raw, connect(settings_for(raw.url, token_file)) as control_plane:
        request = asyncio.create_task(control_plane.read_restore("r-1"))
        await came.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request


async def test_a_name_is_looked_up_though_the_threads_of_the_loop_are_all_busy(
    server: ReferenceServer, token_file: Path
) -> None:
    """An engine in the same loop may fill them with its copying, for as long as it likes."""
    may_end = threading.Event()
    loop = asyncio.get_running_loop()
    busy = [loop.run_in_executor(None, may_end.wait) for _ in range(64)]
    try:
        url = server.url.replace("127.0.0.1", "localhost")
        async with asyncio.timeout(5), connect(settings_for(url, token_file)) as control_plane:
            assert (await control_plane.read_restore(server.start_restore())).status == 200
    finally:
        may_end.set()
        await asyncio.gather(*busy)
