"""The server: routes, the path of a request through them, and a handle for tests.

A request goes `wire.read_call` -> the fault it meets -> an operation of the `Judge` -> the history ->
`wire.write`. Everything between reading and writing is one plain function and one transaction, so a request
is done and remembered, or neither.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from aiohttp import web

from agent_reporter.reference import checks, restores, wire
from agent_reporter.reference.accounts import Accounts, Gate, TokenFile, load_accounts
from agent_reporter.reference.exchange import (
    MAX_BODY_BYTES,
    NO_CONTENT,
    Answer,
    Call,
    RefusedError,
    json_answer,
    refusal,
)
from agent_reporter.reference.faults import FaultQueue
from agent_reporter.reference.judge import Judge, Rules, change_state
from agent_reporter.reference.patches import Spelling, State
from agent_reporter.reference.store import Store

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from agent_reporter.reference.faults import Fault
    from agent_reporter.reference.restores import Restore
    from agent_reporter.reference.wire import Pause

    Operation = Callable[[Call], Answer]
    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

DEFAULT_EVENT_LIFETIME: Final = 60.0
DEFAULT_TOKEN_LIFETIME: Final = 24 * 60 * 60.0
PROJECT: Final = "110011"
AGENT: Final = "8f135b4f-7a69-4b8a-947f-5e80d772fd97"
"""The project and the agent of the restores that a test starts without naming any."""

_SHUTDOWN_SECONDS: Final = 1.0
_logger = logging.getLogger(__name__)


class Desk:
    """Where requests come in: meets each with its fault, has it done, and remembers it."""

    def __init__(self, store: Store, faults: FaultQueue, pause: Pause) -> None:
        self._store = store
        self._faults = faults
        self._pause = pause
        self.answered = asyncio.Event()
        """Set whenever a request was done, for those who wait for something to have changed."""

    def handler(self, operation: Operation) -> Handler:
        """A handler of the server library that has requests done by `operation`."""

        async def handle(request: web.Request) -> web.StreamResponse:
            call = await wire.read_call(request)
            answer, fault = self.serve(call, operation)
            return await wire.write(request, answer, fault, self._pause)

        return handle

    def serve(self, call: Call, operation: Operation) -> tuple[Answer, Fault | None]:
        """The answer to a request, and the fault that it meets on its way back."""
        fault = self._faults.take(call)
        try:
            with self._store.transaction():
                answer = self._remembered(call, operation, fault)
        except Exception:
            _logger.exception("%s %s failed", call.method, call.path)
            answer = refusal(RefusedError(500, "The reference control plane has a bug: see its log."))
            self._record(call, answer, fault, applied=False)
        self.answered.set()
        return answer, fault

    def _remembered(self, call: Call, operation: Operation, fault: Fault | None) -> Answer:
        applied = False
        answer = fault.canned if fault else None
        if fault is None or fault.kind.applies:
            done = _attempt(call, operation)
            applied, answer = done.is_success, answer or done
        answer = answer or NO_CONTENT  # Of a dropped request: never written.
        self._record(call, answer, fault, applied=applied)
        return answer

    def _record(self, call: Call, answer: Answer, fault: Fault | None, *, applied: bool) -> None:
        status = answer.status if fault is None or fault.kind.answers else None
        self._store.record(call, answer=status, applied=applied, fault=fault.kind.value if fault else None)


class FaultRoutes:
    """The way to faults and history from outside: of this machine only, and without a token."""

    def __init__(self, faults: FaultQueue, store: Store) -> None:
        self._faults = faults
        self._store = store

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Open the way."""
        router.add_get("/faults", self._handler(self._left), allow_head=False)
        router.add_post("/faults", self._handler(self._add))
        router.add_delete("/faults", self._handler(self._clear))
        router.add_get("/faults/history", self._handler(self._history), allow_head=False)

    def _handler(self, operation: Operation) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            if not is_loopback(request.remote):
                problem = RefusedError(403, "Faults are for this machine only.")
                return wire.response(refusal(problem))
            return wire.response(_attempt(await wire.read_call(request), operation))

        return handle

    def _left(self, _call: Call) -> Answer:
        return json_answer(200, self._faults.documents())

    def _add(self, call: Call) -> Answer:
        self._faults.add(checks.read_json(call.whole_body()))
        return json_answer(201, self._faults.documents())

    def _clear(self, _call: Call) -> Answer:
        self._faults.clear()
        return NO_CONTENT

    def _history(self, call: Call) -> Answer:
        return json_answer(200, self._store.history(call.query.get("restore_id")))


def create_app(judge: Judge, desk: Desk, fault_routes: FaultRoutes | None = None) -> web.Application:
    """The application with every route of the API, and that to the faults if there is one."""
    app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_json_refusals(desk)])
    restore, agent = "/v2/{project_id}/restores/{restore_id}", "/v2/{project_id}/agents"
    for method, path, operation in (
        ("POST", "/v2/{project_id}/restores", judge.start_restore),
        ("GET", restore, judge.read_restore),
        ("PATCH", restore, judge.update_restore),
        ("GET", f"{restore}/errors", judge.read_errors),
        ("GET", f"{restore}/events", judge.restore_events),
        ("GET", f"{agent}/{{agent_id}}/events", judge.agent_events),
        ("POST", f"{agent}/{{agent_id}}/events", judge.note_presence),
        ("POST", f"{agent}/tokens", judge.sign_in_agent),
        ("POST", "/v2.0/tokens", judge.sign_in_user),
    ):
        app.router.add_route(method, path, desk.handler(operation))
    if fault_routes is not None:
        fault_routes.add_to(app.router)
    return app


class ReferenceServer:
    """A reference control plane on a real socket, to be used as `async with ReferenceServer(...) as server`.

    `data_dir` keeps everything over restarts. `token` and `token_file` each give a token that is valid in
    every project. `strict` and `spelling` say how patches are read. Lifetimes are in seconds. `faults` opens
    the way to the faults over HTTP; `add_fault` works without. Port 0 is a free port, which is then kept
    for as long as this object lives: `stop` and `start` are a restart. `now` gives seconds since the epoch,
    and `pause` waits for seconds: tests put in their own.

    The methods below look at the store, or change it, at once: call them from the thread of the loop.
    """

    def __init__(
        self,
        data_dir: Path | str,
        *,
        token: str = "",
        token_file: Path | None = None,
        accounts: Accounts | None = None,
        strict: bool = False,
        spelling: Spelling | str = Spelling.BOTH,
        event_lifetime: float = DEFAULT_EVENT_LIFETIME,
        token_lifetime: float = DEFAULT_TOKEN_LIFETIME,
        faults: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        now: Callable[[], float] = time.time,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._data_dir = Path(data_dir)
        self._fixed_token = TokenFile(token_file) if token_file is not None else lambda: token
        self._accounts = accounts or Accounts()
        self._rules = Rules(Spelling(spelling), strict)
        self._event_lifetime = event_lifetime
        self._token_lifetime = token_lifetime
        self._opens_faults = faults
        self._now = now
        self._pause = pause
        self._runner: web.AppRunner | None = None
        self._judge: Judge
        self._desk: Desk
        self.store: Store
        self.host = host
        self.port = port
        self.faults = FaultQueue(now)

    @property
    def url(self) -> str:
        """Where the server listens, such as `http://127.0.0.1:8080`; the API's paths follow after it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self) -> None:
        """Open the store and listen; raises OSError if that is not possible, ValueError for bad accounts."""
        self.store = Store(self._data_dir, now=self._now, event_lifetime=self._event_lifetime)
        try:
            self._runner = web.AppRunner(
                self._assemble(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS
            )
            await self._runner.setup()
            await web.TCPSite(self._runner, self.host, self.port).start()
        except BaseException:
            await self.stop()
            raise
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Close every connection and the store. What is being answered has a second to end."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.store.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    def start_restore(
        self,
        *,
        restore_id: str | None = None,
        project_id: str = PROJECT,
        agent_id: str = AGENT,
        total_bytes: int | None = None,
        state: State | str | None = None,
    ) -> str:
        """Start a restore and return its id. It is `start_requested`, or at once in `state`."""
        request = restores.Request(backup_id="1e6a5e2d-6c1f-4ac1-9a39-0b4e6d1f9a3c", agent_id=agent_id)
        with self.store.transaction():
            restore = self._judge.begin(project_id, request, restore_id=restore_id, total_bytes=total_bytes)
            if state is not None:
                self._judge.change(restore, change_state(State(state)))
        return restore.id

    def request_stop(self, restore_id: str) -> None:
        """Ask for a restore to be stopped, as a user would; raises RefusedError if it has ended."""
        with self.store.transaction():
            self._judge.change(self._restore(restore_id), change_state(State.STOP_REQUESTED))

    def document(self, restore_id: str) -> dict[str, Any]:
        """The restore as "Read a restore" shows it; raises KeyError if there is none."""
        return restores.document(self._restore(restore_id), self.url)

    def errors(self, restore_id: str) -> dict[str, Any]:
        """The errors of the restore with the list of them; raises KeyError if there is no such restore."""
        return restores.errors_document(self._restore(restore_id), self.url)

    def erased_stops(self, restore_id: str) -> int:
        """How many standing stop requests were overwritten by a patch with another, unfinished state."""
        return self._restore(restore_id).erased_stops

    def history(self, restore_id: str | None = None) -> list[dict[str, Any]]:
        """Every request that arrived, or every one about a restore, in order: see `Store.history`."""
        return self.store.history(restore_id)

    def presence(self, agent_id: str = AGENT, project_id: str = PROJECT) -> str | None:
        """What the agent said last: `startup`, `shutdown`, or None."""
        return self.store.presence(project_id, agent_id)

    def add_fault(
        self,
        answer: str | dict[str, Any],
        *,
        times: int = 1,
        for_seconds: float | None = None,
        **match: str,
    ) -> None:
        """Append a fault: `answer` and the members of `match` are as the module `faults` describes them."""
        lasting = {"times": times} if for_seconds is None else {"for_seconds": for_seconds}
        self.faults.add([{"match": match, "answer": answer, **lasting}])

    async def wait_until(self, is_so: Callable[[], bool], *, within: float = 10.0) -> None:
        """Wait until requests have made something so; raises TimeoutError after `within` seconds."""
        async with asyncio.timeout(within):
            while not is_so():
                self._desk.answered.clear()
                await self._desk.answered.wait()

    def _assemble(self) -> web.Application:
        accounts = self._accounts + load_accounts(self._data_dir)
        gate = Gate(
            self.store, accounts, self._fixed_token, now=self._now, token_lifetime=self._token_lifetime
        )
        self._judge = Judge(self.store, gate, self._rules)
        self._desk = Desk(self.store, self.faults, self._pause)
        fault_routes = FaultRoutes(self.faults, self.store) if self._opens_faults else None
        return create_app(self._judge, self._desk, fault_routes)

    def _restore(self, restore_id: str) -> Restore:
        project_id = self.store.project_of(restore_id)
        restore = None if project_id is None else self.store.restore(project_id, restore_id)
        if restore is None:
            raise KeyError(restore_id)
        return restore


def is_loopback(address: str | None) -> bool:
    """Whether a peer's address is one of this machine's own; no address at all is not."""
    try:
        ip = ipaddress.ip_address(address or "")
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped.is_loopback
    return ip.is_loopback


def _attempt(call: Call, operation: Operation) -> Answer:
    try:
        return operation(call)
    except RefusedError as problem:
        return refusal(problem)


def _json_refusals(desk: Desk) -> Any:
    """What the server library refuses by itself, unknown paths and methods, is answered as the rest is."""

    @web.middleware
    async def refuse(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as problem:
            error = RefusedError(problem.status, f"{request.method} {request.path}: {problem.reason}.")
            allow = {"Allow": problem.headers["Allow"]} if "Allow" in problem.headers else {}

            def operation(_call: Call) -> Answer:
                answer = refusal(error)
                return Answer(answer.status, {**answer.headers, **allow}, answer.body)

            return await desk.handler(operation)(request)

    return refuse
