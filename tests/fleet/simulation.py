"""All agents on virtual time: the queue of events, the load, and the control plane's moods.

What goes on in the same way every interval is counted without events, until something happens that may change it.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from heapq import heapify, heappop, heappush
from math import ceil
from random import Random
from typing import TYPE_CHECKING, Protocol

from agent_reporter.model import pacing
from tests.fleet.agents import NEVER, TICKS, Agent, Renewal
from tests.fleet.conversation import BUSY, DONE, UNSIGNED, Conversations

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_reporter.settings import Settings
    from tests.fleet.agents import Delivery, Look, Restores
    from tests.fleet.conversation import Outcome

CALM_SECONDS = 2.0
"""After the control plane had to refuse calls, everybody is followed by events for so long."""
LENGTH_OF_RESTORE = 3_600.0
"""Seconds, on the average."""


def tick_of(seconds: float) -> int:
    """The tick that a moment belongs to."""
    return int(seconds * TICKS)


class Actor(Protocol):
    """What has its next moment in the queue."""

    serial: int

    def act(self, now: float) -> None:
        """The moment has come."""
        ...


class ControlPlane:
    """Answers as it is told to, up to its capacity; beyond that it is busy."""

    def __init__(self, capacity: float) -> None:
        self.mood: Outcome = DONE
        self.signs_in: Outcome = DONE
        self.refuses_tokens_until = -NEVER
        """Tokens that were given out before this are no longer good."""
        self.taken = 0
        """In this tick."""
        self.was_crowded = False
        self._most = capacity / TICKS

    def answer(self, signed_at: float) -> Outcome:
        """What becomes of a call with a token that was given out at `signed_at`."""
        self.taken += 1
        if self.mood is not DONE:
            return self.mood
        if self.taken > self._most:
            self.was_crowded = True
            return BUSY
        return UNSIGNED if signed_at < self.refuses_tokens_until else DONE

    def sign_in(self) -> Outcome:
        """What becomes of a sign-in."""
        self.taken += 1
        if self.signs_in is DONE and self.taken > self._most:
            self.was_crowded = True
            return BUSY
        return self.signs_in


class Fleet:
    """Agents with a restore in progress each, from second 0 on."""

    def __init__(
        self,
        agents: int,
        settings: Settings,
        *,
        seconds: float,
        capacity: float,
        seed: int = 0,
        by_events: bool = False,
        remembers: bool = True,
    ) -> None:
        """`capacity` is in requests a second; `by_events` follows each agent all the time."""
        self.settings = settings
        self.backoff = settings.backoff
        self.interval = settings.report_interval
        self.conversations = Conversations(remembers=remembers)
        self.control_plane = ControlPlane(capacity)
        self.chance = Random(seed).random
        self.look_timeout = pacing.look_timeout(settings.request_timeout, settings.stop_poll_interval)
        self.token_life = NEVER
        self.alike_until = 0.0
        """Until then all calls are answered alike, whoever makes them."""
        self.tick = -1
        self.ticks = tick_of(seconds)
        self.calls = array("l", bytes(8 * self.ticks))
        self.looks = array("l", bytes(8 * self.ticks))
        self.sign_ins = array("l", bytes(8 * self.ticks))
        """By the tick; `calls` are all, with the others."""
        self.events = 0
        self.is_calm = not by_events
        """Whether what is steady needs no events."""
        self.open: dict[Delivery, None] = {}
        self.behind = 0
        """Deliveries that have not told anything since the recovery."""
        self.drained: list[float] = []
        """When each of the others did."""
        self._by_events = by_events
        self._calm_at = 0
        self._is_counted = False
        """Whether what is steady is in this tick's load already."""
        self._serial = 0
        self._later: dict[int, list[tuple[float, int, Actor]]] = defaultdict(list)
        self._now: list[tuple[float, int, Actor]] = []
        self._steady = [0] * tick_of(settings.report_interval)
        self._steady_looks: dict[float, list[int]] = {}
        """By how long it is from one to the next."""
        self.agents = [self._agent() for _ in range(agents)]

    def _agent(self) -> Agent:
        agent = Agent(self)
        self.open[agent.delivery] = None
        agent.delivery.next_telling = self.chance() * self.settings.report_interval
        agent.look.due = self.chance() * self.settings.stop_poll_interval
        if self.is_calm:
            self.settle(agent.delivery)
            self.settle_look(agent.look)
        else:
            self.schedule(agent.delivery, agent.delivery.next_telling)
            self.schedule(agent.look, agent.look.due)
        self.schedule_end(agent.restores, self.chance() * self.length_of_restore())
        return agent

    # --- what agents use ------------------------------------------------------------------------------------

    def schedule(self, actor: Actor, moment: float) -> None:
        """The next moment of `actor`, in place of any other."""
        self._serial = actor.serial = self._serial + 1
        tick = tick_of(moment)
        if tick <= self.tick:
            heappush(self._now, (moment, actor.serial, actor))
        else:
            self._later[tick].append((moment, actor.serial, actor))

    def length_of_restore(self) -> float:
        """How long the next one takes."""
        return LENGTH_OF_RESTORE * (0.5 + self.chance())

    def settle(self, delivery: Delivery) -> None:
        """It goes on in the same way every interval."""
        delivery.is_steady = True
        self._steady[tick_of(delivery.next_telling) % len(self._steady)] += 1

    def unsettle(self, delivery: Delivery, now: float) -> None:
        """Something may change for it."""
        if not delivery.is_steady:
            return
        delivery.is_steady = False
        self._steady[tick_of(delivery.next_telling) % len(self._steady)] -= 1
        interval = self.settings.report_interval
        delivery.next_telling = self._next(delivery.next_telling, interval, now)
        self.schedule(delivery, delivery.next_telling)

    def settle_look(self, look: Look) -> None:
        """As `settle`."""
        look.is_steady = True
        steady = self._steady_looks.get(look.period)
        if steady is None:
            steady = self._steady_looks[look.period] = [0] * tick_of(look.period)
        steady[tick_of(look.due) % len(steady)] += 1
        if tick_of(look.due) == self.tick:  # it begins at once, after those of this tick were counted
            self.looks[self.tick] += 1
            self.control_plane.taken += 1

    def unsettle_look(self, look: Look, now: float) -> None:
        """As `unsettle`."""
        if not look.is_steady:
            return
        look.is_steady = False
        steady = self._steady_looks[look.period]
        steady[tick_of(look.due) % len(steady)] -= 1
        look.resume(self._next(look.due, look.period, now))

    def note_drained(self, now: float) -> None:
        """A delivery has told its newest."""
        self.behind -= 1
        self.drained.append(now)

    # --- what happens to all --------------------------------------------------------------------------------

    def change(self, now: float, mood: Outcome) -> None:
        """The control plane answers in another way from now on."""
        self.control_plane.mood = self.control_plane.signs_in = mood
        self.unsettle_all(now)

    def recover(self) -> None:
        """From now on it counts how long each delivery needs to tell its newest."""
        for delivery in self.open:
            delivery.is_behind = True
        self.behind = len(self.open)

    def refuse_tokens(self, now: float) -> None:
        """No token that was given out so far is good any more."""
        self.control_plane.refuses_tokens_until = now
        self.unsettle_all(now)

    def age_tokens(self, now: float, life: float) -> None:
        """All tokens were given out in this moment, and live for so long."""
        self.token_life = life
        for agent in self.agents:
            agent.signed_at = now
            agent.due = now + pacing.token_life(life, self.chance())
            self.schedule(Renewal(agent), agent.due)

    def restart(self, now: float) -> None:
        """All daemons end, and others begin, in one and the same moment."""
        self.unsettle_all(now)
        self._later.clear()
        self._now.clear()
        for agent in self.agents:
            agent.restart(now)
            self.schedule_end(agent.restores, agent.restores.ends_at)
        for delivery in self.open:
            delivery.restart(now)

    def schedule_end(self, restores: Restores, moment: float) -> None:
        """When a restore ends."""
        restores.ends_at = moment
        self.schedule(restores, moment)

    def unsettle_all(self, now: float) -> None:
        """Follow everybody by events."""
        for delivery in self.open:
            self.unsettle(delivery, now)
        for agent in self.agents:
            self.unsettle_look(agent.look, now)

    # --- time -----------------------------------------------------------------------------------------------

    def run(self, changes: dict[float, Callable[[float], None]]) -> None:
        """Let all time pass; at each of the moments in `changes`, whole ticks, something happens to all."""
        due = {tick_of(moment): (moment, change) for moment, change in changes.items()}
        moments = [*sorted(changes), self.ticks / TICKS]
        for tick in range(self.ticks):
            self.tick = tick
            self._is_counted = False
            self._now = self._later.pop(tick, [])
            heapify(self._now)
            if tick in due:
                moment, change = due[tick]
                change(moment)
                is_alike = self.control_plane.mood is not DONE and not self._by_events
                self.alike_until = moments[moments.index(moment) + 1] if is_alike else 0.0
            self._pass()

    def _pass(self) -> None:
        """One tick."""
        tick, control_plane = self.tick, self.control_plane
        self.looks[tick] += (
            looks := sum(steady[tick % len(steady)] for steady in self._steady_looks.values())
        )
        control_plane.taken = self._steady[tick % len(self._steady)] + looks
        self._is_counted = True
        queue = self._now
        while queue:
            moment, serial, actor = heappop(queue)
            if actor.serial == serial:
                self.events += 1
                actor.act(moment)
        self.calls[tick] += control_plane.taken
        if control_plane.was_crowded:
            control_plane.was_crowded = False
            self._calm_at = tick + tick_of(CALM_SECONDS)
            self.unsettle_all((tick + 1) / TICKS)
        self.is_calm = not self._by_events and tick >= self._calm_at

    def _next(self, moment: float, interval: float, now: float) -> float:
        """The first moment from now on of what happens every interval."""
        moment += max(0, ceil((now - moment) / interval)) * interval
        return moment + interval if self._is_counted and tick_of(moment) == self.tick else moment
