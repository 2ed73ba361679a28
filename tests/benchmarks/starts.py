"""How long a command takes to start, beside Python that imports the three libraries it stands on.

Each is a process of its own, from when it is started until its work is done: `run` has reported its restore, the
daemon has said that it is ready, `status` has shown what a daemon has. They take turns. The first of each is not
counted, but asked what it imports: that should be nothing which the command does not use.
"""

from __future__ import annotations

import random
import re
import resource
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING
from uuid import uuid4

from rich.console import Console
from rich.table import Table

from agent_reporter.engines.catalogue import own_names
from tests.benchmarks.agent_process import agent, begin_restore, daemon, environment
from tests.benchmarks.goals import Goal, UntrueError
from tests.benchmarks.lean_server import lean_server
from tests.benchmarks.rounds import FULL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from tests.benchmarks.lean_server import LeanServer
    from tests.benchmarks.rounds import Effort

PEER = "Python importing aiohttp, pydantic-settings and structlog"
RUN, DELEGATED = "run -- true", "run -- true, by the daemon"
DAEMON, STATUS = "daemon until it is ready", "status"
WALL, CPU = "wall", "CPU"
LIMIT = 1.3
ROUNDS = 15
RUNNING = "a-restore-of-the-daemon"
DELIVERY_SECONDS = 10.0
"""For what `run` has left to the daemon to arrive."""

_NEVER = ("agent_reporter.reference", "agent_reporter.testing", "jsonschema", "prometheus_client", "pygments")
_NOR = ("pytest", "tenacity", "tests", "tqdm", "uvloop")
_ADAPTERS = (f"agent_reporter.engines.{name}" for name in own_names() if name != "observe")
_SERVES = ("agent_reporter.daemon", "aiohttp.web")
_DELIVERS = (
    "agent_reporter.deliver",
    "agent_reporter.keeper",
    "agent_reporter.stop",
    "agent_reporter.takeover",
)
_RUN = (*_NEVER, *_NOR, *_SERVES, *_ADAPTERS, "rich.")
UNUSED = {
    RUN: _RUN,
    DELEGATED: _RUN,
    DAEMON: (*_NEVER, *_NOR, "agent_reporter.engines", "agent_reporter.reporter", "rich."),
    STATUS: (*_NEVER, *_NOR, *_SERVES, *_DELIVERS, "agent_reporter.engines", "agent_reporter.reporter"),
}
"""What the names of modules begin with that a command does not use."""

_IMPORTED = re.compile(r"^import time: +(\d+) \| +\d+ \| +(\S+)$", re.MULTILINE)
_WEIGHED = (
    *("agent_reporter.daemon", "agent_reporter.engines", "agent_reporter.model", "agent_reporter"),
    *("aiohttp.web", "aiohttp", "asyncio", "pydantic", "rich", "pygments", "structlog"),
    *("jsonschema", "prometheus_client", "tenacity", "tests", "uvloop"),
)
_REST = "all other"


@dataclass(frozen=True, slots=True)
class Start:
    """What one start took, in seconds, and what the process said on stderr meanwhile."""

    wall: float
    cpu: float
    said: str

    def seconds(self, kind: str) -> float:
        """Those of `kind`, which is WALL or CPU."""
        return self.wall if kind == WALL else self.cpu


class Stage:
    """What they start on: a control plane, a daemon that runs with a restore in it, and folders."""

    def __init__(self, server: LeanServer, directory: Path) -> None:
        self._server = server
        self._running, self._coming = directory / "running", directory / "coming"
        for each in (self._running, self._coming):
            each.mkdir()
        self._user = environment(server, self._running, spool_dir=str(directory / "spool"))
        self._alone = self._user | {"AGENT_REPORTER_DAEMON": "never"}

    @contextmanager
    def starts(self) -> Iterator[dict[str, Callable[[Sequence[str]], Start]]]:
        """What there is to start, by name, while the daemon runs. Each takes options for the interpreter."""
        with daemon(environment(self._server, self._running), self._running):
            begin_restore(self._running / "api.sock", RUNNING)
            yield {
                PEER: self._peer,
                RUN: partial(self._run, self._alone),
                DELEGATED: partial(self._run, self._user),
                DAEMON: self._daemon,
                STATUS: self._status,
            }

    def _peer(self, options: Sequence[str]) -> Start:
        command = [sys.executable, *options, "-c", "import aiohttp, pydantic_settings, structlog"]
        return _start(command, self._alone)[0]

    def _run(self, settings: Mapping[str, str], options: Sequence[str]) -> Start:
        restore_id = str(uuid4())
        start, _ = _start(agent("run", "--restore-id", restore_id, "--", "true", python=options), settings)
        until = time.monotonic() + DELIVERY_SECONDS
        while (record := self._server.records().get(restore_id, {})).get("state") != "completed":
            if time.monotonic() > until:
                raise UntrueError(f"a restore that was completed is {record} at the control plane")
            time.sleep(0.02)
        return start

    def _daemon(self, options: Sequence[str]) -> Start:
        log, command = self._coming / "log", agent("daemon", python=options)
        settings = environment(self._server, self._coming)
        with (
            log.open("wb") as stderr,
            daemon(settings, self._coming, command=command, stderr=stderr) as ready,
        ):
            return Start(ready.wall, ready.cpu, log.read_text())

    def _status(self, options: Sequence[str]) -> Start:
        start, shown = _start(agent("status", python=options), self._user | {"COLUMNS": "200"})
        if RUNNING not in shown:
            raise UntrueError(f"status did not show what the daemon has: {shown}")
        return start


def run(effort: Effort) -> list[Goal]:
    """Measure and print."""
    with lean_server() as server, Stage(server, server.directory).starts() as starts:
        first = {name: start(["-X", "importtime"]) for name, start in starts.items()}
        rounds = [first]
        if effort is FULL:
            rounds = [_round(starts) for _ in range(ROUNDS)]
    _print_starts(rounds)
    imported = {name: imports(start.said) for name, start in first.items()}
    _print_imports(imported)
    in_vain = {name: unused(name, imported[name]) for name in UNUSED}
    for name, found in in_vain.items():
        said = ", ".join(f"{prefix} ({count} modules)" for prefix, count in found.items())
        print(f"imported by {name}, and not used: {said or 'nothing'}")
    goals = [
        Goal(f"start of {name}, {kind}", PEER, _ratio(rounds, name, kind), LIMIT)
        for name in UNUSED
        for kind in (WALL, CPU)
    ]
    return goals + [
        Goal(f"imported by {name}, and not used", "-", found.total(), 0, "modules")
        for name, found in in_vain.items()
    ]


def imports(said: str) -> dict[str, float]:
    """What a process that was started with `-X importtime` has imported, and how many seconds each took."""
    found = {name: int(microseconds) / 1e6 for microseconds, name in _IMPORTED.findall(said)}
    if not found:
        raise UntrueError(f"an interpreter does not tell what it imports, but: {said[:500]}")
    return found


def unused(name: str, imported: Iterable[str]) -> Counter[str]:
    """How many of the modules that were `imported` the start `name` does not use, by what they begin with."""
    return Counter(each for module in imported for each in UNUSED[name] if module.startswith(each))


def _round(starts: Mapping[str, Callable[[Sequence[str]], Start]]) -> dict[str, Start]:
    """One of each, in an order of chance."""
    return {name: starts[name]([]) for name in random.sample(list(starts), len(starts))}


def _start(command: Sequence[str], settings: Mapping[str, str]) -> tuple[Start, str]:
    """Of a process from its start to its end, which has to be a good one; and what it printed."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, env=settings, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise UntrueError(f"{command} ended with {done.returncode}: {done.stderr}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Start(wall, cpu, done.stderr), done.stdout


def _ratio(rounds: Sequence[Mapping[str, Start]], name: str, kind: str) -> float:
    return median(starts[name].seconds(kind) / starts[PEER].seconds(kind) for starts in rounds)


def _print_starts(rounds: Sequence[Mapping[str, Start]]) -> None:
    table = Table(title=f"starts, medians of {len(rounds)}", title_justify="left")
    for heading in ("what starts", "wall", "ratio", "CPU", "ratio"):
        table.add_column(heading, justify="right" if table.columns else "left")
    for name in (PEER, *UNUSED):
        cells = []
        for kind in (WALL, CPU):
            seconds = median(starts[name].seconds(kind) for starts in rounds)
            cells += [f"{1e3 * seconds:.0f} ms", f"{_ratio(rounds, name, kind):.2f}"]
        table.add_row(name, *cells)
    _print(table)


def _print_imports(imported: Mapping[str, Mapping[str, float]]) -> None:
    title = "modules imported, and the milliseconds that takes by themselves, while they are timed"
    table = Table(title=title, title_justify="left")
    for heading in ("of", "the three libraries", *UNUSED):
        table.add_column(heading, justify="right" if table.columns else "left")
    counts = {name: Counter(map(_weighed_with, modules)) for name, modules in imported.items()}
    weights = {name: dict.fromkeys((*_WEIGHED, _REST), 0.0) for name in imported}
    for name, modules in imported.items():
        for module, seconds in modules.items():
            weights[name][_weighed_with(module)] += 1e3 * seconds
    for room in (*_WEIGHED, _REST):
        cells = (
            f"{counts[name][room]}: {weights[name][room]:.0f}" if counts[name][room] else ""
            for name in imported
        )
        table.add_row(room, *cells)
    _print(table)


def _weighed_with(module: str) -> str:
    return next((room for room in _WEIGHED if module.startswith(room)), _REST)


def _print(table: Table) -> None:
    console = Console()
    console.width = max(console.width, 140)
    console.print(table)
