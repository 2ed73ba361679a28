"""Keeps the record of a restore of the daemon: in the journal at once, in the spool from time to time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from agent_reporter.errors import SpoolError
from agent_reporter.keeper import PROGRESS_INTERVAL, Keeper

if TYPE_CHECKING:
    import asyncio
    from typing import Any

    from agent_reporter.clock import Clock
    from agent_reporter.daemon.journal import Journal
    from agent_reporter.model.client import Client
    from agent_reporter.model.exchange import Ending
    from agent_reporter.model.record import Record
    from agent_reporter.model.report import Report
    from agent_reporter.spool import Entry

OVER = "over"
"""What a line of the journal says of a restore that needs nothing more."""


class JournaledKeeper(Keeper):
    """One restore's record. Its changes are journaled; `checkpoint` brings the spool's file up to them."""

    def __init__(
        self,
        entry: Entry,
        record: Record,
        clock: Clock,
        journal: Journal,
        writes: asyncio.Semaphore | None = None,
    ) -> None:
        super().__init__(entry, record, clock, writes)
        self._file = entry
        self._restore_id = record.report.restore_id
        self._journal = journal
        self._journaled: Record | None = None
        """What the lines that are durable say; None while one is being written, or was refused."""
        self._newest: Record | None = None

    async def take(self, report: Report, client: Client) -> None:
        """Return once `report`, and whose it is, are durable. Raises SpoolError if they cannot be made so.

        A result that the journal has no room for is kept in the spool, which has space reserved for it.
        """
        self.client = client
        self._note_delivery(report)
        # Where the delivery stands is journaled by its loop, and not with each report.
        exchange = self.exchange if self._journaled is None else self._journaled.exchange
        record = replace(self._compose(report), exchange=exchange)
        try:
            await self._journal_changes(record)
        except SpoolError:
            if not report.is_final:
                raise
            await self._write(self._file, record)

    async def checkpoint(self, report: Report) -> None:
        """Bring the file of the spool up to what was journaled; raises SpoolError."""
        await self._write(self._file, self._compose(report))

    async def _write_last(self, entry: Entry, report: Report) -> None:
        """Again and again: the journal has it meanwhile, and it is not over before the spool has it."""
        while True:
            try:
                await self._write(entry, self._compose(report))
            except SpoolError as problem:
                self._log.error("spool.write_failed", problem=str(problem))
                await self._clock.sleep(PROGRESS_INTERVAL)
            else:
                return

    async def settle(self, report: Report, ending: Ending) -> None:
        """The delivery is over: forget the record, or keep it as a dead letter.

        That it is over is said before its file goes: lines alone, some forgotten, would make no record.
        """
        if ending.loses_nothing:
            await self._say_over()
            await super().settle(report, ending)
        else:
            await super().settle(report, ending)
            await self._say_over()

    async def _say_over(self) -> None:
        try:
            await self._journal.append(self._restore_id, {OVER: True})
        except SpoolError as problem:
            self._log.error("spool.write_failed", problem=str(problem))

    async def _store(self, entry: Entry, record: Record) -> None:  # noqa: ARG002 - the journal has it
        await self._journal_changes(record)

    async def _journal_changes(self, record: Record) -> None:
        """Append what `record` changes; all of it while an earlier line may still fail."""
        before = self._journaled
        changes: dict[str, Any] = record.changes_since(before)
        if before is None:
            changes[OVER] = False
        elif not changes:
            return
        self._journaled, self._newest = None, record  # nothing is built on a line that is not durable
        await self._journal.append(self._restore_id, changes)
        self._kept = record
        if self._newest is record:
            self._journaled = record

    def _is_due(self, report: Report) -> bool:  # noqa: ARG002 - reports are journaled as they come
        now = self._clock.monotonic()
        kept = self._kept
        if now < self._next_try:
            return False
        return kept is None or (kept.exchange.attempt, kept.exchange.ending) != (
            self.exchange.attempt,
            self.exchange.ending,
        )
