"""What was sent and heard, held against the invariants of the house as it happens. A violation names its check.

1. A result is delivered.
   - `result_delivered`: in the end the control plane has what the engine stated, to the last byte and error
   - `told_once`: by one patch; nothing was refused for good
   - `lost_is_said`: of a restore that nobody is left to report, it is told that it failed
   - `settles_in_time`: once all is well, everything is delivered within a bounded time
2. `counters_up`: no patch has less than one before it in its process, or than its process was shown or told.
3. `stop_in_time`: a stop reaches its job within two polls, once nothing hinders that.
4. `nothing_after_end`: no patch of a process that knows of an end.
6. `doubt_read_first`: no state after a doubtful answer before a read; `one_in_flight`: one patch at a time.
7. `token_concealed`: no secret but in its header, or in the body of the sign-in; none in an event; and
   `origin_kept`: no connection to anywhere else.

And the seam itself:

   - `asks_rightly`: each request has the headers and the encoding that the protocol and the client promise
   - `connection_reused`: no new connection while an idle one is there, and none closed that is good still; `connections_bounded`: never many
   - `reused_in_time`: no connection is used after it was idle longer than the client keeps it;
     `reused_clean`: nor after bytes came on it that nobody had asked for
   - `given_up_in_time`: no request waits longer than its timeout
   - `answer_bounded`: no more of an answer is taken than fits into one; `weight_bounded`: nor unpacked
   - `nothing_left`: no connection, task, timer, or unclosed resource is left by a process that ends
   - `no_failure_of_ours`: no loop of ours failed, and asyncio has nothing to complain of
"""

from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from agent_reporter.reference.patches import FINAL_STATES, PATHS, Field, Spelling
from tests.wire.network import ADDRESSES, HOST, PORT

if TYPE_CHECKING:
    from agent_reporter.model.report import Report
    from tests.simulation.loop import Process
    from tests.wire.network import Connection, Exchange
    from tests.wire.world import World

FIELDS = PATHS[Spelling.BOTH]
COUNTERS = (Field.BYTES_RESTORED, Field.FILES_RESTORED)
KEPT_AT_LEAST = 14.0
KEPT_IDLE = 15.5
"""Seconds: fifteen, and how long an answer takes to its reader."""
LONGEST = 11.5
"""Seconds: the timeout of a request, which aiohttp rounds up to a whole second."""
LARGEST = 1024 * 1024 + 256 * 1024
"""Bytes of one answer: what is read of it, and what is in buffers."""
HEAVIEST = 8 * 1024 * 1024
CANARY = "canary-"
"""All secrets that are in files begin with it."""


@dataclass
class Talk:
    """The conversation of one process about one restore."""

    doubt: bool = False
    knows_end: bool = False
    floor: dict[Field, int] = field(default_factory=dict)


@dataclass
class Case:
    """All that is known of one restore."""

    restore_id: str
    starts: int = 0
    """How often an engine had a job for it."""
    stated: Report | None = None
    was_emptied: bool = False
    """The server forgot it after its end was told."""
    talks: dict[str, Talk] = field(default_factory=dict)


class Ledger:
    """Keeps the books of one run; raises nothing, and notes each violation."""

    def __init__(self, world: World) -> None:
        self.cases: dict[str, Case] = {}
        self.violations: list[tuple[str, str]] = []
        self.seen: Counter[str] = Counter()
        self.secrets: set[str] = set()
        self._world = world
        self._open: dict[str, Exchange] = {}
        self._weighed: Exchange | None = None

    def violated(self, check: str, what: str) -> None:
        """Note that an invariant does not hold."""
        self.violations.append((check, what))
        self.note("VIOLATION", check, what)

    def note(self, *event: object) -> None:
        """One more event of the trace."""
        self._world.note(*event)

    def connects(self, process: Process, address: tuple[str, int]) -> None:
        """A connection is begun."""
        self.note("connect", process.name, address)
        if address[0] not in ADDRESSES or address[1] != PORT:
            self.violated("origin_kept", f"a connection to {address}")
        open_ = self._world.network.open_of(process)
        if len(open_) > 4 + 3 * len(self.cases):
            self.violated("connections_bounded", f"{len(open_)} are open")

    def says(self, exchange: Exchange) -> set[str]:
        """What a patch tells: `state`, `result`, `counters`."""
        if exchange.kind != "patch":
            return set()
        state = _changes(exchange).get(Field.STATE)
        return {"counters"} if state is None else {"state", "result"} if state in FINAL_STATES else {"state"}

    def sent(self, connection: Connection, exchange: Exchange) -> None:
        """A request leaves."""
        changes = _changes(exchange)
        brief = {
            key.value: value["count"] if key is Field.ERRORS else value for key, value in changes.items()
        }
        brief.pop("started_time", None)
        brief.pop("ended_time", None)
        self.note(
            "send",
            exchange.number,
            exchange.process.name,
            connection.number,
            exchange.kind,
            exchange.restore_id,
            brief,
        )
        self._check_connection(connection, exchange)
        self._check_form(exchange)
        self._world.loop.later(LONGEST, self._check_over, connection, exchange)
        if exchange.kind == "patch":
            self._check_patch(exchange, changes)
        self._weigh(exchange)

    def _check_connection(self, connection: Connection, exchange: Exchange) -> None:
        now = self._world.loop.time()
        if connection.exchange is not None and connection.exchange.is_open:
            self.violated("one_in_flight", f"two on connection {connection.number}")
        if connection.idle_since is not None and now - connection.idle_since > KEPT_IDLE:
            self.violated("reused_in_time", f"after {now - connection.idle_since:.1f} s")
        if connection.is_spoilt_since is not None and now - connection.is_spoilt_since > 0.05:
            self.violated("reused_clean", f"connection {connection.number} for request {exchange.number}")
        if connection.exchanges or not self._world.plan.is_calm:
            return
        for other in self._world.network.open_of(exchange.process):
            if other.idle_since is not None and 1.0 < now - other.idle_since < 14.0:
                self.violated("connection_reused", f"connection {other.number} was idle")

    def closed(self, connection: Connection) -> None:
        """The client closes a connection."""
        answer = None if connection.exchange is None else connection.exchange.answer
        if (
            answer is None
            or answer.says_close
            or connection.is_ended_by
            or connection.is_spoilt_since is not None
        ):
            return
        assert connection.idle_since is not None
        idle, life = self._world.loop.time() - connection.idle_since, connection.process
        if idle < KEPT_AT_LEAST and life.is_alive and not self._world.is_leaving(life):
            self.violated("connection_reused", f"connection {connection.number} is closed after {idle:.1f} s")

    def _check_form(self, exchange: Exchange) -> None:
        request, headers = exchange.request, dict(exchange.request.headers)
        token = headers.pop("x-auth-token", "")
        if token:
            self.secrets.add(token)
        wants_token = exchange.kind != "sign_in"
        types = {"patch": "application/json-patch+json", "sign_in": "application/json"}
        wrong = [
            what
            for what, is_so in {
                "Host": headers.get("host") != f"{HOST}:{PORT}",
                "X-Auth-Token": bool(token) is not wants_token,
                "Content-Type": headers.get("content-type") != types.get(exchange.kind),
                "Accept-Encoding": headers.get("accept-encoding") != "identity",
                "Cookie": "cookie" in headers,
                "Connection": headers.get("connection", "keep-alive") != "keep-alive",
                "Expect": "expect" in headers,
            }.items()
            if is_so
        ]
        if wrong:
            self.violated("asks_rightly", f"{request.first}: {wrong}")
        body = b"" if exchange.kind == "sign_in" else request.body
        said = f"{request.first} {headers} {body.decode('utf-8', 'replace')}"
        if CANARY in said or any(secret in said for secret in self.secrets):
            self.violated("token_concealed", f"in request {exchange.number}")

    def _check_over(self, connection: Connection, exchange: Exchange) -> None:
        if exchange.is_open and exchange.process.is_alive and connection.is_open:
            self.violated("given_up_in_time", f"request {exchange.number} is open after {LONGEST:g} s")

    def _check_patch(self, exchange: Exchange, changes: dict[Field, Any]) -> None:
        name, talk = exchange.restore_id, self._talk(exchange)
        other = self._open.get(name)
        if other is not None and other.is_open and other.process.is_alive:
            self.violated("one_in_flight", f"{name}: requests {other.number} and {exchange.number}")
        self._open[name] = exchange
        if talk.knows_end:
            self.violated("nothing_after_end", f"{name}: request {exchange.number}")
        if talk.doubt and Field.STATE in changes:
            self.violated("doubt_read_first", f"{name}: request {exchange.number}")
        for counter in COUNTERS:
            if changes.get(counter, talk.floor.get(counter, 0)) < talk.floor.get(counter, 0):
                self.violated("counters_up", f"{name}: {counter.value} {changes[counter]} after {talk.floor}")
            elif counter in changes:
                talk.floor[counter] = changes[counter]
        if Field.STATE in changes:
            talk.doubt = True

    def answered(self, exchange: Exchange) -> None:
        """An answer came whole to its sender."""
        answer = exchange.answer
        assert answer is not None
        self.note("answer", exchange.number, answer.status)
        self.seen[f"answer {answer.status}"] += 1
        self._end_weighing(exchange)
        if not exchange.restore_id:
            return
        talk = self._talk(exchange)
        if exchange.kind == "patch" and (answer.status == 204 or 300 <= answer.status < 500):
            talk.doubt = False
            talk.knows_end |= answer.status == 204 and "result" in self.says(exchange)
        if exchange.kind == "read" and answer.status == 200 and "content-encoding" not in answer.headers:
            self._read(talk, answer.body)

    def _read(self, talk: Talk, body: bytes) -> None:
        try:
            document = json.loads(body)
            talk.floor = {counter: int(document[counter.value]) for counter in COUNTERS}
        except (ValueError, KeyError):
            return  # what stands in between has said it
        talk.doubt = False
        talk.knows_end |= document["state"] in FINAL_STATES

    def unanswered(self, exchange: Exchange) -> None:
        """No whole answer comes to its sender any more."""
        self.note("unanswered", exchange.number, exchange.heard)
        self._end_weighing(exchange)
        if exchange.heard > LARGEST:
            self.violated("answer_bounded", f"{exchange.heard} bytes were taken of one")

    def emptied(self) -> None:
        """The server knows nothing any more."""
        for case in self.cases.values():
            case.was_emptied |= any(talk.knows_end for talk in case.talks.values())
            for talk in case.talks.values():
                talk.floor.clear()

    # What an answer takes, unpacked.

    def _weigh(self, exchange: Exchange) -> None:
        self._world.loop.later(0.0, self._begin_weighing, exchange)

    def _begin_weighing(self, exchange: Exchange) -> None:
        if (
            exchange.fault is not None
            and exchange.fault.sort == "bomb"
            and self._weighed is None
            and exchange.is_open
        ):
            self._weighed = exchange
            tracemalloc.start()

    def _end_weighing(self, exchange: Exchange) -> None:
        if self._weighed is exchange:
            self._world.loop.later(0.5, self._weighed_out, exchange)

    def _weighed_out(self, exchange: Exchange) -> None:
        if self._weighed is not exchange:
            return
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        self._weighed = None
        if peak > HEAVIEST:
            self.violated("weight_bounded", f"request {exchange.number}: {peak} bytes")

    # The end.

    def close(self) -> None:
        """Everything is over: what became of each restore?"""
        if self._weighed is not None:
            tracemalloc.stop()
        for case in self.cases.values():
            if case.starts and not case.was_emptied:
                self._close(case)

    def _close(self, case: Case) -> None:
        there, truth = self._world.server.document(case.restore_id), case.stated
        told = [each for each in self._world.server.history(case.restore_id) if _tells_end(each)]
        if len(told) != 1:
            self.violated("told_once", f"{case.restore_id}: {len(told)} patches that were taken tell an end")
        if truth is None:
            if there["state"] != "failed" or there["errors"]["reason"] != "reporter_lost":
                self.violated("lost_is_said", f"{case.restore_id}: it is {there['state']}")
            return
        shown = (there["bytes_restored"], there["files_restored"], there["errors"]["count"])
        stated = (truth.bytes_restored, truth.files_restored, truth.errors.count)
        # Who goes on from a record may begin with less than was told before.
        is_so = shown == stated if case.starts == 1 else all(map(int.__ge__, shown, stated))
        if there["state"] != truth.state.value or not is_so:
            self.violated(
                "result_delivered",
                f"{case.restore_id}: {there['state']} {shown}, not {truth.state.value} {stated}",
            )

    def _talk(self, exchange: Exchange) -> Talk:
        return self.cases[exchange.restore_id].talks.setdefault(exchange.process.name, Talk())


def _tells_end(request: dict[str, Any]) -> bool:
    body = request["body"]
    return (
        bool(request["applied"])
        and isinstance(body, list)
        and any(each["path"] == "/state" and each["value"] in FINAL_STATES for each in body)
    )


def _changes(exchange: Exchange) -> dict[Field, Any]:
    if exchange.kind != "patch":
        return {}
    return {FIELDS[each["path"]]: each["value"] for each in json.loads(exchange.request.body)}
