"""What the system says of a process from outside: memory, descriptors, threads."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

_JOURNAL = re.compile(r"/journal\.\d+( \(deleted\))?$")


@dataclass(frozen=True)
class Reading:
    """One look at a process. Memory is in KiB."""

    resident: int
    own: int
    """What is its alone, and was written to: what it has taken, without the files that it maps."""
    threads: int
    descriptors: Counter[str]
    """By what they are of; the journal's segment, which comes and goes, is left out."""


def read(pid: int) -> Reading:
    """Look at process `pid`."""
    process = Path("/proc") / str(pid)
    status = _numbers(process / "status")
    return Reading(
        resident=status["VmRSS"],
        own=_numbers(process / "smaps_rollup")["Private_Dirty"],
        threads=status["Threads"],
        descriptors=_descriptors(process / "fd"),
    )


def left_over(before: Reading, after: Reading) -> list[str]:
    """What there is after it that was not there before, in words."""
    more = after.descriptors - before.descriptors
    threads = after.threads - before.threads
    left = [f"{count} descriptors of {what}" for what, count in more.items()]
    return [*left, f"{threads} threads"] if threads > 0 else left


def _numbers(file: Path) -> dict[str, int]:
    lines = (line.partition(":") for line in file.read_text().splitlines())
    return {
        name: int(rest.split()[0]) for name, _, rest in lines if rest.split() and rest.split()[0].isdigit()
    }


def _descriptors(directory: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for each in directory.iterdir():
        try:
            target = str(each.readlink())
        except FileNotFoundError:
            continue  # closed since the directory was listed
        if not _JOURNAL.search(target):
            found[re.sub(r"[\w-]*\d[\w-]*", "N", target)] += 1
    return found
