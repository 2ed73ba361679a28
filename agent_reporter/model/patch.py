"""What was last acknowledged and what is newest -> the operations of one patch, in either spelling.

A patch is made when it is sent and never stored, so that a retry tells what is newest then.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, assert_never

from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.state import RestoreState
from agent_reporter.model.times import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from agent_reporter.model.report import Report

Operations = list[dict[str, Any]]

PROGRESS_RECORDS = 50
"""Error records that a patch carries while the restore runs. `/errors` can only be replaced as a whole, so a
failing restore would otherwise send its whole list again each second; the final report carries them all."""


class Spelling(StrEnum):
    """The two spellings that four paths have (`protocol.md`, Two spellings of four paths)."""

    AUTHORITY = "authority"
    DOCUMENT = "document"

    @property
    def other(self) -> Spelling:
        """The spelling that this one is not."""
        return Spelling.DOCUMENT if self is Spelling.AUTHORITY else Spelling.AUTHORITY


STARTED, ENDED, FILES, BYTES = "started", "ended", "files", "bytes"

PATHS: Mapping[Spelling, Mapping[str, str]] = MappingProxyType(
    {
        Spelling.AUTHORITY: MappingProxyType(
            {
                STARTED: "/started-time",
                ENDED: "/ended-time",
                FILES: "/files_restores",
                BYTES: "/bytes-restored",
            }
        ),
        Spelling.DOCUMENT: MappingProxyType(
            {
                STARTED: "/started_time",
                ENDED: "/ended_time",
                FILES: "/files_restored",
                BYTES: "/bytes_restored",
            }
        ),
    }
)


class Content(StrEnum):
    """What a patch tells. The first three are the protocol's scenarios and what decision 5 makes of them."""

    RESULT = "result"
    """The result of a finished restore: state, both times, errors, files and bytes together."""
    RESULT_ALONE = "result_alone"
    """The state and both times of the result, for a control plane that refuses the rest."""
    STATE = "state"
    """A state, and what else has changed beside it."""
    STATE_ALONE = "state_alone"
    """A state and nothing else."""
    PROGRESS = "progress"
    """Counters and errors, never a state: such a patch can undo no stop request."""
    PROGRESS_BESIDE_STATE = "progress_beside_state"
    """Counters and errors beside `in_progress`, for a control plane that wants them so."""
    STOP = "stop"
    """The third scenario: a stop is asked for, on this host."""

    @property
    def has_state(self) -> bool:
        """Whether the patch carries `/state`."""
        return self is not Content.PROGRESS

    @property
    def is_progress(self) -> bool:
        """Whether the patch tells progress, which waits for its tick."""
        return self in {Content.PROGRESS, Content.PROGRESS_BESIDE_STATE}


_ENDS = frozenset({Content.RESULT, Content.RESULT_ALONE})
_ALONE = frozenset({Content.RESULT_ALONE, Content.STATE_ALONE})
_GOES_ON = frozenset({Content.STATE, Content.PROGRESS_BESIDE_STATE})


def replace_state(state: RestoreState) -> Operations:
    """A patch of `/state` alone, as for the third scenario: asking for a stop."""
    return [_replace("/state", state.value)]


def operations(
    content: Content, acknowledged: Acknowledged, newest: Report, spelling: Spelling
) -> Operations:
    """The operations that bring the control plane from `acknowledged` to `newest`, as far as `content` goes.

    Empty if there is nothing to tell. Counters never go below what is acknowledged.
    """
    paths = PATHS[spelling]
    match content:
        case Content.RESULT:
            return [
                *replace_state(newest.state),
                *_times(newest, paths),
                _replace("/errors", _all_errors(acknowledged, newest)),
                _replace(paths[FILES], max(newest.files_restored, acknowledged.files_restored)),
                _replace(paths[BYTES], max(newest.bytes_restored, acknowledged.bytes_restored)),
            ]
        case Content.RESULT_ALONE:
            return [*replace_state(newest.state), *_times(newest, paths)]
        case Content.STATE | Content.PROGRESS_BESIDE_STATE:
            return [
                *replace_state(newest.state),
                *_start(acknowledged, newest, paths),
                *_changes(acknowledged, newest, paths),
            ]
        case Content.STATE_ALONE:
            return replace_state(newest.state)
        case Content.PROGRESS:
            return _changes(acknowledged, newest, paths)
        case Content.STOP:
            is_known = acknowledged.state is RestoreState.STOP_REQUESTED
            return [] if is_known else replace_state(RestoreState.STOP_REQUESTED)
        case _:
            assert_never(content)


def after(content: Content, acknowledged: Acknowledged, newest: Report) -> Acknowledged:
    """What the control plane has once it answered 204 to that patch."""
    if content is Content.STOP:
        return replace(acknowledged, state=RestoreState.STOP_REQUESTED)
    state = newest.state if content.has_state else acknowledged.state
    started, ended = acknowledged.started_time, acknowledged.ended_time
    if content in _ENDS:
        started, ended = newest.started_time, newest.ended_time
    if content in _ALONE:
        return replace(
            acknowledged, revision=newest.revision, state=state, started_time=started, ended_time=ended
        )
    if content in _GOES_ON:
        started = started or newest.started_time
    whole = content is Content.RESULT
    # Made anew: this comes with every patch, and `replace` is slow.
    return Acknowledged(
        revision=newest.revision,
        state=state,
        started_time=started,
        ended_time=ended,
        files_restored=max(newest.files_restored, acknowledged.files_restored),
        bytes_restored=max(newest.bytes_restored, acknowledged.bytes_restored),
        error_count=max(newest.errors.count, acknowledged.error_count),
        records=len(newest.errors.records) if whole else _told_records(newest),
        reason=newest.errors.reason,
        diagnostics=newest.errors.diagnostics,
    )


def _changes(acknowledged: Acknowledged, newest: Report, paths: Mapping[str, str]) -> Operations:
    changes: Operations = []
    if newest.files_restored > acknowledged.files_restored:
        changes.append(_replace(paths[FILES], newest.files_restored))
    if newest.bytes_restored > acknowledged.bytes_restored:
        changes.append(_replace(paths[BYTES], newest.bytes_restored))
    count = newest.errors.count
    if count > acknowledged.error_count or (
        count == acknowledged.error_count > 0 and acknowledged.records != _told_records(newest)
    ):
        changes.append(_replace("/errors", newest.errors.to_document(PROGRESS_RECORDS)))
    return changes


def _all_errors(acknowledged: Acknowledged, newest: Report) -> dict[str, Any]:
    return newest.errors.to_document() | {"count": max(newest.errors.count, acknowledged.error_count)}


def _told_records(newest: Report) -> int:
    return min(len(newest.errors.records), PROGRESS_RECORDS)


def _start(acknowledged: Acknowledged, newest: Report, paths: Mapping[str, str]) -> Operations:
    if newest.started_time is None or acknowledged.started_time is not None:
        return []
    return [_time(paths[STARTED], newest.started_time)]


def _times(newest: Report, paths: Mapping[str, str]) -> Operations:
    return [
        _time(paths[name], moment)
        for name, moment in ((STARTED, newest.started_time), (ENDED, newest.ended_time))
        if moment is not None
    ]


def _time(path: str, moment: datetime) -> dict[str, Any]:
    return _replace(path, format_time(moment))


def _replace(path: str, value: object) -> dict[str, Any]:
    return {"op": "replace", "path": path, "value": value}
