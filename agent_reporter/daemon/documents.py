"""The daemon's restores as documents: those of "Read a restore", with the delivery's state beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_reporter.model.state import RestoreState
from agent_reporter.model.times import format_time

if TYPE_CHECKING:
    from datetime import datetime

    from agent_reporter.daemon.registry import Local

READ_FIELDS = (
    "project_id",
    "id",
    "state",
    "started_time",
    "ended_time",
    "files_restored",
    "bytes_restored",
)
"""What is passed on of a restore that only the control plane knows."""


def restore_document(local: Local, project_id: str) -> dict[str, Any]:
    """The newest local truth of a restore. Times are RFC 3339, counts are bytes and files."""
    report = local.restore.report
    stops = local.restore.client.stop_requested and not report.is_final
    return {
        "project_id": project_id,
        "id": report.restore_id,
        "state": (RestoreState.STOP_REQUESTED if stops else report.state).value,
        "started_time": _time(report.started_time),
        "ended_time": _time(report.ended_time),
        "errors": _errors(local),
        "files_restored": report.files_restored,
        "bytes_restored": report.bytes_restored,
        "links": [{"href": f"/v2/{project_id}/restores/{report.restore_id}", "rel": "self"}],
        "delivery": _delivery(local),
    }


def errors_document(local: Local) -> dict[str, Any]:
    """The errors of a restore with the list of them."""
    return local.restore.report.errors.to_document()


def _errors(local: Local) -> dict[str, Any]:
    errors = local.restore.report.errors
    return {"count": errors.count, "reason": errors.reason, "diagnostics": errors.diagnostics}


def _delivery(local: Local) -> dict[str, Any]:
    """How far the control plane knows of it, and what the protocol has no member for."""
    report, exchange = local.restore.report, local.delivery.exchange
    known, ending = exchange.acknowledged, local.restore.ending or exchange.ending
    return {
        "newest_state": report.state.value,
        "total_files": report.total_files,
        "total_bytes": report.total_bytes,
        "acknowledged": None if known is None else known.to_document(),
        "undelivered_since": _time(local.keeper.undelivered_since),
        "attempts": exchange.attempt,
        "next_try": _time(exchange.not_before),
        "why": exchange.failure,
        "ending": None if ending is None else ending.value,
        "uid": local.restore.client.uid,
        "pids": [process.pid for process in local.restore.client.processes],
    }


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else format_time(moment)
