"""Whether the engines of the daemon's restores still live: their processes are followed, or their silence.

A restore ends with the processes that it named: with the last of them gone and no result stated, nobody will
ever state one. A process is followed by a descriptor of its own, which no recycled pid can take over.
"""

from __future__ import annotations

import asyncio
import errno
import os
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from agent_reporter import processes
from agent_reporter.daemon.refusals import RefusedError
from agent_reporter.logs import get_logger
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from agent_reporter.daemon.restores import LocalRestore
    from agent_reporter.means import Means
    from agent_reporter.model.client import Client
    from agent_reporter.model.process_identity import ProcessIdentity

    Lose = Callable[[LocalRestore, str], None]

GRACE_SECONDS = 5.0
"""For a result that is on its way when the last process ends: a program may report its engine's end."""
GRACE_AFTER_START_SECONDS = 60.0
"""The same for processes that ended while there was no daemon to report to."""
MAX_PROCESSES = 64
"""Processes that live and that one restore ends with."""
LOOK_INTERVAL = 5.0
"""Seconds between two looks for silence, and at processes that cannot be followed by a descriptor."""

_log = get_logger()


@dataclass(slots=True)
class _Followed:
    """A process, and the restores that end with it. Without a descriptor it is looked at now and then."""

    descriptor: int | None
    restores: dict[str, LocalRestore] = field(default_factory=dict)


class Liveness:
    """Follows engines. Calls `lose` with a restore, and what happened, when nobody is left to report it."""

    def __init__(self, means: Means, lose: Lose) -> None:
        self._means = means
        self._clock = means.clock
        self._lose = lose
        self._loop = asyncio.get_running_loop()
        self._followed: dict[ProcessIdentity, _Followed] = {}
        self._silent: dict[str, LocalRestore] = {}
        self._ending: dict[str, tuple[LocalRestore, float]] = {}
        """Restores all of whose processes have ended, and until when a result may still come."""

    def follow(self, restore: LocalRestore, *, grace: float = GRACE_SECONDS) -> None:
        """See to `restore` from now on, and again after it has named more processes."""
        self._silent.pop(restore.restore_id, None)
        self._ending.pop(restore.restore_id, None)
        if not restore.client.processes:
            self._silent[restore.restore_id] = restore
            return
        for process in restore.client.processes:
            if process not in self._followed and processes.is_alive(process):
                self._followed[process] = _Followed(self._watch(process))
            if process in self._followed:
                self._followed[process].restores[restore.restore_id] = restore
        if not self._is_followed(restore):
            self._ending[restore.restore_id] = (restore, self._clock.monotonic() + grace)

    def identify(self, pids: Collection[int], client: Client | None) -> tuple[ProcessIdentity, ...]:
        """The processes of `pids` that `client` has not named before.

        One that has ended is passed over, as an engine may just end while its reporter goes on. Raises
        RefusedError (400) if there is nobody whom the restore could end with, or if there are too many.
        """
        known = () if client is None else client.processes
        living = [process for process in known if process in self._followed]
        new = set(pids).difference(process.pid for process in living)
        if len(living) + len(new) > MAX_PROCESSES:
            raise RefusedError(400, f"A restore names at most {MAX_PROCESSES} processes.")
        found = [process for pid in sorted(new) if (process := processes.identity(pid)) is not None]
        if new and not found and not known:
            raise RefusedError(400, f"X-Engine-Pid names process {min(new)}, which is not on this host.")
        return tuple(process for process in found if process not in known)

    def forget(self, restore: LocalRestore) -> None:
        """The restore has ended."""
        self._silent.pop(restore.restore_id, None)
        self._ending.pop(restore.restore_id, None)
        for process in restore.client.processes:
            if (known := self._followed.get(process)) is not None:
                known.restores.pop(restore.restore_id, None)
                if not known.restores:
                    self._unwatch(process)

    async def run(self) -> None:
        """Look again and again for what no descriptor tells."""
        while True:
            await self._clock.sleep(min(LOOK_INTERVAL, self._means.settings.silence_limit / 4))
            await self.look()

    async def look(self) -> None:
        """Look once: for the silent, for the ended, and at those without a descriptor."""
        for process in [process for process, known in self._followed.items() if known.descriptor is None]:
            is_alive = await in_thread("engine-alive", partial(processes.is_alive, process))
            if not is_alive and process in self._followed:
                self._end(process)
        now, limit = self._clock.monotonic(), self._means.settings.silence_limit
        for restore, deadline in list(self._ending.values()):
            if now >= deadline:
                pids = ", ".join(str(process.pid) for process in restore.client.processes)
                self._lose(restore, f"The engine ended without a result (process {pids}).")
        for restore in list(self._silent.values()):
            if now - restore.last_heard > limit and not restore.listeners:
                self._lose(restore, f"The engine named no process, and said nothing for {limit:g} s.")

    def close(self) -> None:
        """Follow nobody any more."""
        for process in list(self._followed):
            self._unwatch(process)

    def _watch(self, process: ProcessIdentity) -> int | None:
        try:
            descriptor = os.pidfd_open(process.pid)
        except OSError as problem:
            if problem.errno not in {errno.ENOSYS, errno.ESRCH}:
                _log.warning("engine.not_followed", pid=process.pid, problem=str(problem))
            return None  # an old kernel, or it has just ended: it is looked at now and then
        if not processes.is_alive(process):  # the descriptor is perhaps that of another with its number
            os.close(descriptor)
            return None
        self._loop.add_reader(descriptor, self._end, process)
        return descriptor

    def _unwatch(self, process: ProcessIdentity) -> dict[str, LocalRestore]:
        known = self._followed.pop(process)
        if known.descriptor is not None:
            self._loop.remove_reader(known.descriptor)
            os.close(known.descriptor)
        return known.restores

    def _end(self, process: ProcessIdentity) -> None:
        """A process has ended; with it the restores that have no other."""
        deadline = self._clock.monotonic() + GRACE_SECONDS
        for restore in self._unwatch(process).values():
            if not self._is_followed(restore):
                self._ending[restore.restore_id] = (restore, deadline)

    def _is_followed(self, restore: LocalRestore) -> bool:
        return any(process in self._followed for process in restore.client.processes)
