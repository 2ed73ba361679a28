"""One HTTP session for a process's life: bounded, following nothing, trusting no environment.

Every foreign exception is translated here, once; nothing of a request, which holds the token, goes along.
"""

from __future__ import annotations

import json
import re
import socket
import ssl
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from agent_reporter.errors import ConfigurationError, TransportError
from agent_reporter.logs import redact
from agent_reporter.model.verdict import Answer, explain, said_with
from agent_reporter.threads import in_thread
from agent_reporter.version import __version__

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from aiohttp.connector import Connection
    from yarl import URL

    from agent_reporter.settings import Settings

MAX_BODY = 1024 * 1024
"""No more of an answer is read: one document of the API is at most 1 MB."""
MAX_LOCAL_BODY = 32 * MAX_BODY
"""The same for the daemon of this host, which lists all its restores in one document."""
READ_BYTES = 64 * 1024
"""So much is read from a socket in one go; of asyncio's own 256 KiB, a flood held the loop up for 0.15 s."""
KEEP_ALIVE_SECONDS = 15.0
"""Shorter than servers keep a connection, so that a patch rarely meets one that is just being closed."""
DNS_CACHE_SECONDS = 60
WAY_OUT_HEADER = "X-Way-Out"
"""In an answer of the daemon's way out itself: the request did not get beyond it."""


_QUOTED = re.compile(r"[\s:]*(?:\n|\bb['\"])")
_encode = json.JSONEncoder(separators=(",", ":")).encode


class Resolver(AbstractResolver):
    """Looks names up in threads of our own: an engine in the same loop may have filled those of the loop."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of `host`; raises OSError."""
        found = await in_thread(
            "resolve",
            partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG),
        )
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=kind,
                proto=protocol,
                flags=numeric,
            )
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """There is nothing to close."""


MAX_SAID = 16 * 1024
"""Characters of a refusal that are looked at for secrets: far more than is ever shown of it."""


class _Unread(aiohttp.BaseConnector):
    """Does not reuse a connection on which something came that nobody asked for.

    aiohttp would take it for the answer to the next request: a second 204 for a result that was never taken.
    """

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - the signature is aiohttp's
    ) -> Connection:
        """A connection without anything unread."""
        while True:
            connection = await super().connect(req, traces, timeout)
            if connection.protocol is None or not connection.protocol.should_close:
                _read_little(connection.transport)
                return connection
            connection.close()


def _read_little(transport: Any) -> None:
    """At once: a flood of tiny answers holds the loop up until all that was read in one go are parsed."""
    if hasattr(transport, "max_size"):  # of a socket; TLS has bounds of its own
        transport.max_size = READ_BYTES


class _UnixConnector(_Unread, aiohttp.UnixConnector):
    pass


class _TCPConnector(_Unread, aiohttp.TCPConnector):
    pass


class HttpSession:
    """An aiohttp session that follows nothing, trusts no environment and reads bounded bodies."""

    def __init__(
        self, settings: Settings, socket_path: Path | None = None, *, max_body: int = MAX_BODY
    ) -> None:
        """All requests go over the Unix socket at `socket_path`, if it is given; `max_body` is in bytes."""
        self._max_body = max_body
        self._seconds = settings.request_timeout
        self._timeout = aiohttp.ClientTimeout(total=self._seconds)
        self._socket_path = socket_path
        self._tls = tls_of(settings)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the session; it belongs to the running loop."""
        self._session = aiohttp.ClientSession(
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"agent-reporter/{__version__}", "Accept-Encoding": "identity"},
            connector=self._connector(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _connector(self) -> aiohttp.BaseConnector:
        if self._socket_path is not None:
            return _UnixConnector(str(self._socket_path), limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
        return _TCPConnector(
            limit=0,  # deliveries take turns; a look for stop requests never waits for them
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ttl_dns_cache=DNS_CACHE_SECONDS,
            ssl=self._tls,
            resolver=Resolver(),
        )

    async def request(
        self,
        method: str,
        url: URL,
        *,
        headers: dict[str, str] | None = None,
        body: object = None,
        more_seconds: float = 0.0,
    ) -> Answer:
        """One request and its answer; raises TransportError, never anything of aiohttp's.

        What is said with another status than 200 is without secrets: it may repeat the request.

        `more_seconds` is what the answer may take longer than others.
        """
        if self._session is None:
            raise RuntimeError("the session is not open")
        data = None if body is None else _encode(body).encode()
        timeout = aiohttp.ClientTimeout(total=self._seconds + more_seconds) if more_seconds else self._timeout
        try:
            async with self._session.request(
                method,
                url,
                headers=headers,
                data=data,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                answer = _without_secrets(
                    Answer(
                        status=response.status,
                        body=await _read_bounded(response, self._max_body),
                        retry_after=response.headers.get("Retry-After"),
                    )
                )
                if self._socket_path is None or WAY_OUT_HEADER not in response.headers:
                    return answer
                failure = TransportError(f"{self._where(method, url)}: {explain(answer)}", uncertain=False)
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            failure = _translate(self._where(method, url), problem, self._seconds + more_seconds)
        # Raised out here, so that it does not hold on to the request, and the token in it, as its context.
        raise failure

    def _where(self, method: str, url: URL) -> str:
        return f"{method} {self._socket_path or f'{url.scheme}://{url.host}:{url.port}'}{url.path}"


def _without_secrets(answer: Answer) -> Answer:
    """A refusal without the secrets in it: taken out before it is cut, and after it was read."""
    if answer.status == 200 or not answer.body:
        return answer
    said = redact(said_with(answer)[:MAX_SAID])
    return replace(answer, body=json.dumps({"message": said}).encode() if said else b"")


def _translate(where: str, problem: Exception, seconds: float) -> TransportError:
    if isinstance(problem, aiohttp.ClientConnectorError):
        return TransportError(f"{where}: no connection: {_words(problem)}", uncertain=False)
    if isinstance(problem, TimeoutError):
        return TransportError(f"{where}: no answer within {seconds:g} s", uncertain=True)
    return TransportError(f"{where}: {_words(problem)}", uncertain=True)


async def _read_bounded(response: aiohttp.ClientResponse, max_body: int) -> bytes:
    if response.status == 204:  # which has none
        return b""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return b""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > max_body:
            response.close()
            return b""
        chunks.append(chunk)
    return b"".join(chunks)


def tls_of(settings: Settings) -> ssl.SSLContext | bool:
    """Whom to trust, as aiohttp and asyncio want it said; raises ConfigurationError."""
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as problem:
        raise ConfigurationError(f"ca_file: {settings.ca_file} cannot be used: {problem}") from problem


def _words(problem: Any) -> str:
    """What aiohttp or the system says, without the request that some of its exceptions carry."""
    if isinstance(problem, aiohttp.ClientResponseError):
        # Not what it quotes of the answer: that may be a secret, and be cut in the middle of it.
        return redact(f"no valid HTTP: {_QUOTED.split(problem.message)[0]}")
    if isinstance(problem, aiohttp.ServerDisconnectedError):
        return "the connection was closed before the whole answer came"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return redact(str(problem)) or type(problem).__name__
