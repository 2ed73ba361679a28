"""How often a daemon that has nothing to do wakes up: the calls of all its threads that waited, and came back.

strace counts them from outside, while the daemon has a watchdog as the package gives it one. The kernel's own count of
how often a thread gave the processor up is beside it, for machines without strace.
"""

from __future__ import annotations

import re
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.benchmarks.agent_process import agent, cpu_of, daemon, environment
from tests.benchmarks.goals import Goal, UntrueError
from tests.benchmarks.lean_server import lean_server
from tests.benchmarks.rounds import FULL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.benchmarks.rounds import Effort

LIMIT = 1.0
SECONDS, FEW_SECONDS = 62.0, 1.0
"""All that comes round comes round in a minute."""
SETTLE_SECONDS = 2.0
"""For what belongs to the start."""
WATCHDOG = {"WATCHDOG_USEC": "30000000"}
STRACE = ("strace", "-D", "-f", "-qq", "-ttt", "-T")
"""-D: the daemon stays a child of ours, so nobody has to attach to it."""
WAITED = 0.0001
"""Seconds. What took less has looked, and not waited."""
WAITS = re.compile(r"clock_nanosleep|epoll_p?wait2?|futex|nanosleep|p?poll|p?select6?|restart_syscall|wait4")

_CALL = re.compile(r"^\d+ +(?P<at>[\d.]+) (?:<\.\.\. )?(?P<name>\w+).*<(?P<took>[\d.]+)>$", re.MULTILINE)
_SWITCHES = re.compile(r"^voluntary_ctxt_switches:\s+(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that has returned."""

    name: str
    ended: float
    """Seconds since the epoch."""
    took: float

    @property
    def is_wake_up(self) -> bool:
        """Whether its thread slept meanwhile, until something happened or it was time."""
        return self.took >= WAITED and WAITS.fullmatch(self.name) is not None


def run(effort: Effort) -> list[Goal]:
    """Measure and print."""
    seconds = SECONDS if effort is FULL else FEW_SECONDS
    with lean_server() as server:
        settings = environment(server, server.directory) | WATCHDOG
        switches, cpu = _by_kernel(settings, server.directory, seconds)
        has_strace = shutil.which(STRACE[0]) is not None
        calls = _by_strace(settings, server.directory, seconds) if has_strace else []
    if has_strace:
        _print(calls, seconds)
    print(f"an idle daemon: {1e3 * cpu:.2f} ms of CPU a second, {switches:.2f} voluntary switches a second")
    woken = sum(call.is_wake_up for call in calls) / seconds if has_strace else None
    return [
        Goal("wake-ups of an idle daemon", "system calls, by strace", woken, LIMIT, "a second"),
        Goal("wake-ups of an idle daemon", "voluntary switches, by the kernel", switches, LIMIT, "a second"),
    ]


def _by_kernel(settings: dict[str, str], directory: Path, seconds: float) -> tuple[float, float]:
    """Voluntary switches, and CPU seconds, in a second."""
    with daemon(settings, directory) as idle:
        time.sleep(SETTLE_SECONDS)
        before, cpu = _switches(idle.pid), cpu_of(idle.pid)
        time.sleep(seconds)
        after, used = _switches(idle.pid), cpu_of(idle.pid) - cpu
    # Of a thread that came and went there is nothing left: it was woken at its end, at least.
    return sum((after - before).values()) / seconds, used / seconds


def _switches(pid: int) -> Counter[str]:
    """By thread."""
    found: Counter[str] = Counter()
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        if (count := _SWITCHES.search(status.read_text())) is not None:
            found[status.parent.name] = int(count[1])
    return found


def _by_strace(settings: dict[str, str], directory: Path, seconds: float) -> list[Call]:
    """The calls that came back in `seconds`."""
    log = directory / "calls"
    with daemon(settings, directory, command=[*STRACE, "-o", str(log), *agent("daemon")]):
        time.sleep(SETTLE_SECONDS)
        begun = time.time()
        time.sleep(seconds)
        ended = time.time()
    everything = list(calls_in(log.read_text(errors="replace")))
    if not any(call.is_wake_up for call in everything):
        raise UntrueError("strace shows no call that waited")
    return [call for call in everything if begun <= call.ended < ended]


def calls_in(log: str) -> Iterable[Call]:
    """What strace wrote with `-f -ttt -T`: a call that another thread's interrupted is told when it returns."""
    for found in _CALL.finditer(log):
        at, took, is_resumed = float(found["at"]), float(found["took"]), "<... " in found[0]
        yield Call(found["name"], at if is_resumed else at + took, took)


def _print(calls: list[Call], seconds: float) -> None:
    table = Table(title=f"an idle daemon for {seconds:g} s, by strace", title_justify="left")
    for heading in ("system call", "a second", "of them wake-ups"):
        table.add_column(heading, justify="right" if table.columns else "left")
    made = Counter(call.name for call in calls)
    woken = Counter(call.name for call in calls if call.is_wake_up)
    for name, count in made.most_common():
        table.add_row(name, f"{count / seconds:.2f}", f"{woken[name] / seconds:.2f}" if woken[name] else "")
    table.add_row("all", f"{made.total() / seconds:.2f}", f"{woken.total() / seconds:.2f}")
    Console().print(table)
