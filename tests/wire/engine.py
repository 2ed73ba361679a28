"""An engine: it does what its script says, and knows what it has restored, whatever becomes of its reporter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent_reporter.errors import RestoreBusyError, RestoreEndedError

if TYPE_CHECKING:
    from agent_reporter import Job
    from tests.wire.ledger import Case
    from tests.wire.plan import Script, Step
    from tests.wire.world import Life


class BrokenError(Exception):
    """What an engine of this ends by."""


class Engine:
    """One restore's engine; it may be started again after its process was killed."""

    def __init__(self, script: Script, case: Case) -> None:
        self.case = case
        self.is_done = False
        self._script = script
        self._starts = 0
        self._position = 0

    async def run(self, life: Life) -> None:
        """Restore, in this life of the process."""
        self._starts += 1
        if self._starts > 1 and not self._script.is_resumed:
            self.is_done = True
            return
        try:
            if self._starts == 1:
                await asyncio.sleep(self._script.begins)
            async with life.reporter.restore(self.case.restore_id) as job:
                self.case.starts += 1
                life.jobs[self.case.restore_id] = job
                await self._play(job)
        except (BrokenError, RestoreEndedError, RestoreBusyError):
            pass  # the last two: its end, or its loss, is being told by whoever took it over
        self.is_done = True

    async def _play(self, job: Job) -> None:
        job.start(total_bytes=10**9)
        while self._position < len(self._script.steps):
            step = self._script.steps[self._position]
            await asyncio.sleep(step.pause)
            if self._script.heeds_stops:
                job.raise_if_stop_requested()
            self._position += 1
            self._do(job, step)
        if self._script.fails:
            raise BrokenError("the engine broke")

    def _do(self, job: Job, step: Step) -> None:
        job.advance(bytes=step.size, files=step.files)
        for number in range(step.errors):
            job.error(path=f"/srv/{self._position}/{number}", type="no_access", code=13, description="Grüße")
