"""Small things that the tests of the model are built from."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.backoff import Backoff
from agent_reporter.model.error_log import ErrorRecord, Errors
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.learning import Circumstances
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState
from agent_reporter.model.steps import Read, Send, next_step
from agent_reporter.model.verdict import Answer

if TYPE_CHECKING:
    from agent_reporter.model.patch import Operations

START_REQUESTED = RestoreState.START_REQUESTED
QUEUED = RestoreState.QUEUED
PREPARING = RestoreState.PREPARING
IN_PROGRESS = RestoreState.IN_PROGRESS
STOP_REQUESTED = RestoreState.STOP_REQUESTED
COMPLETED = RestoreState.COMPLETED
COMPLETED_WITH_ERRORS = RestoreState.COMPLETED_WITH_ERRORS
FAILED = RestoreState.FAILED
STOPPED = RestoreState.STOPPED

FINALS = (COMPLETED, COMPLETED_WITH_ERRORS, FAILED, STOPPED)

NOW = datetime(2014, 10, 20, 14, 0, tzinfo=UTC)
STARTED = datetime(2014, 10, 20, 13, 11, 58, 985151, tzinfo=UTC)
STARTED_TEXT = "2014-10-20T13:11:58.985151Z"
ENDED = datetime(2014, 10, 20, 13, 12, 59, tzinfo=UTC)
ENDED_TEXT = "2014-10-20T13:12:59.000000Z"

WORLD = Circumstances(NOW, 0.5, Backoff(base=2.0, cap=60.0, retry_after_cap=300.0))
"""A first failure waits for 1 s, a second for 2 s, a third for 4 s."""

RECORD = ErrorRecord("/etc/passwd", "file_or_folder_missing", 2, "No such file", "at restore")
RECORD_DOCUMENT = {
    "index": 0,
    "path": "/etc/passwd",
    "type": "file_or_folder_missing",
    "exception": {"code": 2, "description": "No such file", "details": "at restore"},
}


def errors(count: int, records: int | None = None, reason: str = "", diagnostics: str = "") -> Errors:
    """So many errors, with a record of each unless told otherwise."""
    kept = count if records is None else records
    return Errors(
        count, reason, diagnostics, tuple(ErrorRecord(f"/file/{number}", "missing") for number in range(kept))
    )


def report(state: RestoreState = IN_PROGRESS, **fields: Any) -> Report:
    """A report that could be: an end has both times, data that flows has begun to."""
    begun = state is IN_PROGRESS or state.is_final
    known: dict[str, Any] = {
        "restore_id": "r-1",
        "revision": 1,
        "started_time": STARTED if begun else None,
        "ended_time": ENDED if state.is_final else None,
    }
    return Report(state=state, **known | fields)


def exchange(state: RestoreState = IN_PROGRESS, **fields: Any) -> Exchange:
    """A conversation with a control plane that is known to have the restore in `state`."""
    return Exchange(**{"acknowledged": acknowledged(state)} | fields)


def acknowledged(state: RestoreState = IN_PROGRESS, **fields: Any) -> Acknowledged:
    """What a control plane has that took the state, and the start where there was one."""
    return Acknowledged(
        **{"state": state, "started_time": STARTED if state is IN_PROGRESS else None} | fields
    )


def document(state: str = "in_progress", **fields: Any) -> dict[str, Any]:
    """The control plane's document of a restore, as far as anybody looks at it."""
    return {
        "state": state,
        "started_time": None,
        "ended_time": None,
        "errors": {"count": 0, "reason": "", "diagnostics": ""},
        "files_restored": 0,
        "bytes_restored": 0,
    } | fields


def shown(state: str = "in_progress", **fields: Any) -> Answer:
    """The answer to a read that shows the restore in `state`."""
    return Answer(200, json.dumps(document(state, **fields)).encode())


def sent(conversation: Exchange, newest: Report) -> Send:
    """The patch that is due."""
    step = next_step(conversation, newest)
    assert isinstance(step, Send)
    return step


def reads(conversation: Exchange, newest: Report) -> bool:
    """Whether a read is due."""
    return next_step(conversation, newest) == Read()


def paths(operations: Operations) -> list[str]:
    """The paths that a patch touches, in its order."""
    return [operation["path"] for operation in operations]
