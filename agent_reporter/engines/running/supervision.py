"""One engine and its job, brought together: what the engine prints is stated, and a stop is passed on."""

from __future__ import annotations

import asyncio
import signal
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from agent_reporter.engines.adapter import Begun, EngineError, Outcome, Progress, StopCause
from agent_reporter.engines.running.process import StopResult
from agent_reporter.engines.wording import diagnostics, how_it_ended
from agent_reporter.model.state import RestoreState
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent_reporter.engines.adapter import Adapter, Observation, Stream
    from agent_reporter.engines.running.lookout import Lookout
    from agent_reporter.engines.running.process import EngineProcess
    from agent_reporter.job import Job

    Show = Callable[[Stream, str, Sequence[Observation]], None]

STOPPING_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT})
"""Signals that, passed on to an engine, ask it to end."""


class Supervision:
    """Sees one engine through, from before its start to its outcome."""

    def __init__(
        self,
        job: Job,
        adapter: Adapter,
        lookout: Lookout,
        grace_seconds: float,
        show: Show | None = None,
    ) -> None:
        """`lookout` looks how far the engine is, unless that tells it itself.

        `show` is called with each line and what it told, in the thread that reads.
        """
        self._job = job
        self._adapter = adapter
        self._lookout = lookout
        self._grace_seconds = grace_seconds
        self._show = show
        self._reader = adapter.reader()
        self._lookout.is_needed = not adapter.tells_counts
        self._totals: tuple[int | None, int | None] = (None, None)
        self._engine: EngineProcess | None = None
        self._early_signals: list[signal.Signals] = []
        self.stop: StopCause | None = None
        """Who asked for a stop, so far."""

    def read_line(self, stream: Stream, line: str) -> None:
        """State what a line of the engine's output tells. Called in the thread that reads."""
        observations = list(self._reader.read_line(stream, line))
        for observation in observations:
            self._state(observation)
        if self._show is not None:
            self._show(stream, line, observations)

    def pass_on(self, number: signal.Signals) -> None:
        """A signal came to this process: it is meant for the engine."""
        if self._engine is None:
            self._early_signals.append(number)
        elif not self._engine.send_signal(number):
            return  # it has ended of itself before
        if number in STOPPING_SIGNALS and self.stop is None:
            self.stop = StopCause.HOST

    async def until_end(self, engine: EngineProcess) -> int:
        """Wait for the engine's end, stopping it when that is asked for, and state the outcome.

        Returns the exit status as `subprocess` gives it, once the result is durable.
        """
        self._engine = engine
        for number in self._early_signals:
            engine.send_signal(number)
        if self._adapter.begins_at_once:
            self._job.start()
        ladder = asyncio.create_task(self._stop_when_asked(engine))
        looks = asyncio.create_task(self._lookout.go_on_looking(engine, self._state))
        returncode = await engine.wait()
        await _cancelled(looks)
        if self.stop is None:
            await _cancelled(ladder)
            result = None
        else:
            result = await self._swept(engine, ladder)
        outcome = self._reader.outcome(returncode, self.stop) if engine.is_read else _unread(returncode)
        if result is not None and outcome.state is RestoreState.STOPPED and not result.everything_is_gone:
            outcome = _survived(outcome, result)
        for error in outcome.errors:
            self._state(error)
        if self._lookout.is_needed:
            outcome = await self._observed(engine, outcome)
        await in_thread(
            "job-finish",
            partial(self._job.finish, outcome.state, reason=outcome.reason, diagnostics=outcome.diagnostics),
        )
        return returncode

    async def _observed(self, engine: EngineProcess, outcome: Outcome) -> Outcome:
        """State how far the engine came; the outcome with a sentence that says how that is known."""
        is_complete = outcome.state is RestoreState.COMPLETED
        self._state(await self._lookout.last_look(engine, is_complete=is_complete))
        # In front: what is too long is cut at its end.
        return replace(outcome, diagnostics=diagnostics((self._lookout.remark, outcome.diagnostics)))

    async def _stop_when_asked(self, engine: EngineProcess) -> StopResult:
        await self._job.wait_for_stop()
        if engine.has_exited:  # what it left running is not ours to end
            return StopResult(killed=False, survivors=())
        self.stop = StopCause.CONTROL_PLANE
        return await engine.stop(self._adapter.stop_signal, self._grace_seconds)

    async def _swept(self, engine: EngineProcess, ladder: asyncio.Task[StopResult]) -> StopResult:
        """What became of the whole tree: an engine that a signal on this host ended may leave some of it."""
        if self.stop is StopCause.CONTROL_PLANE:
            return await ladder
        await _cancelled(ladder)
        return await engine.stop(self._adapter.stop_signal, self._grace_seconds)

    def _state(self, observation: Observation) -> None:
        match observation:
            case Begun():
                if not observation.tells_counts:
                    self._lookout.is_needed = True
                self._job.start()
            case Progress():
                self._state_totals(observation)
                self._job.progress(
                    bytes_restored=observation.bytes_restored or 0,
                    files_restored=observation.files_restored or 0,
                )
            case EngineError():
                self._job.error(
                    path=observation.path,
                    type=observation.type,
                    code=observation.code,
                    description=observation.description,
                    details=observation.details,
                )

    def _state_totals(self, progress: Progress) -> None:
        totals = progress.total_bytes, progress.total_files
        if totals not in (self._totals, (None, None)):
            self._totals = totals
            self._job.start(total_bytes=progress.total_bytes, total_files=progress.total_files)


async def _cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel `task`, and return when it has ended."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _unread(returncode: int) -> Outcome:
    """Of an engine whose output could not be read to its end, as an adapter hangs over a line."""
    ended = how_it_ended("The engine", returncode)
    said = "Its output could not be read to the end, so what became of the restore is not known."
    return Outcome(RestoreState.FAILED, "adapter_failed", diagnostics((ended, said)))


def _survived(outcome: Outcome, result: StopResult) -> Outcome:
    pids = ", ".join(str(process.pid) for process in result.survivors)
    return replace(
        outcome,
        state=RestoreState.FAILED,
        reason="stop_incomplete",
        diagnostics=f"A stop was asked for, and of the engine still run: {pids}. {outcome.diagnostics}",
    )
