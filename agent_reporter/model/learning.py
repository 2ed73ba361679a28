"""What an answer, or the lack of one, teaches: each gives the next state of the conversation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

from agent_reporter.errors import MalformedError
from agent_reporter.model import patch, verdict
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.backoff import Backoff
from agent_reporter.model.dialect import Progress
from agent_reporter.model.exchange import Ending, Exchange
from agent_reporter.model.lost import LOST_REASONS
from agent_reporter.model.patch import Content
from agent_reporter.model.state import RestoreState
from agent_reporter.model.steps import Send, Step, next_step
from agent_reporter.model.verdict import Answer, Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from agent_reporter.model.report import Report


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a decision needs of the world: the time, a number from 0 up to 1, and the settings of retries."""

    now: datetime
    random: float
    backoff: Backoff = field(default_factory=Backoff)


def after_read(exchange: Exchange, newest: Report, answer: Answer, world: Circumstances) -> Exchange:
    """The exchange after the restore was read."""
    meaning = verdict.of(answer.status)
    if meaning is Verdict.SIGN_IN:
        return _unsigned(exchange, verdict.explain(answer), world)
    exchange = replace(exchange, unsigned=False)
    if answer.status == 200:
        try:
            known = (exchange.acknowledged or Acknowledged()).read(answer.document())
        except MalformedError as problem:
            return _failed(exchange, f"the restore could not be read: {problem}", world)
        return _after_knowledge(exchange, newest, known, world)
    if meaning not in {Verdict.GONE, Verdict.REJECTED} and answer.status != 501:
        retry_after = verdict.retry_after_seconds(answer.retry_after, world.now)
        return _failed(exchange, verdict.explain(answer), world, retry_after)
    # A control plane that serves the one call of the authority and no reads: go on without.
    return replace(
        exchange, readable=False, acknowledged=exchange.acknowledged or Acknowledged(), fresh=False
    )


def _after_knowledge(
    exchange: Exchange, newest: Report, known: Acknowledged, world: Circumstances
) -> Exchange:
    if known.state.is_final:
        ending = ending_there(known, newest)
        if ending is Ending.DELIVERED and known.ended_time == newest.ended_time:
            known = replace(known, revision=newest.revision)
        failure = f"the control plane has this restore as {known.state.value} already"
        if ending is Ending.DELIVERED_BARE:
            failure += ", with other counts"
        return replace(
            exchange,
            acknowledged=known,
            ending=ending,
            uncertain=False,
            contradicted=False,
            failure="" if ending is Ending.DELIVERED else failure,
        )
    stop = exchange.stop_requested or known.state is RestoreState.STOP_REQUESTED
    read = replace(
        exchange,
        acknowledged=known,
        stop_requested=stop,
        fresh=True,
        uncertain=False,
        contradicted=False,
    )
    is_explained = stop and not exchange.stop_requested
    if exchange.contradicted and not is_explained:
        return _failed(read, exchange.failure, world)
    # A read is good for what is told straight after it, and for nothing later.
    return read if next_step(read, newest) is not None else replace(read, fresh=False)


def ending_there(known: Acknowledged, newest: Report) -> Ending:
    """What it means for our result that the restore has ended there, as `known` says if it could be read.

    Where we do not know how it ended, whoever told another end knew better.
    """
    if known.state is not newest.state:
        yields = known.state.is_final and newest.errors.reason in LOST_REASONS
        return Ending.DELIVERED if yields else Ending.ENDED_ELSEWHERE
    has_all = (
        known.files_restored >= newest.files_restored
        and known.bytes_restored >= newest.bytes_restored
        and known.error_count >= newest.errors.count
    )
    return Ending.DELIVERED if has_all else Ending.DELIVERED_BARE


def after_patch(exchange: Exchange, step: Send, answer: Answer, world: Circumstances) -> Exchange:
    """The exchange after a patch was answered."""
    meaning = verdict.of(answer.status)
    if meaning is Verdict.DELIVERED:
        return _delivered(exchange, step)
    may_be_done = verdict.is_uncertain(answer.status)
    is_doubtful = may_be_done and step.way.content.has_state
    spent = replace(
        exchange,
        fresh=False,
        unsigned=False,
        readable=exchange.readable or (is_doubtful and answer.status >= 500),
        uncertain=exchange.uncertain or is_doubtful,
        result_told=exchange.result_told or (may_be_done and step.report.is_final),
    )
    match meaning:
        case Verdict.REJECTED:
            return _rejected(spent, step, verdict.explain(answer), world)
        case Verdict.GONE:
            return replace(spent, ending=Ending.GONE, failure=verdict.explain(answer))
        case Verdict.SIGN_IN:
            return _unsigned(exchange, verdict.explain(answer), world)
        case Verdict.RECONCILE:
            return _contradicted(spent, step, answer)
        case Verdict.RETRY:
            retry_after = verdict.retry_after_seconds(answer.retry_after, world.now)
            return _failed(spent, verdict.explain(answer), world, retry_after)
        case _:
            assert_never(meaning)


def _delivered(exchange: Exchange, step: Send) -> Exchange:
    known = patch.after(step.way.content, exchange.acknowledged or Acknowledged(), step.report)
    spelled = any(operation["path"] not in {"/state", "/errors"} for operation in step.operations)
    ending = None
    if step.report.is_final:
        bare = step.way.content is Content.RESULT_ALONE
        ending = Ending.DELIVERED_BARE if bare else Ending.DELIVERED
    # Made anew, as a success leaves little of what was: this comes with every patch, and `replace` is slow.
    return Exchange(
        acknowledged=known,
        dialect=exchange.dialect.settle(step.way) if spelled else exchange.dialect,
        result_told=exchange.result_told,
        contradicted=exchange.contradicted,
        stop_requested=exchange.stop_requested,
        stop_wanted=exchange.stop_wanted,
        refused_states=exchange.refused_states,
        failure="" if ending is not Ending.DELIVERED_BARE else exchange.failure,
        ending=ending,
    )


def _rejected(exchange: Exchange, step: Send, failure: str, world: Circumstances) -> Exchange:
    content = _asked(step)
    tried = 1 + (exchange.refused[1] if exchange.refused and exchange.refused[0] is content else 0)
    told = replace(exchange, refused=(content, tried), failure=failure)
    if tried < len(exchange.dialect.ways(content)):
        return told
    if content is Content.RESULT:
        return replace(told, ending=Ending.REJECTED)
    if content is Content.STOP:
        return replace(told, refused=None, stop_wanted=False)
    if content is Content.STATE:
        states = exchange.refused_states | {step.report.state}
        return replace(told, refused=None, refused_states=states)
    if exchange.dialect.progress is Progress.COUNTERS:
        return _failed(replace(told, refused=None), failure, world)
    return replace(told, refused=None, dialect=exchange.dialect.without_progress())


def _asked(step: Send) -> Content:
    """What was to be told, whichever way it was told."""
    match step.way.content:
        case Content.RESULT_ALONE:
            return Content.RESULT
        case Content.STATE_ALONE:
            return Content.STATE
        case content:
            return content


def _contradicted(exchange: Exchange, step: Send, answer: Answer) -> Exchange:
    failure = verdict.explain(answer)
    if exchange.readable:
        return replace(exchange, contradicted=True, failure=failure)
    # Nothing can be read here: a 2xx is taken at its word, and a 409 after an uncertain result is its echo.
    if answer.status < 300:
        return _delivered(exchange, step)
    ending = Ending.ENDED_ELSEWHERE
    if step.report.is_final and exchange.result_told:
        is_bare = step.way.content is Content.RESULT_ALONE
        ending = Ending.DELIVERED_BARE if is_bare else Ending.DELIVERED
    return replace(exchange, ending=ending, failure=failure)


def _unsigned(exchange: Exchange, failure: str, world: Circumstances) -> Exchange:
    """A first 401 is mended by signing in and going on at once; one after that is waited out."""
    refused = replace(exchange, unsigned=True, fresh=False, failure=failure)
    return _failed(refused, failure, world) if exchange.signed_again else replace(refused, signed_again=True)


def after_no_answer(
    exchange: Exchange, step: Step, failure: str, world: Circumstances, *, uncertain: bool
) -> Exchange:
    """The exchange after a request got no answer, or could not be made at all."""
    sent = step if uncertain and isinstance(step, Send) else None
    is_doubtful = sent is not None and sent.way.content.has_state
    lost = replace(
        exchange,
        fresh=False,
        uncertain=exchange.uncertain or is_doubtful,
        readable=exchange.readable or is_doubtful,
        result_told=exchange.result_told or (sent is not None and sent.report.is_final),
    )
    return _failed(lost, failure, world)


def _failed(exchange: Exchange, failure: str, world: Circumstances, retry_after: float = 0.0) -> Exchange:
    attempt = exchange.attempt + 1
    delay = world.backoff.delay(attempt, world.random, retry_after)
    return replace(
        exchange,
        fresh=False,
        signed_again=False,
        attempt=attempt,
        not_before=world.now + timedelta(seconds=delay),
        failure=failure,
    )


def expire(
    exchange: Exchange, newest: Report, since: datetime | None, now: datetime, retention: timedelta
) -> Exchange:
    """Give a result up that was not delivered within `retention` of its end, and of when it was stated.

    `since` is when the oldest thing was stated that was not acknowledged: an engine's clock may be wrong.
    """
    if exchange.ending is None and newest.ended_time is not None:
        stated = max(newest.ended_time, since or newest.ended_time)
        if now - stated > retention:
            return replace(exchange, ending=Ending.EXPIRED, failure=exchange.failure or "never answered")
    return exchange
