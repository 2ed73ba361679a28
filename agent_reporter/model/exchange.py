"""Where the conversation with the control plane about one restore stands, and what comes next.

Plain functions decide here; `delivery` acts. The rules are decisions 2 to 5 of `protocol.md`:

- A patch with a non-final `/state` goes out only straight after a read that showed neither a stop request
  nor a final state, so that it cannot erase a stop request. A result goes out at once; but after an
  uncertain outcome it too is preceded by a read.
- A 409 is answered by a read, then by what the read showed.
- Counters alone may go out any time while the restore is in progress.
- A 400 moves on to the next way of saying the same thing; when no way is left, progress is no longer told,
  a state is skipped, a result becomes a dead letter.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

from agent_reporter.errors import MalformedError
from agent_reporter.model import patch, verdict
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.backoff import Backoff
from agent_reporter.model.dialect import Dialect, Progress, Way
from agent_reporter.model.documents import count_of, object_of, text_of
from agent_reporter.model.patch import Content, Operations
from agent_reporter.model.state import RestoreState, may_follow
from agent_reporter.model.times import format_time, parse_optional_time
from agent_reporter.model.verdict import Answer, Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from agent_reporter.model.report import Report


class Ending(StrEnum):
    """Why a delivery is over."""

    DELIVERED = "delivered"
    """The control plane has the result."""
    DELIVERED_BARE = "delivered_bare"
    """It has the state and the times of the result, and refused the rest."""
    GONE = "gone"
    """403, 404 or 405: it wants to hear nothing of this restore from us."""
    REJECTED = "rejected"
    """It refuses the result in every way there is to say it."""
    ENDED_ELSEWHERE = "ended_elsewhere"
    """The restore has a final state there that is not ours."""
    EXPIRED = "expired"
    """The result could not be delivered for as long as results are kept."""

    @property
    def in_words(self) -> str:
        """What happened, for a person."""
        return _IN_WORDS[self]

    @property
    def loses_nothing(self) -> bool:
        """Whether the control plane has all there was to tell."""
        return self is Ending.DELIVERED


_IN_WORDS = {
    Ending.DELIVERED: "delivered",
    Ending.DELIVERED_BARE: "delivered without counts and errors, which the control plane refused",
    Ending.GONE: "refused by the control plane: kept as a dead letter",
    Ending.REJECTED: "not understood by the control plane: kept as a dead letter",
    Ending.ENDED_ELSEWHERE: "too late, as the control plane had another end: kept as a dead letter",
    Ending.EXPIRED: "too old to deliver: kept as a dead letter",
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """The state of one conversation. Immutable: every answer gives the next one."""

    acknowledged: Acknowledged | None = None
    """None until the restore was read, or turned out not to be readable."""
    dialect: Dialect = field(default_factory=Dialect)
    readable: bool = True
    """Whether the last read was not refused. It is tried again after each success and each doubt: one refusal
    does not turn reads off for good."""
    fresh: bool = False
    """The last thing that happened was a read: a state may be told."""
    uncertain: bool = False
    """A patch with `/state` may or may not have been carried out."""
    result_told: bool = False
    """The result may have been carried out: a 409 can be its echo."""
    contradicted: bool = False
    """A 409 was the answer to the last patch."""
    stop_requested: bool = False
    """A read showed a stop request."""
    unsigned: bool = False
    """The last answer was a 401."""
    signed_again: bool = False
    """A new token was asked for since the last success or wait."""
    refused: tuple[Content, int] | None = None
    """What was answered 400 last, and how many ways of saying it were."""
    refused_states: frozenset[RestoreState] = frozenset()
    """States that were answered 400 in every way: they are not told again."""
    attempt: int = 0
    """Failures since the last delivered patch."""
    not_before: datetime | None = None
    """The next request is to wait until then."""
    failure: str = ""
    """The last failure in words, empty after a success."""
    ending: Ending | None = None

    def to_document(self) -> dict[str, Any]:
        """What of it has to survive a restart, as a JSON object."""
        return {
            "acknowledged": None if self.acknowledged is None else self.acknowledged.to_document(),
            "dialect": self.dialect.to_document(),
            "uncertain": self.uncertain or self.contradicted,
            "attempt": self.attempt,
            "not_before": None if self.not_before is None else format_time(self.not_before),
            "failure": self.failure,
            "ending": None if self.ending is None else self.ending.value,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Exchange:
        """Read what `to_document` wrote; raises MalformedError for anything else."""
        known = document.get("acknowledged")
        try:
            ending = None if document.get("ending") is None else Ending(document["ending"])
        except ValueError as problem:
            raise MalformedError(f"no ending: {problem}") from problem
        return cls(
            acknowledged=None
            if known is None
            else Acknowledged.from_document(object_of(document, "acknowledged")),
            dialect=Dialect.from_document(object_of(document, "dialect")),
            uncertain=bool(document.get("uncertain")),
            attempt=count_of(document, "attempt"),
            not_before=parse_optional_time(document.get("not_before")),
            failure=text_of(document, "failure", ""),
            ending=ending,
        )


@dataclass(frozen=True, slots=True)
class Read:
    """Read the restore."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this patch, which tells `report` in this `way`."""

    report: Report
    way: Way
    operations: Operations


Step = Read | Send


def next_step(exchange: Exchange, newest: Report) -> Step | None:
    """What is to be done now; None if there is nothing to tell, or nobody to tell it to."""
    if exchange.ending is not None:
        return None
    if exchange.acknowledged is None:
        return Read()
    if newest.is_final:
        return _tell(exchange, Content.RESULT, newest, read_first=exchange.uncertain or exchange.contradicted)
    if exchange.contradicted:
        return Read() if exchange.readable else None
    return _tell_unfinished(exchange, exchange.acknowledged, newest)


def _tell_unfinished(exchange: Exchange, known: Acknowledged, newest: Report) -> Step | None:
    is_taken = not exchange.stop_requested and newest.state not in exchange.refused_states
    # Where nothing can be read, a stop may have come since a doubt: then only the result has a state.
    is_safe = exchange.readable or not exchange.uncertain
    if is_taken and may_follow(known.state, newest.state):
        return _tell(exchange, Content.STATE, newest, read_first=True) if is_safe else None
    if newest.state is not RestoreState.IN_PROGRESS:
        return None
    match exchange.dialect.progress:
        case Progress.AUTO | Progress.COUNTERS:
            return _tell(exchange, Content.PROGRESS, newest, read_first=exchange.uncertain)
        case Progress.WITH_STATE:
            is_news = patch.operations(Content.PROGRESS, known, newest, exchange.dialect.spelling)
            if is_taken and is_safe and is_news:
                return _tell(exchange, Content.PROGRESS_BESIDE_STATE, newest, read_first=True)
            return None
        case Progress.FINAL_ONLY:
            return None
        case _:
            assert_never(exchange.dialect.progress)


def _tell(exchange: Exchange, content: Content, newest: Report, *, read_first: bool) -> Step | None:
    if read_first and exchange.readable and not exchange.fresh:
        return Read()
    ways = exchange.dialect.ways(content)
    tried = exchange.refused[1] if exchange.refused and exchange.refused[0] is content else 0
    way = ways[min(tried, len(ways) - 1)]
    known = exchange.acknowledged or Acknowledged()
    operations = patch.operations(way.content, known, newest, way.spelling)
    return Send(newest, way, operations) if operations else None


def is_urgent(exchange: Exchange, step: Step | None, newest: Report) -> bool:
    """Whether a step waits for no tick: states, results and the first error do not, progress does."""
    if step is None:
        return False
    known = exchange.acknowledged
    if known is None or (known.error_count == 0 and newest.errors.count > 0):
        return True
    if isinstance(step, Send):
        return not step.way.content.is_progress
    return known.state is not newest.state


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
    """What it means for our result that the restore has the final state `known` there."""
    if known.state is not newest.state:
        return Ending.ENDED_ELSEWHERE
    has_all = (
        known.files_restored >= newest.files_restored
        and known.bytes_restored >= newest.bytes_restored
        and known.error_count >= newest.errors.count
    )
    return Ending.DELIVERED if has_all else Ending.DELIVERED_BARE


def after_patch(exchange: Exchange, step: Send, answer: Answer, world: Circumstances) -> Exchange:
    """The exchange after a patch was answered."""
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
    meaning = verdict.of(answer.status)
    match meaning:
        case Verdict.DELIVERED:
            return _delivered(spent, step)
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
    return replace(
        exchange,
        acknowledged=known,
        readable=True,
        dialect=exchange.dialect.settle(step.way) if spelled else exchange.dialect,
        uncertain=False,
        refused=None,
        signed_again=False,
        attempt=0,
        not_before=None,
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


def expire(exchange: Exchange, newest: Report, now: datetime, retention: timedelta) -> Exchange:
    """Give a result up that was not delivered within `retention` of its end."""
    if exchange.ending is None and newest.ended_time is not None and now - newest.ended_time > retention:
        return replace(exchange, ending=Ending.EXPIRED, failure=exchange.failure or "never answered")
    return exchange
