"""A whole restore: restic through `run`, beside restic alone, in pairs that take turns in which comes first.

TMPDIR says where: on a file system in memory, what a disk does besides does not count.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.benchmarks.control_plane import PROJECT, ControlPlane, control_plane
from tests.benchmarks.rounds import FULL, NOT_INSTALLED
from tests.engines.real_restic import binaries, make_repository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.rounds import Effort
    from tests.engines.real_restic import RealRestic, Repository

BARE, REPORTED = "restic alone", "restic through run"


@dataclass(frozen=True)
class Size:
    """What is restored, and how many pairs of restores there are."""

    files: int
    file_bytes: int
    pairs: int


LARGE = Size(files=50_000, file_bytes=20_000, pairs=10)
SMALL = Size(files=100, file_bytes=20_000, pairs=2)


@dataclass(frozen=True)
class Cost:
    """What one restore took, with all of its processes."""

    wall: float
    cpu: float


def run(effort: Effort) -> bool:
    """Measure and print; returns whether every record was true."""
    versions = [restic for restic in binaries() if restic.speaks_json]
    if not versions:
        print(f"{REPORTED} / {BARE}: restic 0.16 or later is {NOT_INSTALLED}")
        return True
    size = LARGE if effort is FULL else SMALL
    with tempfile.TemporaryDirectory(prefix="agent-reporter-benchmark-") as name:
        restic = versions[-1]
        repository = make_repository(Path(name), restic, files=size.files, file_bytes=size.file_bytes)
        pairs, are_true = _pairs(Path(name), restic, repository, size.pairs)
    _print(f"{restic}: {size.files:,} files, {repository.bytes / 1e9:g} GB", pairs)
    print(f"records that are true: {'all' if are_true else 'NOT all'}")
    return are_true


def _pairs(
    directory: Path, restic: RealRestic, repository: Repository, count: int
) -> tuple[list[dict[str, Cost]], bool]:
    """`count` pairs, after one restore that is not counted."""
    target = directory / "target"
    command = [restic.path, "restore", "latest", "--target", str(target)]
    environment = repository.environment()
    _cost(command, environment, target)
    pairs, are_true = [], True
    for _ in range(count):
        order = [BARE, REPORTED]
        random.shuffle(order)
        pair = {}
        for name in order:
            if name == BARE:
                pair[name] = _cost(command, environment, target)
                continue
            with control_plane() as server:
                pair[name] = _cost(*_reported(command, environment, server), target)
                known = server.document()
                expected = ("completed", repository.bytes)
                are_true = are_true and (known["state"], known["bytes_restored"]) == expected
        pairs.append(pair)
    return pairs, are_true


def _reported(
    command: Sequence[str], environment: dict[str, str], server: ControlPlane
) -> tuple[list[str], dict[str, str]]:
    settings = {
        "AGENT_REPORTER_ENDPOINT": server.url,
        "AGENT_REPORTER_PROJECT_ID": PROJECT,
        "AGENT_REPORTER_TOKEN_FILE": str(server.token_file),
        "AGENT_REPORTER_SPOOL_DIR": str(server.directory / "spool"),
        "AGENT_REPORTER_DAEMON": "never",
    }
    agent = [sys.executable, "-m", "agent_reporter.cli.main", "run", "--restore-id", server.restore_id, "--"]
    return [*agent, *command], environment | settings


def _cost(command: Sequence[str], environment: dict[str, str], target: Path) -> Cost:
    """Run `command` into an empty target, with nothing left to write from before."""
    shutil.rmtree(target, ignore_errors=True)
    os.sync()
    before, begun = os.times(), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begun, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(wall, cpu)


def _print(title: str, pairs: Sequence[dict[str, Cost]]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in ("restore", "wall, median", "CPU, median", "wall, ratios of the pairs"):
        table.add_column(heading, justify="right" if table.columns else "left")
    ratios = sorted(pair[REPORTED].wall / pair[BARE].wall for pair in pairs)
    for name in (BARE, REPORTED):
        wall, cpu = (median(getattr(pair[name], field) for pair in pairs) for field in ("wall", "cpu"))
        shown = "" if name == BARE else " ".join(f"{ratio:.3f}" for ratio in ratios)
        table.add_row(name, f"{wall:.2f} s", f"{cpu:.2f} s", shown)
    console = Console()
    console.width = max(console.width, 140)
    console.print(table)
    added = median((pair[REPORTED].cpu - pair[BARE].cpu) / pair[REPORTED].wall for pair in pairs)
    print(f"{REPORTED} / {BARE}: {median(ratios):.3f} in wall, median of {len(ratios)} pairs")
    print(f"CPU added: {added:.1%} of a core, median")
