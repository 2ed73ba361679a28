"""An engine: it does what its script says, and knows better than anybody what it has restored."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import RestoreBusyError, RestoreEndedError
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.threads import in_thread
from tests.simulation.plan import FINALS

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_reporter import Job
    from agent_reporter.model.exchange import Ending
    from agent_reporter.model.report import Report
    from tests.simulation.host import Life
    from tests.simulation.ledger import Case
    from tests.simulation.plan import Script, Step
    from tests.simulation.world import World

TRIES = 3
"""To take up a restore that somebody else still has."""
QUIET = 7.0
"""Seconds after which everything that was stated has arrived, where nothing is wrong."""


class BrokenEngineError(Exception):
    """What an engine of the simulation ends by."""


class Engine:
    """One restore's engine; it may be started again after its process was killed."""

    def __init__(self, world: World, script: Script, case: Case) -> None:
        self.script = script
        self.case = case
        self.is_done = False
        self.starts = 0
        self.position = 0
        self.pid: int | None = None
        self.opened_at: float | None = None
        """When its job was there, in this life."""
        self._world = world
        self._bytes = self._files = self._errors = 0

    async def run(self, life: Life) -> None:
        """Restore, in this life of the process."""
        self.starts += 1
        try:
            if self.starts == 1:
                await asyncio.sleep(self.script.begins)
            for _ in range(TRIES):
                if self._world.has_ended(life, self.case.restore_id):
                    break
                try:
                    await self._restore(life)
                except RestoreBusyError:
                    await asyncio.sleep(2.0)
                else:
                    break
        except (RestoreEndedError, BrokenEngineError, KeyboardError, asyncio.CancelledError):
            pass
        self.is_done = True
        self._world.engine_ended(self)

    async def _restore(self, life: Life) -> None:
        found = self._world.disk.records("/spool").get(f"{self.case.restore_id}.json")
        async with life.reporter.restore(self.case.restore_id) as job:
            self._begin(life, job, None if found is None else found.report)
            if self.script.own_process:
                self.pid = self._world.start_engine_process()
                stat = ProcessIdentity(self.pid, self.pid, self._world.boot)
                await life.reporter.name_engine(job, stat)
            await self._play(life, job)

    def _begin(self, life: Life, job: Job, found: Report | None) -> None:
        self.case.opened = True
        self.opened_at = self._world.loop.time()
        life.jobs[self.case.restore_id] = job
        report = job.take_report()
        self._bytes, self._files, self._errors = (
            report.bytes_restored,
            report.files_restored,
            report.errors.count,
        )
        keeper = life.reporter._all.open[self.case.restore_id].keeper
        if keeper._entry is None:
            self._world.ledger.seen["spool unusable"] += 1
            self.case.in_memory = True
        elif (
            found is not None
            and not self.case.told_by
            and (
                report.bytes_restored < found.bytes_restored
                or report.files_restored < found.files_restored
                or report.errors.count < found.errors.count
                or len(report.errors.records) < len(found.errors.records)
                or report.state is not found.state
            )
        ):
            self._world.ledger.violated("resumed_whole", f"{report} of {found}")
        if found is not None:
            self._world.ledger.seen["restore resumed"] += 1
        self._record_finish(job)
        self._record_settling(job)

    def _record_finish(self, job: Job) -> None:
        finish, ledger, case = job.finish, self._world.ledger, self.case

        def recorded(*args: Any, **how: Any) -> bool:
            self._world.arm_in_finish(self)
            was_final = job._report.is_final
            errors, counts = job._errors.count, job.count()
            try:
                durable = finish(*args, **how)
            finally:
                report = job._report
                if report.is_final and not was_final:
                    case.stated.append(report)
            if report.is_final and not was_final:
                if counts != (report.bytes_restored, report.files_restored) or errors != report.errors.count:
                    ledger.violated("report_true", f"{case.restore_id}: {counts}, {errors} errors: {report}")
                if counts != (self._bytes, self._files) or errors != self._errors:
                    ledger.violated(
                        "report_true", f"{case.restore_id}: {counts} of {self._bytes, self._files}"
                    )
                records = len(report.errors.records)
                if records > self._world.plan.settings["max_errors"]:
                    ledger.violated("errors_bounded", f"{case.restore_id}: {records} records")
                ledger.finished(case, report, durable=durable)
                self.is_done = True
            return durable

        job.finish = recorded  # type: ignore[method-assign]  # what it returned has to be known

    def _record_settling(self, job: Job) -> None:
        settle = job.settle

        def recorded(ending: Ending | None) -> None:
            settle(ending)
            if ending is not None:
                self._world.ledger.settled(self.case, ending)

        job.settle = recorded  # type: ignore[method-assign]  # as above

    async def _play(self, life: Life, job: Job) -> None:
        stopped = asyncio.Event()
        if self.script.on_stop == "callback":
            self._state(lambda: job.on_stop(stopped.set))
        waiting = asyncio.create_task(job.wait_for_stop()) if self.script.on_stop == "waits" else None
        try:
            while self.position < len(self.script.steps):
                step = self.script.steps[self.position]
                begun = self._world.loop.time()
                await self._pause(step.pause, stopped, waiting)
                self._world.expectations.looked(life, self, job)
                if self._world.loop.time() - begun > QUIET:  # a stop may have cut the pause short
                    self._world.expectations.arrived(life, self.case.restore_id, job)
                if self._is_to_stop(job, stopped, waiting):
                    self._world.ledger.stopping(self.case)
                    await asyncio.sleep(self.script.stop_takes)
                    job.raise_if_stop_requested()
                self.position += 1
                self._do(job, step)
            await self._end(job)
        finally:
            if waiting is not None:
                waiting.cancel()
                with suppress(asyncio.CancelledError):
                    await waiting

    async def _pause(
        self, seconds: float, stopped: asyncio.Event, waiting: asyncio.Task[None] | None
    ) -> None:
        if waiting is not None:
            await asyncio.wait({waiting}, timeout=seconds)
        elif self.script.on_stop == "callback":
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await stopped.wait()
        else:
            await asyncio.sleep(seconds)

    def _is_to_stop(self, job: Job, stopped: asyncio.Event, waiting: asyncio.Task[None] | None) -> bool:
        match self.script.on_stop:
            case "asks" | "raises":
                return job.stop_requested
            case "waits":
                return waiting is not None and waiting.done()
            case "callback":
                return stopped.is_set()
            case _:
                return False

    def _do(self, job: Job, step: Step) -> None:
        match step.what:
            case "queued":
                self._state(job.queued)
            case "preparing":
                self._state(job.preparing)
            case "start":
                self._state(lambda: job.start(step.amount or None, step.files or None))
            case "progress":
                self._bytes += step.amount
                self._files += step.files
                self._state(lambda: job.progress(bytes_restored=self._bytes, files_restored=self._files))
            case "advance":
                self._bytes += step.amount
                self._files += step.files
                self._state(lambda: job.progress(bytes_restored=self._bytes, files_restored=self._files))
                self._state(lambda: job.advance(bytes=0, files=0))
            case "errors":
                for number in range(1 + step.amount % 5):
                    self._errors += 1
                    self._state(
                        lambda number=number: job.error(path=f"/srv/{number}", type="no_access", code=13)  # type: ignore[misc]  # bound early
                    )
            case _:
                self._state(lambda: job.progress(bytes_restored=-1))
                self._state(lambda: job.error(path="x", code="y"))  # type: ignore[arg-type]  # nonsense
                self._state(lambda: job.finish("in_progress"))

    def _state(self, call: Callable[[], object]) -> None:
        """Call the job as an engine does: it must not notice."""
        calls = self._world.disk.calls
        try:
            call()
        except Exception as problem:  # noqa: BLE001 - that is what is looked for
            self._world.ledger.violated("engine_undisturbed", f"{self.case.restore_id}: {problem!r}")
        if self._world.disk.calls != calls:
            self._world.ledger.violated("engine_undisturbed", f"{self.case.restore_id}: a call of the disk")

    async def _end(self, job: Job) -> None:
        end = self.script.end
        self._world.note("ends", self.case.restore_id, end)
        if end in FINALS:
            if self.script.finish_in_thread:
                await in_thread("engine", lambda: job.finish(end, reason="as_it_is", diagnostics="None."))
            else:
                job.finish(end)
        elif end == "raise":
            raise BrokenEngineError("the engine broke")
        elif end == "cancelled":
            raise asyncio.CancelledError
        elif end == "interrupted":
            raise KeyboardError


class KeyboardError(BaseException):
    """Leaves a restore's block as KeyboardInterrupt does."""
