"""The progress bar: bytes, files, rate, time left, errors, and whether reports arrive."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from agent_reporter.cli.wording import amount, duration
from agent_reporter.clock import SystemClock
from agent_reporter.engines.adapter import EngineError
from agent_reporter.threads import in_thread, start_daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from agent_reporter.engines.adapter import Observation, Stream
    from agent_reporter.job import Job
    from agent_reporter.model.exchange import Exchange

REFRESH_SECONDS = 0.25
LAST_DRAWING_SECONDS = 2.0
"""What a slow terminal gets for the last line."""
SHOWN_PATHS = 10
"""Paths whose first error is shown; the bar goes on counting all of them."""


class RateColumn(ProgressColumn):
    """Bytes a second, in the units of the rest."""

    def render(self, task: Task) -> Text:
        """The rate of the last half minute or so."""
        rate = task.finished_speed or task.speed
        return Text(f"{amount(rate)}/s" if rate else "", "progress.data.speed")


class Bar:
    """Shows one restore on a terminal for as long as its block lasts."""

    def __init__(
        self, job: Job, exchange: Callable[[], Exchange | None], console: Console | None = None
    ) -> None:
        self._job = job
        self._exchange = exchange
        self._clock = SystemClock()
        self._failed_paths: set[str] = set()
        self._console = console or Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.fields[state]}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TextColumn("{task.fields[files]}"),
            RateColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[errors]}", style="red"),
            TextColumn("{task.fields[reported]}", style="dim"),
            console=self._console,
            auto_refresh=False,
        )
        self._task = self._progress.add_task("", total=None, state="", files="", errors="", reported="")
        self._begun = self._clock.monotonic()
        self._ended = threading.Event()

    async def __aenter__(self) -> Self:
        self._thread = start_daemon("bar", self._draw)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_DRAWING_SECONDS):
                await in_thread("bar-end", self._thread.join)

    def show(self, _stream: Stream, line: str, observations: Sequence[Observation]) -> None:
        """Show above the bar what a person wants to read of the engine's output."""
        errors = [observation for observation in observations if isinstance(observation, EngineError)]
        for error in errors:
            self._show_error(error)
        if not errors and line.strip() and not line.startswith("{"):
            self._print(line)

    def _show_error(self, error: EngineError) -> None:
        if len(self._failed_paths) > SHOWN_PATHS or error.path in self._failed_paths:
            return
        self._failed_paths.add(error.path)
        if len(self._failed_paths) > SHOWN_PATHS:
            self._print("further errors are counted below", "red")
        else:
            self._print(f"{error.path}: {error.description}", "red")

    def _print(self, text: str, style: str = "") -> None:
        with suppress(OSError):
            self._progress.console.print(Text(text, style), overflow="ellipsis", no_wrap=True)

    def _draw(self) -> None:
        """In a thread of its own: a terminal that takes nothing, or hangs up, holds up no restore."""
        with suppress(OSError):
            self._progress.start()
            while not self._ended.wait(REFRESH_SECONDS):
                self._update()
            self._update()
            self._progress.stop()
            self._console.print(self._last_line(), highlight=False)

    def _update(self) -> None:
        report = self._job.take_report()
        total = f"/{report.total_files}" if report.total_files else ""
        count = report.errors.count
        self._progress.update(
            self._task,
            completed=report.bytes_restored,
            total=report.total_bytes,
            state="stopping" if self._is_stopping() else report.state.value,
            files=f"{report.files_restored}{total} files",
            errors=f"{count} errors" if count else "",
            reported=self._reported(),
            refresh=True,
        )

    def _is_stopping(self) -> bool:
        return self._job.is_live and not self._job.awaits_stop

    def _reported(self) -> str:
        exchange = self._exchange()
        if exchange is None:
            return "reported"
        if not exchange.failure:
            return "reported" if exchange.acknowledged is not None else "not reported yet"
        if exchange.not_before is None:
            return f"not reported: {exchange.failure}"
        left = (exchange.not_before - self._clock.now()).total_seconds()
        return f"not reported: {exchange.failure}, again in {duration(left)}"

    def _last_line(self) -> str:
        report = self._job.take_report()
        errors = f", {report.errors.count} errors" if report.errors.count else ""
        took = duration(self._clock.monotonic() - self._begun)
        line = (
            f"restore {report.restore_id}: {report.state.value}, {report.files_restored} files, "
            f"{amount(report.bytes_restored)} in {took}{errors}"
        )
        said = report.errors.diagnostics if report.errors.reason else ""
        return f"{line}\n{said}" if said else line
