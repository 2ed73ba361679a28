"""All deliveries of one process, and the loops beside them: begun, supervised, taken over, drained."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent_reporter.delivery import Delivery
from agent_reporter.errors import SpoolError
from agent_reporter.keeper import Keeper
from agent_reporter.logs import get_logger
from agent_reporter.model import pacing
from agent_reporter.stop import StopWatcher
from agent_reporter.takeover import Orphan, after_takeover
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from agent_reporter.delivery import Source
    from agent_reporter.means import Means
    from agent_reporter.model.dialect import Dialect
    from agent_reporter.model.exchange import Exchange
    from agent_reporter.model.record import Record
    from agent_reporter.moment import Moment
    from agent_reporter.spool import Entry, Spool

TAKEOVER_INTERVAL = 60.0
"""Seconds between two looks for orphans: one may be held for an instant, or its owner die later."""
TAKEN_OVER_AT_ONCE = 100
"""Orphans that are taken over in one look: each takes a descriptor."""
RESTART_SECONDS = 1.0
"""A loop of ours that fails, which is a bug of ours, is started again after so long."""

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Open:
    """A restore that is being delivered."""

    delivery: Delivery
    keeper: Keeper


class Deliveries:
    """Every delivery of a process. `close` ends all of it."""

    def __init__(self, means: Means, spool: Spool) -> None:
        self.dialect = means.settings.dialect
        """How the next restore is told at first."""
        self.open: dict[str, Open] = {}
        """By restore id."""
        self._means = means
        self._spool = spool
        self._clock = means.clock
        self._tasks: set[asyncio.Task[None]] = set()
        self._forget_task = self._tasks.discard  # bound once, and not for each task
        self.watcher = StopWatcher(means, self._stoppable)
        self.spawn("stop", self.watcher.run)

    def begin(self, source: Source, keeper: Keeper, *, spread: bool = False) -> Delivery:
        """Deliver what `source` says; `spread` is for what a whole fleet may be about to deliver."""
        hold = pacing.spread(self._means.settings.report_interval, self._clock.random()) if spread else 0.0
        delivery = Delivery(source, keeper, self._means, hold=hold)

        async def run() -> None:
            await delivery.run()
            if delivery.over.has_happened:
                self.dialect = _remember(self.dialect, delivery.exchange)
                self.open.pop(source.restore_id, None)
                try:
                    await keeper.settle_at_last()
                except asyncio.CancelledError:
                    await keeper.release()
                    raise

        self.open[source.restore_id] = Open(delivery, keeper)
        self.spawn(f"deliver {source.restore_id}", run)
        if source.awaits_stop:
            self.watcher.notice()
        return delivery

    def keeper(self, entry: Entry | None, record: Record) -> Keeper:
        """What keeps `record` in the spool while it is delivered."""
        return Keeper(entry, record, self._clock, self._means.writes)

    async def take_over(self, *, at_once: bool = False) -> list[Orphan]:
        """Own and deliver orphans of the spool that belong to this control plane and project.

        So many at once that there are descriptors for them all: call it again when these are settled. What
        the daemon has of an engine that may still report to it is left to the daemon.

        `at_once` makes the first try now, whatever the backoff of the process before was.
        """
        orphans = []
        for entry, record in await in_thread("spool-orphans", self._own_orphans, abandoned=_release_all):
            if entry.restore_id in self.open:
                # It is reported here without its record, as the spool could not be used when it was opened.
                await in_thread("spool-release", entry.release)
                continue
            orphan = Orphan(record, self._clock)
            keeper = self.keeper(entry, after_takeover(record, at_once=at_once))
            delivery = self.begin(orphan, keeper, spread=not at_once)
            self.spawn(
                f"follow {orphan.restore_id}",
                lambda orphan=orphan, delivery=delivery: orphan.follow(  # type: ignore[misc]  # bound early
                    lambda: delivery.wake(urgent=True)
                ),
            )
            orphans.append(orphan)
            _log.info("takeover.done", restore_id=orphan.restore_id, state=record.report.state.value)
        return orphans

    async def take_over_again_and_again(self) -> None:
        """Look for orphans for as long as the process lives."""
        while True:
            try:
                await self.take_over()
            except SpoolError as problem:
                _log.error("spool.unusable", problem=str(problem))
            await self._clock.sleep(TAKEOVER_INTERVAL)

    async def settle_all(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound that is promised
        """Return once every delivery of this moment is over, or after `timeout` seconds."""
        await self.first_of(timeout, [restore.delivery.over for restore in self.open.values()])

    async def drain(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound that is promised
        """Deliver what can be delivered within `timeout` seconds; what is left stays in the spool."""
        until = self._clock.monotonic() + timeout
        for restore in self.open.values():
            restore.delivery.drain(until)
        await self.first_of(timeout, [restore.delivery.drained for restore in self.open.values()])
        if left := [name for name, restore in self.open.items() if not restore.delivery.over.has_happened]:
            _log.warning("reporter.left_in_spool", restores=left, spool=str(self._spool.directory))

    def end_drain(self) -> None:
        """Wait no longer for deliveries at the end: what is not delivered now stays in the spool."""
        for restore in self.open.values():
            restore.delivery.drain(self._clock.monotonic())

    async def close(self) -> None:
        """End every loop, and leave what was not delivered in the spool."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for restore in self.open.values():
            await restore.delivery.release()

    def exchange(self, restore_id: str) -> Exchange | None:
        """Where a delivery stands; None once it is over."""
        restore = self.open.get(restore_id)
        return None if restore is None else restore.delivery.exchange

    def spawn(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Run a loop of ours beside the others."""
        task = asyncio.create_task(self._supervise(name, run), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._forget_task)

    async def first_of(self, seconds: float, moments: Iterable[Moment]) -> None:
        """Return once all `moments` have happened, or after `seconds`."""
        if not (left := [moment for moment in moments if not moment.has_happened]):
            return
        everything = asyncio.create_task(_all(left))
        bound = asyncio.create_task(self._clock.sleep(seconds))
        try:
            await asyncio.wait({everything, bound}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            everything.cancel()
            bound.cancel()
            await asyncio.gather(everything, bound, return_exceptions=True)

    def _own_orphans(self) -> list[tuple[Entry, Record]]:
        orphans: list[tuple[Entry, Record]] = []
        for entry in self._spool.orphans():
            if entry.record is None or not self._is_ours(entry.record):
                entry.release()
                continue
            orphans.append((entry, entry.record))
            if len(orphans) >= TAKEN_OVER_AT_ONCE:
                break
        return orphans

    def _is_ours(self, record: Record) -> bool:
        is_of_daemon = record.client is not None and not record.report.is_final
        return record.destination == self._means.settings.destination and not is_of_daemon

    def _stoppable(self) -> list[Source]:
        return [
            restore.delivery.source for restore in self.open.values() if restore.delivery.source.awaits_stop
        ]

    async def _supervise(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Nothing of ours reaches the engine: a loop that fails is said loudly and started again."""
        while True:
            try:
                await run()
            except Exception:  # noqa: BLE001 - whatever it is, the other loops go on
                _log.exception("reporter.loop_failed", loop=name)
                await self._clock.sleep(RESTART_SECONDS)
            else:
                return


def _release_all(orphans: list[tuple[Entry, Record]]) -> None:
    for entry, _ in orphans:
        entry.release()


async def _all(moments: list[Moment]) -> None:
    for moment in moments:
        await moment.wait()


def _remember(dialect: Dialect, exchange: Exchange) -> Dialect:
    """What one restore's delivery taught of the control plane's spelling is good for the next."""
    if exchange.dialect.settled and not dialect.settled:
        return replace(dialect, spelling=exchange.dialect.spelling, settled=True)
    return dialect
