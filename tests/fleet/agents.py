"""The loops of one agent, on virtual time: what waits and sends. What is decided is the product's own.

Each moment at which an agent does something, a delivery's turn, a look for stop requests, a sign-in, is an event of
the fleet's queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from agent_reporter.model import pacing
from tests.fleet.conversation import DONE, LOST, NO_TOKEN, UNSIGNED

if TYPE_CHECKING:
    from tests.fleet.conversation import Outcome, Place
    from tests.fleet.simulation import Fleet

NEVER = float("inf")
TICKS = 16
"""Ticks in a second: load is counted by the tick, and capacity is given out by it."""


class Agent:
    """A host: its token, and who waits for one. As `SignIn`, one sign-in at a time serves everybody."""

    __slots__ = (
        "delivery",
        "due",
        "failures",
        "fleet",
        "held_until",
        "look",
        "restores",
        "serial",
        "signed_at",
        "waiting",
    )

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.serial = 0
        self.signed_at = 0.0
        self.due = NEVER
        self.failures = 0
        self.held_until = 0.0
        self.waiting: list[Caller] = []
        self.delivery = Delivery(self, fleet.conversations.under_way())
        self.look = Look(self)
        self.restores = Restores(self)

    def restart(self, now: float) -> None:
        """Another daemon begins: without a token."""
        fleet = self.fleet
        self.due = 0.0
        self.failures = 0
        self.waiting.clear()
        self.look.restart(now)
        hold = pacing.spread(fleet.interval, fleet.chance())
        fleet.schedule(Startup(self), now + hold)

    def wait_for_token(self, caller: Caller, now: float, *, refused: bool) -> None:
        """`caller` goes on once there is a new token, or it is known that there is none yet."""
        caller.waits_for_token = True
        self.waiting.append(caller)
        if len(self.waiting) > 1:
            return
        if self.failures and now < self.held_until:
            self._fail(now)
        elif refused:
            hold = pacing.spread(self.fleet.interval, self.fleet.chance())
            self.fleet.schedule(self, now + hold)
        else:
            self.act(now)

    def act(self, now: float) -> None:
        fleet = self.fleet
        fleet.sign_ins[fleet.tick] += 1
        outcome = fleet.control_plane.sign_in()
        if outcome is DONE:
            self.failures = 0
            self.signed_at = now
            life = pacing.token_life(fleet.token_life, fleet.chance())
            self.due = now + life
            if life < NEVER:
                fleet.schedule(Renewal(self), self.due)
            waiting, self.waiting = self.waiting, []
            for caller in waiting:
                caller.waits_for_token = False
                caller.go_on(now)
            return
        self.failures += 1
        delay = fleet.backoff.delay(self.failures, fleet.chance(), outcome.floor(now))
        self.held_until = now + delay
        self._fail(now)

    def _fail(self, now: float) -> None:
        waiting, self.waiting = self.waiting, []
        for caller in waiting:
            caller.waits_for_token = False
            caller.has_no_token(now)


class Caller(Protocol):
    """What makes calls that need a token."""

    waits_for_token: bool

    def go_on(self, now: float) -> None:
        """There is a token."""
        ...

    def has_no_token(self, now: float) -> None:
        """There is none yet."""
        ...


class Delivery:
    """As `delivery.Delivery`: brings one restore's newest report to the control plane."""

    __slots__ = (
        "agent",
        "fleet",
        "is_behind",
        "is_steady",
        "next_telling",
        "place",
        "retry_at",
        "serial",
        "waits_for_token",
    )

    def __init__(self, agent: Agent, place: Place) -> None:
        self.agent = agent
        self.fleet = agent.fleet
        self.place = place
        self.serial = 0
        self.retry_at = 0.0
        self.next_telling = 0.0
        self.is_steady = False
        self.is_behind = False
        """It has not told anything since the recovery."""
        self.waits_for_token = False

    def restart(self, now: float) -> None:
        """Go on in the next life of the daemon, as `Registry.begin` has it resumed."""
        fleet = self.fleet
        hold = pacing.spread(fleet.interval, fleet.chance())
        self.place = fleet.conversations.taken_over(self.place)
        self.retry_at = max(self.retry_at, now + hold)
        self.next_telling = 0.0
        self.waits_for_token = False
        self.go_on(now)

    def act(self, now: float) -> None:
        fleet, agent = self.fleet, self.agent
        if now >= agent.due:
            agent.wait_for_token(self, now, refused=False)
            return
        if now < fleet.alike_until:
            self._run_ahead(now)
            return
        place, outcome = self.place, self._request(now)
        while (
            self.place.follows_at_once
        ):  # as in `Delivery._take`: a state is told in the very turn of its read
            place, outcome = self.place, self._request(now)
        if outcome is UNSIGNED:
            agent.wait_for_token(self, now, refused=True)
        elif self.place.is_over:
            del fleet.open[self]
        elif outcome is DONE and self.place is place and fleet.is_calm:
            fleet.settle(self)
        else:
            self.go_on(now + (fleet.settings.request_timeout if outcome is LOST else 0.0))

    def _request(self, now: float) -> Outcome:
        """One request, and what its answer taught."""
        fleet, place = self.fleet, self.place
        if place.sends:
            self.next_telling = now + fleet.interval
        outcome = fleet.control_plane.answer(self.agent.signed_at)
        self._learn(outcome, now + (fleet.settings.request_timeout if outcome is LOST else 0.0))
        if outcome is DONE and place.sends and self.is_behind:
            self.is_behind = False
            fleet.note_drained(now)
        return outcome

    def _run_ahead(self, now: float) -> None:
        """While everybody is answered alike, no moment of this delivery depends on anything but its own chance.

        So they follow each other without the queue. One that gets no answer learns that at the time-out: whatever
        happens meanwhile waits for the retry, which is later.
        """
        fleet, agent, place = self.fleet, self.agent, self.place
        outcome, calls = fleet.control_plane.mood, fleet.calls
        late = fleet.settings.request_timeout if outcome is LOST else 0.0
        until = fleet.alike_until
        if agent.delivery is self:
            until = min(until, agent.restores.ends_at)
        retry_at, next_telling = self.retry_at, self.next_telling
        pause, delay, chance, interval = pacing.pause, fleet.backoff.delay, fleet.chance, fleet.interval
        while now < until:  # ten million times: what `_request` and `_learn` do, in one piece
            if place.sends:
                next_telling = now + interval
            calls[int(now * TICKS)] += 1
            fleet.events += 1
            now += late
            place, wait = place.after.get(outcome) or fleet.conversations.decide(place, outcome, now)
            if wait is not None:
                retry_at = now + delay(wait[0], chance(), outcome.floor(now) if wait[1] else 0.0)
            urgent = place.urgent
            while seconds := pause(now, retry_at, next_telling, urgent=urgent):
                now += seconds
        self.place, self.retry_at, self.next_telling = place, retry_at, next_telling
        fleet.schedule(self, now)

    def _next(self, now: float) -> float:
        """When the next step may be taken."""
        urgent = self.place.urgent
        while wait := pacing.pause(now, self.retry_at, self.next_telling, urgent=urgent):
            now += wait
        return now

    def go_on(self, now: float) -> None:
        """Take the next step when it may be taken, if there is one."""
        if self.place.step is not None:
            self.fleet.schedule(self, self._next(now))

    def has_no_token(self, now: float) -> None:
        self._learn(NO_TOKEN, now)
        self.go_on(now)

    def finish(self, now: float) -> None:
        """The restore ends, which is told at once where nothing is waited for."""
        self.fleet.unsettle(self, now)
        self.place = self.fleet.conversations.finished(self.place)
        if not self.waits_for_token:
            self.go_on(now)

    def _learn(self, outcome: Outcome, now: float) -> Place:
        fleet = self.fleet
        known = self.place.after.get(outcome)
        self.place, wait = known or fleet.conversations.decide(self.place, outcome, now)
        if wait is not None:
            attempt, honours_retry_after = wait
            floor = outcome.floor(now) if honours_retry_after else 0.0
            self.retry_at = now + fleet.backoff.delay(attempt, fleet.chance(), floor)
        return self.place


class Look:
    """As `stop.StopWatcher` with an agent's id: one look serves all restores of a host."""

    __slots__ = ("agent", "due", "fleet", "is_lost", "is_steady", "period", "serial", "waits_for_token")

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.fleet = agent.fleet
        self.serial = 0
        self.due = 0.0
        self.period = self.fleet.settings.stop_poll_interval
        self.is_steady = False
        self.is_lost = False
        self.waits_for_token = False

    def restart(self, now: float) -> None:
        """The first look of another daemon, as `StopWatcher.run` makes it."""
        self.is_lost = self.waits_for_token = False
        self.due = now + self.fleet.chance() * self.fleet.settings.stop_poll_interval
        self.fleet.schedule(self, self.due)

    def act(self, now: float) -> None:
        fleet, agent = self.fleet, self.agent
        if self.is_lost:
            self.is_lost = False
            self._end(now, was_lost=True)
            return
        if now >= agent.due:
            agent.wait_for_token(self, now, refused=False)
            return
        fleet.looks[fleet.tick] += 1
        outcome = fleet.control_plane.answer(agent.signed_at)
        if outcome is LOST:
            self.is_lost = True
            fleet.schedule(self, now + fleet.look_timeout)
        elif outcome is UNSIGNED:
            agent.wait_for_token(self, now, refused=True)
        else:
            self._end(now)

    def go_on(self, now: float) -> None:
        self.act(now)

    def has_no_token(self, now: float) -> None:
        self._end(now)

    def _end(self, now: float, *, was_lost: bool = False) -> None:
        """The next one is a whole interval after this one, or at once after a time-out: then it goes on like that."""
        fleet = self.fleet
        begun, self.due = self.due, pacing.next_look(self.due, fleet.settings.stop_poll_interval, now)
        goes_on = fleet.control_plane.mood is LOST if was_lost else now == begun
        if fleet.is_calm and goes_on:
            self.period = fleet.look_timeout if was_lost else fleet.settings.stop_poll_interval
            fleet.settle_look(self)
        else:
            fleet.schedule(self, self.due)

    def resume(self, due: float) -> None:
        """It is followed by events again: `due` is when the next one begins."""
        self.is_lost = self.period > self.fleet.settings.stop_poll_interval
        self.due = due - self.period if self.is_lost else due
        self.fleet.schedule(self, due)


class Startup:
    """As `daemon.presence.announce_startup`."""

    __slots__ = ("agent", "attempt", "serial", "waits_for_token")

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.attempt = 0
        self.serial = 0
        self.waits_for_token = False

    def act(self, now: float) -> None:
        fleet, agent = self.agent.fleet, self.agent
        if now >= agent.due:
            agent.wait_for_token(self, now, refused=False)
            return
        outcome = fleet.control_plane.answer(agent.signed_at)
        if outcome is UNSIGNED:
            agent.wait_for_token(self, now, refused=True)
        elif outcome is not DONE:
            self.has_no_token(now + (fleet.settings.request_timeout if outcome is LOST else 0.0))

    def go_on(self, now: float) -> None:
        self.act(now)

    def has_no_token(self, now: float) -> None:
        fleet = self.agent.fleet
        self.attempt += 1
        fleet.schedule(self, now + fleet.backoff.delay(self.attempt, fleet.chance()))


class Restores:
    """The engines of a host: when one restore ends, the next begins."""

    __slots__ = ("agent", "ends_at", "serial")

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.serial = 0
        self.ends_at = 0.0

    def act(self, now: float) -> None:
        fleet, agent = self.agent.fleet, self.agent
        agent.delivery.finish(now)
        agent.delivery = Delivery(agent, fleet.conversations.begin())
        fleet.open[agent.delivery] = None
        agent.delivery.go_on(now)
        fleet.schedule_end(self, now + fleet.length_of_restore())


class Renewal:
    """The moment from which on an agent's token is renewed by whoever needs one next."""

    __slots__ = ("agent", "serial")

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.serial = 0

    def act(self, now: float) -> None:
        agent = self.agent
        agent.fleet.unsettle(agent.delivery, now)
        agent.fleet.unsettle_look(agent.look, now)
