"""The life of one process: restores come and go in it, and others are left behind by processes that died."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent_reporter import Reporter, Settings
from agent_reporter.errors import SpoolError
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.model.record import Record
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState
from agent_reporter.settings import DaemonUse
from agent_reporter.spool import Spool
from tests.long_life.host import DAY, SECRET, Clock
from tests.simulation.control_plane import AGENT, ORIGIN, PROJECT
from tests.simulation.disk import SimPath

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agent_reporter import Job
    from tests.long_life.host import Host

DEATHS = 4
"""Processes a day that die in the middle of a restore, which is taken over."""
FINALS = ("completed", "completed_with_errors", "failed", "stopped")


class EngineBrokeError(Exception):
    """What some engines end by."""


class Life:
    """The process whose life is long."""

    reporter: Reporter

    def __init__(self, host: Host, restores_a_day: int) -> None:
        self.restores = 0
        self.running: set[str] = set()
        """Restores whose engine runs."""
        self.over = False
        self._host = host
        self._chance = host.random
        self._rate = restores_a_day
        self._engines: set[asyncio.Task[None]] = set()
        self.process = host.process("long life")

    async def live(self) -> None:
        """From the first restore until the last one of the last day is delivered."""
        async with Reporter(_settings(), clock=Clock(self._host)) as self.reporter:
            while not self.over:
                await asyncio.sleep(self._chance.expovariate(self._rate / DAY))
                self._start()
            await asyncio.gather(*self._engines)

    async def see_others_die(self) -> None:
        """Beside it, processes begin a restore each, and die; some engines live on for a while."""
        while True:
            await asyncio.sleep(self._chance.expovariate(DEATHS / DAY))
            restore_id, engine = self._begin(), self._host.process("engine")
            other = self._host.process("short life")
            try:
                self._host.call_in(other, partial(self._leave_behind, restore_id, engine.pid))
            except SpoolError:
                self._host.control_plane.end(restore_id, "failed")
            lives = self._chance.choice((0.0, 30.0, 900.0))
            self._host.later(lives, self._host.processes.discard, engine.pid)

    def _leave_behind(self, restore_id: str, engine: int) -> None:
        report = Report(
            restore_id, revision=3, state=RestoreState.IN_PROGRESS, started_time=self._host.host_time()
        )
        if self._chance.random() < 0.5:
            report = replace(report, state=RestoreState.COMPLETED, ended_time=self._host.host_time())
        identity = ProcessIdentity(engine, engine, self._host.boot)
        record = Record(_settings().destination, report, Exchange(dialect=_settings().dialect), identity)
        Spool(SimPath("/spool")).open(restore_id).write(record)

    def _start(self) -> None:
        restore_id = self._begin()
        self.running.add(restore_id)
        engine = asyncio.create_task(self._restore(restore_id), name="engine")
        self._engines.add(engine)
        engine.add_done_callback(self._engines.discard)

    def _begin(self) -> str:
        self.restores += 1
        restore_id = f"restore-{self.restores:06d}"
        self._host.control_plane.begin(restore_id)
        return restore_id

    async def _restore(self, restore_id: str) -> None:
        try:
            async with self.reporter.restore(restore_id) as job:
                await self._play(job)
        except (EngineBrokeError, asyncio.CancelledError):
            pass
        finally:
            self.running.discard(restore_id)

    async def _play(self, job: Job) -> None:
        chance = self._chance
        seconds = chance.choice((0.0, 2.0, 20.0, 60.0, 60.0, 300.0, 2_000.0)) * chance.uniform(0.5, 1.5)
        steps = chance.choice((1, 3, 10))
        self._meddle(job.restore_id, seconds)
        stopped = self._stop_of(job)
        if chance.random() < 0.5:
            job.queued()
            job.preparing()
        job.start(total_bytes=10**9 if chance.random() < 0.5 else None)
        for number in range(steps):
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds / steps):
                    await stopped()
                    job.raise_if_stop_requested()
            job.advance(bytes=10**6, files=3)
            if chance.random() < 0.2:
                path = f"/srv/{job.restore_id}/{number}"
                job.error(path=path, type="no_access", code=13, description="x" * 90)
        self._end(job)

    def _meddle(self, restore_id: str, seconds: float) -> None:
        """Now and then somebody asks for a stop, or somebody else says how it ended."""
        chance, host = self._chance, self._host
        if chance.random() < 0.2:
            host.later(chance.uniform(0.0, seconds), host.control_plane.ask_stop, restore_id)
        if chance.random() < 0.03:
            state = chance.choice(FINALS)
            host.later(chance.uniform(0.0, seconds), host.control_plane.end, restore_id, state)

    def _stop_of(self, job: Job) -> Callable[[], Awaitable[object]]:
        """How an engine waits for a stop: by the job, by a call, or not at all."""
        called = asyncio.Event()
        match self._chance.choice(("waits", "called", "ignores")):
            case "waits":
                return job.wait_for_stop
            case "called":
                job.on_stop(called.set)
        return called.wait

    def _end(self, job: Job) -> None:
        match self._chance.choice(("leaves", "leaves", "raises", "cancelled", "finishes")):
            case "raises":
                raise EngineBrokeError(f"no more of {job.restore_id}")
            case "cancelled":
                raise asyncio.CancelledError
            case "finishes":
                job.finish(self._chance.choice(FINALS), reason="as_it_is")


@cache
def _settings() -> Settings:
    """Intervals that are ten times as long as usual: what a round leaves behind shows by their number."""
    return Settings(
        endpoint=ORIGIN,
        project_id=PROJECT,
        agent_id=AGENT,
        agent_password_file=Path(SECRET),
        spool_dir=Path("/spool"),
        daemon=DaemonUse.NEVER,
        report_interval=10.0,
        stop_poll_interval=20.0,
        idle_poll_interval=300.0,
        retry_cap=600.0,
        retry_after_cap=2_400.0,
    )
