"""What a daemon takes, idle and for each restore, beside a bare aiohttp server on a Unix socket; and what must not grow.

The daemon and its peer are processes of their own, each of which has answered once. What an engine does by the million
is done in a process of its own, with a Reporter that delivers it; the week without a control plane is in `outage`.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from agent_reporter import Reporter
from tests.benchmarks import outage
from tests.benchmarks.agent_process import begin_restore, daemon, environment
from tests.benchmarks.goals import Goal, UntrueError
from tests.benchmarks.lean_server import AGENT, lean_server
from tests.benchmarks.rounds import FULL
from tests.long_life.growth import slope
from tests.long_life.host import DAY, HOUR
from tests.long_life.readings import read

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from agent_reporter import Settings
    from tests.benchmarks.lean_server import LeanServer
    from tests.benchmarks.rounds import Effort
    from tests.long_life.readings import Reading

PEER = "a bare aiohttp server on a Unix socket"
BARE = """
import sys
from aiohttp import web
async def answer(request):
    return web.Response(text="well")
app = web.Application()
app.router.add_get("/", answer)
web.run_app(app, path=sys.argv[1], print=None)
"""
LIMIT, RESTORE_KIB, GROWTH_KIB = 1.25, 8.0, 256.0
"""The last is what is flat: a pointer that were kept of each of a million things would take 8,000."""
LOOKS, WARM = 20, 2
PATIENCE, SETTLE_SECONDS = 60.0, 2.0


@dataclass(frozen=True, slots=True)
class Size:
    """How much of everything there is."""

    rounds: int
    restores: int
    batch: int
    """So many of them are begun one after the other, before the next look."""
    callbacks: int
    errors: int
    outage: float


LARGE = Size(3, restores=1_200, batch=50, callbacks=10_000_000, errors=1_000_000, outage=outage.WEEK)
SMALL = Size(1, restores=60, batch=10, callbacks=10_000, errors=1_000, outage=2 * HOUR)


@dataclass(frozen=True, slots=True)
class Looks:
    """What a process had as its own, in KiB, again and again."""

    own: Sequence[int]
    warm: int
    """How many of them are no growth yet: what has bounds fills up."""

    @property
    def grown(self) -> float:
        """From when it was warm until the end, by the slope: what is in flight at one look is no growth."""
        warm = self.own[self.warm :]
        return slope(warm) * (len(warm) - 1)


def run(effort: Effort) -> list[Goal]:
    """Measure and print."""
    size, apart = (LARGE, _in_a_process) if effort is FULL else (SMALL, _here)
    with lean_server() as server:
        pairs = [_pair(server, number) for number in range(size.rounds)]
        restore = _of_a_restore(server, size)
        looks = {
            f"{size.callbacks:,} callbacks": apart(call_back, server.settings("callbacks"), size.callbacks),
            f"{size.errors:,} errors": apart(fail, server.settings("errors"), size.errors),
        }
        _check_all(server, size)
    week = apart(outage.spend, size.outage)
    looks[f"{size.outage / DAY:.2g} days of outage"] = Looks(week.own, len(week.own) // 7)
    _print(pairs, restore, looks)
    print(f"the outage is on virtual time, with a look each hour; {week.requests:,} requests were made in it")
    return _goals(pairs, restore, looks)


def _goals(pairs: Sequence[tuple[Reading, Reading]], restore: float, looks: dict[str, Looks]) -> list[Goal]:
    resident = median(ours.resident / bare.resident for ours, bare in pairs)
    own = median(ours.own / bare.own for ours, bare in pairs)
    return [
        Goal("memory of an idle daemon, resident", PEER, resident, LIMIT),
        Goal("memory of an idle daemon, its own", PEER, own, LIMIT),
        Goal("memory of a restore more", "-", restore, RESTORE_KIB, "KiB"),
        *(
            Goal(f"growth in {what}", "itself, once it is warm", each.grown, GROWTH_KIB, "KiB")
            for what, each in looks.items()
        ),
    ]


# --- a daemon ---------------------------------------------------------------------------------------------


def _pair(server: LeanServer, number: int) -> tuple[Reading, Reading]:
    """The daemon and its peer, both idle, at the same time."""
    directory = server.directory / f"idle-{number}"
    directory.mkdir()
    with daemon(environment(server, directory), directory) as ours, _bare(directory / "bare.sock") as bare:
        time.sleep(SETTLE_SECONDS)
        return read(ours.pid), read(bare)


@contextmanager
def _bare(path: Path) -> Iterator[int]:
    """The peer's pid, once it has answered."""
    with subprocess.Popen([sys.executable, "-c", BARE, str(path)]) as process:
        try:
            _wait_for(partial(_has_answered, path), f"{PEER} to answer")
            yield process.pid
        finally:
            process.terminate()


def _has_answered(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return b" 200 " in connection.recv(4_096)
    except OSError:
        return False


def _of_a_restore(server: LeanServer, size: Size) -> float:
    """KiB that the daemon takes for each restore more, once the control plane knows of them all."""
    directory = server.directory / "restores"
    directory.mkdir()
    # One poll for all of them, as on a host with an agent's id; what is left at the end is not waited for.
    settings = environment(server, directory, agent_id=AGENT, drain_timeout="0.1")
    own, begun = [], range(size.batch, size.restores + 1, size.batch)
    with daemon(settings, directory) as ours:
        for count in begun:
            for number in range(count - size.batch, count):
                begin_restore(directory / "api.sock", f"restore-{number:06}")
            _wait_for(partial(_knows, server, count), f"{count} restores to be reported")
            own.append(read(ours.pid).own)
    return slope(own[WARM:], begun[WARM:])


def _knows(server: LeanServer, count: int) -> bool:
    return len(server.records()) == count


def _wait_for(is_so: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        if time.monotonic() > until:
            raise UntrueError(f"waited in vain for {what}")
        time.sleep(0.02)


# --- an engine --------------------------------------------------------------------------------------------


def call_back(settings: Settings, count: int) -> Looks:
    """Half of the calls state how far it is, and half add to it."""
    part, own = count // 2 // LOOKS, []
    with (
        Reporter.in_background(settings) as reporter,
        reporter.restore("stated") as stated,
        reporter.restore("added") as added,
    ):
        for look in range(LOOKS):
            for number in range(look * part + 1, (look + 1) * part + 1):
                stated.progress(bytes_restored=number, files_restored=number)
                added.advance(bytes=1, files=1)
            own.append(_own())
    return Looks(own, WARM)


def fail(settings: Settings, count: int) -> Looks:
    """Each path is another one."""
    part, own = count // LOOKS, []
    with Reporter.in_background(settings) as reporter, reporter.restore("failing") as job:
        for look in range(LOOKS):
            for number in range(look * part, (look + 1) * part):
                job.error(path=f"/srv/{number}", type="no_access", code=13, description="Permission denied")
            own.append(_own())
    return Looks(own, WARM)


def _own() -> int:
    gc.collect()
    return read(os.getpid()).own


def _in_a_process(call: Callable[..., Any], *arguments: object) -> Any:
    """What `call` returns in a process that does nothing else."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(call, *arguments).result()


def _here(call: Callable[..., Any], *arguments: object) -> Any:
    """The same, quickly."""
    return call(*arguments)


def _check_all(server: LeanServer, size: Size) -> None:
    """The control plane has to know exactly what was done."""
    records, half = server.records(), size.callbacks // 2
    for name in ("stated", "added"):
        record = records[name]
        if (record["state"], record["bytes_restored"], record["files_restored"]) != ("completed", half, half):
            raise UntrueError(f"{half} callbacks are reported as {record}")
    errors, state = records["failing"]["errors"]["count"], records["failing"]["state"]
    if (state, errors) != ("completed_with_errors", size.errors):
        raise UntrueError(f"{size.errors} errors are reported as {errors}, and {state}")


# --- what came of it --------------------------------------------------------------------------------------


def _print(pairs: Sequence[tuple[Reading, Reading]], restore: float, looks: dict[str, Looks]) -> None:
    table = Table(title="memory, KiB", title_justify="left")
    for heading in ("of", "resident", "its own"):
        table.add_column(heading, justify="right" if table.columns else "left")
    for name, readings in (("an idle daemon", [one for one, _ in pairs]), (PEER, [two for _, two in pairs])):
        figures = (median(each.resident for each in readings), median(each.own for each in readings))
        table.add_row(name, *(f"{figure:,.0f}" for figure in figures))
    table.add_row("a restore more", "", f"{restore:.1f}")
    for what, each in looks.items():
        table.add_row(
            f"{what}: once it is warm, and at the end", "", f"{each.own[each.warm]:,} {each.own[-1]:,}"
        )
    console = Console()
    console.width = max(console.width, 110)
    console.print(table)
