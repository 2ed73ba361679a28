"""The calls of the control plane's protocol, over one HTTP session for a process's life.

Every foreign exception is translated here, once; nothing of a request, which holds the token, goes along.
"""

from __future__ import annotations

import json
import ssl
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from yarl import URL

from agent_reporter.errors import ConfigurationError, TransportError
from agent_reporter.logs import redact
from agent_reporter.model.verdict import Answer
from agent_reporter.version import __version__

if TYPE_CHECKING:
    from types import TracebackType

    from agent_reporter.control_plane.sign_in import SignIn
    from agent_reporter.model.patch import Operations
    from agent_reporter.settings import Settings

MAX_BODY = 1024 * 1024
"""No more of an answer is read: one document of the API is at most 1 MB."""
JSON_PATCH = "application/json-patch+json"
KEEP_ALIVE_SECONDS = 15.0
"""Shorter than servers keep a connection, so that a patch rarely meets one that is just being closed."""
DNS_CACHE_SECONDS = 60


class HttpSession:
    """An aiohttp session that follows nothing, trusts no environment and reads bounded bodies."""

    def __init__(self, settings: Settings) -> None:
        self._timeout = aiohttp.ClientTimeout(total=settings.request_timeout)
        self._tls = _tls(settings)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the session; it belongs to the running loop."""
        self._session = aiohttp.ClientSession(
            timeout=self._timeout,
            trust_env=False,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"agent-reporter/{__version__}", "Accept-Encoding": "identity"},
            connector=aiohttp.TCPConnector(
                limit=0,  # deliveries take turns; a look for stop requests never waits for them
                keepalive_timeout=KEEP_ALIVE_SECONDS,
                ttl_dns_cache=DNS_CACHE_SECONDS,
                ssl=self._tls,
            ),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self, method: str, url: URL, *, headers: dict[str, str] | None = None, body: object = None
    ) -> Answer:
        """One request and its answer; raises TransportError, never anything of aiohttp's."""
        if self._session is None:
            raise RuntimeError("the session is not open")
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        where = f"{method} {url.scheme}://{url.host}:{url.port}{url.path}"
        try:
            async with self._session.request(
                method, url, headers=headers, data=data, allow_redirects=False
            ) as response:
                return Answer(
                    status=response.status,
                    body=await _read_bounded(response),
                    retry_after=response.headers.get("Retry-After"),
                )
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            failure = self._translate(where, problem)
        # Raised out here, so that it does not hold on to the request, and the token in it, as its context.
        raise failure

    def _translate(self, where: str, problem: Exception) -> TransportError:
        if isinstance(problem, aiohttp.ClientConnectorError):
            return TransportError(f"{where}: no connection: {_words(problem)}", uncertain=False)
        if isinstance(problem, TimeoutError):
            return TransportError(f"{where}: no answer within {self._timeout.total:g} s", uncertain=True)
        return TransportError(f"{where}: {_words(problem)}", uncertain=True)


class ControlPlane:
    """The calls for one project; each signs in when it has to."""

    def __init__(self, settings: Settings, http: HttpSession, sign_in: SignIn) -> None:
        self.destination = settings.destination
        self.agent_id = settings.agent_id
        self._http = http
        self._sign_in = sign_in
        self._project = URL(settings.endpoint) / "v2" / settings.project_id

    async def read_restore(self, restore_id: str) -> Answer:
        """GET the restore: 200 and its document."""
        return await self._call("GET", self._project / "restores" / restore_id)

    async def update_restore(self, restore_id: str, operations: Operations) -> Answer:
        """PATCH the restore with JSON Patch operations: 204."""
        return await self._call("PATCH", self._project / "restores" / restore_id, operations, JSON_PATCH)

    async def restore_events(self, restore_id: str, marker: str | None) -> Answer:
        """GET the events of one restore that are newer than `marker`, the oldest first."""
        return await self._events(self._project / "restores" / restore_id / "events", marker)

    async def agent_events(self, marker: str | None) -> Answer:
        """GET the events of everything of this agent that are newer than `marker`, the oldest first."""
        return await self._events(self._project / "agents" / str(self.agent_id) / "events", marker)

    async def sign_in_source(self) -> str:
        """Where the token comes from, after getting one; raises SignInError."""
        await self._sign_in.token()
        return self._sign_in.source_name

    async def renew_token(self, answer: Answer) -> None:
        """After a 401: get a new token, unless another call has got one since; raises SignInError."""
        await self._sign_in.renew(answer.signed_with)

    async def _events(self, url: URL, marker: str | None) -> Answer:
        query = {"sort_dir": "asc", "limit": "100"} | ({} if marker is None else {"marker": marker})
        return await self._call("GET", url.with_query(query))

    async def _call(
        self, method: str, url: URL, body: object = None, content_type: str | None = None
    ) -> Answer:
        token = await self._sign_in.token()
        headers = {"X-Auth-Token": token.value, "Accept": "application/json"}
        if self.agent_id is not None:
            headers["X-Agent-Id"] = self.agent_id
        if content_type is not None:
            headers["Content-Type"] = content_type
        answer = await self._http.request(method, url, headers=headers, body=body)
        # An answer may quote what it was asked with; what is said of it is kept and shown.
        body = answer.body.replace(token.value.encode(), b"[concealed]")
        return Answer(answer.status, body, answer.retry_after, token.generation)


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return b""
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > MAX_BODY:
            response.close()
            return b""
        chunks.append(chunk)
    return b"".join(chunks)


def _tls(settings: Settings) -> ssl.SSLContext | bool:
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as problem:
        raise ConfigurationError(f"ca_file: {settings.ca_file} cannot be used: {problem}") from problem


def _words(problem: Any) -> str:
    """What aiohttp or the system says, without the request that some of its exceptions carry."""
    if isinstance(problem, aiohttp.ClientResponseError):
        return redact(f"no valid HTTP: {problem.message}")
    if isinstance(problem, aiohttp.ServerDisconnectedError):
        return "the connection was closed before the whole answer came"
    if isinstance(problem, OSError) and problem.strerror:
        return problem.strerror
    return redact(str(problem)) or type(problem).__name__
