"""The library's front door: the restores of one process, each a job, and the deliveries of them."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Self

from agent_reporter.clock import Clock, SystemClock
from agent_reporter.control_plane.connection import connect
from agent_reporter.deliveries import Deliveries
from agent_reporter.errors import RestoreBusyError, RestoreEndedError, SpoolError
from agent_reporter.job import Job
from agent_reporter.logs import get_logger
from agent_reporter.means import Means
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.record import Record
from agent_reporter.model.report import Report
from agent_reporter.model.restore_id import checked_restore_id
from agent_reporter.processes import is_alive, own_identity
from agent_reporter.settings import Settings
from agent_reporter.spool import Entry, Spool
from agent_reporter.takeover import after_takeover
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import TracebackType

    from agent_reporter.model.process_identity import ProcessIdentity
    from agent_reporter.takeover import Orphan

_log = get_logger()


class Reporter:
    """Reports restores to the control plane, for as long as its block lasts."""

    def __init__(
        self, settings: Settings | None = None, *, clock: Clock | None = None, takes_over: bool = True
    ) -> None:
        """With no `settings` they are loaded from the environment and the system's file.

        `takes_over` is whether orphans of the spool are delivered beside the restores of this process.
        Raises ConfigurationError.
        """
        self.settings = Settings.load() if settings is None else settings
        self._destination = self.settings.destination
        self._clock = clock or SystemClock()
        self._takes_over = takes_over
        self._spool = Spool(self.settings.spool_dir)
        self._connection = connect(self.settings, self._clock)
        self._deliveries: Deliveries | None = None

    async def __aenter__(self) -> Self:
        """Begin to report; raises ConfigurationError if there is no way to the control plane."""
        if self._deliveries is not None:
            raise RuntimeError("this Reporter reports already: make another one")
        control_plane = await self._connection.__aenter__()
        turns = asyncio.Semaphore(self.settings.concurrency)
        means = Means(self.settings, self._clock, control_plane, turns)
        self._deliveries = Deliveries(means, self._spool)
        if self._takes_over:
            self._deliveries.spawn("takeover", self._deliveries.take_over_again_and_again)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain: deliver for a bounded time, and leave what is left in the spool."""
        try:
            await self._all.drain(self.settings.drain_timeout)
        finally:
            await self._all.close()
            await self._connection.__aexit__(kind, problem, trace)

    @property
    def _all(self) -> Deliveries:
        if self._deliveries is None:
            raise RuntimeError("enter the Reporter first: async with Reporter() as reporter")
        return self._deliveries

    @asynccontextmanager
    async def restore(self, restore_id: str) -> AsyncIterator[Job]:
        """Report one restore: `async with reporter.restore(restore_id) as job`.

        Leaving the block states the result, unless `job.finish` did: `failed` for an exception, `stopped`
        for a stop, else `completed`, or `completed_with_errors` if there were errors. StopRequested ends
        here; every other exception goes on.

        Raises InvalidRestoreIdError; RestoreBusyError if another process or engine has this restore;
        RestoreEndedError if a result of it still waits in the spool; SpoolError if the spool has this
        restore for another control plane or project.
        """
        job = await self.open(restore_id)
        try:
            yield job
        except BaseException as problem:
            if not await in_thread("job-leave", partial(job.leave, problem)):
                raise
        else:
            await in_thread("job-leave", partial(job.leave, None))

    @classmethod
    @contextmanager
    def in_background(
        cls, settings: Settings | None = None, *, clock: Clock | None = None
    ) -> Iterator[BackgroundReporter]:
        """A reporter in a thread of its own, for engines without an event loop; raises ConfigurationError."""
        reporter = cls(settings, clock=clock)
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()
        thread = threading.Thread(
            target=_run_in_thread, args=(reporter, started), name="agent-reporter", daemon=True
        )
        thread.start()
        loop, ended = started.result()
        try:
            yield BackgroundReporter(reporter, loop)
        finally:
            loop.call_soon_threadsafe(ended.set)
            thread.join()

    async def open(self, restore_id: str) -> Job:
        """What `restore` enters; its caller sees to it that the job is finished or left."""
        restore_id = checked_restore_id(restore_id)
        self._refuse_if_open(restore_id)
        try:
            entry = await in_thread(
                "spool-open", lambda: self._spool.open(restore_id), abandoned=Entry.release
            )
        except SpoolError as problem:
            _log.error("spool.unusable", restore_id=restore_id, problem=str(problem))
            self._refuse_if_open(restore_id)  # taken over from the spool meanwhile, just before that broke
            entry = None
        record = Record(
            self._destination,
            Report(restore_id),
            Exchange(dialect=self._all.dialect),
            own_identity(),
        )
        if entry is not None and entry.record is not None:
            try:
                record = self._resume(entry.record)
            except BaseException:
                await in_thread("spool-release", entry.release)
                raise
        job = Job(record.report, self._clock.now, max_errors=self.settings.max_errors)
        job.listen(self._all.begin(job, self._all.keeper(entry, record)))
        return job

    async def contacted(self, job: Job, timeout: float) -> None:  # noqa: ASYNC109 - a bound that is promised
        """Return once the control plane was asked about this restore, or after `timeout` seconds."""
        if (restore := self._all.open.get(job.restore_id)) is not None:
            await self._all.first_of(timeout, [restore.delivery.contacted])

    async def name_engine(self, job: Job, engine: ProcessIdentity) -> None:
        """Keep which process restores, for whoever takes the restore over if this process dies."""
        if (restore := self._all.open.get(job.restore_id)) is not None:
            await restore.keeper.name_engine(engine, job.take_report())

    def exchange(self, job: Job) -> Exchange | None:
        """Where the delivery of `job` stands; None once it is over."""
        return self._all.exchange(job.restore_id)

    async def take_over(self, *, at_once: bool = False) -> list[Orphan]:
        """As `Deliveries.take_over`."""
        return await self._all.take_over(at_once=at_once)

    async def settle_all(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound that is promised
        """Return once every delivery of this moment is over, or after `timeout` seconds."""
        await self._all.settle_all(timeout)

    def end_drain(self) -> None:
        """Wait no longer for deliveries at the end: what is not delivered now stays in the spool."""
        self._all.end_drain()

    def _refuse_if_open(self, restore_id: str) -> None:
        if restore_id in self._all.open:
            raise RestoreBusyError(restore_id, "this very process reports it already")

    def _resume(self, record: Record) -> Record:
        """What a new job goes on from, where the spool has this restore already."""
        report = record.report
        if record.destination != self._destination:
            raise SpoolError(
                f"restore {report.restore_id}: the spool holds it for {record.destination}. Deliver it there "
                "with `agent-reporter flush` and those settings, or use another spool_dir."
            )
        if report.is_final:
            raise RestoreEndedError(report.restore_id, report.state.value)
        if record.engine is not None and record.engine != own_identity() and is_alive(record.engine):
            raise RestoreBusyError(
                report.restore_id, f"its engine still runs, as process {record.engine.pid}"
            )
        return replace(after_takeover(record), engine=own_identity())


class BackgroundReporter:
    """A reporter whose loop runs in another thread."""

    def __init__(self, reporter: Reporter, loop: asyncio.AbstractEventLoop) -> None:
        self._reporter = reporter
        self._loop = loop

    @contextmanager
    def restore(self, restore_id: str) -> Iterator[Job]:
        """Report one restore: `with reporter.restore(restore_id) as job`. As `Reporter.restore` does."""
        job = asyncio.run_coroutine_threadsafe(self._reporter.open(restore_id), self._loop).result()
        try:
            yield job
        except BaseException as problem:
            if not job.leave(problem):
                raise
        else:
            job.leave(None)


def _run_in_thread(
    reporter: Reporter, started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]]
) -> None:
    async def main() -> None:
        ended = asyncio.Event()
        async with reporter:
            started.set_result((asyncio.get_running_loop(), ended))
            await ended.wait()

    try:
        asyncio.run(main())
    except BaseException as problem:  # noqa: BLE001 - it belongs to the thread that waits for the start
        if started.done():
            _log.exception("reporter.ended_badly")
        else:
            started.set_exception(problem)
