"""The watcher that brings a stop request of the control plane back to its engine.

One loop for all restores of the process, at a steady rate, and independent of deliveries: it goes on while
those fail or wait. Events make a stop fast; but they vanish, so every restore is also read, less often.

A failing poll is repeated at the same steady rate, and no `Retry-After` slows it: it adds no load to what
the control plane plans for, and a stop has to get through an overload.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Protocol

from agent_reporter.errors import AgentReporterError, TransportError
from agent_reporter.logs import get_logger
from agent_reporter.model import pacing, verdict
from agent_reporter.model.events import read_page
from agent_reporter.model.report import state_of
from agent_reporter.model.state import RestoreState
from agent_reporter.model.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from agent_reporter.means import Means
    from agent_reporter.model.verdict import Answer

    Fetch = Callable[[str | None], Awaitable[Answer]]

MAX_PAGES = 50
"""Pages of events read in one poll; the rest is read in the next."""
AT_ONCE = 8
"""Requests of one poll that are in flight together."""

_log = get_logger()


class Stoppable(Protocol):
    """A restore whose engine runs."""

    restore_id: str

    def request_stop(self) -> None:
        """The restore is to stop."""
        ...


class NotServedError(AgentReporterError):
    """The control plane does not serve that call, to us at least."""


class NotTakenError(TransportError):
    """The control plane will not take that call as it is."""


class StopWatcher:
    """Looks for stop requests of the restores that `running` gives."""

    def __init__(self, means: Means, running: Callable[[], Sequence[Stoppable]]) -> None:
        self.last_look: float | None = None
        """When a look last ended, well or not, on the monotonic clock; None while no restore runs."""
        self._means = means
        self._clock = means.clock
        self._control_plane = means.control_plane
        self._running = running
        self._has_work = asyncio.Event()
        self._at_once = asyncio.Semaphore(AT_ONCE)
        self._agent_marker: str | None = None
        self._markers: dict[str, str | None] = {}
        self._next_reading: dict[str, float] = {}
        self._lacks_events = False
        self._failure = ""

    @property
    def _interval(self) -> float:
        return self._means.settings.stop_poll_interval

    @property
    def _reading_interval(self) -> float:
        return self._means.settings.idle_poll_interval

    @property
    def _request_timeout(self) -> float:
        return pacing.look_timeout(self._means.settings.request_timeout, self._interval)

    def notice(self) -> None:
        """A restore has begun to run."""
        self._has_work.set()

    async def run(self) -> None:
        """Poll for as long as restores run; sleep while none does."""
        while True:
            if not self._running():
                await self._has_work.wait()
            self._has_work.clear()
            if not self._control_plane.waits_for_events:
                # A fleet that was started in one instant does not poll in one instant.
                await self._clock.sleep(self._clock.random() * self._interval)
            await self._watch()

    async def _watch(self) -> None:
        self._lacks_events = False
        due = self._clock.monotonic()
        while running := self._running():
            self._forget_all_but({restore.restore_id for restore in running})
            await self._poll(running)
            if self._failure or self._lacks_events or not self._control_plane.waits_for_events:
                due = pacing.next_look(due, self._interval, self._clock.monotonic())
                await self._clock.sleep(due - self._clock.monotonic())
        self.last_look = None

    async def _poll(self, running: Sequence[Stoppable]) -> None:
        lacked_events = self._lacks_events
        problems = await self._look(running)
        if self._lacks_events and not lacked_events:  # there is still a stop to be seen
            problems += await self._look(running)
        self._note(problems[0] if problems else "")

    async def _look(self, running: Sequence[Stoppable]) -> list[str]:
        """Look once, for all that `running` holds; returns what kept us from it, in words."""
        # Calls to be made, and not coroutines: one that is cancelled before its turn would never be awaited.
        looks: list[Callable[[], Awaitable[None]]]
        if self._lacks_events:
            looks = [partial(self._read, restore) for restore in running]
        else:
            looks = [partial(self._read, restore) for restore in running if self._is_reading_due(restore)]
            if self._control_plane.agent_id is not None:
                looks.append(self._look_at_agent_events)
            else:
                looks += [partial(self._look_at_events, restore) for restore in running]
        return [problem for problem in await asyncio.gather(*map(self._bounded, looks)) if problem]

    async def _bounded(self, look: Callable[[], Awaitable[None]]) -> str:
        """What kept us from looking, in words; empty if nothing did."""
        async with self._at_once:
            try:
                await look()
            except NotServedError as problem:
                self._lacks_events = True
                return str(problem)
            except AgentReporterError as problem:
                return str(problem)
            finally:
                self.last_look = self._clock.monotonic()
        return ""

    async def _look_at_agent_events(self) -> None:
        self._agent_marker = await self._follow(self._control_plane.agent_events, self._agent_marker, None)

    async def _look_at_events(self, restore: Stoppable) -> None:
        def fetch(marker: str | None) -> Awaitable[Answer]:
            return self._control_plane.restore_events(restore.restore_id, marker)

        self._markers[restore.restore_id] = await self._follow(
            fetch, self._markers.get(restore.restore_id), restore.restore_id
        )

    async def _follow(self, fetch: Fetch, marker: str | None, of: str | None) -> str | None:
        """Read all events after `marker`, and return the new marker. `of` is whose events they are.

        They are told to whoever runs when they come: a restore may have begun since they were asked for.
        A marker that is refused, as one may be that was forgotten there, is given up once in a look.
        """
        has_given_up = False
        for _ in range(MAX_PAGES):
            try:
                answer = await self._get(partial(fetch, marker))
            except (NotServedError, NotTakenError):
                if marker is None or has_given_up:
                    raise
                marker, has_given_up = None, True
                answer = await self._get(partial(fetch, None))
            page = read_page(answer.document(), of)
            for restore in self._running():
                if restore.restore_id in page.stop_requests:
                    restore.request_stop()
            before, marker = marker, page.marker or marker
            if not page.is_full or marker == before:
                break
        return marker

    async def _read(self, restore: Stoppable) -> None:
        self._next_reading[restore.restore_id] = self._clock.monotonic() + self._reading_interval
        try:
            answer = await self._get(lambda: self._control_plane.read_restore(restore.restore_id))
        except NotServedError:
            # The restore's delivery finds out what that means. Events may have been refused in passing only.
            self._lacks_events = False
            return
        if state_of(answer.document()) is RestoreState.STOP_REQUESTED:
            restore.request_stop()

    async def _get(self, fetch: Callable[[], Awaitable[Answer]]) -> Answer:
        answer = await self._fetch(fetch)
        if answer.status == 401:
            await self._control_plane.renew_token(answer)
            answer = await self._fetch(fetch)
        if answer.status in {403, 404, 405, 501}:
            raise NotServedError(verdict.explain(answer))
        if verdict.of(answer.status) is Verdict.REJECTED:
            raise NotTakenError(verdict.explain(answer), uncertain=False)
        if answer.status != 200:
            raise TransportError(verdict.explain(answer), uncertain=False)
        return answer

    async def _fetch(self, fetch: Callable[[], Awaitable[Answer]]) -> Answer:
        timeout = self._request_timeout + self._control_plane.events_wait
        try:
            async with asyncio.timeout(timeout):
                return await fetch()
        except TimeoutError:
            problem = f"no answer within {timeout:g} s"
        raise TransportError(problem, uncertain=False)

    def _is_reading_due(self, restore: Stoppable) -> bool:
        now = self._clock.monotonic()
        spread = self._clock.random() * self._reading_interval  # its delivery has just read it
        return now >= self._next_reading.setdefault(restore.restore_id, now + spread)

    def _forget_all_but(self, restore_ids: set[str]) -> None:
        for known in (self._markers, self._next_reading):
            for restore_id in known.keys() - restore_ids:
                del known[restore_id]

    def _note(self, failure: str) -> None:
        if failure and failure != self._failure:
            _log.warning("stop.poll_failed", why=failure)
        elif self._failure and not failure:
            _log.info("stop.poll_recovered")
        self._failure = failure
