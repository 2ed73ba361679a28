"""Answers of the control plane: what is decided from them, and what comes out of a session that gets them.

An input is an answer as it is on the wire: a head, an empty line, a body.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from yarl import URL

from agent_reporter.clock import SystemClock
from agent_reporter.control_plane.client import ControlPlane
from agent_reporter.control_plane.http import MAX_BODY, HttpSession
from agent_reporter.control_plane.sign_in import SignIn
from agent_reporter.control_plane.token_sources import Grant, IdentityApiKey
from agent_reporter.errors import AgentReporterError, MalformedError, SignInError
from agent_reporter.model import verdict
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.error_log import Errors
from agent_reporter.model.events import read_page
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.learning import Circumstances, after_patch, after_read
from agent_reporter.model.patch import replace_state
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState
from agent_reporter.model.steps import Read, Send, next_step
from agent_reporter.model.verdict import Answer
from agent_reporter.settings import Settings
from tests.fuzz.fuzzing import Target, a_directory

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from tests.fuzz.fuzzing import Check

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = "a-token-that-nobody-may-see"
PASSWORD = "a-password-that-nobody-may-see"
SECONDS = 0.5
"""An answer is waited for so long."""
MAX_FAILURE_CHARACTERS = 2_000
MAX_URL = 4_000
"""Characters: most servers take twice that."""

RUNNING = Report("r-1", 3, RestoreState.IN_PROGRESS, NOW, None, 5, 700, errors=Errors(1, "r", "d"))
ENDED = Report("r-1", 4, RestoreState.COMPLETED, NOW, NOW, 9, 900)
EXCHANGES = (
    Exchange(),
    Exchange(acknowledged=Acknowledged(1, RestoreState.IN_PROGRESS, NOW), uncertain=True),
    Exchange(acknowledged=Acknowledged(), readable=False, contradicted=True, result_told=True),
)

DOCUMENT = {
    "id": "r-1",
    "project_id": "110011",
    "backup": {"id": "b-1", "links": []},
    "state": "in_progress",
    "started_time": "2014-10-20T13:11:58.985151Z",
    "ended_time": None,
    "errors": {"count": 1, "reason": "unable_to_process_some_files", "diagnostics": "", "links": []},
    "files_restored": 3,
    "bytes_restored": 4096,
}
EVENTS = {
    "events": [
        {"id": 17, "time": "2014-10-20T13:11:58Z", "event": "restore_progress", "restore": {"id": "r-1"}},
        {"id": "18", "event": "restore_stop_request", "request_id": "q", "restore": {"id": "r-1"}},
    ],
    "links": [{"href": "x", "rel": "next"}],
}
ERRORS = {"count": 1, "list": [{"index": 0, "path": "/a", "type": "t", "exception": {"code": 2}}]}
TOKENS = {"token": {"id": TOKEN, "expires": "2034-10-07T02:52:57.416Z"}}
ACCESS = {"access": {"token": {"id": TOKEN, "expires": None, "tenant": {"id": "1"}}, "serviceCatalog": []}}
FAULT = {"message": "Modifying a restore that has ended is not allowed.", "errors": ["a", "b"]}


def answers_are_decided_on(data: bytes) -> None:
    """Whatever an answer says, the conversation goes on: it can be kept, and there is a next step or an end."""
    answer = _answer(data)
    assert len(verdict.explain(answer)) <= MAX_FAILURE_CHARACTERS
    assert 0.0 <= verdict.retry_after_seconds(answer.retry_after, NOW) < 1e15
    for exchange in EXCHANGES:
        for newest in (RUNNING, ENDED):
            _goes_on(after_read(exchange, newest, answer, Circumstances(NOW, 0.5)), newest)
            step = next_step(exchange, newest)
            if isinstance(step, Send):
                _goes_on(after_patch(exchange, step, answer, Circumstances(NOW, 0.5)), newest)


def a_body_is_a_page_of_events_or_none(data: bytes) -> None:
    """A page tells restores and a marker that can be asked with; whatever else there is in it is passed over."""
    answer = _answer(data)
    with suppress(MalformedError):
        page = read_page(answer.document(), "r-1")
        assert all(isinstance(each, str) for each in page.stop_requests)
        if page.marker is not None:
            assert len(str(URL("http://localhost").with_query({"marker": page.marker}))) <= MAX_URL
    with suppress(MalformedError):
        Errors.from_document(answer.document())


def _goes_on(exchange: Exchange, newest: Report) -> None:
    """What survives a restart comes back the same, and the next step can be sent."""
    document = json.loads(json.dumps(exchange.to_document()))
    again = Exchange.from_document(document)
    assert again.to_document() == document
    assert len(exchange.failure) <= MAX_FAILURE_CHARACTERS
    assert exchange.not_before is None or (exchange.not_before - NOW).total_seconds() <= 300
    step = next_step(exchange, newest)
    assert step is None or isinstance(step, (Read, Send))
    if isinstance(step, Send):
        json.dumps(step.operations).encode()


def _answer(data: bytes) -> Answer:
    """What the session makes of it."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.decode("utf-8", "surrogateescape").split("\r\n")
    status = "".join(filter(str.isdecimal, lines[0].partition(" ")[2][:4]))[:3]
    fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
    return Answer(int(status or 200), body, fields.get("Retry-After"))


# --- over a real socket -----------------------------------------------------------------------------------


class Wire:
    """A control plane that says one thing to everybody, and the calls that are made to it."""

    def __init__(self, directory: Path, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._says = b""
        self._secret = directory / "secret"
        self._secret.touch(mode=0o600)
        self._secret.write_text(PASSWORD)
        self._settings = Settings(
            endpoint="http://localhost",
            project_id="110011",
            identity_endpoint="http://localhost",
            identity_username="me",
            identity_api_key_file=self._secret,
            way_out=directory / "socket",
            request_timeout=SECONDS,
        )
        self._failures: list[str] = []

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._answer, self._settings.way_out)
        asyncio.get_running_loop().set_exception_handler(
            lambda _, what: self._failures.append(f"{what.get('message')}: {what.get('exception')!r}")
        )

    async def end(self) -> None:
        self._server.close()
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})  # those who are just answered

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self._says)
            await writer.drain()
        writer.close()

    def only_our_errors_come_out(self, data: bytes) -> None:
        """Each call gives an answer within bounds, or an error of ours that holds no secret."""
        self._says = data
        self._failures.clear()
        self._runner.run(self._call_all())
        assert self._failures == []

    async def _call_all(self) -> None:
        async with HttpSession(self._settings, self._settings.way_out) as http:
            sign_in = SignIn(_FixedToken(), SystemClock(), self._settings.backoff)
            plane = ControlPlane(self._settings, http, sign_in)
            calls: tuple[Callable[[], Awaitable[Answer]], ...] = (
                partial(plane.read_restore, "r-1"),
                partial(plane.update_restore, "r-1", replace_state(RestoreState.QUEUED)),
            )
            for call in calls:
                try:
                    answer = await call()
                except AgentReporterError as problem:
                    _holds_no_secret(problem)
                else:
                    assert len(answer.body) <= MAX_BODY
                    assert TOKEN.encode() not in answer.body
            try:
                grant = await IdentityApiKey(self._settings, self._secret, http).fetch()
            except SignInError as problem:
                _holds_no_secret(problem)
            else:
                assert grant.value.isascii()
                assert grant.value.isprintable()


def _holds_no_secret(problem: BaseException) -> None:
    seen: BaseException | None = problem
    while seen is not None:
        assert TOKEN not in str(seen), str(seen)
        assert PASSWORD not in str(seen), str(seen)
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


class _FixedToken:
    """The source of somebody who has a token."""

    name = "a token"

    async def fetch(self) -> Grant:
        return Grant(TOKEN)


@contextmanager
def _wire() -> Iterator[Check]:
    with a_directory() as directory, asyncio.Runner() as runner:
        wire = Wire(directory, runner)
        runner.run(wire.listen())
        yield wire.only_our_errors_come_out
        runner.run(wire.end())


def _seeds() -> Sequence[bytes]:
    def answer(status: int, document: object = None, *headers: str) -> bytes:
        body = b"" if document is None else json.dumps(document).encode()
        head = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
        return "\r\n".join(head).encode() + body

    chunks = b'10\r\n{"state":"queue\r\n3\r\nd"}\r\n0\r\n\r\n'
    return [
        *(answer(200, document) for document in (DOCUMENT, EVENTS, TOKENS, ACCESS)),
        *(answer(status, FAULT) for status in (400, 401, 403, 404, 405, 409, 500, 501)),
        *(answer(200, DOCUMENT | {"state": state.value}) for state in RestoreState),
        answer(200, ERRORS),
        answer(204),
        answer(202),
        answer(503, None, "Retry-After: 120"),
        answer(429, FAULT, "Retry-After: Fri, 31 Dec 2027 23:59:59 GMT"),
        answer(302, None, "Location: https://elsewhere.example.com/", "Set-Cookie: a=b; Path=/"),
        answer(200, DOCUMENT, "Content-Encoding: gzip", "Connection: close"),
        answer(200, DOCUMENT, "Content-Type: application/json; charset=utf-7", "X-Way-Out: 1"),
        b"HTTP/1.1 100 Continue\r\n\r\n" + answer(204),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks,
        answer(404, {"message": f"{PASSWORD} {TOKEN}"}),
    ]


TARGETS = [
    Target(
        "answers-decided",
        (
            *("model/learning.py", "model/verdict.py", "model/acknowledged.py"),
            *("model/documents.py", "model/times.py", "model/exchange.py"),
        ),
        _seeds,
        lambda: nullcontext(answers_are_decided_on),
    ),
    Target(
        "events-page",
        ("model/events.py", "model/error_log.py", "model/documents.py"),
        lambda: [b"\r\n\r\n" + json.dumps(document).encode() for document in (EVENTS, ERRORS)],
        lambda: nullcontext(a_body_is_a_page_of_events_or_none),
    ),
    Target(
        "answers-on-the-wire",
        ("control_plane/http.py", "control_plane/client.py", "control_plane/token_sources.py"),
        _seeds,
        _wire,
    ),
]
