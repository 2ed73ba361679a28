"""What an engine's processes have written, by the counters that the kernel keeps in /proc/PID/io.

The counters of a process include those of the children it has reaped: what a child wrote moves to its parent
when the child is gone. It is lost when nobody reaps the child, and when the agent does, to which orphans are
given. So a tree is looked at again and again, and what is lost is added from the last look.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from agent_reporter.model.process_identity import ProcessIdentity
    from agent_reporter.processes import ProcessStat

_UNEVEN_BYTES_PER_CALL = 2 * 4096
"""A call dirties whole pages, of which it may fill the first and the last in part."""
_FAIR_PART = 8
"""Data for a disk is at least the eighth part of all that is written on its way, through a few pipes."""
_MAX_GONE = 1000
"""As many processes are known again that only were not seen for a while."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written; every one of these includes the children that were reaped."""

    bytes_by_calls: int = 0
    """Bytes that went to files, pipes, sockets and terminals alike (`wchar`)."""
    bytes_to_disks: int = 0
    """Bytes of the pages that were changed, where a disk is behind them (`write_bytes`)."""
    calls: int = 0
    """Write calls (`syscw`)."""

    def __add__(self, other: Written) -> Written:
        return Written(
            self.bytes_by_calls + other.bytes_by_calls,
            self.bytes_to_disks + other.bytes_to_disks,
            self.calls + other.calls,
        )

    def beyond(self, other: Written) -> Written:
        """What is more than in `other`."""
        return Written(
            max(0, self.bytes_by_calls - other.bytes_by_calls),
            max(0, self.bytes_to_disks - other.bytes_to_disks),
            max(0, self.calls - other.calls),
        )

    def at_most(self, other: Written) -> Written:
        """What is not more than in `other`."""
        return self.beyond(self.beyond(other))


@dataclass(frozen=True, slots=True)
class Data:
    """How much of what a tree wrote is data, as far as can be told."""

    bytes: int = 0
    has_pipes: bool = False
    """Whether that holds also what went into pipes between processes, over a network and to /dev/null."""


def data_of(written: Written, printed_bytes: int, unread_bytes: int = 0) -> Data:
    """The data in what a tree wrote: what is on disks, if that is a fair part of it, else all of it.

    `printed_bytes` were read from the pipes of the engine's output, `unread_bytes` may still be in them.
    """
    by_calls = max(0, written.bytes_by_calls - printed_bytes)
    at_least = max(0, by_calls - unread_bytes)
    if written.bytes_to_disks * _FAIR_PART < at_least:
        return Data(at_least, has_pipes=True)  # in memory: on a disk there is no more than a log
    if written.bytes_to_disks > by_calls + written.calls * _UNEVEN_BYTES_PER_CALL:
        return Data(written.bytes_to_disks)  # by asynchronous IO or into mapped files: no call counts that
    # Calls count a pipeline's data in each of its processes, pages are more than a small file holds.
    return Data(min(by_calls, written.bytes_to_disks))


@dataclass(frozen=True, slots=True)
class Sample:
    """One process in one look."""

    process: ProcessIdentity
    parent: ProcessIdentity | None
    """None if that is not in the tree."""
    written: Written | None
    """None if it may not be known, as of another user's process."""


class TreeTotal:
    """Adds up looks at a tree. Pure; no part of the total ever goes down."""

    def __init__(self) -> None:
        self._parents: dict[ProcessIdentity, ProcessIdentity | None] = {}
        self._counts: dict[ProcessIdentity, Written] = {}
        self._lost = Written()
        self._gone: dict[ProcessIdentity, Written] = {}
        self.written = Written()
        """What all have written that are or were there. May be read in any thread."""
        self.has_unreadable = False
        """Whether there ever was a process whose counters may not be read."""

    def add(self, samples: Iterable[Sample]) -> None:
        """Take in a look that saw the whole tree."""
        now = {sample.process: sample for sample in samples}
        inherited = self._inherited(now)
        known = self._counts | self._come_back(now)
        counts = {}
        for process, sample in now.items():
            least = known.get(process, Written()) + inherited[process]
            if sample.written is None:
                self.has_unreadable = True
                counts[process] = least  # what it will hand on to its own parent, as far as is known
            else:
                counts[process] = sample.written
                self._lost += least.beyond(sample.written)
        self._lost += inherited[None]
        self._remember_gone(now)
        self._counts = counts
        self._parents = {process: sample.parent for process, sample in now.items()}
        self.written = sum(counts.values(), self._lost)

    def _inherited(self, now: Iterable[ProcessIdentity]) -> defaultdict[ProcessIdentity | None, Written]:
        """What was counted of those who are gone, by the nearest ancestor who is there; None for nobody."""
        there = set(now)
        inherited: defaultdict[ProcessIdentity | None, Written] = defaultdict(Written)
        for process, count in self._counts.items():
            if process not in there:
                heir = self._parents[process]
                while heir is not None and heir not in there:
                    heir = self._parents[heir]
                inherited[heir] += count
        return inherited

    def _come_back(self, now: Iterable[ProcessIdentity]) -> dict[ProcessIdentity, Written]:
        """What was taken for lost of those who were only not seen, and is not lost any more."""
        found = {}
        for process in now:
            if (count := self._gone.pop(process, None)) is not None:
                found[process] = count.at_most(self._lost)
                self._lost = self._lost.beyond(found[process])
        return found

    def _remember_gone(self, now: Collection[ProcessIdentity]) -> None:
        self._gone |= {process: count for process, count in self._counts.items() if process not in now}
        while len(self._gone) > _MAX_GONE:
            del self._gone[next(iter(self._gone))]


def read_samples(members: Sequence[ProcessStat]) -> list[Sample] | None:
    """What each of `members` has written by now; None if one of them was reaped meanwhile.

    Parents are read before their children, so nothing of a child that is read was in its parent yet.
    """
    by_pid = {stat.pid: stat.identity for stat in members}
    samples = []
    for stat in sorted(members, key=lambda stat: (stat.start_ticks, stat.pid)):
        try:
            written = _read(stat.pid)
        except (FileNotFoundError, ProcessLookupError):
            return None
        samples.append(Sample(stat.identity, by_pid.get(stat.parent), written))
    return samples


def _read(pid: int) -> Written | None:
    """The counters of `pid`, of a zombie, too; None if they are not ours to read."""
    try:
        content = Path(f"/proc/{pid}/io").read_bytes()
    except PermissionError:
        return None
    counters = dict(line.split(b": ") for line in content.splitlines())
    return Written(int(counters[b"wchar"]), int(counters[b"write_bytes"]), int(counters[b"syscw"]))
