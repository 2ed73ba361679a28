"""One sign-in for everybody: whoever needs a token waits for the same one, and failures are held back.

A source of tokens that is broken holds deliveries and loses none: each call raises SignInError until the
source works again, and the source itself is asked no more often than the backoff allows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agent_reporter.errors import SignInError
from agent_reporter.logs import get_logger
from agent_reporter.model import pacing
from agent_reporter.model.verdict import retry_after_seconds

if TYPE_CHECKING:
    from agent_reporter.clock import Clock
    from agent_reporter.control_plane.token_sources import Grant, TokenSource
    from agent_reporter.model.backoff import Backoff

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Token:
    """A token in use; its `generation` tells it from the ones before."""

    value: str = field(repr=False)
    generation: int


class SignIn:
    """Keeps a good token at hand."""

    def __init__(
        self, source: TokenSource, clock: Clock, backoff: Backoff, report_interval: float = 0.0
    ) -> None:
        """By `report_interval` it is measured how far sign-ins are spread after a token was refused."""
        self.results: Counter[str] = Counter()
        """How often the source was asked, by `done` and `failed`."""
        self._source = source
        self._clock = clock
        self._backoff = backoff
        self._report_interval = report_interval
        self._lock = asyncio.Lock()
        self._grant: Grant | None = None
        self._generation = 0
        self._due = 0.0
        self._held_until = 0.0
        self._failures = 0
        self._problem = ""
        self._is_renewal_failing = False

    @property
    def source_name(self) -> str:
        """What tokens come from, for a person."""
        return self._source.name

    async def token(self) -> Token:
        """A token that should be taken; raises SignInError if there is none."""
        if self._grant is None or self._clock.monotonic() >= self._due:
            async with self._lock:
                if self._grant is None or self._clock.monotonic() >= self._due:
                    await self._refresh()
        if self._grant is None:
            raise SignInError("no token")
        return Token(self._grant.value, self._generation)

    async def renew(self, generation: int) -> None:
        """Replace the token of `generation`, which was answered 401, unless that was done already.

        Raises SignInError if there is no other token yet.
        """
        async with self._lock:
            if generation != self._generation:
                return
            if not self._is_held():  # a whole fleet may have been refused, and is not to sign in at once
                await self._clock.sleep(pacing.spread(self._report_interval, self._clock.random()))
            await self._fetch()
            if generation == self._generation:
                raise SignInError(
                    f"the control plane refuses the token (401), and {self._source.name} has no other. "
                    "Put a valid one there; it is looked at again by itself."
                )

    async def _refresh(self) -> None:
        try:
            await self._fetch()
        except SignInError as problem:
            if self._grant is None or self._is_over(self._grant):
                raise
            if not self._is_renewal_failing:
                _log.warning("sign_in.renewal_failed", problem=str(problem))
            self._is_renewal_failing = True

    async def _fetch(self) -> None:
        if self._is_held():
            raise SignInError(self._problem)
        try:
            grant = await self._source.fetch()
        except SignInError as problem:
            self.results["failed"] += 1
            self._failures += 1
            floor = retry_after_seconds(problem.retry_after, self._clock.now())
            delay = self._backoff.delay(self._failures, self._clock.random(), floor)
            self._held_until = self._clock.monotonic() + delay
            self._problem = str(problem)
            raise
        self.results["done"] += 1
        self._failures = 0
        self._is_renewal_failing = False
        if self._grant is None or grant.value != self._grant.value:
            self._generation += 1
            _log.info("sign_in.done", source=self._source.name, generation=self._generation)
        self._grant = grant
        self._due = self._clock.monotonic() + self._good_for(grant)

    def _good_for(self, grant: Grant) -> float:
        if grant.good_for is not None:
            return grant.good_for
        if grant.expires is None:
            return float("inf")
        left = (grant.expires - self._clock.now()).total_seconds()
        return pacing.token_life(left, self._clock.random())

    def _is_held(self) -> bool:
        return self._failures > 0 and self._clock.monotonic() < self._held_until

    def _is_over(self, grant: Grant) -> bool:
        return grant.expires is not None and grant.expires <= self._clock.now()
