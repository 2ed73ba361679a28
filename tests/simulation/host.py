"""The host: its clock, each life of the process on it, and what that process logs."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from agent_reporter.clock import SystemClock
from tests.simulation.loop import Process

if TYPE_CHECKING:
    from datetime import datetime

    from agent_reporter import Job, Reporter
    from agent_reporter.delivery import Delivery
    from agent_reporter.model.exchange import Exchange
    from tests.simulation.world import World

FAILURES_OF_OURS = frozenset({"reporter.loop_failed", "reporter.ended_badly", "job.result_not_kept"})


class HostClock(SystemClock):
    """The host's clock in virtual time, which may be set, and chance from the seed."""

    def __init__(self, world: World) -> None:
        self.draws: dict[str, float] = {}
        """The first number drawn since its last request failed, by the name of the task that drew it."""
        self._world = world

    def now(self) -> datetime:
        return self._world.host_time()

    def monotonic(self) -> float:
        return self._world.loop.time()

    def random(self) -> float:
        drawn = self._world.random.random()
        task = asyncio.current_task()
        if task is not None:
            self.draws.setdefault(task.get_name(), drawn)
        return drawn


class Life(Process):
    """One life of the process on the host."""

    reporter: Reporter

    def __init__(self, world: World, number: int) -> None:
        super().__init__(f"life-{number}", 1000 + number)
        self.number = number
        self.clock = HostClock(world)
        self.jobs: dict[str, Job] = {}
        self.is_leaving = False
        self.could_not_clear_up = False
        self.over = world.loop.create_future()
        self.engines: list[asyncio.Task[None]] = []

    def is_takeover(self, restore_id: str) -> bool:
        """Whether the restore is an orphan here."""
        return restore_id not in self.jobs

    def delivery(self, restore_id: str) -> Delivery | None:
        """What delivers it now."""
        found = self.reporter._all.open.get(restore_id) if hasattr(self, "reporter") else None
        return None if found is None else found.delivery

    def exchange(self, restore_id: str) -> Exchange | None:
        """Where its delivery stands; None before it begins, and after its end."""
        return self.reporter._all.exchange(restore_id) if hasattr(self, "reporter") else None


class LogWatch(logging.Handler):
    """The events of the product: none tells of a failure of ours, and none a token."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.WARNING)
        self._world = world
        self._ledger = world.ledger

    def emit(self, record: logging.LogRecord) -> None:
        event = record.msg if isinstance(record.msg, dict) else {"event": str(record.msg)}
        name = str(event.get("event"))
        self._ledger.seen[f"log {name}"] += 1
        if name in FAILURES_OF_OURS:
            self._ledger.violated("no_failure_of_ours", f"{name}: {str(event)[-1500:]}")
        if name == "spool.clearing_failed":
            self._world.lives[-1].could_not_clear_up = True
        if "canary-token" in str(event):
            self._ledger.violated("token_concealed", f"in the event {name}")
