"""The local API: the control plane's own paths and bodies, on a Unix socket.

A request goes `handle` -> who asks, and how often -> the route's operation -> the registry -> an answer.
Every refusal is the protocol's fault document.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPMethod
from math import ceil
from typing import TYPE_CHECKING, Any

from aiohttp import web

from agent_reporter.control_plane.connection import ENDPOINT_HEADER
from agent_reporter.daemon.documents import READ_FIELDS, errors_document, restore_document
from agent_reporter.daemon.door import KEEP_ALIVE_SECONDS, Door
from agent_reporter.daemon.events import ENDS
from agent_reporter.daemon.patches import read_patch
from agent_reporter.daemon.peers import MAX_WAIT, Rates
from agent_reporter.daemon.reading import number, read_body, read_facts
from agent_reporter.daemon.refusals import RefusedError
from agent_reporter.errors import AgentReporterError
from agent_reporter.logs import get_logger
from agent_reporter.model.documents import count_of, object_of
from agent_reporter.model.restore_id import is_restore_id
from agent_reporter.model.state import RestoreState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent_reporter.daemon.events import Event, Events
    from agent_reporter.daemon.peers import Peer
    from agent_reporter.daemon.registry import Local, Registry
    from agent_reporter.means import Means
    from agent_reporter.model.amendment import Amendment

MAX_EVENTS_WAIT = 3_600.0
"""Seconds that a look for events waits at most."""
MAX_PAGE = 1_000
LOOK_UPS_AT_ONCE = 4
LOOK_UP_SECONDS = 1.5
"""What the control plane gets to tell of a restore that is not known here."""
PATCHES_AT_ONCE = 16
"""Patches that are taken together; further ones wait. One sync makes them all durable, and between them the
deliveries have their turns, however many engines call."""
ANSWERS_AT_ONCE = 8
"""Answers that are made and sent to one user together: each may be a megabyte, and its reader slow."""
ANSWER_SECONDS = 10.0
"""An answer that may be large is read within so long."""

_SERVER: dict[str, Any] = {
    "access_log": None,
    "auto_decompress": False,
    "keepalive_timeout": KEEP_ALIVE_SECONDS,
    "lingering_time": 1.0,
    "tcp_keepalive": False,
}
"""How aiohttp serves. What is left of a body that nobody wants is read for a second at most; no body is
unpacked, as the protocol knows none that is packed."""

_PATH = re.compile(r"/v2/(?P<project>[^/]+)/(?P<kind>restores|agents)(?:/(?P<id>[^/]+))?(?:/(?P<part>\w+))?")
_JSON = {"Content-Type": "application/json; charset=utf-8"}
_log = get_logger()


class _Handler(web.RequestHandler):
    """Answers what is no HTTP as everything else is refused, and without a line in the log for each."""

    def handle_error(
        self,
        request: web.BaseRequest,  # noqa: ARG002 - there is none that could be read
        status: int = 500,
        exc: BaseException | None = None,  # noqa: ARG002 - what it says is in the message
        message: str | None = None,
    ) -> web.StreamResponse:
        """The fault document."""
        return _refusal(RefusedError(status, message or "This is no HTTP request.", closes=True))


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Handler(self, loop=self._loop, **self._kwargs)


@dataclass(frozen=True, slots=True)
class Call:
    """One request: who asks, and for what."""

    request: web.BaseRequest
    peer: Peer
    id: str


class Api:
    """Answers requests that come in through its door."""

    def __init__(self, means: Means, registry: Registry, events: Events, max_connections: int) -> None:
        self.server = _Server(self.handle, **_SERVER)
        self.door = Door(self.server, max_connections)
        """Where connections come in."""
        self.rates = Rates(means.settings.peer_rate, means.clock.monotonic)
        self._means = means
        self._registry = registry
        self._events = events
        self._answers: defaultdict[int, asyncio.Semaphore] = defaultdict(
            partial(asyncio.Semaphore, ANSWERS_AT_ONCE)
        )
        self._look_ups = asyncio.Semaphore(LOOK_UPS_AT_ONCE)
        self._at_once = asyncio.Semaphore(PATCHES_AT_ONCE)
        self._routes: dict[tuple[str, str, str], Callable[[Call], Awaitable[web.Response]]] = {
            ("PATCH", "restores", "one"): self._update,
            ("GET", "restores", "one"): self._read,
            ("GET", "restores", "all"): self._list,
            ("GET", "restores", "errors"): self._read_errors,
            ("GET", "restores", "events"): self._restore_events,
            ("GET", "agents", "events"): self._agent_events,
            ("POST", "agents", "events"): self._take_note,
        }

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        with self.door.busy(request.transport) as peer:
            if peer is None:
                raise ConnectionResetError("the client has left")
            try:
                return await self._answer(request, peer)
            except RefusedError as problem:
                return _refusal(problem)
            except (ConnectionError, asyncio.CancelledError):
                raise
            except Exception:  # noqa: BLE001 - a bug of ours is answered, and the other restores go on
                _log.exception("api.failed", method=request.method, path=request.path[:200])
                return _refusal(RefusedError(500, "The daemon has a bug: its log says which."))

    async def _answer(self, request: web.BaseRequest, peer: Peer) -> web.Response:
        seconds = self.rates.take(peer.uid)
        if seconds > MAX_WAIT:
            sentence = "This user asks more often than the daemon allows (peer_rate)."
            raise RefusedError(503, sentence, retry_after=ceil(seconds))
        if seconds > 0:
            await self._means.clock.sleep(seconds)
        match = _PATH.fullmatch(request.path)
        if match is None:
            raise RefusedError(404, f"There is nothing at {request.path[:200]}.")
        project = self._means.settings.project_id
        if match["project"] != project:
            raise RefusedError(404, f"This daemon reports for project {project}.")
        part = match["part"] or ("one" if match["id"] else "all")
        operation = self._routes.get((request.method, match["kind"], part))
        if operation is None:
            raise self._not_served(match["kind"], part, request)
        return await operation(Call(request, peer, match["id"] or ""))

    def _not_served(self, kind: str, part: str, request: web.BaseRequest) -> RefusedError:
        if any((method.value, kind, part) in self._routes for method in HTTPMethod):
            return RefusedError(405, f"{request.method} is not for {request.path[:200]}.")
        return RefusedError(404, f"There is nothing at {request.path[:200]}.")

    # --- operations ---------------------------------------------------------------------------------------

    async def _update(self, call: Call) -> web.Response:
        body = await read_body(call.request)
        async with self._at_once:
            await self._take(call, read_patch(body))
        return web.Response(status=204)

    async def _take(self, call: Call, amendment: Amendment) -> None:
        if amendment.state is RestoreState.STOP_REQUESTED:
            await self._registry.ask_stop(call.id, call.peer)
        else:
            facts = read_facts(call.request)
            if facts.total_bytes is not None or facts.total_files is not None:
                amendment = replace(amendment, total_bytes=facts.total_bytes, total_files=facts.total_files)
            await self._registry.amend(call.id, call.peer, amendment, facts)

    async def _read(self, call: Call) -> web.Response:
        if self._registry.find(call.id) is None:
            return _answer(await self._look_up(call.id))
        local = self._own(call)
        with self._registry.listening(call.id, call.peer):
            return _answer(restore_document(local, self._means.settings.project_id))

    async def _list(self, call: Call) -> web.Response:
        project = self._means.settings.project_id

        def document() -> dict[str, Any]:
            mine = [local for local in self._registry.all() if _may_see(call.peer, local)]
            return {"restores": [restore_document(local, project) for local in mine]}

        return await self._send(call, document)

    async def _read_errors(self, call: Call) -> web.Response:
        return await self._send(call, partial(errors_document, self._own(call)))

    async def _restore_events(self, call: Call) -> web.Response:
        local = self._own(call)

        def wanted(event: Event) -> bool:
            return event.restore_id == call.id

        return await self._page(call, wanted, local if local.restore.end_is_told else None)

    async def _agent_events(self, call: Call) -> web.Response:
        def wanted(event: Event) -> bool:
            return call.peer.may_act_for(event.uid)

        return await self._page(call, wanted)

    async def _page(
        self, call: Call, wanted: Callable[[Event], bool], ended: Local | None = None
    ) -> web.Response:
        """A page of events. Of a restore that has `ended` nothing more is waited for, and its end is told."""
        query = call.request.query
        limit = int(number(query.get("limit", "100"), "limit", 1, MAX_PAGE))
        seconds = number(query.get("wait", "0"), "wait", 0, MAX_EVENTS_WAIT)
        order = query.get("sort_dir", "asc")
        if order not in {"asc", "desc"}:
            raise RefusedError(400, "sort_dir has to be asc or desc.")
        with self._registry.listening(call.id, call.peer), self.door.waiting(call.request.transport):
            found = await self._events.wait(
                query.get("marker"),
                wanted,
                limit,
                seconds if ended is None else 0.0,
                descends=order == "desc",
            )
        if ended is not None and not found and "marker" not in query:
            restore = ended.restore
            kind = ENDS[restore.report.state]
            found = [self._events.past(kind, restore.restore_id, restore.client.uid)]
        agent_id = self._means.settings.agent_id

        def document() -> dict[str, Any]:
            return {"events": [self._events.document(event, agent_id) for event in found], "links": []}

        return await self._send(call, document)

    async def _take_note(self, call: Call) -> web.Response:
        """Engines may come and go as agents do; the daemon speaks for them all."""
        await read_body(call.request)
        return web.Response(status=202)

    # --- inside -------------------------------------------------------------------------------------------

    async def _send(self, call: Call, document: Callable[[], dict[str, Any]]) -> web.Response:
        """Answer with what may be large: it is made once there is room for it, and has to be read in time."""
        transport, turns = call.request.transport, self._answers[call.peer.uid]
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                with self.door.waiting(transport):
                    await turns.acquire()
        except TimeoutError:
            sentence = "Too many answers to this user wait to be read."
            raise RefusedError(503, sentence, retry_after=ceil(ANSWER_SECONDS)) from None
        try:
            answer = _answer(document())
            answer.headers[ENDPOINT_HEADER] = self._means.settings.endpoint
            async with asyncio.timeout(ANSWER_SECONDS):
                await answer.prepare(call.request)
                await answer.write_eof()
        except TimeoutError:
            if transport is not None:
                transport.abort()
            raise ConnectionResetError("the client does not read its answer") from None
        finally:
            turns.release()
        return answer

    def _own(self, call: Call) -> Local:
        local = self._registry.find(call.id)
        if local is None:
            raise RefusedError(404, f"Restore {call.id} is not reported to this daemon.")
        if not _may_see(call.peer, local):
            raise RefusedError(403, f"Restore {call.id} is another user's.")
        return local

    async def _look_up(self, restore_id: str) -> dict[str, Any]:
        """What the control plane knows of a restore that nobody has reported here yet."""
        if not is_restore_id(restore_id):
            raise RefusedError(404, f"{restore_id[:200]!r} is no restore id.")
        try:
            async with asyncio.timeout(LOOK_UP_SECONDS), self._look_ups:
                answer = await self._means.control_plane.read_restore(restore_id)
            document = answer.document() if answer.status == 200 else {}
            count = count_of(object_of(document, "errors"), "count")
        except (AgentReporterError, TimeoutError):
            document, count = {}, 0
        if "state" not in document:
            raise RefusedError(404, f"Restore {restore_id} is not reported to this daemon.")
        known = {name: document[name] for name in READ_FIELDS if name in document}
        return {**known, "errors": {"count": count, "reason": "", "diagnostics": ""}}


def _may_see(peer: Peer, local: Local) -> bool:
    return peer.may_act_for(local.restore.client.uid)


def _answer(document: object) -> web.Response:
    return web.Response(body=json.dumps(document).encode(), headers=_JSON)


def _refusal(problem: RefusedError) -> web.Response:
    headers = dict(_JSON)
    if problem.retry_after is not None:
        headers["Retry-After"] = str(problem.retry_after)
    answer = web.Response(status=problem.status, body=problem.body(), headers=headers)
    if problem.closes:
        answer.force_close()
    return answer
