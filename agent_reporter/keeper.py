"""Keeps one restore's record: in memory always, in the spool whenever it has to outlive the process.

States and results are kept at once, and so is each failure to deliver them, so that the backoff survives
a restart. Mere progress is kept now and then: the control plane has it too.
"""

from __future__ import annotations

import asyncio
import os
from functools import partial
from typing import TYPE_CHECKING

from agent_reporter.errors import SpoolError
from agent_reporter.logs import get_logger
from agent_reporter.model.client import Facts
from agent_reporter.model.record import Record
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from agent_reporter.clock import Clock
    from agent_reporter.model.exchange import Ending
    from agent_reporter.model.process_identity import ProcessIdentity
    from agent_reporter.model.report import Report
    from agent_reporter.spool import Entry

PROGRESS_INTERVAL = 5.0
"""Seconds between two records that differ in progress alone, and between two tries at a disk that fails."""


class Keeper:
    """One restore's record. Without an `entry`, as the spool cannot be used, it is kept in memory."""

    def __init__(
        self, entry: Entry | None, record: Record, clock: Clock, writes: asyncio.Semaphore | None = None
    ) -> None:
        """`writes` bounds the threads that write for all restores together."""
        self.exchange = record.exchange
        """Where the delivery stands; its loop sets it."""
        self.client = record.client
        """Who reports this restore, where that is another process."""
        self._entry = entry
        self._writes = writes or asyncio.Semaphore()
        self._destination = record.destination
        self._clock = clock
        self._kept: Record | None = None if entry is None else entry.record
        self._engine = record.engine
        self.undelivered_since: datetime | None = record.undelivered_since
        """When the oldest thing that is not acknowledged was stated."""
        self._next_progress = 0.0
        self._next_try = 0.0
        self._unsettled: tuple[Report, Ending] | None = None
        """What the disk did not let us settle."""
        self._log = get_logger(restore_id=record.report.restore_id)

    async def name_engine(self, engine: ProcessIdentity, report: Report) -> None:
        """From now on the record says that `engine` does the restoring; that is kept at once."""
        self._engine = engine
        self._kept = None
        await self.keep(report)

    async def keep(self, report: Report) -> None:
        """Keep `report` and the exchange, if they have to be kept now."""
        self._note_delivery(report)
        if self._entry is None or not self._is_due(report):
            return
        try:
            await self._store(self._entry, self._compose(report))
        except SpoolError as problem:
            self._next_try = self._clock.monotonic() + PROGRESS_INTERVAL
            self._log.error("spool.write_failed", problem=str(problem))
            return
        self._next_progress = self._clock.monotonic() + PROGRESS_INTERVAL

    async def _store(self, entry: Entry, record: Record) -> None:
        """Make `record` durable; raises SpoolError."""
        await self._write(entry, record)
        self._kept = record

    async def _write(self, entry: Entry, record: Record) -> None:
        await self._aside("spool-write", partial(entry.write, record))

    async def _aside(self, name: str, call: Callable[[], None]) -> None:
        async with self._writes:
            await in_thread(name, call)

    def facts(self, report: Report) -> Facts:
        """What goes to the daemon beside a patch that tells `report`."""
        pids = () if report.is_final else {os.getpid(), *([] if self._engine is None else [self._engine.pid])}
        return Facts(tuple(sorted(pids)), report.total_bytes, report.total_files)

    def keep_result(self, report: Report) -> str:
        """Keep the final `report`, blocking for the disk; returns what is wrong, or an empty text."""
        if self._entry is None:
            return "there is no spool"
        try:
            self._entry.write(self._compose(report))
        except SpoolError as problem:
            self._log.error("spool.write_failed", problem=str(problem))
            return str(problem)
        return ""

    async def settle(self, report: Report, ending: Ending) -> None:
        """The delivery is over: forget the record, or keep it as a dead letter."""
        if self._entry is None:
            return
        if ending.loses_nothing:
            is_clear = await self._clear_up("spool-discard", self._entry, self._entry.discard)
        else:
            await self._write_last(self._entry, report)
            is_clear = await self._clear_up("spool-bury", self._entry, self._entry.bury)
        self._unsettled = None if is_clear else (report, ending)

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to clear up of a delivery that is over."""
        return self._unsettled is None

    async def settle_at_last(self) -> None:
        """Do what `settle` could not, as soon as the disk lets us."""
        while self._unsettled is not None:
            await self._clock.sleep(PROGRESS_INTERVAL)
            await self.settle(*self._unsettled)

    async def _write_last(self, entry: Entry, report: Report) -> None:
        try:
            await self._write(entry, self._compose(report))
        except SpoolError as problem:
            self._log.error("spool.write_failed", problem=str(problem))

    async def _clear_up(self, name: str, entry: Entry, clear_up: Callable[[], None]) -> bool:
        """What cannot be cleared up is released, and found to be delivered by who takes it over next.

        Returns False where the end could not be written either: who takes the file over would take it for a
        restore without one, and so it stays ours.
        """
        try:
            await self._aside(name, clear_up)
        except OSError as problem:
            self._log.error("spool.clearing_failed", problem=str(problem))
            if entry.record is not None and entry.record.report.is_final:
                await self.release()
                return True
            return False
        return True

    async def release(self) -> None:
        """Leave the record in the spool for whoever works on it next."""
        if self._entry is not None:
            await in_thread("spool-release", self._entry.release)

    def _compose(self, report: Report) -> Record:
        return Record(
            self._destination, report, self.exchange, self._engine, self.undelivered_since, self.client
        )

    def _is_due(self, report: Report) -> bool:
        now = self._clock.monotonic()
        if now < self._next_try:
            return False
        kept = self._kept
        if kept is None or kept.report.state is not report.state:
            return True
        if (kept.exchange.attempt, kept.exchange.ending) != (self.exchange.attempt, self.exchange.ending):
            return True
        if now < self._next_progress:
            return False
        return kept.report != report or kept.exchange.acknowledged != self.exchange.acknowledged

    def _note_delivery(self, report: Report) -> None:
        acknowledged = self.exchange.acknowledged
        if acknowledged is not None and acknowledged.revision >= report.revision:
            self.undelivered_since = None
        elif self.undelivered_since is None:
            self.undelivered_since = self._clock.now()
