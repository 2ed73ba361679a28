"""The calls of the control plane's protocol for one project; each is signed in when it has to be.

The daemon of this host answers the same calls on its socket: `is_daemon` is what differs then.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from yarl import URL

from agent_reporter.errors import MalformedError
from agent_reporter.model.documents import parse_object
from agent_reporter.model.verdict import Answer

if TYPE_CHECKING:
    from agent_reporter.control_plane.http import HttpSession
    from agent_reporter.control_plane.sign_in import SignIn
    from agent_reporter.model.client import Facts
    from agent_reporter.model.patch import Operations
    from agent_reporter.settings import Settings

JSON_PATCH = "application/json-patch+json"
DAEMON_URL = "http://localhost"
"""The host in requests over the daemon's socket, where no name is looked up."""
SELF = "self"
"""The agent in a path to the daemon: whoever runs it, it serves one."""
EVENTS_WAIT = 20
"""Seconds that the daemon holds a look for events until there is one."""


class ControlPlane:
    """The calls for one project; each signs in when it has to.

    Without a `sign_in` it is the daemon of this host, which knows its callers by their socket.
    """

    def __init__(self, settings: Settings, http: HttpSession, sign_in: SignIn | None) -> None:
        self.is_daemon = sign_in is None
        self.agent_id = SELF if sign_in is None else settings.agent_id
        self.events_wait = EVENTS_WAIT if sign_in is None else 0
        """Seconds that a look for events takes beyond an ordinary request."""
        self.sign_in = sign_in
        self._http = http
        base = URL(DAEMON_URL if sign_in is None else settings.endpoint)
        self._project = base / "v2" / settings.project_id
        self._restores = self._project / "restores"

    @property
    def waits_for_events(self) -> bool:
        """Whether a look for events returns when there is one, so that the next look can follow at once."""
        return self.events_wait > 0

    async def read_restore(self, restore_id: str) -> Answer:
        """GET the restore: 200 and its document."""
        return await self._call("GET", self._restores / restore_id)

    async def update_restore(
        self, restore_id: str, operations: Operations, facts: Facts | None = None
    ) -> Answer:
        """PATCH the restore with JSON Patch operations: 204. `facts` are for the daemon."""
        return await self._call(
            "PATCH",
            self._restores / restore_id,
            operations,
            {"Content-Type": JSON_PATCH, **(_headers(facts) if facts and self.is_daemon else {})},
        )

    async def list_restores(self) -> Answer:
        """GET every restore that the daemon has: 200. No call of the control plane's."""
        return await self._call("GET", self._project / "restores")

    async def restore_events(self, restore_id: str, marker: str | None) -> Answer:
        """GET the events of one restore that are newer than `marker`, the oldest first."""
        return await self._events(self._restores / restore_id / "events", marker)

    async def agent_events(self, marker: str | None) -> Answer:
        """GET the events of everything of this agent that are newer than `marker`, the oldest first."""
        return await self._events(self._project / "agents" / str(self.agent_id) / "events", marker)

    async def announce(self, event: str) -> Answer:
        """POST that this agent is there (`startup`) or leaves (`shutdown`): 202."""
        url = self._project / "agents" / str(self.agent_id) / "events"
        return await self._call("POST", url, {"event": event}, {"Content-Type": "application/json"})

    async def sign_in_source(self) -> str:
        """Where the token comes from, after getting one; raises SignInError."""
        if self.sign_in is None:
            return "the daemon of this host"
        await self.sign_in.token()
        return self.sign_in.source_name

    async def renew_token(self, answer: Answer) -> None:
        """After a 401: get a new token, unless another call has got one since; raises SignInError."""
        if self.sign_in is not None:
            await self.sign_in.renew(answer.signed_with)

    async def _events(self, url: URL, marker: str | None) -> Answer:
        query = {"sort_dir": "asc", "limit": "100"}
        if self.events_wait:
            query["wait"] = str(self.events_wait)
        if marker is not None:
            query["marker"] = marker
        return await self._call("GET", url.with_query(query), more_seconds=self.events_wait)

    async def _call(
        self,
        method: str,
        url: URL,
        body: object = None,
        headers: dict[str, str] | None = None,
        more_seconds: float = 0.0,
    ) -> Answer:
        headers = {"Accept": "application/json", **(headers or {})}
        if self.sign_in is None:
            return await self._http.request(
                method, url, headers=headers, body=body, more_seconds=more_seconds
            )
        token = await self.sign_in.token()
        headers["X-Auth-Token"] = token.value
        if self.agent_id is not None:
            headers["X-Agent-Id"] = self.agent_id
        answer = await self._http.request(method, url, headers=headers, body=body)
        # Also what is asked for may quote what it was asked with, and something of it be shown.
        said = answer.body and _plain(answer.body).replace(token.value.encode(), b"[concealed]")
        return Answer(answer.status, said, answer.retry_after, token.generation)


def _plain(body: bytes) -> bytes:
    """JSON without the escapes behind which a token is not found."""
    if b"\\" not in body:
        return body
    try:
        return json.dumps(parse_object(body), ensure_ascii=False).encode(errors="surrogatepass")
    except MalformedError:
        return body


def _headers(facts: Facts) -> dict[str, str]:
    known = {
        "X-Engine-Pid": ", ".join(map(str, facts.pids)) or None,
        "X-Total-Bytes": facts.total_bytes,
        "X-Total-Files": facts.total_files,
    }
    return {name: str(value) for name, value in known.items() if value is not None}
