"""The loop that brings one restore's newest report to the control plane.

    take_report -> keep -> next_step -> one request -> what it taught -> take_report ...

A retry goes back to `take_report`: it tells what is newest then. What comes next is decided by
`model.steps`; this file waits and sends. One request is in flight a restore.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from agent_reporter.errors import SignInError, TransportError
from agent_reporter.keeper import PROGRESS_INTERVAL, Keeper
from agent_reporter.logs import get_logger
from agent_reporter.model import pacing, verdict
from agent_reporter.model.exchange import Ending, Exchange
from agent_reporter.model.learning import (
    Circumstances,
    after_no_answer,
    after_patch,
    after_read,
    ending_there,
    expire,
)
from agent_reporter.model.steps import Read, Send, Step, is_urgent, next_step
from agent_reporter.model.verdict import Verdict
from agent_reporter.moment import Bell, Moment
from agent_reporter.settings import WhenRefused

if TYPE_CHECKING:
    from agent_reporter.means import Means
    from agent_reporter.model.report import Report
    from agent_reporter.model.verdict import Answer
    from agent_reporter.settings import Settings


class Source(Protocol):
    """Where the newest truth of one restore comes from: a job, or an orphan of the spool."""

    restore_id: str

    @property
    def is_live(self) -> bool:
        """Whether there is an engine that may say more."""
        ...

    @property
    def awaits_stop(self) -> bool:
        """Whether a stop request would be news to an engine that can be stopped."""
        ...

    def take_report(self) -> Report:
        """The newest report."""
        ...

    def request_stop(self) -> None:
        """The restore is to stop."""
        ...

    def settle(self, ending: Ending | None) -> None:
        """The delivery is over; None if the report was left in the spool."""
        ...


class Delivery:
    """One restore's delivery, until the control plane has its result or will never take it."""

    def __init__(self, source: Source, keeper: Keeper, means: Means, *, hold: float = 0.0) -> None:
        """The first request is made after `hold` seconds at the earliest."""
        self.restore_id = source.restore_id
        self.source = source
        self.contacted = Moment()
        """The control plane was asked about this restore, with or without an answer."""
        self.over = Moment()
        """There is nothing more to deliver."""
        self.drained = Moment()
        """There is nothing more to deliver, or nothing more that a drain can deliver."""
        self._keeper = keeper
        self._means = means
        self._clock = means.clock
        self._control_plane = means.control_plane
        self._turns = means.turns
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._awake = Bell()
        self._urgent = Bell()
        self._is_waking = False
        self._wakes_urgently = False
        self._next_telling = 0.0
        self._retry_at = self._clock.monotonic() + max(hold, self._seconds_left(keeper.exchange))
        self._drained_at: float | None = None
        self._was_live = source.is_live
        self._ended_at: float | None = None
        self._log = get_logger(restore_id=self.restore_id)

    @property
    def exchange(self) -> Exchange:
        """Where the conversation with the control plane stands."""
        return self._keeper.exchange

    @property
    def _settings(self) -> Settings:
        return self._means.settings

    # Called from any thread.

    def wake(self, *, urgent: bool) -> None:
        """There is something new to take. A plain call where the loop is about to look anyway."""
        if urgent:
            self._wakes_urgently = True
        if self._is_waking:
            return
        self._is_waking = True
        with suppress(RuntimeError):  # the loop is closed: what counts is in the spool
            self._loop.call_soon_threadsafe(self._wake_now)

    def keep_result(self, report: Report) -> bool:
        """Make the result durable. Where the disk will not have it, the control plane may: wait for that."""
        problem = self._keeper.keep_result(report)
        if not problem:
            return True
        self.wake(urgent=True)
        if threading.get_ident() == self._loop_thread or self.drained.has_happened:
            return self.over.has_happened  # to wait here would be in vain, or keep the loop from delivering
        self._log.warning("delivery.result_not_durable", problem=problem, hint="waiting for its delivery")
        return self.over.wait_blocking(self._settings.drain_timeout)

    # Called in the loop.

    async def run(self) -> None:
        """Deliver until there is nothing more to deliver, or a drain is over."""
        while True:
            report = self.source.take_report()
            self._learn(self._heed(report))
            if self.exchange.ending is not None:
                break
            await self._keeper.keep(report)
            step = next_step(self.exchange, report)
            pause = self._pause(step, report)
            if step is not None and pause <= 0:
                await self._take(step, report)
            elif not self._is_drained(report, pause):
                await self._wait(step, pause)
            elif self.source.take_report() is report:
                self.drained.happen()
                return
        await self._end(self.exchange.ending)

    def drain(self, until: float) -> None:
        """Deliver what can be delivered until then, on the monotonic clock, and leave the rest."""
        self._drained_at = until
        self._wakes_urgently = True
        self._wake_now()

    def ask_stop(self) -> None:
        """A stop was asked for on this host: the control plane is to be told of it."""
        self._keeper.exchange = replace(self.exchange, stop_wanted=True)
        self.wake(urgent=True)

    async def release(self) -> None:
        """Leave what was not delivered in the spool. The loop has ended or was cancelled."""
        if not self.over.has_happened:
            await self._keeper.release()
            self.source.settle(None)

    def _wake_now(self) -> None:
        self._is_waking = False
        self._awake.ring()
        if self._wakes_urgently:
            self._wakes_urgently = False
            self._urgent.ring()

    def _heed(self, report: Report) -> Exchange:
        """The exchange with what happened elsewhere: a stop that the engine was told of, and time."""
        exchange = self.exchange
        if report.is_final and self._may_be_too_old():
            since = self._keeper.undelivered_since
            exchange = expire(exchange, report, since, self._clock.now(), self._settings.retention_period)
        return self._with_stop(exchange)

    def _with_stop(self, exchange: Exchange) -> Exchange:
        if self.source.is_live and not self.source.awaits_stop and not exchange.stop_requested:
            return replace(exchange, stop_requested=True)
        return exchange

    def _may_be_too_old(self) -> bool:
        """Whether the wall clock may say that a result is too old.

        Also the oldest one is tried once; and of one that was stated here, the clock that is never set says
        how old it is.
        """
        if self._was_live:
            self._ended_at = self._ended_at or self._clock.monotonic()
            if self._clock.monotonic() - self._ended_at < self._settings.retention:
                return False
        return self.contacted.has_happened

    def _pause(self, step: Step | None, report: Report) -> float:
        urgent = step is None or is_urgent(self.exchange, step, report)
        return pacing.pause(self._clock.monotonic(), self._retry_at, self._next_telling, urgent=urgent)

    async def _wait(self, step: Step | None, pause: float) -> None:
        """Until there is something new; or, with something to tell already, until it may be told."""
        if step is None:
            await self._clock.wait(self._awake, self._means.report_interval if self.source.is_live else None)
        else:
            await self._clock.wait(
                self._urgent, min(pause, PROGRESS_INTERVAL) if self.source.is_live else pause
            )
        self._awake.clear()
        self._urgent.clear()

    def _is_drained(self, report: Report, pause: float) -> bool:
        if self._drained_at is None:
            return False
        return not report.is_final or self._clock.monotonic() + pause >= self._drained_at

    async def _take(self, step: Step, report: Report) -> None:
        """One request, and what it taught; after a read, what follows it straight away."""
        decided_on = self.exchange
        async with self._turns:
            # A stop may have been told to the engine since: while a turn was waited for, and during a read.
            self._learn(self._with_stop(self.exchange))
            if self.exchange is not decided_on and next_step(self.exchange, report) != step:
                return
            await self._exchange(step, report)
            self._learn(self._with_stop(self.exchange))
            # A state is told in the very turn of its read, so that no stop request comes in between unseen.
            if self.exchange.fresh and isinstance(following := next_step(self.exchange, report), Send):
                await self._exchange(following, report)

    async def _exchange(self, step: Step, report: Report) -> None:
        if isinstance(step, Send):
            self._next_telling = self._clock.monotonic() + self._means.report_interval
        try:
            answer = await self._request(step)
            learnt = self._interpret(step, report, answer)
            if learnt.unsigned:
                await self._control_plane.renew_token(answer)
        except TransportError as problem:
            self._means.tally.answers["no_answer"] += 1
            learnt = after_no_answer(
                self.exchange, step, str(problem), self._world(), uncertain=problem.uncertain
            )
        except SignInError as problem:
            self._means.tally.answers["no_token"] += 1
            learnt = after_no_answer(self.exchange, step, str(problem), self._world(), uncertain=False)
        self._learn(learnt)
        self.contacted.happen()
        if learnt.stop_requested:
            self.source.request_stop()

    async def _request(self, step: Step) -> Answer:
        if isinstance(step, Read):
            return await self._control_plane.read_restore(self.restore_id)
        facts = self._keeper.facts(step.report) if self._control_plane.is_daemon else None
        return await self._control_plane.update_restore(self.restore_id, step.operations, facts)

    def _interpret(self, step: Step, report: Report, answer: Answer) -> Exchange:
        tally, meaning = self._means.tally, verdict.of(answer.status)
        is_read = isinstance(step, Read) and answer.status == 200
        tally.answers["read" if is_read else meaning.value] += 1
        if isinstance(step, Read):
            return after_read(self.exchange, report, answer, self._world())
        if meaning is Verdict.DELIVERED and self.exchange.acknowledged is not None:
            tally.conflated += max(0, step.report.revision - self.exchange.acknowledged.revision - 1)
        return after_patch(self.exchange, step, answer, self._world())

    def _world(self) -> Circumstances:
        return Circumstances(self._clock.now(), self._clock.random(), self._means.backoff)

    def _learn(self, learnt: Exchange) -> None:
        before, self._keeper.exchange = self.exchange, learnt
        if learnt.not_before != before.not_before:
            self._retry_at = self._clock.monotonic() + self._seconds_left(learnt)
        if learnt.failure and learnt.failure != before.failure:
            self._log.warning("delivery.failed", why=learnt.failure, attempt=learnt.attempt)
        elif before.attempt and not learnt.attempt:
            self._log.info("delivery.recovered", after=before.attempt)

    def _seconds_left(self, exchange: Exchange) -> float:
        longest = self._settings.retry_cap + self._settings.retry_after_cap
        return pacing.seconds_left(exchange.not_before, self._clock.now(), longest)

    async def _end(self, ending: Ending) -> None:
        if not self.source.take_report().is_final:
            self._log.error("delivery.over_early", ending=ending.value, why=self.exchange.failure)
            if ending is Ending.ENDED_ELSEWHERE or self._settings.when_refused is WhenRefused.STOP:
                self.source.request_stop()
        report = await self._last_report()
        if report is None:
            self.drained.happen()
            return
        known = self.exchange.acknowledged
        if ending is Ending.ENDED_ELSEWHERE and known is not None:
            ending = ending_there(known, report)
            self._keeper.exchange = replace(self.exchange, ending=ending)
        if not ending.loses_nothing:
            self._log.error("delivery.dead_letter", ending=ending.value, why=self.exchange.failure)
        await self._keeper.settle(report, ending)
        self.source.settle(ending)
        self.over.happen()
        self.drained.happen()

    async def _last_report(self) -> Report | None:
        """The result, though nobody will take it; None if a drain is over before there is one."""
        while not (report := self.source.take_report()).is_final:
            if self._drained_at is not None:
                return None
            await self._clock.wait(self._awake, None)
            self._awake.clear()
        return report
