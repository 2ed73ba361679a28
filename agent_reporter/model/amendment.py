"""What one patch of an engine changes of its restore, and what that makes of the report. Pure.

The daemon takes the patches that the control plane would take, and holds to the same invariants as a job:
states go forward, counters never go down, nothing follows a final state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from agent_reporter.errors import AgentReporterError
from agent_reporter.model.error_log import (
    MAX_DIAGNOSTICS,
    MAX_TOKEN,
    ErrorLog,
    Errors,
    clean_record,
    clean_text,
)
from agent_reporter.model.state import RestoreState, may_follow

if TYPE_CHECKING:
    from datetime import datetime

    from agent_reporter.model.report import Report

FINAL_CONFLICT = (
    "Modifying a restore that is already in a state of ['completed', 'completed_with_errors', 'failed', "
    "'stopped'] is not allowed."
)
"""The words of the 409 as the protocol publishes them."""


LOOKED_AT = 4
"""So many times the records that are kept are looked at: of a longer list, the rest is only counted."""


class ConflictError(AgentReporterError):
    """A restore is in a state that does not allow this."""


@dataclass(frozen=True, slots=True)
class Amendment:
    """What a patch changes; None is what it does not name. Counts are files and bytes, in all."""

    state: RestoreState | None = None
    started_time: datetime | None = None
    ended_time: datetime | None = None
    files_restored: int | None = None
    bytes_restored: int | None = None
    errors: Errors | None = None
    total_files: int | None = None
    total_bytes: int | None = None


def amended(report: Report, amendment: Amendment, now: datetime, max_errors: int) -> Report:
    """What `amendment` makes of `report`; the same object if it changes nothing.

    What a result leaves out, its times, is filled in with `now`. Raises ConflictError for a restore that has
    ended, and for a state that cannot follow.
    """
    if report.is_final:
        raise ConflictError(FINAL_CONFLICT)
    files = max(report.files_restored, amendment.files_restored or 0)
    size = max(report.bytes_restored, amendment.bytes_restored or 0)
    state = _state(report, amendment, moves=files > report.files_restored or size > report.bytes_restored)
    started, ended = amendment.started_time or report.started_time, report.ended_time
    if state is RestoreState.IN_PROGRESS or state.is_final:
        started = started or now
    if state.is_final:
        ended = amendment.ended_time or now
    told = {
        "state": state,
        "started_time": started,
        "ended_time": ended,
        "files_restored": files,
        "bytes_restored": size,
        "total_files": report.total_files if amendment.total_files is None else amendment.total_files,
        "total_bytes": report.total_bytes if amendment.total_bytes is None else amendment.total_bytes,
        "errors": _errors(report.errors, amendment.errors, max_errors),
    }
    changes = {name: value for name, value in told.items() if value != getattr(report, name)}
    if not changes:
        return report
    return replace(report, revision=report.revision + 1, **changes)  # type: ignore[arg-type]  # as above


def _state(report: Report, amendment: Amendment, *, moves: bool) -> RestoreState:
    current, following = report.state, amendment.state
    if following is None:
        # An engine that restores has started, whether it says so or not.
        begins = moves and may_follow(current, RestoreState.IN_PROGRESS)
        return RestoreState.IN_PROGRESS if begins else current
    if following is not current and not may_follow(current, following):
        raise ConflictError(f"A restore that is {current.value} cannot become {following.value}.")
    return following


def _errors(known: Errors, told: Errors | None, max_records: int) -> Errors:
    """The errors as they were told last, but that the count never goes down, within the bounds."""
    if told is None or told.count < known.count:
        return known
    log = ErrorLog(max_records)
    for record in islice(told.records or known.records, LOOKED_AT * max_records):
        log.add(clean_record(record.path, record.type, record.code, record.description, record.details))
    frozen = log.freeze(clean_text(told.reason, MAX_TOKEN), clean_text(told.diagnostics, MAX_DIAGNOSTICS))
    return replace(frozen, count=told.count)
