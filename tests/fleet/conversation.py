"""Where a conversation about one restore stands, and where each answer takes it: decided by the product.

The decisions are pure, so each is made once for all agents that are in the same place, and looked up after that.
Places are the same that differ in nothing but how much was told. `remembers=False` makes each decision anew, with
all counts: the tests hold both against each other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.backoff import Backoff
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.learning import Circumstances, after_no_answer, after_patch, after_read
from agent_reporter.model.record import Destination, Record
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState
from agent_reporter.model.steps import Read, Send, is_urgent, next_step
from agent_reporter.model.verdict import Answer, retry_after_seconds
from agent_reporter.takeover import after_takeover

if TYPE_CHECKING:
    from agent_reporter.model.steps import Step

EPOCH = datetime(2026, 1, 2, 3, 0, tzinfo=UTC)
RESTORE_ID = "r-1"
DESTINATION = Destination("https://backup.example.com", "110011")


def at(seconds: float) -> datetime:
    """The wall clock of every agent."""
    return EPOCH + timedelta(seconds=seconds)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What became of a request. A `status` of None: no answer came, in time or at all."""

    status: int | None
    retry_after: str | None = None

    def floor(self, now: float) -> float:
        """The seconds that it asks an agent to wait."""
        if self.retry_after is None or self.retry_after.isdigit():
            return self._floor
        return retry_after_seconds(self.retry_after, at(now))

    def __post_init__(self) -> None:
        object.__setattr__(self, "_floor", retry_after_seconds(self.retry_after, EPOCH))

    _floor: float = field(default=0.0, init=False)


DONE = Outcome(200)
"""A read is answered with the restore, a patch with 204."""
UNSIGNED = Outcome(401)
BUSY = Outcome(503)
LOST = Outcome(None)
"""No answer before the time-out."""
NO_TOKEN = Outcome(None)
"""The request could not be made."""


class Wait(NamedTuple):
    """For what the backoff was asked."""

    attempt: int
    honours_retry_after: bool


class _Noting(Backoff):
    """Notes what it is asked for. The wait itself is drawn for each agent."""

    noted: list[tuple[int, float]] = []  # noqa: RUF012 - one for all: it is read at once

    def delay(self, attempt: int, random: float, retry_after: float = 0.0) -> float:  # noqa: ARG002 - drawn later
        self.noted.append((attempt, retry_after))
        return 0.0


class Place:
    """Where a conversation stands, what is to be done there, and where the answers lead."""

    __slots__ = ("after", "exchange", "follows_at_once", "is_over", "report", "sends", "step", "urgent")

    def __init__(self, exchange: Exchange, report: Report) -> None:
        self.exchange = exchange
        self.report = report
        self.step: Step | None = next_step(exchange, report)
        self.urgent = self.step is None or is_urgent(exchange, self.step, report)
        self.sends = isinstance(self.step, Send)
        self.follows_at_once = exchange.fresh and self.sends
        self.is_over = exchange.ending is not None
        self.after: dict[Outcome, tuple[Place, Wait | None]] = {}


class Conversations:
    """All places that a fleet comes to."""

    def __init__(self, *, remembers: bool = True) -> None:
        self._remembers = remembers
        self._places: dict[tuple[Exchange, bool], Place] = {}
        self.decided = 0
        """How often the product was asked where an answer leads."""

    def begin(self) -> Place:
        """The start of a restore."""
        return self._place(Exchange(), is_final=False)

    def under_way(self) -> Place:
        """In the midst of a restore, all told."""
        place = self.begin()
        for _ in range(3):  # it is read, its state is told, and its counts
            place, _ = place.after.get(DONE) or self.decide(place, DONE, 0.0)
        return place

    def finished(self, place: Place) -> Place:
        """The same conversation once the restore has ended."""
        return self._place(place.exchange, is_final=True)

    def taken_over(self, place: Place) -> Place:
        """The same conversation in the next life of the daemon."""
        record = after_takeover(Record(DESTINATION, place.report, place.exchange))
        return self._place(record.exchange, is_final=place.report.is_final)

    def decide(self, place: Place, outcome: Outcome, now: float) -> tuple[Place, Wait | None]:
        """Where `outcome` leads, and for what wait the backoff was asked, if it was."""
        self.decided += 1
        _Noting.noted.clear()
        learnt = _learn(place, outcome, Circumstances(at(now), 0.0, _Noting()))
        wait = None
        if _Noting.noted:
            ((attempt, floor),) = _Noting.noted
            assert floor in {0.0, outcome.floor(now)}
            wait = Wait(attempt, honours_retry_after=floor > 0)
        after = self._place(replace(learnt, not_before=None), is_final=place.report.is_final)
        if self._remembers:
            place.after[outcome] = after, wait
        return after, wait

    def _place(self, exchange: Exchange, *, is_final: bool) -> Place:
        if not self._remembers:
            return Place(exchange, _report(exchange, is_final=is_final))
        exchange = _without_counts(exchange)
        place = self._places.get((exchange, is_final))
        if place is None:
            place = Place(exchange, _report(exchange, is_final=is_final))
            self._places[exchange, is_final] = place
        return place


def _learn(place: Place, outcome: Outcome, world: Circumstances) -> Exchange:
    step = place.step
    assert step is not None
    if outcome.status is None:
        why = "no token" if outcome is NO_TOKEN else "no answer"
        return after_no_answer(place.exchange, step, why, world, uncertain=outcome is LOST)
    if isinstance(step, Read):
        known = place.exchange.acknowledged or Acknowledged()
        body = json.dumps(known.to_document()).encode() if outcome is DONE else b""
        answer = Answer(outcome.status, body, outcome.retry_after)
        return after_read(place.exchange, place.report, answer, world)
    status = 204 if outcome is DONE else outcome.status
    return after_patch(place.exchange, step, Answer(status, b"", outcome.retry_after), world)


def _report(exchange: Exchange, *, is_final: bool) -> Report:
    """The newest truth: there is always more than was told."""
    known = exchange.acknowledged or Acknowledged()
    return Report(
        RESTORE_ID,
        known.revision + 1,
        RestoreState.COMPLETED if is_final else RestoreState.IN_PROGRESS,
        EPOCH,
        EPOCH if is_final else None,
        bytes_restored=known.bytes_restored + 1,
    )


def _without_counts(exchange: Exchange) -> Exchange:
    known = exchange.acknowledged
    if known is None:
        return exchange
    return replace(exchange, acknowledged=replace(known, revision=min(known.revision, 1), bytes_restored=0))
