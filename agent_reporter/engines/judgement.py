"""How a run of an engine ended: from its exit status and from what it printed, together.

| exit status | what it printed | state |
|---|---|---|
| 0 | no errors | completed |
| 0 | errors | completed_with_errors |
| 0 | not the line it always ends with | failed; stopped when that was asked for |
| other | went through to the end, past errors | completed_with_errors; failed when nothing was restored |
| other | anything else | failed; stopped when that was asked for and it did not fail of itself |

What is stopped is what was asked to stop: no exit status says that by itself.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Outcome
from agent_reporter.engines.wording import diagnostics, how_it_ended, signal_name, signal_of
from agent_reporter.model.error_log import PARTIAL
from agent_reporter.model.state import RestoreState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent_reporter.engines.adapter import StopCause

NO_REASON_KNOWN = "engine_failed"
CONNECTION_LOST = "connection_lost"
"""The reason of an engine whose ssh ended: a stop goes to that too, and the engine may see its end first."""
STATUS_OF_SIGINT = 128 + signal.SIGINT

_REASONS_OF_ALL = (
    ("target_full", re.compile(r"no space left on device|disk quota exceeded")),
    ("target_read_only", re.compile(r"read-only file system")),
)


@dataclass(frozen=True, slots=True)
class Endings:
    """What an engine's exit statuses and last words mean: a table of facts."""

    engine: str
    """What sentences call it."""
    partial: frozenset[int] = frozenset()
    """Statuses with which it ends when it went through to the end and left something out."""
    interrupted: frozenset[int] = frozenset({STATUS_OF_SIGINT})
    """Statuses with which it ends when a signal interrupted it."""
    reasons_by_status: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    reasons_by_text: Sequence[tuple[str, re.Pattern[str]]] = ()
    """Searched for in its last words, in lower case, the first first."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a run printed, in brief. A reader fills in what its engine tells."""

    errors: int = 0
    """Errors it listed of single files."""
    restored: bool | None = None
    """Whether it restored anything; None if it does not say."""
    went_through: bool = False
    """It said that it came to its end past errors, whatever its exit status."""
    finished: bool | None = None
    """Whether it printed what it always prints at its end; None if there is no such thing."""
    interrupted: bool = False
    """It said that it was interrupted."""
    message: str = ""
    """Its last words."""
    context: str = ""
    """Its last lines, which may hold its last words."""
    remarks: tuple[str, ...] = ()
    """Sentences for a person about a run that succeeded, such as on files that were there already."""
    counts: str = ""
    """A sentence on how far its counts can be trusted when there were errors."""
    left_behind: str = ""
    """A sentence on what an early end leaves."""


def judge(endings: Endings, evidence: Evidence, returncode: int, stop: StopCause | None) -> Outcome:
    """The outcome by the table above; `returncode` is negative for a signal, as `subprocess` gives it."""
    if stop is None:
        return _of_itself(endings, evidence, returncode)
    if _was_stopped(endings, evidence, returncode):
        asked = f"{endings.engine} was asked to stop."
        ended = how_it_ended(endings.engine, returncode)
        sentences = (asked, ended, evidence.left_behind)
        return Outcome(RestoreState.STOPPED, stop.reason, diagnostics(sentences))
    outcome = _of_itself(endings, evidence, returncode)
    note = f"A stop had been asked for, but {endings.engine} ended of itself."
    return replace(outcome, diagnostics=diagnostics((note, outcome.diagnostics)))


def _was_stopped(endings: Endings, evidence: Evidence, returncode: int) -> bool:
    """Whether a run that was asked to stop ended because of that."""
    if returncode == 0:
        return evidence.finished is False
    if _went_through(endings, evidence, returncode):
        return False
    by_a_signal = _was_interrupted(endings, evidence, returncode) or signal_of(returncode) > 0
    cut_off = _reason(endings, evidence, returncode) == CONNECTION_LOST
    return by_a_signal or cut_off or not evidence.message


def _went_through(endings: Endings, evidence: Evidence, returncode: int) -> bool:
    """Whether it came to the end of the restore, and left something out."""
    return not signal_of(returncode) and (evidence.went_through or returncode in endings.partial)


def _was_interrupted(endings: Endings, evidence: Evidence, returncode: int) -> bool:
    return evidence.interrupted or returncode in endings.interrupted


def _of_itself(endings: Endings, evidence: Evidence, returncode: int) -> Outcome:
    """The outcome of a run that nobody stopped."""
    ended = how_it_ended(endings.engine, returncode)
    if returncode == 0:
        return _succeeded(endings, evidence, ended)
    if _went_through(endings, evidence, returncode):
        return _partial(evidence, ended)
    if _was_interrupted(endings, evidence, returncode):
        nobody = "It was interrupted, and not by a stop that was asked for here."
        return _failed("interrupted", ended, nobody, evidence.left_behind)
    number = signal_of(returncode)
    if number:
        somebody = f"Somebody or something killed it with {signal_name(number)}."
        return _failed("engine_killed", ended, somebody, evidence.left_behind, evidence.context)
    first_words = "" if evidence.message in evidence.context else evidence.message
    return _failed(_reason(endings, evidence, returncode), ended, first_words, evidence.context)


def _succeeded(endings: Endings, evidence: Evidence, ended: str) -> Outcome:
    if evidence.finished is False:
        early = "It ended before it said that it was done."
        return _failed("ended_early", ended, early, evidence.left_behind, evidence.context)
    if evidence.errors:
        listed = f"{endings.engine} listed {evidence.errors} errors."
        sentences = (*evidence.remarks, listed, evidence.counts)
        return Outcome(RestoreState.COMPLETED_WITH_ERRORS, PARTIAL, diagnostics(sentences))
    return Outcome(RestoreState.COMPLETED, diagnostics=diagnostics(evidence.remarks))


def _partial(evidence: Evidence, ended: str) -> Outcome:
    last_words = f"{evidence.message.removesuffix('.')}." if evidence.message else ""
    if evidence.restored is False:
        return _failed(PARTIAL, ended, last_words, "Nothing was restored.")
    sentences = (ended, last_words, evidence.counts)
    return Outcome(RestoreState.COMPLETED_WITH_ERRORS, PARTIAL, diagnostics(sentences))


def _failed(reason: str, *sentences: str) -> Outcome:
    return Outcome(RestoreState.FAILED, reason, diagnostics(sentences))


def _reason(endings: Endings, evidence: Evidence, returncode: int) -> str:
    """The token for a definite failure, from the status where there is one for it, else from its words."""
    if returncode in endings.reasons_by_status:
        return endings.reasons_by_status[returncode]
    for words in (evidence.message.lower(), evidence.context.lower()):
        for reason, pattern in (*endings.reasons_by_text, *_REASONS_OF_ALL):
            if pattern.search(words):
                return reason
    return NO_REASON_KNOWN
