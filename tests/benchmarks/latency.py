"""How long news take: a state, until the record shows it; a stop, until the engine gets its signal.

A state is stated, and one bare PATCH is sent beside it, in turns; how long its record took is what the control
plane says, on the clock that both processes share. A stop is asked for at a random moment of the interval at
which stops are looked for, of many engines that are processes of their own and say when their signal came.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
from rich.console import Console
from rich.table import Table

from agent_reporter import Reporter
from tests.benchmarks.goals import Goal, UntrueError
from tests.benchmarks.lean_server import AGENT, PROJECT, TOKEN, LeanServer, lean_server
from tests.benchmarks.rates import file_system, until
from tests.benchmarks.rounds import FULL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent_reporter import Job
    from tests.benchmarks.rounds import Effort

TIMES_A_ROUND_TRIP = 3.0
BEYOND_THE_INTERVAL = 0.05
"""Seconds."""
PATIENCE = 30.0
"""Seconds for anything to come about."""
ENGINE = """
import os, signal, sys, time
def stop(number, frame):
    print(time.monotonic(), flush=True)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
signal.signal(signal.SIGTERM, stop)
while True:
    print("cannot restore a file", file=sys.stderr, flush=True)
    time.sleep(0.05)
"""
"""Fails at files, so that there is something to report of it, and says when it gets its signal."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    restores: int
    """Whose states are stated."""
    engines: int
    """That are stopped, in each circumstance."""
    interval: float
    """At which stops are looked for, in seconds."""


@dataclass(frozen=True)
class Circumstances:
    """In which stops are asked for."""

    patches: bool
    events: bool

    def __str__(self) -> str:
        patches = "patches are taken" if self.patches else "patches are answered 503"
        return f"{patches}, {'events' if self.events else 'reads only'}"


def run(effort: Effort) -> list[Goal]:
    """Measure and print."""
    scale = Scale(100, 12, 0.5) if effort is FULL else Scale(2, 1, 0.2)
    with lean_server() as server:
        where = file_system(server.directory)
        bare, states, results = asyncio.run(_states(server, scale.restores))
    ways = [Circumstances(patches, events) for patches in (True, False) for events in (True, False)]
    ways = ways if effort is FULL else ways[::3]
    stops = {}
    for way in ways:
        with lean_server() as server:
            stops[way] = asyncio.run(Stops(server, scale, way).measure())
    table = Table(title=f"Latencies in milliseconds; the spool is on {where}", title_justify="left")
    for heading in ("from, until", "times", "p50", "p99", "longest"):
        table.add_column(heading, justify="right" if table.columns else "left")
    _add(table, "one bare PATCH round trip", bare)
    _add(table, "a state is stated, the record shows it", states)
    _add(table, "a result is stated, the record shows it", results)
    for way, seconds in stops.items():
        _add(table, f"a stop is accepted, the engine gets its signal: {way}", seconds)
    Console(width=130).print(table)
    return [
        Goal(
            "state change in the engine until the record shows it, p99",
            "one bare PATCH round trip, p99",
            percentile(states + results, 99) / percentile(bare, 99),
            TIMES_A_ROUND_TRIP,
        ),
        *(
            Goal(
                f"stop accepted until the engine gets its signal, p99: {way}",
                f"the polling interval, {scale.interval:g} s, and 50 ms",
                percentile(seconds, 99),
                scale.interval + BEYOND_THE_INTERVAL,
                "s",
            )
            for way, seconds in stops.items()
        ),
    ]


def percentile(values: Sequence[float], hundredths: int) -> float:
    """The least of `values` that so many hundredths of them are not above."""
    return sorted(values)[max(0, -(-len(values) * hundredths // 100) - 1)]


def _add(table: Table, name: str, seconds: Sequence[float]) -> None:
    figures = percentile(seconds, 50), percentile(seconds, 99), max(seconds)
    table.add_row(name, str(len(seconds)), *(f"{figure * 1e3:.2f}" for figure in figures))


# --- states -------------------------------------------------------------------------------------------------


async def _states(server: LeanServer, restores: int) -> tuple[list[float], list[float], list[float]]:
    """Seconds of bare round trips, of states and of results."""
    bare: list[float] = []
    stated: dict[tuple[str, str], float] = {}
    headers = {"X-Auth-Token": TOKEN, "Content-Type": "application/json-patch+json"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        Reporter(server.settings("spool", agent_id=AGENT)) as reporter,
    ):
        for number in range(restores):
            job = await reporter.open(f"states-{number}")
            for state in (job.queued, job.preparing, job.start, job.finish):
                bare.append(await _bare_patch(server, session))
                begun = time.monotonic()
                if state == job.finish:
                    await asyncio.to_thread(state)
                else:
                    state()
                stated[job.restore_id, job.state.value] = begun
                await _acknowledged(reporter, job)
    shown = {
        (patch.restore_id, patch.told["state"]): patch.moment
        for patch in server.patches()
        if patch.restore_id.startswith("states-")
    }
    if shown.keys() != stated.keys():
        raise UntrueError(f"not each state was told: {sorted(stated.keys() ^ shown.keys())}")
    took = {about: shown[about] - moment for about, moment in stated.items()}
    results = [seconds for (_, state), seconds in took.items() if state == "completed"]
    return bare, [seconds for (_, state), seconds in took.items() if state != "completed"], results


async def _bare_patch(server: LeanServer, session: aiohttp.ClientSession) -> float:
    body = b'[{"op":"replace","path":"/state","value":"preparing"}]'
    url = f"{server.url}/v2/{PROJECT}/restores/bare"
    begun = time.monotonic()
    async with session.patch(url, data=body) as answer:
        await answer.read()
    return time.monotonic() - begun


async def _acknowledged(reporter: Reporter, job: Job) -> None:
    """Return once the control plane has acknowledged the newest state."""

    def is_acknowledged() -> bool:
        exchange = reporter.exchange(job)
        known = None if exchange is None else exchange.acknowledged
        return exchange is None or (known is not None and known.state is job.state)

    await until(is_acknowledged)


# --- stops --------------------------------------------------------------------------------------------------


@dataclass
class Stops:
    """Engines that are stopped from the control plane, in one kind of circumstances."""

    server: LeanServer
    scale: Scale
    way: Circumstances
    accepted: dict[str, float] = field(default_factory=dict)
    signalled: dict[str, float] = field(default_factory=dict)

    async def measure(self) -> list[float]:
        """Seconds from each stop's acceptance until its engine's signal."""
        restore_ids = [f"stop-{number}" for number in range(self.scale.engines)]
        self.server.serve(events=self.way.events)
        async with asyncio.timeout(4 * PATIENCE), asyncio.TaskGroup() as group:
            for restore_id in restore_ids:
                group.create_task(self._engine(restore_id))
            await until(lambda: self._states() == {"in_progress"})
            self.server.serve(patches=self.way.patches, events=self.way.events)
            await until(lambda: self.way.patches or self.server.counts().refused > 0)
            for restore_id in restore_ids:
                group.create_task(self._stop(restore_id))
            await until(lambda: len(self.signalled) == len(restore_ids))
            self.server.serve(events=self.way.events)
        if self._states() != {"stopped"}:
            raise UntrueError(f"records of engines that were stopped say {self._states()}")
        return [self.signalled[each] - self.accepted[each] for each in restore_ids]

    def _states(self) -> set[str]:
        """The states of all records; that of an engine of which nothing was told yet is `unknown`."""
        states = [record["state"] for record in self.server.records().values()]
        return {*states, *(["unknown"] if len(states) < self.scale.engines else [])}

    async def _engine(self, restore_id: str) -> None:
        """Have `run` run an engine, to its end."""
        settings = {
            "ENDPOINT": self.server.url,
            "PROJECT_ID": PROJECT,
            "AGENT_ID": AGENT,
            "TOKEN_FILE": self.server.token_file,
            "SPOOL_DIR": self.server.directory / "spool",
            "DAEMON": "never",
            "STOP_POLL_INTERVAL": self.scale.interval,
            "RETRY_BASE": 0.1,
            "RETRY_CAP": self.scale.interval,
            "DRAIN_TIMEOUT": PATIENCE,
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent_reporter.cli.main", "run", "--restore-id", restore_id),
            *("--error-lines", "^cannot", "--"),
            *(sys.executable, "-I", "-S", "-c", ENGINE),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | {f"AGENT_REPORTER_{name}": str(value) for name, value in settings.items()},
        )
        assert process.stdout is not None
        try:
            self.signalled[restore_id] = float(await process.stdout.readline())
        finally:
            if restore_id not in self.signalled:
                process.terminate()
            status = await process.wait()
        if status != 128 + signal.SIGTERM:
            raise UntrueError(f"the run of an engine that was stopped ended with {status}")

    async def _stop(self, restore_id: str) -> None:
        await asyncio.sleep(random.random() * 2 * self.scale.interval)
        self.accepted[restore_id] = self.server.stop(restore_id)
