"""The calls of the control plane's protocol for one project; each is signed in when it has to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yarl import URL

from agent_reporter.model.verdict import Answer

if TYPE_CHECKING:
    from agent_reporter.control_plane.http import HttpSession
    from agent_reporter.control_plane.sign_in import SignIn
    from agent_reporter.model.patch import Operations
    from agent_reporter.settings import Settings

JSON_PATCH = "application/json-patch+json"


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
