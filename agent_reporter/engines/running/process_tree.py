"""Everything an engine started: found in /proc, also what called setsid or lost its parent, and signalled.

The agent makes itself a child subreaper, so that what loses its parent becomes a child of the agent and not
of init: all that descends from an engine stays below the agent. Such an orphan is told from the agent's own
helpers by its session: an engine starts in a session of its own, and nobody can go back into the agent's. So
helpers of the agent have to stay in the agent's session, and one process runs one engine at a time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_reporter.processes import all_stats, send_signal

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping

    from agent_reporter.model.process_identity import ProcessIdentity
    from agent_reporter.processes import ProcessStat

_PR_SET_CHILD_SUBREAPER = 36


def become_subreaper() -> None:
    """Have orphaned descendants become children of this process. Raises OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass(frozen=True, slots=True)
class Signalled:
    """Whom a signal reached."""

    reached: int
    refused: tuple[ProcessIdentity, ...]
    """Those that belong to somebody else."""


class ProcessTree:
    """One engine and all that descends from it. The methods block for as long as it takes to read /proc."""

    def __init__(self, engine: ProcessIdentity) -> None:
        self._engine = engine
        self._known: frozenset[ProcessIdentity] = frozenset({engine})
        self._one_look_at_a_time = threading.Lock()

    def members(self) -> list[ProcessStat]:
        """Who of the tree is there now, also those that ended and are not reaped. Remembers them."""
        with self._one_look_at_a_time:
            members = _members(all_stats(), self._engine, self._known, os.getpid())
            self._known = frozenset(stat.identity for stat in members) | {self._engine}
            return members

    def living(self) -> frozenset[ProcessIdentity]:
        """Who of the tree runs now. Remembers them, and reaps those that ended as orphans."""
        members = self.members()
        self._reap(members)
        return frozenset(stat.identity for stat in members if not stat.has_ended)

    def signal(self, number: signal.Signals) -> Signalled:
        """Signal everybody who runs now."""
        reached = 0
        refused = []
        for process in self.living():
            try:
                reached += send_signal(process, number)
            except PermissionError:
                refused.append(process)
        return Signalled(reached, tuple(refused))

    def _reap(self, members: Iterable[ProcessStat]) -> None:
        """Reap adopted zombies. Not the engine: its exit status is for who started it."""
        agent = os.getpid()
        for stat in members:
            if stat.has_ended and stat.parent == agent and stat.identity != self._engine:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(stat.pid, os.WNOHANG)


def _members(
    stats: Mapping[int, ProcessStat],
    engine: ProcessIdentity,
    known: frozenset[ProcessIdentity],
    agent: int,
) -> list[ProcessStat]:
    """Those of `stats` that are the engine, were known, are its orphans, or descend from one of these."""
    children: dict[int, list[ProcessStat]] = {}
    for stat in stats.values():
        children.setdefault(stat.parent, []).append(stat)
    orphans = [stat for stat in children.get(agent, ()) if _is_orphan(stat, stats.get(agent), engine)]
    unvisited = [stat for stat in stats.values() if stat.identity in known] + orphans
    members: dict[int, ProcessStat] = {}
    while unvisited:
        stat = unvisited.pop()
        if stat.pid not in members:
            members[stat.pid] = stat
            unvisited += children.get(stat.pid, ())
    return list(members.values())


def _is_orphan(stat: ProcessStat, agent: ProcessStat | None, engine: ProcessIdentity) -> bool:
    """Whether a child of the agent is one that it was given and did not start itself."""
    if agent is None or stat.pid == engine.pid:
        return False
    return stat.session != agent.session and stat.start_ticks >= engine.start_ticks
