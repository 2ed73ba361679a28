"""One restore that an engine reports to the daemon: the source of its delivery."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_reporter.model.client import Client
    from agent_reporter.model.exchange import Ending
    from agent_reporter.model.report import Report


class LocalRestore:
    """The newest truth of one restore, as its engine states it to the daemon."""

    __slots__ = (
        *("_on_end", "_on_stop", "client", "end_is_told", "ending", "last_heard", "listeners", "report"),
        *("restore_id", "stop_asked_at"),
    )

    def __init__(
        self,
        report: Report,
        client: Client,
        *,
        on_stop: Callable[[LocalRestore], None],
        on_end: Callable[[LocalRestore], None],
    ) -> None:
        """`on_stop` is called once, when a stop was asked for; `on_end` when the delivery is over."""
        self.restore_id = report.restore_id
        self.report = report
        self.client = client
        self.last_heard = 0.0
        """When its engine was last heard, on the monotonic clock."""
        self.end_is_told = False
        """Whether the event of its end was told to those who wait."""
        self.listeners = 0
        """Calls of its own user that wait for an event of it."""
        self.stop_asked_at: float | None = None
        """When a stop was first known of, on the monotonic clock."""
        self.ending: Ending | None = None
        """How the delivery ended; None while it goes on."""
        self._on_stop = on_stop
        self._on_end = on_end

    @property
    def is_live(self) -> bool:
        """Whether the engine may say more."""
        return not self.report.is_final

    @property
    def awaits_stop(self) -> bool:
        """Whether a stop request would be news."""
        return self.is_live and not self.client.stop_requested

    def take_report(self) -> Report:
        """The newest report."""
        return self.report

    def request_stop(self) -> None:
        """The restore is to stop: its engine is told at its next call, or by the event it waits for."""
        if self.awaits_stop:
            self.client = replace(self.client, stop_requested=True)
            self._on_stop(self)

    def settle(self, ending: Ending | None) -> None:
        """The delivery is over; None if the report was left in the spool."""
        self.ending = ending
        if ending is not None:
            self._on_end(self)
