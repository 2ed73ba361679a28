"""The daemon's way to the control plane, for a daemon that has no network itself.

The daemon sees the users and the processes of its host, so a process of its own has the network in its
place, and sees neither. What comes in over a Unix socket goes on to the endpoints of the settings, nowhere
else: to the one that the first request's Host names. TLS begins here, with the host that the settings name.
"""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from contextlib import suppress
from email.errors import MessageError
from http.client import HTTPException, parse_headers
from io import BytesIO
from typing import TYPE_CHECKING, Any

from aiohappyeyeballs import start_connection
from yarl import URL

from agent_reporter.control_plane.http import WAY_OUT_HEADER, tls_of
from agent_reporter.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohappyeyeballs import AddrInfoType as Address

    from agent_reporter.settings import Settings

HEAD_SECONDS = 10.0
"""The head of a connection's first request is there within so long."""
IDLE_SECONDS = 60.0
"""Beyond a request's time: a connection over which nothing went for longer is closed."""
SECOND_ADDRESS_SECONDS = 0.25
"""A host's next address is tried beside the first after so long."""
MAX_CONNECTIONS = 1_024
BLOCK = 65_536

_log = get_logger()


class WayOut:
    """Passes connections on: `pass_on` is the callback of `asyncio.start_unix_server`."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError if `ca_file` cannot be used."""
        urls = [URL(url) for url in (settings.endpoint, settings.identity_endpoint) if url]
        self._endpoints = {str(url.host_port_subcomponent): url for url in urls}
        self._tls = tls_of(settings)
        self._connect_seconds = settings.request_timeout
        self._idle_seconds = settings.request_timeout + IDLE_SECONDS
        self._open = 0

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, until either side closes it or nothing goes over it any more."""
        self._open += 1
        try:
            await self._pass_on(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the daemon sees a closed connection, and asks again
        finally:
            self._open -= 1
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(HEAD_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
        url = self._endpoints.get(_host(head))
        if url is None:
            await _refuse(writer, "the way out leads to the endpoints of its settings alone: restart it")
            return
        if self._open > MAX_CONNECTIONS:
            await _refuse(writer, f"the way out has {MAX_CONNECTIONS} connections, and takes no more")
            return
        try:
            far_reader, far_writer = await self._connect(url)
        except (OSError, ValueError, RuntimeError) as problem:  # RuntimeError: there is no thread to be had
            await _refuse(writer, f"no connection to {url.origin()}: {_words(problem)}")
            return
        try:
            far_writer.write(head)
            async with asyncio.timeout(self._idle_seconds) as idle:
                there, back = self._pump(reader, far_writer, idle), self._pump(far_reader, writer, idle)
                await asyncio.gather(there, back)
        finally:
            far_writer.close()

    async def _connect(self, url: URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        tls: dict[str, Any] = {"ssl": self._tls, "server_hostname": url.host} if url.scheme == "https" else {}
        async with asyncio.timeout(self._connect_seconds):
            return await asyncio.open_connection(sock=await _connected(await _addresses(url)), **tls)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle: asyncio.Timeout
    ) -> None:
        """Pass on until one side ends, and then end the other. No more is read than was passed on."""
        with suppress(OSError):
            while block := await reader.read(BLOCK):
                idle.reschedule(asyncio.get_running_loop().time() + self._idle_seconds)
                writer.write(block)
                await writer.drain()
        writer.close()


async def _addresses(url: URL) -> Sequence[Address]:
    """Where `url` leads; raises OSError. For what is an address already, no thread is waited for."""
    kind = socket.SOCK_STREAM
    try:
        return socket.getaddrinfo(url.host, url.port, type=kind, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        return await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=kind)


async def _connected(addresses: Sequence[Address]) -> socket.socket:
    """A socket to the first address that answers; raises OSError.

    asyncio's own happy eyeballs lose a socket that connects in the turn in which they are cancelled. These
    lose no socket, but may lose that they were cancelled.
    """
    connected = await start_connection(addresses, happy_eyeballs_delay=SECOND_ADDRESS_SECONDS)
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        connected.close()
        raise asyncio.CancelledError
    return connected


def _host(head: bytes) -> str:
    try:
        return str(parse_headers(BytesIO(head.partition(b"\r\n")[2]))["Host"])
    except (HTTPException, MessageError):
        return ""


async def _refuse(writer: asyncio.StreamWriter, why: str) -> None:
    """Answer the request that it went nowhere: so it was surely not done."""
    _log.warning("way_out.refused", why=why)
    body = json.dumps({"message": why}).encode()
    head = f"HTTP/1.1 502 Bad Gateway\r\n{WAY_OUT_HEADER}: refused\r\nConnection: close\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


def _words(problem: Exception) -> str:
    if isinstance(problem, TimeoutError):
        return "no answer in time"
    if isinstance(problem, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {problem.verify_message}"
    return getattr(problem, "strerror", None) or str(problem)
