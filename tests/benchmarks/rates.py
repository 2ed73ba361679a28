"""Patches a second: what the reporter gets acknowledged with its durable spool, beside a bare aiohttp loop.

Some restores have something new all the time, and the interval of reporting is shorter than a patch of each takes,
so that only the work for a patch counts. The bare loop sends what such patches hold, made beforehand, with a session of
aiohttp's and nothing else. TMPDIR says on which file system the spool is.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

import aiohttp
from rich.console import Console
from rich.table import Table

from agent_reporter import Reporter
from tests.benchmarks.goals import Goal, UntrueError
from tests.benchmarks.lean_server import AGENT, PROJECT, TOKEN, LeanServer, lean_server
from tests.benchmarks.rounds import FULL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent_reporter import Job
    from tests.benchmarks.rounds import Effort

LIMIT = 0.6
IN_FLIGHT = (1, 20)
RESTORES = 20
REPORT_INTERVAL = NEWS_EVERY = 0.001
"""Seconds: less than from one patch of a restore to its next, so that neither is what bounds the rate."""
PATIENCE, LOOK_EVERY = 60.0, 0.005
"""Seconds."""
BARE, REPORTED = "a bare aiohttp loop", "the reporter"


@dataclass(frozen=True)
class Rate:
    """What came of one round."""

    patches: int
    seconds: float
    cpu: float
    """Of this process, in seconds."""

    @property
    def per_second(self) -> float:
        return self.patches / self.seconds


class Watch:
    """Measures from its making until it is asked."""

    def __init__(self, server: LeanServer) -> None:
        self._server = server
        self._patches = server.counts().patches
        self._begun, self._cpu = time.perf_counter(), time.process_time()

    def rate(self) -> Rate:
        seconds, cpu = time.perf_counter() - self._begun, time.process_time() - self._cpu
        return Rate(self._server.counts().patches - self._patches, seconds, cpu)


def run(effort: Effort) -> list[Goal]:
    """Measure and print."""
    rounds, seconds = (7, 2.0) if effort is FULL else (1, 0.05)
    goals = []
    rows: list[tuple[int, list[dict[str, Rate]]]] = []
    with lean_server() as server:
        where = file_system(server.directory)
        for in_flight in IN_FLIGHT:
            pairs = [_pair(server, number, in_flight, seconds) for number in range(rounds)]
            rows.append((in_flight, pairs))
            ratio = median(pair[REPORTED].per_second / pair[BARE].per_second for pair in pairs)
            what = f"acknowledged patches a second with the durable spool, {in_flight} in flight"
            goals.append(Goal(what, f"{BARE} sending the same bodies", ratio, LIMIT, is_floor=True))
    _print(f"Patches of {RESTORES} restores; the spool is on {where}", rows)
    return goals


def file_system(directory: Path) -> str:
    """The kind of file system that `directory` is on."""
    command = ["stat", "--file-system", "--format=%T", str(directory)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


async def until(has_come: Callable[[], bool]) -> None:
    """Return once that has come about; raises UntrueError if it does not."""
    for _ in range(round(PATIENCE / LOOK_EVERY)):
        if has_come():
            return
        await asyncio.sleep(LOOK_EVERY)
    raise UntrueError("what was waited for did not come about")


def _pair(server: LeanServer, number: int, in_flight: int, seconds: float) -> dict[str, Rate]:
    """One round of each; which comes first takes turns."""
    pair = {}
    for name in (BARE, REPORTED) if number % 2 else (REPORTED, BARE):
        measured = _bare if name == BARE else _reported
        pair[name] = asyncio.run(measured(server, f"{number}-{in_flight}", in_flight, seconds))
    return pair


async def _reported(server: LeanServer, name: str, in_flight: int, seconds: float) -> Rate:
    settings = server.settings(
        f"spool-{name}",
        agent_id=AGENT,
        report_interval=REPORT_INTERVAL,
        concurrency=in_flight,
        drain_timeout=60.0,
    )
    restore_ids = [f"{name}-{number}" for number in range(RESTORES)]
    async with AsyncExitStack() as stack:
        reporter = await stack.enter_async_context(Reporter(settings))
        jobs = [await stack.enter_async_context(reporter.restore(each)) for each in restore_ids]
        for job in jobs:
            job.start()
        news = asyncio.create_task(_say_again_and_again(jobs))
        await until(lambda: _are_all(server, restore_ids, "in_progress"))
        watch = Watch(server)
        await asyncio.sleep(seconds)
        rate = watch.rate()
        news.cancel()
        stated = await news
    if not _are_all(server, restore_ids, "completed", stated):
        raise UntrueError(f"not every record says that all {stated} files are restored")
    return rate


def _are_all(server: LeanServer, restore_ids: Sequence[str], state: str, files: int = 0) -> bool:
    known = server.records()
    return all(
        each in known and known[each]["state"] == state and known[each]["files_restored"] >= files
        for each in restore_ids
    )


async def _say_again_and_again(jobs: Sequence[Job]) -> int:
    number = 0
    with suppress(asyncio.CancelledError):
        while True:
            number += 1
            for job in jobs:
                job.progress(bytes_restored=number * 1_000_003, files_restored=number)
            await asyncio.sleep(NEWS_EVERY)
    return number


async def _bare(server: LeanServer, name: str, in_flight: int, seconds: float) -> Rate:
    bodies = [body_of(number) for number in range(1, 1_000)]
    headers = {"X-Auth-Token": TOKEN, "X-Agent-Id": AGENT, "Content-Type": "application/json-patch+json"}
    url = f"{server.url}/v2/{PROJECT}/restores/bare-{name}"
    async with aiohttp.ClientSession(headers=headers) as session:

        async def send(number: int) -> None:
            while time.perf_counter() < end:
                for body in bodies:
                    async with session.patch(f"{url}-{number}", data=body) as answer:
                        await answer.read()
                    if answer.status != 204:
                        raise UntrueError(f"a bare patch was answered {answer.status}")
                    if time.perf_counter() >= end:
                        break

        watch = Watch(server)
        end = time.perf_counter() + seconds
        await asyncio.gather(*(send(number) for number in range(in_flight)))
        return watch.rate()


def body_of(number: int) -> bytes:
    """What a patch of progress holds."""
    told = {"/files_restores": number, "/bytes-restored": number * 1_000_003}
    operations = [{"op": "replace", "path": path, "value": value} for path, value in told.items()]
    return json.dumps(operations, separators=(",", ":")).encode()


def _print(title: str, rows: Sequence[tuple[int, list[dict[str, Rate]]]]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("in flight", "sent by", "patches a second", "CPU a patch", "ratios of the rounds"):
        table.add_column(heading, justify="left" if heading == "sent by" else "right")
    for in_flight, pairs in rows:
        ratios = sorted(pair[REPORTED].per_second / pair[BARE].per_second for pair in pairs)
        for name in (BARE, REPORTED):
            rates = [pair[name] for pair in pairs]
            cpu = median(rate.cpu / max(1, rate.patches) for rate in rates)
            shown = "" if name == BARE else " ".join(f"{ratio:.2f}" for ratio in ratios)
            speed = median(rate.per_second for rate in rates)
            table.add_row(str(in_flight), name, f"{speed:,.0f}", f"{cpu * 1e6:.0f} µs", shown)
    Console(width=110).print(table)
