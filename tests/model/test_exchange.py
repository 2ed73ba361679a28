"""What comes next with a control plane, and what each answer makes of it: one decision at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from agent_reporter.errors import MalformedError
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.dialect import Dialect, PathSpelling, Progress, Way
from agent_reporter.model.exchange import Ending, Exchange
from agent_reporter.model.learning import after_no_answer, after_patch, after_read, expire
from agent_reporter.model.patch import Content, Spelling
from agent_reporter.model.steps import Read, Send, is_urgent, next_step
from agent_reporter.model.verdict import Answer
from tests.model.builders import (
    COMPLETED,
    ENDED,
    ENDED_TEXT,
    FINALS,
    IN_PROGRESS,
    NOW,
    PREPARING,
    QUEUED,
    START_REQUESTED,
    STOP_REQUESTED,
    STOPPED,
    WORLD,
    acknowledged,
    errors,
    exchange,
    paths,
    reads,
    report,
    sent,
    shown,
)
from tests.model.strategies import exchanges, unhurried

if TYPE_CHECKING:
    from agent_reporter.model.state import RestoreState

AUTHORITY, DOCUMENT = Spelling.AUTHORITY, Spelling.DOCUMENT
UNSETTLED = Dialect.of_settings(PathSpelling.AUTO, Progress.AUTO)
RUNNING = report(IN_PROGRESS, files_restored=8, bytes_restored=9)
DONE = report(COMPLETED, revision=7, files_restored=8, bytes_restored=9)
DELIVERED = Answer(204)
BAD = Answer(400, b'{"message": "Not so."}')
CONFLICT = Answer(409, b'{"message": "Not allowed."}')
A_SECOND = NOW + timedelta(seconds=1)
"""When the first retry is due in this world."""

NON_FINAL = (START_REQUESTED, QUEUED, PREPARING, IN_PROGRESS)


def talking(progress: Progress) -> Exchange:
    return exchange(IN_PROGRESS, dialect=Dialect(progress=progress))


# --- what comes next ------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [*NON_FINAL, *FINALS])
def test_the_first_thing_is_to_read_the_restore(state: RestoreState) -> None:
    assert next_step(Exchange(), report(state)) == Read()


@pytest.mark.parametrize("ending", Ending)
@pytest.mark.parametrize("newest", [RUNNING, DONE])
def test_when_it_is_over_there_is_nothing_to_do(ending: Ending, newest: Any) -> None:
    assert next_step(exchange(PREPARING, ending=ending), newest) is None
    assert next_step(Exchange(ending=ending), newest) is None


def test_a_patch_with_a_state_goes_out_only_straight_after_a_read() -> None:
    conversation = exchange(PREPARING)
    assert reads(conversation, RUNNING)
    conversation = after_read(conversation, RUNNING, shown("preparing"), WORLD)
    step = sent(conversation, RUNNING)
    assert step.way == Way(Content.STATE, AUTHORITY)
    assert step.report is RUNNING
    assert step.operations == [
        {"op": "replace", "path": "/state", "value": "in_progress"},
        {"op": "replace", "path": "/started-time", "value": "2014-10-20T13:11:58.985151Z"},
        {"op": "replace", "path": "/files_restores", "value": 8},
        {"op": "replace", "path": "/bytes-restored", "value": 9},
    ]


@pytest.mark.parametrize("status", [400, 401, 429, 500, 503])
def test_a_patch_with_a_state_that_was_not_taken_is_preceded_by_another_read(status: int) -> None:
    conversation = exchange(PREPARING, fresh=True)
    conversation = after_patch(conversation, sent(conversation, RUNNING), Answer(status), WORLD)
    assert reads(conversation, RUNNING)


def test_a_read_after_which_there_was_nothing_to_tell_is_stale_once_there_is_something() -> None:
    """Else the first read of a restore, an hour ago, would let a state erase the stop request since."""
    waiting = report(QUEUED)
    conversation = after_read(Exchange(), waiting, shown("queued"), WORLD)
    assert next_step(conversation, waiting) is None
    assert reads(conversation, report(PREPARING, revision=2))


@pytest.mark.parametrize("state", [QUEUED, PREPARING])
def test_a_stop_request_silences_all_states_but_the_result(state: RestoreState) -> None:
    conversation = after_read(Exchange(), report(state), shown("stop_requested"), WORLD)
    assert conversation.stop_requested
    assert next_step(conversation, report(state)) is None
    assert sent(conversation, report(STOPPED)).way.content is Content.RESULT


def test_a_stop_request_that_was_seen_stays_seen() -> None:
    conversation = after_read(exchange(PREPARING, stop_requested=True), RUNNING, shown("preparing"), WORLD)
    assert conversation.stop_requested
    assert sent(conversation, RUNNING).way.content is Content.PROGRESS


def test_a_state_that_the_control_plane_is_already_past_is_not_told() -> None:
    assert next_step(exchange(IN_PROGRESS), report(PREPARING)) is None
    assert next_step(exchange(PREPARING), report(PREPARING)) is None


def test_counters_go_out_alone_and_without_a_read() -> None:
    step = sent(exchange(IN_PROGRESS), RUNNING)
    assert step.way.content is Content.PROGRESS
    assert paths(step.operations) == ["/files_restores", "/bytes-restored"]


def test_counters_go_out_while_a_stop_request_stands() -> None:
    step = sent(exchange(STOP_REQUESTED, stop_requested=True), RUNNING)
    assert paths(step.operations) == ["/files_restores", "/bytes-restored"]


def test_there_is_nothing_to_do_where_nothing_is_new() -> None:
    conversation = exchange(acknowledged=acknowledged(files_restored=8, bytes_restored=9))
    assert next_step(conversation, RUNNING) is None


@pytest.mark.parametrize("state", [START_REQUESTED, QUEUED, PREPARING])
def test_counters_before_the_restore_is_in_progress_wait(state: RestoreState) -> None:
    assert next_step(exchange(state), report(state, files_restored=8)) is None


def test_counters_after_a_restart_are_preceded_by_a_read() -> None:
    """What was acknowledged since the record was kept is unknown: counters there would go down."""
    before = exchange(acknowledged=acknowledged(files_restored=3))
    conversation = replace(Exchange.from_document(before.to_document()), uncertain=True)
    assert reads(conversation, RUNNING)
    conversation = after_read(conversation, RUNNING, shown("in_progress", files_restored=20), WORLD)
    assert paths(sent(conversation, RUNNING).operations) == ["/bytes-restored"]


def test_counters_with_a_state_are_preceded_by_a_read() -> None:
    conversation = talking(Progress.WITH_STATE)
    assert reads(conversation, RUNNING)
    step = sent(replace(conversation, fresh=True), RUNNING)
    assert step.way == Way(Content.PROGRESS_BESIDE_STATE, AUTHORITY)
    assert paths(step.operations) == ["/state", "/files_restores", "/bytes-restored"]
    assert step.operations[0]["value"] == "in_progress"


def test_counters_with_a_state_are_not_told_while_a_stop_request_stands() -> None:
    conversation = replace(talking(Progress.WITH_STATE), stop_requested=True, fresh=True)
    assert next_step(conversation, RUNNING) is None


def test_counters_with_a_state_are_not_even_read_for_where_nothing_is_new() -> None:
    known = acknowledged(files_restored=8, bytes_restored=9)
    assert next_step(replace(talking(Progress.WITH_STATE), acknowledged=known), RUNNING) is None


def test_where_only_results_have_counters_none_are_told_before() -> None:
    assert next_step(talking(Progress.FINAL_ONLY), RUNNING) is None
    assert sent(talking(Progress.FINAL_ONLY), DONE).way.content is Content.RESULT


@pytest.mark.parametrize("state", [*NON_FINAL, STOP_REQUESTED])
def test_a_result_goes_out_at_once(state: RestoreState) -> None:
    assert sent(exchange(state), DONE).way == Way(Content.RESULT, AUTHORITY)


@pytest.mark.parametrize("doubt", ["uncertain", "contradicted"])
def test_a_result_after_a_doubt_is_preceded_by_a_read(doubt: str) -> None:
    conversation = exchange(IN_PROGRESS, **{doubt: True})
    assert reads(conversation, DONE)
    conversation = after_read(conversation, DONE, shown("in_progress"), WORLD)
    assert sent(conversation, DONE).way.content is Content.RESULT


def test_where_nothing_can_be_read_a_state_goes_out_without() -> None:
    assert sent(exchange(PREPARING, readable=False), RUNNING).way.content is Content.STATE


def test_where_nothing_can_be_read_no_state_follows_a_doubt_and_the_result_does() -> None:
    conversation = exchange(PREPARING, readable=False, uncertain=True)
    assert next_step(conversation, RUNNING) is None
    assert sent(conversation, DONE).way.content is Content.RESULT


def test_where_nothing_can_be_read_no_counters_beside_a_state_follow_a_doubt_and_the_result_does() -> None:
    """Decision 2: the state beside them could erase a stop request, and nobody could tell."""
    before = replace(talking(Progress.WITH_STATE), readable=False)
    step = sent(before, RUNNING)
    assert step.way.content is Content.PROGRESS_BESIDE_STATE
    conversation = after_no_answer(before, step, "timed out", WORLD, uncertain=True)
    assert reads(conversation, RUNNING), "it may be readable by now"
    conversation = after_read(conversation, RUNNING, Answer(404), WORLD)
    assert next_step(conversation, RUNNING) is None
    assert sent(conversation, DONE).way.content is Content.RESULT


def test_after_a_409_the_restore_is_read_if_it_can_be() -> None:
    assert next_step(exchange(contradicted=True), RUNNING) == Read()
    assert next_step(exchange(contradicted=True, readable=False), RUNNING) is None


# --- what is urgent -------------------------------------------------------------------------------------


def test_states_and_results_wait_for_no_tick() -> None:
    conversation = exchange(PREPARING, fresh=True)
    assert is_urgent(conversation, next_step(conversation, RUNNING), RUNNING)
    conversation = exchange(IN_PROGRESS)
    assert is_urgent(conversation, next_step(conversation, DONE), DONE)


def test_the_reads_before_states_and_results_wait_for_no_tick() -> None:
    assert is_urgent(Exchange(), Read(), RUNNING)
    assert is_urgent(exchange(PREPARING), Read(), RUNNING)
    assert is_urgent(exchange(IN_PROGRESS, uncertain=True), Read(), DONE)


def test_progress_waits_for_its_tick_in_either_form() -> None:
    conversation = exchange(IN_PROGRESS)
    assert not is_urgent(conversation, next_step(conversation, RUNNING), RUNNING)
    conversation = talking(Progress.WITH_STATE)
    assert not is_urgent(conversation, Read(), RUNNING)
    conversation = replace(conversation, fresh=True)
    assert not is_urgent(conversation, next_step(conversation, RUNNING), RUNNING)


@pytest.mark.parametrize(
    ("known", "newest", "is_first"), [(0, 0, False), (0, 1, True), (0, 2, True), (1, 2, False)]
)
def test_the_first_errors_wait_for_no_tick_and_later_ones_do(known: int, newest: int, is_first: bool) -> None:  # noqa: FBT001 - a parameter
    conversation = exchange(acknowledged=acknowledged(error_count=known))
    failing = report(bytes_restored=1, errors=errors(newest))
    assert is_urgent(conversation, next_step(conversation, failing), failing) is is_first


def test_nothing_is_not_urgent() -> None:
    assert not is_urgent(exchange(), None, RUNNING)


# --- after a read ---------------------------------------------------------------------------------------


def test_after_a_read_it_is_known_what_the_control_plane_has() -> None:
    before = exchange(PREPARING, uncertain=True, unsigned=True)
    conversation = after_read(before, RUNNING, shown("queued", files_restored=2), WORLD)
    assert conversation == replace(
        before,
        acknowledged=Acknowledged(state=QUEUED, files_restored=2),
        fresh=True,
        uncertain=False,
        unsigned=False,
    )


@pytest.mark.parametrize("state", FINALS)
def test_a_final_state_that_is_read_ends_the_reporting_of_an_unfinished_restore(state: RestoreState) -> None:
    conversation = after_read(exchange(), RUNNING, shown(state.value), WORLD)
    assert conversation.ending is Ending.ENDED_ELSEWHERE
    assert conversation.failure == f"the control plane has this restore as {state.value} already"
    assert next_step(conversation, RUNNING) is None


def test_another_final_state_than_ours_ends_the_reporting() -> None:
    conversation = after_read(exchange(uncertain=True), DONE, shown("failed"), WORLD)
    assert conversation.ending is Ending.ENDED_ELSEWHERE
    assert not conversation.uncertain


def test_our_result_that_is_read_is_delivered() -> None:
    before = exchange(uncertain=True, failure="HTTP 503", attempt=3)
    answer = shown("completed", ended_time=ENDED_TEXT, files_restored=8, bytes_restored=9)
    conversation = after_read(before, DONE, answer, WORLD)
    assert conversation.ending is Ending.DELIVERED
    assert conversation.failure == ""
    assert not conversation.uncertain
    assert conversation.acknowledged is not None
    assert conversation.acknowledged.state is COMPLETED
    assert conversation.acknowledged.revision == DONE.revision


def test_our_result_that_is_read_with_another_end_is_delivered_and_not_the_revision_we_told() -> None:
    answer = shown("completed", ended_time="2014-10-20T09:00:00Z", files_restored=8, bytes_restored=9)
    conversation = after_read(exchange(uncertain=True), DONE, answer, WORLD)
    assert conversation.ending is Ending.DELIVERED
    assert conversation.acknowledged is not None
    assert conversation.acknowledged.revision == 0


@pytest.mark.parametrize(
    "less", [{"files_restored": 7}, {"bytes_restored": 8}, {"errors": {"count": 1}}], ids=str
)
def test_our_result_that_is_read_with_less_than_we_know_is_delivered_bare(less: dict[str, Any]) -> None:
    newest = replace(DONE, errors=errors(2))
    whole: dict[str, Any] = {"files_restored": 8, "bytes_restored": 9, "errors": {"count": 2}}
    before = exchange(uncertain=True)
    assert after_read(before, newest, shown("completed", **whole), WORLD).ending is Ending.DELIVERED
    assert (
        after_read(before, newest, shown("completed", **whole | less), WORLD).ending is Ending.DELIVERED_BARE
    )


def test_our_bare_result_that_is_read_after_a_doubt_has_not_delivered_the_rest() -> None:
    before = exchange(refused=(Content.RESULT, 1))
    step = sent(before, DONE)
    assert step.way.content is Content.RESULT_ALONE
    conversation = after_patch(before, step, Answer(500), WORLD)
    conversation = after_read(conversation, DONE, shown("completed", ended_time=ENDED_TEXT), WORLD)
    assert conversation.ending is Ending.DELIVERED_BARE


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"state": "paused"}', b'{"files_restored": 8}'])
def test_a_read_that_makes_no_sense_is_tried_again(body: bytes) -> None:
    conversation = after_read(exchange(PREPARING, uncertain=True), RUNNING, Answer(200, body), WORLD)
    assert conversation.failure.startswith("the restore could not be read: ")
    assert (conversation.attempt, conversation.not_before) == (1, A_SECOND)
    assert conversation.uncertain
    assert reads(conversation, RUNNING)


@pytest.mark.parametrize("status", [302, 408, 425, 429, 500, 502, 503, 504])
def test_a_read_that_fails_is_tried_again_later(status: int) -> None:
    conversation = after_read(exchange(PREPARING), RUNNING, Answer(status, retry_after="30"), WORLD)
    assert conversation.failure == f"HTTP {status}"
    assert conversation.not_before == NOW + timedelta(seconds=31)
    assert reads(conversation, RUNNING)


@pytest.mark.parametrize("status", [202, 204, 206])
def test_a_read_that_something_in_between_answers_is_tried_again(status: int) -> None:
    """Else one odd answer of a proxy would end the reads, and states would go out without, for good."""
    conversation = after_read(exchange(PREPARING), RUNNING, Answer(status), WORLD)
    assert conversation.readable
    assert conversation.not_before == A_SECOND


@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 501])
def test_a_control_plane_that_serves_no_reads_is_told_without(status: int) -> None:
    conversation = after_read(Exchange(), RUNNING, Answer(status), WORLD)
    assert conversation == Exchange(acknowledged=Acknowledged(), readable=False)
    assert sent(conversation, RUNNING).way.content is Content.STATE


def test_a_control_plane_that_serves_no_more_reads_is_told_from_what_was_known() -> None:
    before = exchange(PREPARING, fresh=True)
    conversation = after_read(before, RUNNING, Answer(404), WORLD)
    assert conversation == replace(before, readable=False, fresh=False)


def test_a_first_401_is_mended_by_signing_in_and_a_second_is_waited_out() -> None:
    conversation = after_read(exchange(PREPARING), RUNNING, Answer(401), WORLD)
    assert conversation.unsigned
    assert (conversation.attempt, conversation.not_before) == (0, None)
    assert reads(conversation, RUNNING)
    conversation = after_read(conversation, RUNNING, Answer(401), WORLD)
    assert (conversation.attempt, conversation.not_before) == (1, A_SECOND)
    assert conversation.failure == "HTTP 401"


@pytest.mark.parametrize(
    "answer", [Answer(503), Answer(404), Answer(200, b"<html>"), shown("failed"), shown()]
)
def test_any_other_answer_to_a_read_ends_a_401(answer: Answer) -> None:
    """`unsigned` is that the last answer was a 401: by it the delivery renews the token."""
    assert not after_read(exchange(PREPARING, unsigned=True), RUNNING, answer, WORLD).unsigned


@pytest.mark.parametrize("status", [204, 400, 403, 409, 429, 503])
def test_any_other_answer_to_a_patch_ends_a_401(status: int) -> None:
    before = exchange(IN_PROGRESS, unsigned=True)
    assert not after_patch(before, sent(before, RUNNING), Answer(status), WORLD).unsigned


# --- after a 409 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest", [RUNNING, DONE])
def test_a_409_is_answered_by_a_read(newest: Any) -> None:
    before = exchange(IN_PROGRESS)
    conversation = after_patch(before, sent(before, newest), CONFLICT, WORLD)
    assert conversation == replace(before, contradicted=True, failure="HTTP 409: Not allowed.")
    assert reads(conversation, newest)


def test_after_a_409_a_final_state_ends_the_reporting() -> None:
    conversation = after_read(exchange(contradicted=True), RUNNING, shown("failed"), WORLD)
    assert conversation.ending is Ending.ENDED_ELSEWHERE
    assert not conversation.contradicted


def test_after_a_409_a_stop_request_is_honoured() -> None:
    before = exchange(PREPARING, contradicted=True)
    conversation = after_read(before, RUNNING, shown("stop_requested"), WORLD)
    assert conversation.stop_requested
    assert conversation.not_before is None
    assert not conversation.contradicted


def test_after_a_409_that_nothing_explains_what_is_newest_goes_out_later() -> None:
    before = exchange(PREPARING, contradicted=True, failure="HTTP 409")
    conversation = after_read(before, RUNNING, shown("preparing"), WORLD)
    assert (conversation.attempt, conversation.not_before) == (1, A_SECOND)
    assert conversation.failure == "HTTP 409"
    assert not conversation.contradicted
    assert reads(conversation, RUNNING), "by then that read is old"
    assert sent(conversation, DONE).way.content is Content.RESULT


def test_a_409_that_a_known_stop_request_does_not_explain_is_backed_off_from() -> None:
    before = exchange(STOP_REQUESTED, stop_requested=True)
    stopped = report(STOPPED)
    conversation = after_patch(before, sent(before, stopped), CONFLICT, WORLD)
    conversation = after_read(conversation, stopped, shown("stop_requested"), WORLD)
    assert conversation.not_before == A_SECOND


@pytest.mark.parametrize("status", [200, 202, 206])
def test_another_2xx_than_204_is_looked_into(status: int) -> None:
    before = exchange(IN_PROGRESS)
    conversation = after_patch(before, sent(before, DONE), Answer(status), WORLD)
    assert conversation.contradicted
    assert reads(conversation, DONE)


@pytest.mark.parametrize("status", [200, 202])
def test_where_nothing_can_be_read_another_2xx_is_taken_at_its_word(status: int) -> None:
    before = exchange(IN_PROGRESS, readable=False)
    conversation = after_patch(before, sent(before, DONE), Answer(status), WORLD)
    assert conversation.ending is Ending.DELIVERED


def test_where_nothing_can_be_read_a_409_means_that_it_ended_elsewhere() -> None:
    before = exchange(IN_PROGRESS, readable=False)
    for newest in (RUNNING, DONE):
        conversation = after_patch(before, sent(before, newest), CONFLICT, WORLD)
        assert conversation.ending is Ending.ENDED_ELSEWHERE
        assert conversation.failure == "HTTP 409: Not allowed."


def test_where_nothing_can_be_read_a_409_after_an_uncertain_result_is_its_echo() -> None:
    conversation = exchange(IN_PROGRESS, readable=False)
    conversation = after_patch(conversation, sent(conversation, DONE), Answer(500), WORLD)
    conversation = after_read(conversation, DONE, Answer(404), WORLD)
    conversation = after_patch(conversation, sent(conversation, DONE), CONFLICT, WORLD)
    assert conversation.ending is Ending.DELIVERED


def test_where_nothing_can_be_read_a_409_after_an_uncertain_bare_result_is_the_echo_of_that() -> None:
    conversation = exchange(IN_PROGRESS, readable=False)
    conversation = after_patch(conversation, sent(conversation, DONE), BAD, WORLD)
    step = sent(conversation, DONE)
    assert step.way.content is Content.RESULT_ALONE
    conversation = after_patch(conversation, step, Answer(500), WORLD)
    conversation = after_read(conversation, DONE, Answer(404), WORLD)
    conversation = after_patch(conversation, sent(conversation, DONE), CONFLICT, WORLD)
    assert conversation.ending is Ending.DELIVERED_BARE


def test_where_nothing_can_be_read_a_409_after_an_uncertain_state_is_no_echo_of_a_result() -> None:
    conversation = exchange(PREPARING, readable=False)
    conversation = after_patch(conversation, sent(conversation, RUNNING), Answer(500), WORLD)
    conversation = after_read(conversation, DONE, Answer(404), WORLD)
    conversation = after_patch(conversation, sent(conversation, DONE), CONFLICT, WORLD)
    assert conversation.ending is Ending.ENDED_ELSEWHERE


def test_where_nothing_can_be_read_any_more_a_409_after_another_2xx_is_the_echo_of_the_result() -> None:
    conversation = exchange(IN_PROGRESS)
    conversation = after_patch(conversation, sent(conversation, DONE), Answer(200), WORLD)
    conversation = after_read(conversation, DONE, Answer(404), WORLD)
    conversation = after_patch(conversation, sent(conversation, DONE), CONFLICT, WORLD)
    assert conversation.ending is Ending.DELIVERED


# --- after a patch --------------------------------------------------------------------------------------


def test_a_204_makes_a_state_acknowledged_and_forgets_all_failures() -> None:
    before = exchange(
        PREPARING,
        fresh=True,
        uncertain=True,
        unsigned=True,
        attempt=5,
        not_before=NOW,
        failure="HTTP 503",
        refused=(Content.PROGRESS, 1),
    )
    assert after_patch(before, sent(before, RUNNING), DELIVERED, WORLD) == exchange(
        acknowledged=acknowledged(revision=1, files_restored=8, bytes_restored=9)
    )


@pytest.mark.parametrize("state", FINALS)
def test_a_204_for_a_result_ends_the_exchange(state: RestoreState) -> None:
    before = exchange(IN_PROGRESS)
    conversation = after_patch(before, sent(before, report(state)), DELIVERED, WORLD)
    assert conversation.ending is Ending.DELIVERED
    assert conversation.acknowledged is not None
    assert conversation.acknowledged.state is state


def test_a_204_for_a_bare_result_ends_the_exchange_and_keeps_why_it_was_bare() -> None:
    conversation = exchange(IN_PROGRESS)
    conversation = after_patch(conversation, sent(conversation, DONE), BAD, WORLD)
    conversation = after_patch(conversation, sent(conversation, DONE), DELIVERED, WORLD)
    assert conversation.ending is Ending.DELIVERED_BARE
    assert conversation.failure == "HTTP 400: Not so."


def test_a_204_for_paths_in_a_spelling_settles_it() -> None:
    before = exchange(IN_PROGRESS, dialect=UNSETTLED)
    assert after_patch(before, sent(before, RUNNING), DELIVERED, WORLD).dialect == Dialect(AUTHORITY)


@pytest.mark.parametrize(
    "newest", [report(PREPARING), report(IN_PROGRESS, started_time=None, errors=errors(1))]
)
def test_a_204_for_paths_without_a_second_spelling_settles_nothing(newest: Any) -> None:
    before = exchange(QUEUED, dialect=UNSETTLED, fresh=True)
    assert after_patch(before, sent(before, newest), DELIVERED, WORLD).dialect == UNSETTLED


@pytest.mark.parametrize("status", [403, 404, 405])
@pytest.mark.parametrize("newest", [RUNNING, DONE])
def test_a_control_plane_that_wants_to_hear_nothing_is_told_nothing(status: int, newest: Any) -> None:
    before = exchange(IN_PROGRESS)
    conversation = after_patch(before, sent(before, newest), Answer(status), WORLD)
    assert conversation.ending is Ending.GONE
    assert conversation.failure == f"HTTP {status}"


@pytest.mark.parametrize("status", [500, 501, 502, 503, 504])
def test_after_a_5xx_a_state_may_have_been_taken(status: int) -> None:
    before = exchange(PREPARING, fresh=True)
    for newest in (RUNNING, DONE):
        conversation = after_patch(before, sent(before, newest), Answer(status), WORLD)
        assert conversation.uncertain
        assert (conversation.attempt, conversation.not_before) == (1, A_SECOND)
        assert reads(conversation, newest)


@pytest.mark.parametrize("status", [302, 408, 425, 429])
def test_after_these_a_state_was_not_taken_and_goes_out_later(status: int) -> None:
    before = exchange(IN_PROGRESS)
    conversation = after_patch(before, sent(before, DONE), Answer(status), WORLD)
    assert not conversation.uncertain
    assert conversation.not_before == A_SECOND
    assert sent(conversation, DONE).way.content is Content.RESULT


@pytest.mark.parametrize("status", [429, 500, 503])
def test_after_a_failure_counters_go_out_later_without_a_read(status: int) -> None:
    before = exchange(IN_PROGRESS)
    conversation = after_patch(before, sent(before, RUNNING), Answer(status), WORLD)
    assert not conversation.uncertain
    assert conversation.not_before == A_SECOND
    assert sent(conversation, RUNNING).way.content is Content.PROGRESS


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        (None, 1),
        ("20", 21),
        ("Mon, 20 Oct 2014 14:00:20 GMT", 21),
        ("100000", 301),
        ("Mon, 20 Oct 2015 14:00:20 GMT", 301),
        ("soon", 1),
    ],
)
def test_retry_after_is_the_least_that_is_waited(retry_after: str | None, seconds: int) -> None:
    before = exchange(IN_PROGRESS)
    answer = Answer(503, retry_after=retry_after)
    conversation = after_patch(before, sent(before, RUNNING), answer, WORLD)
    assert conversation.not_before == NOW + timedelta(seconds=seconds)


def test_waits_grow_with_every_failure_and_begin_anew_after_a_success() -> None:
    conversation = exchange(IN_PROGRESS)
    waits = []
    for _ in range(8):
        conversation = after_patch(conversation, sent(conversation, RUNNING), Answer(503), WORLD)
        assert conversation.not_before is not None
        waits.append((conversation.not_before - NOW).total_seconds())
    assert waits == [1, 2, 4, 8, 16, 30, 30, 30]
    conversation = after_patch(conversation, sent(conversation, RUNNING), DELIVERED, WORLD)
    assert (conversation.attempt, conversation.not_before) == (0, None)


def test_a_first_401_to_a_patch_is_mended_by_signing_in_and_a_second_is_waited_out() -> None:
    conversation = exchange(IN_PROGRESS)
    conversation = after_patch(conversation, sent(conversation, DONE), Answer(401), WORLD)
    assert conversation.unsigned
    assert conversation.failure == "HTTP 401"
    assert (conversation.attempt, conversation.not_before) == (0, None)
    assert sent(conversation, DONE).way.content is Content.RESULT
    conversation = after_patch(conversation, sent(conversation, DONE), Answer(401), WORLD)
    assert conversation.not_before == A_SECOND
    assert conversation.unsigned


# --- after a 400 ----------------------------------------------------------------------------------------


def refusals(conversation: Exchange, newest: Any, answer: Answer = BAD) -> tuple[list[Way], Exchange]:
    """What is tried while every patch is refused, until there is nothing more to try."""
    tried: list[Way] = []
    while len(tried) < 20:
        step = next_step(replace(conversation, fresh=True), newest)
        if not isinstance(step, Send):
            break
        tried.append(step.way)
        conversation = after_patch(conversation, step, answer, WORLD)
    return tried, conversation


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_refused_result_is_told_bare_and_then_is_a_dead_letter(status: int) -> None:
    tried, conversation = refusals(exchange(IN_PROGRESS), DONE, Answer(status))
    assert tried == [Way(Content.RESULT, AUTHORITY), Way(Content.RESULT_ALONE, AUTHORITY)]
    assert conversation.ending is Ending.REJECTED
    assert conversation.failure == f"HTTP {status}"


def test_a_refused_result_is_told_in_the_other_spelling_where_that_is_not_settled() -> None:
    tried, conversation = refusals(exchange(IN_PROGRESS, dialect=UNSETTLED), DONE)
    assert tried == [
        Way(Content.RESULT, AUTHORITY),
        Way(Content.RESULT, DOCUMENT),
        Way(Content.RESULT_ALONE, AUTHORITY),
        Way(Content.RESULT_ALONE, DOCUMENT),
    ]
    assert conversation.ending is Ending.REJECTED


def test_the_spelling_that_is_taken_after_a_refusal_stays() -> None:
    conversation = exchange(IN_PROGRESS, dialect=UNSETTLED)
    conversation = after_patch(conversation, sent(conversation, RUNNING), BAD, WORLD)
    step = sent(conversation, RUNNING)
    assert paths(step.operations) == ["/files_restored", "/bytes_restored"]
    conversation = after_patch(conversation, step, DELIVERED, WORLD)
    assert conversation.dialect == Dialect(DOCUMENT)
    tried, _ = refusals(conversation, DONE)
    assert tried == [Way(Content.RESULT, DOCUMENT), Way(Content.RESULT_ALONE, DOCUMENT)]


def test_a_refused_state_is_told_alone_and_then_not_again() -> None:
    tried, conversation = refusals(exchange(PREPARING), report(IN_PROGRESS))
    assert tried == [Way(Content.STATE, AUTHORITY), Way(Content.STATE_ALONE, AUTHORITY)]
    assert conversation.ending is None
    assert conversation.refused is None
    assert conversation.acknowledged == acknowledged(PREPARING), "what is there is what was read"
    conversation = after_read(conversation, report(IN_PROGRESS), shown("preparing"), WORLD)
    assert next_step(conversation, report(IN_PROGRESS)) is None
    assert sent(conversation, DONE).way == Way(Content.RESULT, AUTHORITY)


def test_after_a_refused_state_the_next_one_is_told() -> None:
    _, conversation = refusals(exchange(QUEUED), report(PREPARING))
    assert sent(replace(conversation, fresh=True), RUNNING).way.content is Content.STATE


def test_counters_go_out_alone_also_where_their_state_was_refused() -> None:
    _, conversation = refusals(exchange(PREPARING), report(IN_PROGRESS))
    assert sent(conversation, RUNNING).way.content is Content.PROGRESS


def test_a_refused_state_is_told_in_the_other_spelling_where_that_is_not_settled() -> None:
    tried, _ = refusals(exchange(PREPARING, dialect=UNSETTLED), report(IN_PROGRESS))
    assert tried == [
        Way(Content.STATE, AUTHORITY),
        Way(Content.STATE, DOCUMENT),
        Way(Content.STATE_ALONE, AUTHORITY),
    ]


def test_refused_counters_are_told_no_more() -> None:
    tried, conversation = refusals(talking(Progress.AUTO), RUNNING)
    assert tried == [Way(Content.PROGRESS, AUTHORITY)]
    assert conversation.dialect.progress is Progress.FINAL_ONLY
    assert conversation.not_before is None
    assert sent(conversation, DONE).way == Way(Content.RESULT, AUTHORITY)


def test_refused_counters_are_told_in_the_other_spelling_before_they_are_told_no_more() -> None:
    tried, conversation = refusals(exchange(IN_PROGRESS, dialect=UNSETTLED), RUNNING)
    assert tried == [Way(Content.PROGRESS, AUTHORITY), Way(Content.PROGRESS, DOCUMENT)]
    assert conversation.dialect == replace(UNSETTLED, progress=Progress.FINAL_ONLY)


def test_refused_counters_that_are_to_be_told_whatever_the_answer_are_told_later() -> None:
    before = talking(Progress.COUNTERS)
    conversation = after_patch(before, sent(before, RUNNING), BAD, WORLD)
    assert conversation.dialect.progress is Progress.COUNTERS
    assert (conversation.attempt, conversation.not_before) == (1, A_SECOND)
    assert sent(conversation, RUNNING).way == Way(Content.PROGRESS, AUTHORITY)


def test_refused_counters_beside_a_state_are_told_no_more() -> None:
    _, conversation = refusals(talking(Progress.WITH_STATE), RUNNING)
    assert conversation.dialect.progress is Progress.FINAL_ONLY
    assert conversation.acknowledged == acknowledged(IN_PROGRESS)


def test_what_was_refused_of_one_thing_does_not_count_for_another() -> None:
    conversation = exchange(IN_PROGRESS, dialect=UNSETTLED)
    conversation = after_patch(conversation, sent(conversation, RUNNING), BAD, WORLD)
    assert conversation.refused == (Content.PROGRESS, 1)
    assert sent(conversation, DONE).way == Way(Content.RESULT, AUTHORITY)
    conversation = after_patch(conversation, sent(conversation, DONE), BAD, WORLD)
    assert conversation.refused == (Content.RESULT, 1)


def test_a_failure_in_between_does_not_make_a_refused_way_be_tried_again() -> None:
    conversation = exchange(IN_PROGRESS, dialect=UNSETTLED)
    conversation = after_patch(conversation, sent(conversation, DONE), BAD, WORLD)
    conversation = after_patch(conversation, sent(conversation, DONE), Answer(503), WORLD)
    conversation = after_read(conversation, DONE, shown(), WORLD)
    assert sent(conversation, DONE).way == Way(Content.RESULT, DOCUMENT)


def told_for_long(conversation: Exchange, answers: dict[str, int]) -> list[int]:
    """The answers to what is told of a restore that makes progress a hundred times.

    `answers` are by what a patch touches, "/state" alone being "state"; all else is taken. Reads show the
    restore in the state that was taken last.
    """
    got = []
    there = "start_requested"
    for number in range(1, 101):
        newest = report(IN_PROGRESS, revision=number, files_restored=number, bytes_restored=number)
        for _ in range(4):
            step = next_step(conversation, newest)
            if isinstance(step, Read):
                conversation = after_read(conversation, newest, shown(there), WORLD)
            elif step is not None:
                touched = paths(step.operations)
                name = "state" if touched == ["/state"] else " ".join(touched[:1])
                status = answers.get(name, 204)
                got.append(status)
                if status == 204 and touched[0] == "/state":
                    there = step.operations[0]["value"]
                conversation = after_patch(conversation, step, Answer(status), WORLD)
    return got


@pytest.mark.parametrize("progress", [Progress.AUTO, Progress.WITH_STATE, Progress.FINAL_ONLY])
@pytest.mark.parametrize(
    "refused",
    [
        {"/files_restores": 400, "/bytes-restored": 400},
        {"/state": 400},
        {"/state": 400, "/files_restores": 400},
        {"/state": 400, "state": 400},
        {"/state": 400, "state": 400, "/files_restores": 400},
    ],
    ids=["counters", "beside a state", "all but a state alone", "states", "everything"],
)
def test_what_a_control_plane_refuses_is_not_told_again_and_again(
    progress: Progress, refused: dict[str, int]
) -> None:
    conversation = Exchange(dialect=Dialect(progress=progress))
    assert told_for_long(conversation, refused).count(400) <= 4


def test_a_token_that_may_read_and_not_write_makes_no_flood_of_sign_ins() -> None:
    conversation = exchange(PREPARING)
    for _ in range(2):
        conversation = after_read(conversation, RUNNING, shown("preparing"), WORLD)
        conversation = after_patch(conversation, sent(conversation, RUNNING), Answer(401), WORLD)
    assert conversation.not_before == A_SECOND


@pytest.mark.parametrize("status", [200, 202, 302, 401, 408, 409, 425, 429, 500, 501, 502, 503, 504])
@pytest.mark.parametrize("there", ["start_requested", "in_progress", "stop_requested"])
def test_a_control_plane_that_takes_nothing_is_never_flooded(status: int, there: str) -> None:
    for progress, newest, read in product(Progress, (RUNNING, DONE), (shown(there), Answer(405))):
        conversation = Exchange(dialect=Dialect(progress=progress))
        requests_since_a_wait = 0
        for _ in range(40):
            step = next_step(conversation, newest)
            if step is None:
                break
            before = conversation
            if isinstance(step, Read):
                conversation = after_read(conversation, newest, read, WORLD)
            else:
                conversation = after_patch(conversation, step, Answer(status), WORLD)
            waited = conversation.attempt > before.attempt or not is_urgent(before, step, newest)
            requests_since_a_wait = 0 if waited else requests_since_a_wait + 1
            assert requests_since_a_wait <= 6, (progress, newest.state, read.status)


# --- after no answer ------------------------------------------------------------------------------------


@pytest.mark.parametrize("newest", [RUNNING, DONE])
def test_a_patch_with_a_state_that_got_no_answer_may_have_been_taken(newest: Any) -> None:
    before = exchange(PREPARING, fresh=True)
    conversation = after_no_answer(before, sent(before, newest), "timed out", WORLD, uncertain=True)
    assert conversation.uncertain
    assert conversation.acknowledged == before.acknowledged
    assert (conversation.attempt, conversation.not_before) == (1, A_SECOND)
    assert conversation.failure == "timed out"
    assert reads(conversation, newest)


def test_a_patch_that_could_not_be_sent_was_not_taken() -> None:
    before = exchange(IN_PROGRESS)
    conversation = after_no_answer(before, sent(before, DONE), "no connection", WORLD, uncertain=False)
    assert not conversation.uncertain
    assert sent(conversation, DONE).way.content is Content.RESULT


def test_counters_that_got_no_answer_make_no_state_uncertain() -> None:
    before = exchange(IN_PROGRESS)
    conversation = after_no_answer(before, sent(before, RUNNING), "timed out", WORLD, uncertain=True)
    assert not conversation.uncertain


@pytest.mark.parametrize("was_uncertain", [True, False])
def test_a_read_that_got_no_answer_changes_no_doubt(*, was_uncertain: bool) -> None:
    before = exchange(PREPARING, uncertain=was_uncertain)
    conversation = after_no_answer(before, Read(), "timed out", WORLD, uncertain=True)
    assert conversation.uncertain is was_uncertain
    assert conversation.not_before == A_SECOND


def test_a_doubt_stays_while_nothing_can_be_sent() -> None:
    before = exchange(IN_PROGRESS, readable=False, uncertain=True)
    conversation = after_no_answer(before, sent(before, DONE), "no connection", WORLD, uncertain=False)
    assert conversation.uncertain


# --- the end, and a restart -----------------------------------------------------------------------------


def test_a_result_that_could_not_be_delivered_is_given_up_in_the_end() -> None:
    keep = NOW - ENDED
    assert expire(exchange(), DONE, None, NOW, keep) == exchange()
    assert expire(exchange(), DONE, None, NOW + timedelta(microseconds=1), keep) == exchange(
        ending=Ending.EXPIRED, failure="never answered"
    )
    late = expire(exchange(failure="HTTP 503"), DONE, None, NOW + timedelta(days=1), keep)
    assert late == exchange(ending=Ending.EXPIRED, failure="HTTP 503")


def test_a_result_whose_clock_is_wrong_has_its_time_from_when_it_was_stated() -> None:
    keep, long_after = timedelta(days=7), ENDED + timedelta(days=100)
    assert expire(exchange(), DONE, long_after, long_after + keep, keep) == exchange()
    late = expire(exchange(), DONE, long_after, long_after + keep + timedelta(seconds=1), keep)
    assert late.ending is Ending.EXPIRED


def test_a_restore_that_has_not_ended_is_never_given_up() -> None:
    assert expire(exchange(), RUNNING, None, NOW + timedelta(days=10_000), timedelta(0)) == exchange()


def test_what_is_over_does_not_expire() -> None:
    delivered = exchange(ending=Ending.DELIVERED)
    assert expire(delivered, DONE, None, NOW + timedelta(days=10_000), timedelta(0)) is delivered


@pytest.mark.parametrize("ending", Ending)
def test_only_a_whole_result_that_is_delivered_loses_nothing(ending: Ending) -> None:
    assert ending.loses_nothing is (ending is Ending.DELIVERED)


def test_each_ending_has_words_of_its_own() -> None:
    assert len({ending.in_words for ending in Ending}) == len(Ending)


def test_what_survives_a_restart_is_kept() -> None:
    conversation = exchange(
        IN_PROGRESS, uncertain=True, attempt=3, not_before=NOW, failure="HTTP 503", ending=Ending.EXPIRED
    )
    assert conversation.to_document() == {
        "acknowledged": acknowledged(IN_PROGRESS).to_document(),
        "dialect": {"spelling": "authority", "settled": True, "progress": "auto"},
        "uncertain": True,
        "attempt": 3,
        "not_before": "2014-10-20T14:00:00.000000Z",
        "failure": "HTTP 503",
        "ending": "expired",
    }


def test_what_a_new_exchange_does_not_know_is_null() -> None:
    kept = Exchange().to_document()
    assert (kept["acknowledged"], kept["not_before"], kept["ending"]) == (None, None, None)


@pytest.mark.parametrize("doubt", [exchange(uncertain=True), exchange(contradicted=True)])
def test_a_doubt_survives_a_restart(doubt: Exchange) -> None:
    assert Exchange.from_document(doubt.to_document()).uncertain


def test_after_a_restart_no_read_is_fresh_and_reads_are_tried_again() -> None:
    kept = exchange(PREPARING, fresh=True, readable=False, refused=(Content.STATE, 1)).to_document()
    assert Exchange.from_document(kept) == exchange(PREPARING)


def test_a_stop_request_that_was_read_still_silences_states_after_a_restart() -> None:
    before = after_read(Exchange(), RUNNING, shown("stop_requested"), WORLD)
    conversation = replace(Exchange.from_document(before.to_document()), uncertain=True)
    step = next_step(conversation, RUNNING)
    assert step == Read() or (isinstance(step, Send) and "/state" not in paths(step.operations))


@unhurried
@given(exchanges)
def test_every_exchange_is_read_back(conversation: Exchange) -> None:
    assert Exchange.from_document(json.loads(json.dumps(conversation.to_document()))) == conversation


@pytest.mark.parametrize(
    "change",
    [
        {"acknowledged": []},
        {"acknowledged": {}},
        {"dialect": None},
        {"attempt": -1},
        {"attempt": "3"},
        {"not_before": "then"},
        {"failure": 7},
        {"ending": "well"},
        {"ending": 7},
        {"ending": []},
    ],
)
def test_a_document_that_is_no_exchange_is_malformed(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        Exchange.from_document(exchange().to_document() | change)


# --- a stop that is asked for on this host --------------------------------------------------------------


WANTED = exchange(IN_PROGRESS, stop_wanted=True, stop_requested=True)


def test_a_stop_of_this_host_is_told_to_the_control_plane_before_progress() -> None:
    step = sent(WANTED, RUNNING)
    assert step.operations == [{"op": "replace", "path": "/state", "value": "stop_requested"}]
    assert step.way.content is Content.STOP
    assert is_urgent(WANTED, step, RUNNING)


def test_a_stop_that_was_taken_is_not_told_again_and_is_no_report() -> None:
    told = after_patch(WANTED, sent(WANTED, RUNNING), DELIVERED, WORLD)
    assert told.acknowledged == replace(WANTED.acknowledged or Acknowledged(), state=STOP_REQUESTED)
    assert paths(sent(told, RUNNING).operations) == ["/files_restores", "/bytes-restored"]


def test_after_a_doubt_a_stop_is_told_only_if_a_read_does_not_show_it() -> None:
    doubtful = after_no_answer(WANTED, sent(WANTED, RUNNING), "cut", WORLD, uncertain=True)
    assert reads(doubtful, RUNNING)
    read = after_read(doubtful, RUNNING, shown("stop_requested"), WORLD)
    assert sent(read, RUNNING).way.content is Content.PROGRESS


def test_a_stop_that_is_refused_is_not_told_again() -> None:
    told = after_patch(WANTED, sent(WANTED, RUNNING), BAD, WORLD)
    assert not told.stop_wanted
    assert sent(told, RUNNING).way.content is Content.PROGRESS


def test_a_result_is_told_rather_than_a_stop() -> None:
    assert sent(WANTED, DONE).way.content is Content.RESULT
