"""The end of a restore that nobody saw: the report that says so. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent_reporter.model.state import RestoreState

if TYPE_CHECKING:
    from datetime import datetime

    from agent_reporter.model.report import Report

ENGINE_LOST = "engine_lost"
"""Its engine ended without a word to the daemon."""
REPORTER_LOST = "reporter_lost"
"""Its reporter died, and its engine then ended with nobody to tell."""
LOST_REASONS = frozenset({ENGINE_LOST, REPORTER_LOST})


def lost(report: Report, now: datetime, reason: str, what_happened: str) -> Report:
    """The result of a restore that nobody is left to tell of: `failed`, with the counters it had."""
    diagnostics = (
        f"{what_happened} How it ended is not known. The last that is known: {report.state.value}, "
        f"{report.bytes_restored} bytes and {report.files_restored} files restored. Look at the target "
        "before you trust it."
    )
    return replace(
        report,
        revision=report.revision + 1,
        state=RestoreState.FAILED,
        started_time=report.started_time or now,
        ended_time=now,
        errors=replace(report.errors, reason=reason, diagnostics=diagnostics),
    )
