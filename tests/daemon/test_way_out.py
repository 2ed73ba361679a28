"""The way out: a Unix socket behind which the network is, for a daemon that has none."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from yarl import URL

from agent_reporter.control_plane.http import HttpSession
from agent_reporter.daemon import way_out as way_out_module
from agent_reporter.daemon.way_out import WayOut
from agent_reporter.errors import TransportError
from agent_reporter.settings import Settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agent_reporter.model.verdict import Answer
    from tests.daemon.conftest import Client, Daemons


@asynccontextmanager
async def way_out(settings: Settings) -> AsyncIterator[None]:
    assert settings.way_out is not None
    way = WayOut(settings)
    taken: list[asyncio.StreamWriter] = []
    passing: set[asyncio.Task[None]] = set()
    is_over = False

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if is_over:  # accepted just before the end
            writer.transport.abort()
            return
        taken.append(writer)
        passing.add(task := asyncio.create_task(way.pass_on(reader, writer)))
        await asyncio.gather(task, return_exceptions=True)

    server = await asyncio.start_unix_server(take, settings.way_out)
    yield
    is_over = True
    # CPython never closes a connection that it accepts in the same turn as the server is closed: none is accepted.
    asyncio.get_running_loop().remove_reader(server.sockets[0].fileno())
    for _ in range(5):
        await asyncio.sleep(0)
    server.close()
    for writer in taken:
        writer.transport.abort()
    for task in passing:
        task.cancel()
    await asyncio.gather(*passing, return_exceptions=True)
    settings.way_out.unlink()


async def ask(settings: Settings, url: str) -> Answer:
    async with HttpSession(settings, settings.way_out) as http:
        return await http.request("GET", URL(url))


@pytest.fixture
def path(socket_directory: Path) -> Path:
    return socket_directory / "out.sock"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


async def test_all_that_the_daemon_says_and_hears_goes_over_it(
    daemons: Daemons, client: Client, path: Path
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with way_out(daemons.settings(way_out=path)), daemons.running(way_out=path):
        await client.tell(restore_id, state="in_progress", bytes_restored=7)
        await daemons.rig.until_state(restore_id, "in_progress")
        daemons.rig.server.request_stop(restore_id)
        events = await client.events(restore_id, "?wait=60")
        assert [event["event"] for event in events.document["events"]] == ["restore_stop_request"]
        await client.tell(restore_id, state="stopped")
        await daemons.rig.until_state(restore_id, "stopped")


async def test_it_may_be_gone_for_a_while_and_nothing_is_lost(
    daemons: Daemons, client: Client, path: Path
) -> None:
    restore_id = daemons.rig.server.start_restore()
    settings = daemons.settings(way_out=path)
    async with daemons.running(way_out=path):
        async with way_out(settings):
            await client.tell(restore_id, state="in_progress")
            await daemons.rig.until_state(restore_id, "in_progress")
        await client.tell(restore_id, state="completed", bytes_restored=7)
        await daemons.rig.clock.sleep(100)
        assert daemons.rig.server.document(restore_id)["state"] == "in_progress"
        async with way_out(settings):
            await daemons.rig.until_state(restore_id, "completed")
    assert daemons.rig.server.document(restore_id)["bytes_restored"] == 7


async def test_it_leads_to_no_other_host(daemons: Daemons, path: Path) -> None:
    settings = daemons.settings(way_out=path, endpoint=f"http://127.0.0.1:{free_port()}")
    async with way_out(settings):
        with pytest.raises(TransportError, match="to the endpoints of its settings alone") as refused:
            await ask(settings, daemons.rig.server.url)

    assert not refused.value.uncertain


@pytest.mark.parametrize(
    ("host", "why"), [("127.0.0.1", "Connect call failed"), ("no-such-host.invalid", "not known|resolution")]
)
async def test_what_is_in_the_way_is_said_with_the_host(path: Path, host: str, why: str) -> None:
    settings = plain(path, f"http://{host}:{free_port()}", allow_http=True)
    async with way_out(settings):
        with pytest.raises(
            TransportError, match=f"no connection to {settings.endpoint}: .*({why})"
        ) as failed:
            await ask(settings, settings.endpoint)

    assert not failed.value.uncertain


@pytest.mark.parametrize("addresses", [1, 3])
async def test_it_keeps_no_socket_of_a_connection_that_is_cut_off_in_any_turn_of_its_making(
    addresses: int, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=addresses * TURNS) as far:
        host, port = far.getsockname()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses * found)
        monkeypatch.setattr(way_out_module, "SECOND_ADDRESS_SECONDS", 1e-9)
        way = WayOut(plain(path, f"http://{host}:{port}"))
        made = 0
        gc.collect()
        before = open_descriptors()
        for turns in range(1, TURNS):
            here, there = socket.socketpair()
            with there:
                there.sendall(f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
                reader, writer = await asyncio.open_connection(sock=here)
                passing = asyncio.create_task(way.pass_on(reader, writer))
                for _ in range(turns):
                    await asyncio.sleep(0)
                made += open_descriptors() > before + 2
                passing.cancel()
                async with asyncio.timeout(10):
                    await asyncio.gather(passing, return_exceptions=True)
                assert passing.cancelled()
                await writer.wait_closed()
        assert made
        assert open_descriptors() == before


TURNS = 40


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def plain(path: Path, endpoint: str, **more: Any) -> Settings:
    return Settings(endpoint=endpoint, project_id="110011", way_out=path, **more)


async def test_what_leaves_the_host_is_encrypted_for_whom_we_trust(tmp_path: Path, path: Path) -> None:
    certificate, tls = make_certificate(tmp_path)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", ssl=tls) as far:
        url = f"https://localhost:{far.sockets[0].getsockname()[1]}"
        trusting = plain(path, url, ca_file=certificate)
        async with way_out(trusting):
            assert (await ask(trusting, url)).body == b"hello"
        other = plain(path, url)
        async with way_out(other):
            with pytest.raises(TransportError, match=f"{url}: its certificate is not trusted: self-signed"):
                await ask(other, url)


def make_certificate(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate of localhost that nobody trusts of themselves, and what serves it."""
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    made = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-days",
        "2",
    ]
    made += ["-addext", "subjectAltName=DNS:localhost", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run(made, check=True, capture_output=True)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    return certificate, tls


@pytest.mark.parametrize(
    "said", [b"", b"GET", b"GET / HTTP/1.1\r\n\r\n", b"\0\r\n\r\n", b"a\r\nHost\r\n\r\n", b"a" * 200_000]
)
async def test_what_is_no_request_goes_nowhere_and_hurts_nobody(
    daemons: Daemons, path: Path, said: bytes
) -> None:
    settings = daemons.settings(way_out=path)
    async with way_out(settings):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(said)
        writer.write_eof()
        heard = await reader.read()
        writer.close()
        assert heard == b"" or b" 502 " in heard
        assert (await ask(settings, daemons.rig.server.url)).status == 404


async def test_large_bodies_pass_in_both_directions_as_they_are(path: Path) -> None:
    body = bytes(range(256)) * 4_000

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + await reader.readexactly(len(body)))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1") as far:
        host = f"127.0.0.1:{far.sockets[0].getsockname()[1]}"
        async with way_out(plain(path, f"http://{host}")):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(f"POST / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode() + body)
            answer = await reader.read()
            writer.close()

    assert answer.partition(b"\r\n\r\n")[2] == body
