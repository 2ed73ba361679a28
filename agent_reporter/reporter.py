"""The library's front door: wires spool, sign-in, deliveries and the stop watcher for one process."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Self

from agent_reporter.clock import Clock, SystemClock
from agent_reporter.control_plane.connection import connect
from agent_reporter.delivery import Delivery, Means, Source
from agent_reporter.errors import RestoreBusyError, RestoreEndedError, SpoolError
from agent_reporter.job import Job
from agent_reporter.keeper import Keeper
from agent_reporter.logs import get_logger
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.record import Record
from agent_reporter.model.report import Report
from agent_reporter.model.restore_id import checked_restore_id
from agent_reporter.processes import is_alive, own_identity
from agent_reporter.settings import Settings
from agent_reporter.spool import Entry, Spool
from agent_reporter.stop import StopWatcher
from agent_reporter.takeover import Orphan, after_takeover
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import TracebackType

    from agent_reporter.model.dialect import Dialect
    from agent_reporter.model.process_identity import ProcessIdentity
    from agent_reporter.moment import Moment

TAKEOVER_INTERVAL = 60.0
"""Seconds between two looks for orphans: one may be held for an instant, or its owner die later."""
TAKEN_OVER_AT_ONCE = 100
"""Orphans that are taken over in one look: each takes a descriptor."""
RESTART_SECONDS = 1.0
"""A loop of ours that fails, which is a bug of ours, is started again after so long."""

_log = get_logger()


@dataclass(frozen=True, slots=True)
class _Open:
    """A restore that is being reported."""

    delivery: Delivery
    keeper: Keeper


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
        self._dialect = self.settings.dialect
        self._open: dict[str, _Open] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Begin to report."""
        if self._tasks:
            raise RuntimeError("this Reporter reports already: make another one")
        control_plane = await self._connection.__aenter__()
        turns = asyncio.Semaphore(self.settings.concurrency)
        self._means = Means(self.settings, self._clock, control_plane, turns)
        self._watcher = StopWatcher(self.settings, self._clock, control_plane, self._stoppable)
        self._spawn("stop", self._watcher.run)
        if self._takes_over:
            self._spawn("takeover", self._take_over_orphans)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain: deliver for a bounded time, and leave what is left in the spool."""
        try:
            await self._drain()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for restore in self._open.values():
                await restore.delivery.release()
            await self._connection.__aexit__(kind, problem, trace)

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
        if restore_id in self._open:
            raise RestoreBusyError(restore_id, "this very process reports it already")
        try:
            entry = await in_thread(
                "spool-open", lambda: self._spool.open(restore_id), abandoned=Entry.release
            )
        except SpoolError as problem:
            _log.error("spool.unusable", restore_id=restore_id, problem=str(problem))
            entry = None
        record = Record(
            self._destination, Report(restore_id), Exchange(dialect=self._dialect), own_identity()
        )
        if entry is not None and entry.record is not None:
            try:
                record = self._resume(entry.record)
            except BaseException:
                await in_thread("spool-release", entry.release)
                raise
        job = Job(record.report, self._clock.now, max_errors=self.settings.max_errors)
        delivery = self._deliver(job, entry, record)
        job.listen(delivery)
        self._watcher.notice()
        return job

    async def contacted(self, job: Job, timeout: float) -> None:  # noqa: ASYNC109 - a bound that is promised
        """Return once the control plane was asked about this restore, or after `timeout` seconds."""
        if (restore := self._open.get(job.restore_id)) is not None:
            await self._first_of(timeout, [restore.delivery.contacted])

    async def name_engine(self, job: Job, engine: ProcessIdentity) -> None:
        """Keep which process restores, for whoever takes the restore over if this process dies."""
        if (restore := self._open.get(job.restore_id)) is not None:
            await restore.keeper.name_engine(engine, job.take_report())

    def exchange(self, job: Job) -> Exchange | None:
        """Where the delivery of `job` stands; None once it is over."""
        restore = self._open.get(job.restore_id)
        return None if restore is None else restore.delivery.exchange

    async def take_over(self, *, at_once: bool = False) -> list[Orphan]:
        """Own and deliver orphans of the spool that belong to this control plane and project.

        So many at once that there are descriptors for them all: call it again when these are settled.

        `at_once` makes the first try now, whatever the backoff of the process before was.
        """
        orphans = []
        for entry, record in await in_thread("spool-orphans", self._own_orphans, abandoned=_release_all):
            orphan = Orphan(record, self._clock)
            delivery = self._deliver(orphan, entry, after_takeover(record, at_once=at_once), spread=True)
            self._spawn(
                f"follow {orphan.restore_id}",
                lambda orphan=orphan, delivery=delivery: orphan.follow(  # type: ignore[misc]  # bound early
                    lambda: delivery.wake(urgent=True)
                ),
            )
            orphans.append(orphan)
            _log.info("takeover.done", restore_id=orphan.restore_id, state=record.report.state.value)
        return orphans

    async def settle_all(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound that is promised
        """Return once every delivery of this moment is over, or after `timeout` seconds."""
        await self._first_of(timeout, [restore.delivery.over for restore in self._open.values()])

    def _own_orphans(self) -> list[tuple[Entry, Record]]:
        orphans: list[tuple[Entry, Record]] = []
        for entry in self._spool.orphans():
            if entry.record is None or entry.record.destination != self._destination:
                entry.release()
                continue
            orphans.append((entry, entry.record))
            if len(orphans) >= TAKEN_OVER_AT_ONCE:
                break
        return orphans

    def end_drain(self) -> None:
        """Wait no longer for deliveries at the end: what is not delivered now stays in the spool."""
        for restore in self._open.values():
            restore.delivery.drain(self._clock.monotonic())

    async def _take_over_orphans(self) -> None:
        while True:
            await self.take_over()
            await self._clock.sleep(TAKEOVER_INTERVAL)

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

    def _deliver(
        self, source: Source, entry: Entry | None, record: Record, *, spread: bool = False
    ) -> Delivery:
        keeper = Keeper(entry, record, self._clock)
        delivery = Delivery(source, keeper, self._means)

        async def run() -> None:
            if spread:
                await self._clock.sleep(self._clock.random() * self.settings.report_interval)
            await delivery.run()
            if delivery.over.has_happened:
                self._dialect = _remember(self._dialect, delivery.exchange)
                del self._open[source.restore_id]

        self._spawn(f"deliver {source.restore_id}", run)
        self._open[source.restore_id] = _Open(delivery, keeper)
        return delivery

    async def _first_of(self, seconds: float, moments: list[Moment]) -> None:
        """Return once all `moments` have happened, or after `seconds`."""
        if all(moment.has_happened for moment in moments):
            return
        everything = asyncio.create_task(_all(moments))
        bound = asyncio.create_task(self._clock.sleep(seconds))
        try:
            await asyncio.wait({everything, bound}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            everything.cancel()
            bound.cancel()
            await asyncio.gather(everything, bound, return_exceptions=True)

    def _stoppable(self) -> list[Source]:
        return [
            restore.delivery.source for restore in self._open.values() if restore.delivery.source.awaits_stop
        ]

    def _spawn(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        task = asyncio.create_task(self._supervise(name, run), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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

    async def _drain(self) -> None:
        until = self._clock.monotonic() + self.settings.drain_timeout
        for restore in self._open.values():
            restore.delivery.drain(until)
        await self._first_of(
            self.settings.drain_timeout, [restore.delivery.drained for restore in self._open.values()]
        )
        left = [
            restore_id for restore_id, restore in self._open.items() if not restore.delivery.over.has_happened
        ]
        if left:
            _log.warning("reporter.left_in_spool", restores=left, spool=str(self.settings.spool_dir))


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
