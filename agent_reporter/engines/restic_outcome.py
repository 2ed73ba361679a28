"""How a run of restic ended: from its exit status, its summary and its errors together.

| exit status | what it printed | state |
|---|---|---|
| 0 | no errors | completed |
| 0 | errors | completed_with_errors |
| other | went through to the end, listed errors | completed_with_errors; failed when nothing was restored |
| other | anything else | failed |

A run went through to the end, past the errors it listed, when it printed a summary, or said `There were N
errors`, and no signal ended it. When a stop was asked for, a run that went through to the end,
or that failed of itself, is judged as above, and any other is stopped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Outcome
from agent_reporter.engines.wording import diagnostics, how_it_ended, signal_name, signal_of
from agent_reporter.model.error_log import PARTIAL
from agent_reporter.model.state import RestoreState

if TYPE_CHECKING:
    from agent_reporter.engines.adapter import StopCause

NO_REASON_KNOWN = "engine_failed"

INTERRUPTED = 130

_REASONS_BY_STATUS = {10: "repository_missing", 11: "repository_locked", 12: "wrong_password"}
_REASONS_BY_TEXT = (
    ("wrong_password", re.compile(r"wrong password|no key found|empty password")),
    ("repository_locked", re.compile(r"repository is already locked")),
    ("repository_missing", re.compile(r"repository does not exist|is there a repository at")),
    (
        "snapshot_missing",
        re.compile(r"no snapshot found|no matching id|failed to find snapshot|invalid id \""),
    ),
    ("target_unusable", re.compile(r"cannot create target directory")),
    (
        "usage_error",
        re.compile(
            r"unknown (shorthand )?flag|unknown command|flag needs an argument|invalid argument"
            r"|please specify|snapshot id specified"
        ),
    ),
)
_LISTED_ERRORS = re.compile(r"There were \d+ errors")
_CANCELLED = re.compile(r"context canceled|interrupted", re.IGNORECASE)

_COUNTS_LIE = "The counts of files and bytes include files that failed."
_NO_COUNTS = "This version of restic prints no counts, so how much was restored is not known."
_LEFT_INCOMPLETE = "A file it was writing may have its full size and still be incomplete."

_UNVERIFIED = "The files were written, but what was to follow, such as their verification, was cut short."


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run printed, in brief."""

    errors: int
    files_restored: int
    skipped_files: int
    has_summary: bool
    speaks_json: bool
    """False for restic before 0.16, which prints no summary and no counts."""
    interrupted: bool
    """It said that it got a signal."""
    message: str
    """Its last words."""
    context: str
    """Its last plain lines on stderr."""


def judge(evidence: Evidence, returncode: int, stop: StopCause | None) -> Outcome:
    """The outcome by the table above."""
    if stop is None:
        return _of_itself(evidence, returncode)
    if _was_stopped(evidence, returncode):
        ended = how_it_ended("restic", returncode)
        sentences = ("restic was asked to stop.", ended, _left_behind(evidence))
        return Outcome(RestoreState.STOPPED, stop.reason, diagnostics(sentences))
    outcome = _of_itself(evidence, returncode)
    note = "A stop had been asked for, but restic ended of itself."
    return replace(outcome, diagnostics=diagnostics((note, outcome.diagnostics)))


def _went_through(evidence: Evidence, returncode: int) -> bool:
    """Whether it came to the end of the restore and listed errors of single files."""
    listed = evidence.has_summary and evidence.errors > 0
    return not signal_of(returncode) and (listed or _LISTED_ERRORS.search(evidence.message) is not None)


def _was_stopped(evidence: Evidence, returncode: int) -> bool:
    """Whether a run that was asked to stop ended because of that."""
    if returncode == 0:
        return evidence.speaks_json and not evidence.has_summary
    if _went_through(evidence, returncode):
        return False
    told_so = evidence.interrupted or _CANCELLED.search(evidence.message) is not None
    return told_so or signal_of(returncode) > 0 or not evidence.message


def _of_itself(evidence: Evidence, returncode: int) -> Outcome:
    """The outcome of a run that nobody stopped."""
    if returncode == 0:
        return _succeeded(evidence)
    ended = how_it_ended("restic", returncode)
    if _went_through(evidence, returncode):
        return _partial(evidence, ended)
    if returncode == INTERRUPTED or evidence.interrupted:
        nobody = "It was interrupted, and not by a stop that was asked for here."
        return _failed("interrupted", ended, nobody, _left_behind(evidence))
    number = signal_of(returncode)
    if number:
        somebody = f"Somebody or something killed it with {signal_name(number)}."
        return _failed("engine_killed", ended, somebody, _left_behind(evidence), evidence.context)
    first_words = "" if evidence.message in evidence.context else evidence.message
    return _failed(_reason(evidence, returncode), ended, first_words, evidence.context)


def _left_behind(evidence: Evidence) -> str:
    """What an early end means for the files. The summary comes before `--verify` reads them back."""
    return _UNVERIFIED if evidence.has_summary else _LEFT_INCOMPLETE


def _failed(reason: str, *sentences: str) -> Outcome:
    return Outcome(RestoreState.FAILED, reason, diagnostics(sentences))


def _succeeded(evidence: Evidence) -> Outcome:
    sentences = []
    if evidence.skipped_files:
        sentences.append(f"{evidence.skipped_files} files were there already and were not restored again.")
    elif evidence.has_summary and not evidence.files_restored:
        sentences.append("restic found nothing to restore.")
    if evidence.errors:
        sentences += [f"restic listed {evidence.errors} errors.", _COUNTS_LIE]
        return Outcome(RestoreState.COMPLETED_WITH_ERRORS, PARTIAL, diagnostics(sentences))
    return Outcome(RestoreState.COMPLETED, diagnostics=diagnostics(sentences))


def _partial(evidence: Evidence, ended: str) -> Outcome:
    last_words = f"{evidence.message}."
    if evidence.speaks_json and not evidence.files_restored:
        return _failed(PARTIAL, ended, last_words, "Nothing was restored.")
    counts = _COUNTS_LIE if evidence.speaks_json else _NO_COUNTS
    sentences = (ended, last_words, counts)
    return Outcome(RestoreState.COMPLETED_WITH_ERRORS, PARTIAL, diagnostics(sentences))


def _reason(evidence: Evidence, returncode: int) -> str:
    """The token for a definite failure, from the status where restic has one for it, else from its words."""
    if returncode in _REASONS_BY_STATUS:
        return _REASONS_BY_STATUS[returncode]
    for text in (evidence.message.lower(), evidence.context.lower()):
        for reason, pattern in _REASONS_BY_TEXT:
            if pattern.search(text):
                return reason
    return NO_REASON_KNOWN
