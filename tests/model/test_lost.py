"""The end that nobody saw."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.exchange import Ending
from agent_reporter.model.learning import ending_there
from agent_reporter.model.lost import ENGINE_LOST, LOST_REASONS, lost
from tests.model.builders import COMPLETED, FAILED, FINALS, IN_PROGRESS, NOW, QUEUED, STARTED, errors, report

if TYPE_CHECKING:
    from agent_reporter.model.state import RestoreState


def test_a_lost_restore_has_failed_with_all_that_is_known_of_it() -> None:
    before = report(IN_PROGRESS, bytes_restored=10, files_restored=2, errors=errors(1))
    ended = lost(before, NOW, ENGINE_LOST, "The engine ended without a result.")
    assert (ended.state, ended.started_time, ended.ended_time) == (FAILED, STARTED, NOW)
    assert (ended.bytes_restored, ended.files_restored, ended.revision) == (10, 2, 2)
    assert (ended.errors.count, ended.errors.reason) == (1, "engine_lost")
    assert ended.errors.diagnostics == (
        "The engine ended without a result. How it ended is not known. The last that is known: in_progress, "
        "10 bytes and 2 files restored. Look at the target before you trust it."
    )


def test_a_lost_restore_that_never_began_has_a_start_all_the_same() -> None:
    assert lost(report(QUEUED), NOW, "engine_lost", "Gone.").started_time == NOW


@pytest.mark.parametrize("reason", sorted(LOST_REASONS))
@pytest.mark.parametrize("state", FINALS)
def test_whoever_told_an_end_knew_better_than_we_who_did_not_see_it(reason: str, state: RestoreState) -> None:
    ended = lost(report(IN_PROGRESS), NOW, reason, "Gone.")
    assert ending_there(Acknowledged(state=state), ended) is Ending.DELIVERED


def test_an_end_that_nobody_saw_yields_to_an_end_alone() -> None:
    ended = lost(report(IN_PROGRESS), NOW, ENGINE_LOST, "Gone.")
    assert ending_there(Acknowledged(state=IN_PROGRESS), ended) is Ending.ENDED_ELSEWHERE


def test_an_end_that_was_seen_here_is_not_lost_to_another_one_there() -> None:
    assert ending_there(Acknowledged(state=COMPLETED), report(FAILED)) is Ending.ENDED_ELSEWHERE
