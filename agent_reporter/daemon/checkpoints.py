"""Brings the spool up to the journal from time to time, and at the start goes on with what was left."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent_reporter.daemon.left_behind import LeftBehind
from agent_reporter.errors import SpoolError
from agent_reporter.logs import get_logger
from agent_reporter.takeover import after_takeover
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from agent_reporter.daemon.journal import Journal
    from agent_reporter.daemon.registry import Local, Registry
    from agent_reporter.means import Means
    from agent_reporter.spool import Spool

CHECKPOINT_INTERVAL = 5.0
"""Seconds between two looks whether the journal has grown."""
LOOKS_AT_SPOOL = 12
"""At every so many of them, the spool is looked through for what could not be owned before."""

_log = get_logger()


class Checkpoints:
    """Keeps the journal short, and sees that each restore which was left is gone on with."""

    def __init__(self, means: Means, registry: Registry, spool: Spool, journal: Journal) -> None:
        self._means = means
        self._registry = registry
        self._spool = spool
        self._journal = journal
        self._left = LeftBehind(spool, means.settings.destination, {})

    async def resume(self) -> None:
        """Go on with what another daemon left in the spool and in the journal. Called once, at the start."""
        replayed = await in_thread("journal-replay", self._journal.replay)
        await self._journal.start()
        self._left = LeftBehind(self._spool, self._means.settings.destination, replayed)
        self._registry.left = self._left
        await self._own_left_behind()
        await self.checkpoint()

    async def checkpoint(self) -> None:
        """Bring the spool up to the journal, and forget the journal's lines."""
        try:
            number = await self._journal.rotate()
            for restore_id, changes in list(self._left.journaled.items()):
                await self._journal.append(restore_id, changes)
        except SpoolError as problem:
            _log.error("spool.write_failed", problem=str(problem), hint="the journal stays as it is")
            return
        results = await asyncio.gather(*map(_checkpoint, self._registry.all()))
        if all(results) and self._registry.is_settled and not self._left.over:
            await self._journal.forget(number)

    async def checkpoint_again_and_again(self) -> None:
        """Look again and again whether there is something to do."""
        looks = 0
        while True:
            await self._means.clock.sleep(CHECKPOINT_INTERVAL)
            looks += 1
            if self._left.journaled or self._left.over or looks % LOOKS_AT_SPOOL == 0:
                try:
                    await self._own_left_behind()
                except SpoolError as problem:
                    _log.error("spool.unusable", problem=str(problem))
            if self._journal.wants_rotation:
                await self.checkpoint()

    async def _own_left_behind(self) -> None:
        found = await in_thread("daemon-resume", self._left.own)
        for entry, record in found:
            self._registry.begin(entry, after_takeover(record), resumed=True)
            _log.info("daemon.resumed", restore_id=record.report.restore_id, state=record.report.state.value)


async def _checkpoint(local: Local) -> bool:
    try:
        await local.keeper.checkpoint(local.restore.report)
    except SpoolError as problem:
        _log.error("spool.write_failed", restore_id=local.restore.restore_id, problem=str(problem))
        return False
    return True
