"""What goes over the wire for a restore of a million callbacks, beside one request a callback."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp
from rich.console import Console
from rich.table import Table

from agent_reporter import Reporter
from tests.benchmarks.goals import Goal, UntrueError
from tests.benchmarks.lean_server import AGENT, PROJECT, TOKEN, Counts, LeanServer, lean_server
from tests.benchmarks.rates import body_of
from tests.benchmarks.rounds import FULL

if TYPE_CHECKING:
    from tests.benchmarks.rounds import Effort

BLOCK = 1_000
"""Callbacks without a pause between them."""
FILES = 3
"""Fewer than intervals: most patches have nothing to say of files."""
CONNECTIONS = 2
"""One for the deliveries of a restore, and one for the look for a stop that may come beside them."""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    callbacks: int
    seconds: float
    """That the restore lasts at least."""
    interval: float
    """Of reporting, in seconds."""
    requests: int
    """That stand for one a callback."""


@dataclass(frozen=True)
class Restore:
    """What one restore came to."""

    seconds: float
    counts: Counts
    progress_patches: int


def run(effort: Effort) -> list[Goal]:
    """Measure and print."""
    scale = Scale(1_000_000, 15.0, 1.0, 3_000) if effort is FULL else Scale(20_000, 0.5, 0.1, 50)
    with lean_server() as server:
        restore = _reported(server, scale)
    with lean_server() as server:
        bare = asyncio.run(_one_a_callback(server, scale.requests))
    times = scale.callbacks / scale.requests
    intervals = restore.seconds / scale.interval
    ours = restore.counts
    table = Table(
        title=f"A restore of {scale.callbacks:,} callbacks in {restore.seconds:.1f} s, "
        f"an interval of {scale.interval:g} s",
        title_justify="left",
    )
    for heading in ("told by", "requests", "of them patches", "bytes on the wire", "connections"):
        table.add_column(heading, justify="right" if table.columns else "left")
    table.add_row("the reporter", *_figures(ours, 1))
    table.add_row(f"one request a callback, by {scale.requests:,} of them", *_figures(bare, times))
    Console(width=120).print(table)
    print(f"requests: {bare.requests * times / ours.requests:,.0f} times fewer than one a callback")
    print(f"bytes: {bare.bytes * times / ours.bytes:,.0f} times fewer than with one a callback")
    beside = "one request a callback"
    return [
        Goal("patches of progress an interval", beside, restore.progress_patches / intervals, 1.0, "patches"),
        Goal(
            "of what such patches tell, what the record shows already",
            beside,
            ours.idle_operations,
            0,
            "values",
        ),
        Goal("connections for a restore", beside, ours.connections, CONNECTIONS, "connections"),
    ]


def _figures(counts: Counts, times: float) -> tuple[str, str, str, str]:
    requests, patches, size = (
        round(figure * times) for figure in (counts.requests, counts.patches, counts.bytes)
    )
    return f"{requests:,}", f"{patches:,}", f"{size:,}", f"{counts.connections}"


def _reported(server: LeanServer, scale: Scale) -> Restore:
    settings = server.settings("spool", agent_id=AGENT, report_interval=scale.interval)
    with Reporter.in_background(settings) as reporter, reporter.restore("traffic") as job:
        job.start(total_files=FILES)
        begun = time.monotonic()
        for number in range(1, scale.callbacks + 1):
            job.progress(bytes_restored=number * 4_096, files_restored=number * FILES // scale.callbacks)
            if number % BLOCK == 0:
                due = begun + scale.seconds * number / scale.callbacks
                time.sleep(max(0.0, due - time.monotonic()))
        ended = time.monotonic()
    known = server.records()["traffic"]
    if (known["state"], known["bytes_restored"]) != ("completed", scale.callbacks * 4_096):
        raise UntrueError(f"the record says {known['state']} with {known['bytes_restored']} bytes")
    told = [patch for patch in server.patches() if "state" not in patch.told]
    return Restore(ended - begun, server.counts(), len(told))


async def _one_a_callback(server: LeanServer, requests: int) -> Counts:
    url = f"{server.url}/v2/{PROJECT}/restores/traffic"
    headers = {"X-Auth-Token": TOKEN, "X-Agent-Id": AGENT, "Content-Type": "application/json-patch+json"}
    async with aiohttp.ClientSession(headers=headers) as session:
        for number in range(1, requests + 1):
            async with session.patch(url, data=body_of(number)) as answer:
                await answer.read()
    counts = server.counts()
    if counts.patches != requests:
        raise UntrueError(f"{counts.patches} of {requests} patches were taken")
    return counts
