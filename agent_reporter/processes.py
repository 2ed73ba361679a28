"""Which process is meant, also after its number went to another: reading /proc, and signalling."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from agent_reporter.model.process_identity import ProcessIdentity

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_ENDED = frozenset("ZXx")
MAX_PID = 2**22
"""The most that Linux ever numbers processes to."""


@dataclass(frozen=True, slots=True)
class ProcessStat:
    """What /proc says of a process now."""

    pid: int
    state: str
    parent: int
    session: int
    start_ticks: int

    @property
    def has_ended(self) -> bool:
        """Whether it only waits to be reaped."""
        return self.state in _ENDED

    @property
    def identity(self) -> ProcessIdentity:
        """Who it is."""
        return ProcessIdentity(self.pid, self.start_ticks, boot_id())


@cache
def boot_id() -> str:
    """The id of this boot."""
    return _BOOT_ID.read_bytes().decode().strip()


def read_stat(pid: int) -> ProcessStat | None:
    """What /proc says of `pid`; None if there is no such process, or it may not be seen.

    Raises OSError where that cannot be told now, such as for want of a descriptor.
    """
    if not 0 < pid <= MAX_PID:
        return None
    try:
        content = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    # The name, in parentheses, may hold anything, so count from its end: state is the third field.
    fields = content.rpartition(b")")[2].split()
    return ProcessStat(pid, fields[0].decode("ascii"), int(fields[1]), int(fields[3]), int(fields[19]))


def all_stats() -> dict[int, ProcessStat]:
    """Every process that may be seen, by pid. Raises OSError rather than leave one out."""
    stats = (read_stat(int(name)) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208 - names suffice
    return {stat.pid: stat for stat in stats if stat is not None}


def identity(pid: int) -> ProcessIdentity | None:
    """Who `pid` is now; None if no process has that number. A zombie still has an identity."""
    stat = read_stat(pid)
    return None if stat is None else stat.identity


def is_alive(process: ProcessIdentity) -> bool:
    """Whether that very process still runs. A zombie does not, and nothing of an earlier boot does."""
    if process.boot_id != boot_id():
        return False
    stat = read_stat(process.pid)
    return stat is not None and stat.start_ticks == process.start_ticks and not stat.has_ended


def own_identity() -> ProcessIdentity:
    """Who this process is."""
    return identity(os.getpid()) or ProcessIdentity(os.getpid(), 0, boot_id())


def send_signal(process: ProcessIdentity, number: signal.Signals) -> bool:
    """Signal that very process, never another that got its number; False if it is gone.

    Raises PermissionError if it belongs to somebody else.
    """
    if not 0 < process.pid <= MAX_PID:
        return False
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        return _send_signal_by_number(process, number)
    try:
        # The descriptor holds on to one process; the check says that it is the one that is meant.
        if not is_alive(process):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def _send_signal_by_number(process: ProcessIdentity, number: signal.Signals) -> bool:
    """For kernels before 5.3, which have no pidfd: as sure as can be there."""
    if not is_alive(process):
        return False
    try:
        os.kill(process.pid, number)
    except ProcessLookupError:
        return False
    return True
