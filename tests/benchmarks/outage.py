"""A week in which the control plane is away, on virtual time: what the process that waits it out holds meanwhile.

The real job, spool, delivery and poll for stops, on the virtual loop, disk and network of the simulation, as
`tests.long_life` has them. Two engines go on to report progress and errors all week, and the result of a third waits in
the spool. Tries and looks for a stop are ten times rarer than by default, so that a week takes a minute of one core
and not ten. A look at the memory each virtual hour; afterwards every record has to be true.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

from agent_reporter import Reporter, Settings
from agent_reporter.settings import DaemonUse
from tests.benchmarks.goals import UntrueError
from tests.long_life.host import DAY, HOUR, SECRET, Clock, Host
from tests.long_life.readings import read
from tests.simulation.control_plane import AGENT, ORIGIN, PROJECT
from tests.simulation.plan import NetFault
from tests.simulation.seams import installed

if TYPE_CHECKING:
    from tests.simulation.world import World

WEEK = 7 * DAY
AWAY = NetFault(0.0, 0.0, "all", "status", status=503, body="json")
ENGINES = 2
REPORTS_EVERY = 300.0
"""Virtual seconds between two reports of an engine, each with an error."""
MAX_ERRORS = 100
"""The list of them is full before the first day is over."""
AFTERWARDS = HOUR
"""In so long, all is delivered."""


@dataclass
class Week:
    """What became of it."""

    requests: int = 0
    own: list[int] = field(default_factory=list)
    """KiB of the process itself, each virtual hour of the outage."""


def spend(seconds: float) -> Week:
    """Have the control plane away for so many virtual seconds; UntrueError if a record is not true then."""
    host, week = Host(0), Week()
    logger = logging.getLogger("agent_reporter")
    propagates, logger.propagate = logger.propagate, False
    try:
        with installed(cast("World", host)):
            host.loop.run(_main(host, week, seconds))
    finally:
        logger.propagate = propagates
    week.requests = host.ledger.requests
    return week


async def _main(host: Host, week: Week, seconds: float) -> None:
    host.disk.make("/secret")
    host.disk.put(SECRET, b"a-password-for-a-week")
    for number in range(ENGINES + 1):
        host.control_plane.begin(f"restore-{number}")
    living = host.run_in(host.process("reporter"), _live(host, seconds))
    await asyncio.sleep(HOUR)
    host.network.faults.append(AWAY)
    while host.loop.time() < HOUR + seconds:
        await asyncio.sleep(HOUR)
        host.loop.steps = 0
        gc.collect()
        week.own.append(read(os.getpid()).own)
    host.network.faults.remove(AWAY)
    await living
    reports = int((2 * HOUR + seconds) / REPORTS_EVERY)
    for number in range(ENGINES):
        _check(host, f"restore-{number}", "completed_with_errors", reports)
    _check(host, f"restore-{ENGINES}", "completed", 1)


async def _live(host: Host, seconds: float) -> None:
    settings = Settings(
        endpoint=ORIGIN,
        project_id=PROJECT,
        agent_id=AGENT,
        agent_password_file=Path(SECRET),
        spool_dir=Path("/spool"),
        daemon=DaemonUse.NEVER,
        drain_timeout=AFTERWARDS,
        max_errors=MAX_ERRORS,
        retry_cap=600.0,
        stop_poll_interval=20.0,
        idle_poll_interval=300.0,
    )
    async with Reporter(settings, clock=Clock(host)) as reporter, asyncio.TaskGroup() as engines:
        for number in range(ENGINES):
            engines.create_task(_report(reporter, f"restore-{number}", 2 * HOUR + seconds))
        await asyncio.sleep(1.5 * HOUR)
        async with reporter.restore(f"restore-{ENGINES}") as job:
            job.advance(bytes=1)


async def _report(reporter: Reporter, restore_id: str, seconds: float) -> None:
    async with reporter.restore(restore_id) as job:
        for number in range(int(seconds / REPORTS_EVERY)):
            await asyncio.sleep(REPORTS_EVERY)
            job.advance(bytes=1)
            job.error(path=f"/srv/{number}", type="no_access", code=13, description="Permission denied")


def _check(host: Host, restore_id: str, state: str, count: int) -> None:
    restore = host.control_plane.restore(restore_id)
    if (restore.state, restore.bytes_restored) != (state, count):
        raise UntrueError(f"{restore_id} is {restore.state}, with {restore.bytes_restored} bytes of {count}")
