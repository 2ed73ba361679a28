"""What the control plane remembers, in SQLite: restores, events, agents, tokens, and every request.

One connection, used from one thread: the event loop's. A statement here takes microseconds, since WAL with
`synchronous=NORMAL` leaves the waiting for the disk to the rare checkpoint, so it runs in the loop. What
is lost by that is the last moments before a power cut, and nothing when the process is killed.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import uuid
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from agent_reporter.reference.events import Event, page_before
from agent_reporter.reference.restores import Request, Restore
from agent_reporter.reference.times import micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent_reporter.reference.events import Page
    from agent_reporter.reference.exchange import Call
    from agent_reporter.reference.restores import Happening

FILE_NAME: Final = "reference.sqlite3"
DROPPED: Final = "dropped"
"""What the history says in place of a status where the connection was closed without an answer."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS restores (
    id TEXT PRIMARY KEY, project_id TEXT NOT NULL, agent_id TEXT NOT NULL, request_id TEXT NOT NULL,
    request TEXT NOT NULL, state TEXT NOT NULL, started_time TEXT, ended_time TEXT,
    files_restored INTEGER NOT NULL, bytes_restored INTEGER NOT NULL, errors TEXT NOT NULL,
    total_bytes INTEGER, stop_request_id TEXT, erased_stops INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS restores_of_agent ON restores (project_id, agent_id, state);

CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, time REAL NOT NULL,
    kind TEXT NOT NULL, project_id TEXT NOT NULL, agent_id TEXT NOT NULL, restore_id TEXT NOT NULL,
    details TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS events_by_time ON events (time);
CREATE INDEX IF NOT EXISTS events_of_agent ON events (project_id, agent_id);
CREATE INDEX IF NOT EXISTS events_of_restore ON events (restore_id);

CREATE TABLE IF NOT EXISTS agents (
    project_id TEXT NOT NULL, id TEXT NOT NULL, fingerprint TEXT, presence TEXT,
    PRIMARY KEY (project_id, id)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS tokens (
    digest BLOB PRIMARY KEY, project_id TEXT NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS history (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, method TEXT NOT NULL,
    path TEXT NOT NULL, restore_id TEXT, agent_id TEXT, body TEXT, answer INTEGER,
    applied INTEGER NOT NULL, state TEXT, fault TEXT
);
CREATE INDEX IF NOT EXISTS history_of_restore ON history (restore_id);
"""
_RESTORE: Final = (
    "id, project_id, agent_id, request_id, request, state, started_time, ended_time, files_restored, "
    "bytes_restored, errors, total_bytes, stop_request_id, erased_stops"
)
_EVENT: Final = "sequence, id, time, kind, project_id, agent_id, restore_id, details"
_LATEST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose events are read: those of one restore, or with no restore those of one agent."""

    project_id: str
    agent_id: str | None = None
    restore_id: str | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """The events of a page, and the pages beside it where there are any."""

    events: list[Event]
    following: Page | None
    preceding: Page | None


class Store:
    """Everything that outlives the process. `now` gives seconds since the epoch."""

    def __init__(
        self, directory: Path, *, now: Callable[[], float] = time.time, event_lifetime: float = 60.0
    ) -> None:
        self._now = now
        self._event_lifetime = event_lifetime
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._db = sqlite3.connect(directory / FILE_NAME, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Leave the file to others."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything within, or after an exception nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # Restores

    def restore(self, project_id: str, restore_id: str) -> Restore | None:
        """The restore of a project, or None."""
        row = self._row(
            f"SELECT {_RESTORE} FROM restores WHERE id = ? AND project_id = ?",  # noqa: S608 - own columns
            restore_id,
            project_id,
        )
        return None if row is None else _restore(row)

    def project_of(self, restore_id: str) -> str | None:
        """The project that a restore belongs to, or None if there is no such restore."""
        row = self._row("SELECT project_id FROM restores WHERE id = ?", restore_id)
        return None if row is None else str(row[0])

    def restores_in(self, project_id: str, agent_id: str, *states: str) -> list[Restore]:
        """The restores of an agent that are in one of `states`."""
        marks = ", ".join("?" * len(states))
        rows = self._db.execute(
            f"SELECT {_RESTORE} FROM restores "  # noqa: S608 - own columns
            f"WHERE project_id = ? AND agent_id = ? AND state IN ({marks})",
            (project_id, agent_id, *states),
        )
        return [_restore(row) for row in rows]

    def put_restore(self, restore: Restore) -> None:
        """Keep a restore in place of what was known of it."""
        self._db.execute(
            "INSERT OR REPLACE INTO restores VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                restore.id,
                restore.project_id,
                restore.request.agent_id,
                restore.request_id,
                json.dumps(asdict(restore.request)),
                restore.state,
                restore.started_time,
                restore.ended_time,
                restore.files_restored,
                restore.bytes_restored,
                json.dumps(dict(restore.errors)),
                restore.total_bytes,
                restore.stop_request_id,
                restore.erased_stops,
            ),
        )

    # Events

    def put_event(self, restore: Restore, happening: Happening) -> None:
        """Tell what happened to a restore, for as long as events live."""
        self._drop_old_events()
        self._db.execute(
            "INSERT INTO events (id, time, kind, project_id, agent_id, restore_id, details) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                str(uuid.uuid4()),
                self._now(),
                happening.kind,
                restore.project_id,
                restore.request.agent_id,
                restore.id,
                json.dumps(dict(happening.details)),
            ),
        )

    def events(self, scope: Scope, page: Page) -> EventPage:
        """The events of `page`, as far as they still live."""
        self._drop_old_events()
        after = self._sequence_of(scope, page.marker) or 0
        before = self._sequence_of(scope, page.before) or _LATEST
        found = self._events_between(scope, after, before, page.limit + 1, descending=page.descending)
        shown = found[: page.limit]
        following = page_before(page, shown[-1].id) if len(found) > page.limit else None
        return EventPage(shown, following, self._preceding(scope, page, after, before))

    def _preceding(self, scope: Scope, page: Page, after: int, before: int) -> Page | None:
        """The page that ends where `page` begins: the other way from its moving edge."""
        if page.descending:
            low, high = before - 1, _LATEST
        else:
            low, high = 0, after + 1
        others = self._events_between(scope, low, high, page.limit + 1, descending=not page.descending)
        if not others:
            return None
        return page_before(page, others[page.limit].id if len(others) > page.limit else None)

    def _events_between(
        self, scope: Scope, after: int, before: int, limit: int, *, descending: bool
    ) -> list[Event]:
        whose, order = "restore_id" if scope.restore_id else "agent_id", "DESC" if descending else "ASC"
        rows = self._db.execute(
            f"SELECT {_EVENT} FROM events WHERE project_id = ? AND {whose} = ? "  # noqa: S608 - own columns
            f"AND sequence > ? AND sequence < ? ORDER BY sequence {order} LIMIT ?",
            (scope.project_id, scope.restore_id or scope.agent_id, after, before, limit),
        )
        return [_event(row) for row in rows]

    def _sequence_of(self, scope: Scope, event_id: str | None) -> int | None:
        if event_id is None:
            return None
        row = self._row(
            "SELECT sequence FROM events WHERE id = ? AND project_id = ?", event_id, scope.project_id
        )
        return None if row is None else int(row[0])

    def _drop_old_events(self) -> None:
        self._db.execute("DELETE FROM events WHERE time <= ?", (self._now() - self._event_lifetime,))

    # Agents and tokens

    def fingerprint(self, project_id: str, agent_id: str) -> str | None:
        """The host that signs in as this agent, or None if none has yet."""
        row = self._row(
            "SELECT fingerprint FROM agents WHERE project_id = ? AND id = ?", project_id, agent_id
        )
        return None if row is None else row[0]

    def bind_agent(self, project_id: str, agent_id: str, fingerprint: str) -> None:
        """From now on the agent is this host."""
        self._db.execute(
            "INSERT INTO agents (project_id, id, fingerprint) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET fingerprint = excluded.fingerprint",
            (project_id, agent_id, fingerprint),
        )

    def note_presence(self, project_id: str, agent_id: str, presence: str) -> None:
        """The agent said that it came up, or that it goes."""
        self._db.execute(
            "INSERT INTO agents (project_id, id, presence) VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET presence = excluded.presence",
            (project_id, agent_id, presence),
        )

    def presence(self, project_id: str, agent_id: str) -> str | None:
        """The last thing the agent said: `startup`, `shutdown`, or None."""
        row = self._row("SELECT presence FROM agents WHERE project_id = ? AND id = ?", project_id, agent_id)
        return None if row is None else row[0]

    def put_token(self, token: str, project_id: str, expires: float) -> None:
        """Keep what a token allows. The token itself is not kept, only its digest."""
        self._db.execute("DELETE FROM tokens WHERE expires <= ?", (self._now(),))
        self._db.execute("INSERT INTO tokens VALUES (?, ?, ?)", (_digest(token), project_id, expires))

    def project_of_token(self, token: str) -> str | None:
        """The project a token is for, or None if there is no such token or its time is over."""
        row = self._row(
            "SELECT project_id FROM tokens WHERE digest = ? AND expires > ?", _digest(token), self._now()
        )
        return None if row is None else str(row[0])

    # History

    def record(self, call: Call, *, answer: int | None, applied: bool, fault: str | None) -> None:
        """Remember a request and its answer; None is a connection closed without one.

        Only the body of a PATCH is kept: those of others hold passwords.
        """
        body = (call.body or b"").decode("utf-8", "replace") if call.method == "PATCH" else None
        self._db.execute(
            "INSERT INTO history (time, method, path, restore_id, agent_id, body, answer, applied, state, "
            "fault) VALUES (?, ?, ?, ?, ?, ?, ?, ?, (SELECT state FROM restores WHERE id = ?), ?)",
            (
                self._now(),
                call.method,
                _storable(call.path),
                _storable(call.restore_id),
                _storable(call.headers.get("X-Agent-Id")),
                body,
                answer,
                applied,
                _storable(call.restore_id),
                fault,
            ),
        )

    def history(self, restore_id: str | None = None) -> list[dict[str, Any]]:
        """Every request that arrived, or every one about a restore, in order.

        Each has `sequence`, `time`, `method`, `path`, `restore_id`, `agent_id`, `body` (of a PATCH: parsed,
        or as text if it is not JSON), `answer` (a status, or "dropped"), `applied`, `state` (that of the
        restore afterwards) and `fault` (the kind of fault that the request met, or null).
        """
        rows = self._db.execute(
            "SELECT sequence, time, method, path, restore_id, agent_id, body, answer, applied, state, fault "
            "FROM history WHERE ?1 IS NULL OR restore_id = ?1 ORDER BY sequence",
            (restore_id,),
        )
        return [_recorded(row) for row in rows]

    def _row(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._db.execute(statement, values).fetchone()
        return row


def _restore(row: tuple[Any, ...]) -> Restore:
    restore_id, project_id, _agent_id, request_id, request, *progress, errors, total, stop, erased = row
    state, started_time, ended_time, files_restored, bytes_restored = progress
    return Restore(
        id=restore_id,
        project_id=project_id,
        request_id=request_id,
        request=Request(**json.loads(request)),
        state=state,
        started_time=started_time,
        ended_time=ended_time,
        files_restored=files_restored,
        bytes_restored=bytes_restored,
        errors=json.loads(errors),
        total_bytes=total,
        stop_request_id=stop,
        erased_stops=erased,
    )


def _event(row: tuple[Any, ...]) -> Event:
    sequence, event_id, moment, kind, project_id, agent_id, restore_id, details = row
    return Event(
        sequence=sequence,
        id=event_id,
        time=moment,
        kind=kind,
        project_id=project_id,
        agent_id=agent_id,
        restore_id=restore_id,
        details=json.loads(details),
    )


def _recorded(row: tuple[Any, ...]) -> dict[str, Any]:
    sequence, moment, method, path, restore_id, agent_id, body, answer, applied, state, fault = row
    return {
        "sequence": sequence,
        "time": micros(moment),
        "method": method,
        "path": path,
        "restore_id": restore_id,
        "agent_id": agent_id,
        "body": None if body is None else _parsed(body),
        "answer": DROPPED if answer is None else answer,
        "applied": bool(applied),
        "state": state,
        "fault": fault,
    }


def _parsed(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return body


def _storable(text: str | None) -> str | None:
    """Text from a request line or header, with what UTF-8 cannot carry replaced."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
