"""Orphans: restores whose reporter died, found in the spool and brought to a true end.

A final report is delivered as it is. A restore without one has lost its reporter: once its engine is gone
too, nobody will ever learn how it ended, and it becomes `failed`, reason `reporter_lost`.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from agent_reporter import processes
from agent_reporter.logs import get_logger
from agent_reporter.model.lost import REPORTER_LOST, lost
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_reporter.clock import Clock
    from agent_reporter.model.exchange import Ending
    from agent_reporter.model.record import Record
    from agent_reporter.model.report import Report

FOLLOW_INTERVAL = 1.0
"""Seconds between two looks at an engine that outlived its reporter."""


def after_takeover(record: Record, *, at_once: bool = False) -> Record:
    """The record as its next owner goes on from it; `at_once` forgets how long it wanted to wait.

    The owner died with a request in flight, perhaps: what the control plane has is to be read first.
    """
    exchange = replace(record.exchange, uncertain=True, result_told=record.report.is_final, ending=None)
    return replace(record, exchange=replace(exchange, not_before=None) if at_once else exchange)


class Orphan:
    """A restore that was taken over from the spool: the source of its delivery."""

    def __init__(self, record: Record, clock: Clock) -> None:
        self.restore_id = record.report.restore_id
        self.is_live = False
        self.awaits_stop = False
        self.ending: Ending | None = None
        self._report = record.report
        self._engine = record.engine
        self._clock = clock
        self._log = get_logger(restore_id=self.restore_id)

    def take_report(self) -> Report:
        """The report that was found, or what became of it."""
        return self._report

    def request_stop(self) -> None:
        """Nobody here can stop an engine that another process started."""
        self._log.warning("takeover.stop_not_possible", engine=self._engine and self._engine.pid)

    def settle(self, ending: Ending | None) -> None:
        """The delivery is over."""
        self.ending = ending

    async def follow(self, wake: Callable[[], None]) -> None:
        """Wait until the engine is gone as well; then the restore has failed, and `wake` is called."""
        if self._report.is_final:
            return
        followed = False
        while self._engine is not None and await in_thread(
            "engine-alive", partial(processes.is_alive, self._engine)
        ):
            if not followed:
                self._log.warning("takeover.engine_lives", engine=self._engine.pid)
            followed = True
            await self._clock.sleep(FOLLOW_INTERVAL)
        how = "outlived it and has ended since" if followed else "is gone as well"
        what_happened = f"The process that reported this restore died. Its engine {how}."
        self._report = lost(self._report, self._clock.now(), REPORTER_LOST, what_happened)
        wake()
