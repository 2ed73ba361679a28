"""The way to the control plane: what stands where the client has an aiohttp session.

A request that was sent goes on without its sender: it is carried out when it arrives, though the process
was killed meanwhile, or gave it up.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp

from agent_reporter.reference.exchange import Answer, Call
from agent_reporter.reference.patches import PATHS, Field, Spelling
from tests.simulation.control_plane import ORIGIN
from tests.simulation.loop import PROCESS, Killed
from tests.simulation.plan import FINALS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.simulation.ledger import Ledger
    from tests.simulation.loop import Process
    from tests.simulation.plan import NetFault
    from tests.simulation.world import World

FIELDS = PATHS[Spelling.BOTH]
REFUSAL = b'{"message": "Something is wrong.", "errors": ["It is."]}'
HUGE = b'{"message": "' + b"x" * (1024 * 1024) + b'"}'
"""More than a client reads."""


@dataclass
class Request:
    """One request, as it was sent and what became of it."""

    number: int
    process: Process
    task: str
    """The name of the task that sent it, by which a delivery's is told from a look for a stop."""
    kind: str
    """`patch`, `read`, `events` or `sign_in`."""
    restore_id: str
    at: float
    seconds: float
    changes: dict[Field, Any] = field(default_factory=dict)
    fault: NetFault | None = None
    status: int | None = None
    """What the sender was answered; None if nothing, or nothing yet."""
    body: bytes = b""
    """What of the answer's body reached the sender."""
    refused: bool = False
    """It never got there."""
    retry_after: float = 0.0
    """What the answer asked for, in seconds, as far as it can be read."""
    stop_known: bool = False
    """The job it is about knew of a stop when it was sent."""
    given_up: bool = False
    """The sender waits no more."""

    @property
    def is_of_delivery(self) -> bool:
        return self.task.startswith("deliver ")

    @property
    def state(self) -> str | None:
        return self.changes.get(Field.STATE)

    @property
    def is_final(self) -> bool:
        return self.state in FINALS


class Network:
    """Carries requests, and spoils them as the plan says."""

    def __init__(self, world: World) -> None:
        self.faults: list[NetFault] = []
        """Those of this moment."""
        self.after_read: dict[str, Callable[[], object]] = {}
        """Called once, when a read of that restore was answered: what comes between a read and a patch."""
        self.control_plane = world.control_plane
        self.ledger = world.ledger
        self._loop = world.loop
        self._random = world.random
        self._host_time = world.host_time
        self._world = contextvars.copy_context()
        self._number = 0
        self._hits: Counter[int] = Counter()

    async def carry(self, call: Call, seconds: float) -> Response:
        """Send a request, and wait for its answer as long as aiohttp would."""
        process = PROCESS.get()
        if process is None or not process.is_alive:
            raise Killed
        request = self._request(process, call, seconds)
        self.ledger.sent(request)
        answered = self._loop.create_future()
        Journey(self, request, call, answered).begin()
        timer = self._loop.call_later(seconds, _time_out, answered)
        try:
            response: Response = await answered
        except (aiohttp.ClientError, OSError) as problem:
            request.refused = isinstance(problem, aiohttp.ClientConnectorError)
            self.ledger.unanswered(request, type(problem).__name__)
            raise
        except asyncio.CancelledError:
            request.given_up = True
            self.ledger.unanswered(request, "given up")
            raise
        finally:
            timer.cancel()
        return response

    def _request(self, process: Process, call: Call, seconds: float) -> Request:
        parts = call.path.strip("/").split("/")
        task = asyncio.current_task()
        self._number += 1
        request = Request(
            number=self._number,
            process=process,
            task="" if task is None else task.get_name(),
            kind={"PATCH": "patch", "POST": "sign_in"}.get(call.method, "read"),
            restore_id=parts[3] if len(parts) > 3 and parts[2] == "restores" else "",
            at=self._loop.time(),
            seconds=seconds,
        )
        if parts[-1] == "events":
            request.kind = "events"
        if call.method == "PATCH":
            operations = json.loads(call.whole_body())
            request.changes = {FIELDS[each["path"]]: each["value"] for each in operations}
        request.fault = self._fault(request)
        return request

    def _fault(self, request: Request) -> NetFault | None:
        for fault in self.faults:
            if (
                self._hits[id(fault)] < fault.times
                and _concerns(fault.what, request)
                and (fault.chance >= 1 or self._random.random() < fault.chance)
            ):
                self._hits[id(fault)] += 1
                return fault
        return None

    def later(self, delay: float, call: Callable[..., object], *args: object) -> None:
        """Call it later, outside of all processes."""
        self._loop.call_later(delay, call, *args, context=self._world)

    def random(self) -> float:
        """A number from 0 up to 1."""
        return self._random.random()

    def retry_after(self, wanted: str) -> str:
        """The header as it is sent."""
        if wanted.startswith("date:"):
            moment = self._host_time() + timedelta(seconds=float(wanted[5:]))
            return format_datetime(moment.astimezone(UTC), usegmt=True)
        return wanted


class Journey:
    """A request on its way, and its answer on the way back; each kind of fault is a method."""

    def __init__(self, network: Network, request: Request, call: Call, answered: asyncio.Future[Any]) -> None:
        self._network = network
        self._request = request
        self._call = call
        self._answered = answered
        self._fault = request.fault
        self._there = 0.001 + network.random() * 0.02
        self._back = 0.001 + network.random() * 0.02

    def begin(self) -> None:
        """Set out."""
        kind = "whole" if self._fault is None else self._fault.kind
        getattr(self, f"_{kind}")()

    @property
    def _delay(self) -> float:
        return 0.0 if self._fault is None else self._fault.delay

    def _whole(self) -> None:
        self._network.later(self._there, lambda: self._return(self._carry_out()))

    def _refused(self) -> None:
        self._fail(self._there, _no_connection())

    def _lost(self) -> None:
        """Nothing happens until the sender gives up."""

    def _dropped(self) -> None:
        self._fail(self._there + self._delay, aiohttp.ServerDisconnectedError())

    def _answer_lost(self) -> None:
        self._network.later(self._there, self._carry_out)
        if self._delay < self._request.seconds:
            self._fail(self._there + self._delay, aiohttp.ServerDisconnectedError())

    def _late(self) -> None:
        self._network.later(self._there + max(1.0, self._delay), self._carry_out)
        self._fail(self._there, aiohttp.ServerDisconnectedError())

    def _twice(self) -> None:
        self._whole()
        self._network.later(self._there + max(1.0, self._delay), self._carry_out)

    def _slow(self) -> None:
        self._back += self._delay / 2
        self._there += self._delay / 2
        self._whole()

    def _cut(self) -> None:
        self._network.later(self._there, lambda: self._return(self._carry_out(), cut=True))

    def _status(self) -> None:
        self._network.later(self._there, lambda: self._return(self._spoilt()))

    def _carry_out(self) -> Answer:
        request, plane, ledger = self._request, self._network.control_plane, self._network.ledger
        before = plane.restore(request.restore_id) if request.kind == "patch" else None
        answer = plane.answer(self._call)
        if before is not None and answer.status == 204:
            ledger.applied(request, before, plane.restore(request.restore_id))
        ledger.arrived(request, answer.status)
        return answer

    def _spoilt(self) -> Answer:
        fault = self._fault
        assert fault is not None
        real = self._carry_out() if fault.applied else None
        headers = {}
        if fault.retry_after is not None:
            headers["Retry-After"] = self._network.retry_after(fault.retry_after)
        return Answer(fault.status, headers, _body(fault.body, real))

    def _return(self, answer: Answer, *, cut: bool = False) -> None:
        self._network.later(self._back, self._come_back, answer, cut)

    def _come_back(self, answer: Answer, cut: bool) -> None:  # noqa: FBT001 - called by a timer
        request = self._request
        if request.kind == "read" and request.is_of_delivery and answer.status == 200:
            self._network.after_read.pop(request.restore_id, _nothing)()
        if self._answered.done() or not request.process.is_alive:
            return
        if cut and not answer.body:
            self._answered.set_exception(aiohttp.ServerDisconnectedError())
            return
        body = answer.body[: len(answer.body) // 2] if cut else answer.body
        self._answered.set_result(Response(self._network.ledger, request, answer, body, cut=cut))

    def _fail(self, delay: float, problem: Exception) -> None:
        def fail() -> None:
            if not self._answered.done():
                self._answered.set_exception(problem)

        self._network.later(delay, fail)


class Response:
    """What the client reads of an answer."""

    def __init__(self, ledger: Ledger, request: Request, answer: Answer, body: bytes, *, cut: bool) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self.content = self
        self._ledger = ledger
        self._request = request
        self._body = body
        self._cut = cut
        self._is_over = False

    async def iter_any(self) -> AsyncIterator[bytes]:
        if self._body:
            yield self._body
        self._is_over = True
        if self._cut:
            self._ledger.unanswered(self._request, "cut")
            raise aiohttp.ClientPayloadError("Response payload is not completed")
        self._ledger.answered(self._request, self.status, self._body, self.headers.get("Retry-After"))

    def close(self) -> None:
        """Nothing more of it is wanted."""
        if self._is_over:
            return
        self._is_over = True
        self._ledger.answered(self._request, self.status, b"", self.headers.get("Retry-After"))


class Session:
    """Stands where the client opens an `aiohttp.ClientSession`."""

    network: Network

    def __init__(self, **_: object) -> None:
        self.is_open = True

    def request(
        self, method: str, url: Any, *, headers: Any, data: bytes | None, allow_redirects: bool, timeout: Any
    ) -> Exchange:
        assert self.is_open, "a request after the session was closed"
        assert not allow_redirects, "redirects are not followed"
        call = Call(method, url.path, {}, url.query, headers, data or b"", ORIGIN)
        return Exchange(self.network.carry(call, timeout.total))

    async def close(self) -> None:
        self.is_open = False


class Exchange:
    """What `async with session.request(...)` enters."""

    def __init__(self, carried: Any) -> None:
        self._carried = carried
        self._response: Response | None = None

    async def __aenter__(self) -> Response:
        response: Response = await self._carried
        self._response = response
        return response

    async def __aexit__(self, *_: object) -> None:
        if self._response is not None:
            self._response.close()


def _nothing() -> None:
    """Nothing comes between."""


def _time_out(answered: asyncio.Future[Any]) -> None:
    if not answered.done():
        answered.set_exception(TimeoutError())


def _concerns(what: str, request: Request) -> bool:
    match what:
        case "all":
            return True
        case "patch" | "read" | "events" | "sign_in":
            return request.kind == what
        case "state":
            return request.kind == "patch" and request.state is not None
        case "result":
            return request.is_final
        case _:
            return request.kind == "patch" and request.state is None


def _no_connection() -> aiohttp.ClientConnectorError:
    key: Any = SimpleNamespace(host="127.0.0.1", port=8080, is_ssl=False, ssl=True)
    return aiohttp.ClientConnectorError(key, ConnectionRefusedError(111, "Connection refused"))


def _body(kind: str, real: Answer | None) -> bytes:
    whole = REFUSAL if real is None else real.body
    bodies = {
        "json": whole,
        "html": b"<html><body>502 Bad Gateway</body></html>",
        "half": whole[: len(whole) // 2],
        "array": b"[" * 2_000,
        "wrong": b'{"state": 7, "events": {}, "errors": "none", "bytes_restored": -1}',
        "huge": HUGE,
    }
    return bodies.get(kind, b"")
