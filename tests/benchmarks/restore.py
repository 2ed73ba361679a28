"""A whole restore: restic through `run`, beside restic alone, and beside what people write themselves.

All take turns, in an order that changes. TMPDIR says where: on a file system in memory, what a disk does besides
does not count, and what is added stands out most.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.benchmarks.control_plane import PROJECT, TOKEN, ControlPlane, control_plane
from tests.benchmarks.goals import Goal, UntrueError
from tests.benchmarks.rounds import FULL, NOT_INSTALLED
from tests.engines.real_restic import binaries, make_repository

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.benchmarks.rounds import Effort
    from tests.engines.real_restic import RealRestic, Repository

BARE, REPORTED = "restic alone", "restic through run"
CURL, REQUESTS = "restic piped to a curl a line", "restic piped to a script with requests, once a second"
_CURL = """
"$@" --json | while read -r line; do
    printf '[{"op": "replace", "path": "/bytes_restored", "value": %s}]' \\
        "$(printf %s "$line" | sed -n 's/.*"bytes_restored":\\([0-9]*\\).*/\\1/p;t;s/.*/0/p')" |
    curl -s -o /dev/null -X PATCH -H 'Content-Type: application/json-patch+json' -H "X-Auth-Token: $TOKEN" \\
        --data-binary @- "$URL"
done
"""
_REQUESTS = """
import json, os, subprocess, sys, time, requests
session, last = requests.Session(), 0.0
session.trust_env = False
session.headers.update({"X-Auth-Token": os.environ["TOKEN"], "Content-Type": "application/json-patch+json"})
with subprocess.Popen([*sys.argv[1:], "--json"], stdout=subprocess.PIPE) as restic:
    for line in restic.stdout:
        if time.monotonic() - last > 1:
            last, value = time.monotonic(), json.loads(line).get("bytes_restored", 0)
            patch = [{"op": "replace", "path": "/bytes_restored", "value": value}]
            session.patch(os.environ["URL"], data=json.dumps(patch))
"""
_MARKED = """#!/bin/sh
date +%s.%N > "$MARKS/begun"
"$RESTIC" "$@"
status=$?
date +%s.%N > "$MARKS/ended"
times > "$MARKS/times"
exit $status
"""
"""Restic for `run`, which notes when it began and ended and what processor it took: the rest is `run`'s own."""
WALL_LIMIT, CPU_LIMIT = 1.01, 0.02
"""Of restic alone, and of a core."""


@dataclass(frozen=True)
class Size:
    """What is restored, and how many rounds there are."""

    files: int
    file_bytes: int
    rounds: int


LARGE = Size(files=50_000, file_bytes=20_000, rounds=7)
SMALL = Size(files=100, file_bytes=20_000, rounds=2)


@dataclass(frozen=True)
class Own:
    """What of that is `run`'s own, in seconds."""

    before: float
    """Until the engine began."""
    after: float
    """From its end on."""
    cpu: float


@dataclass(frozen=True)
class Cost:
    """What one restore took, with all of its processes, in seconds."""

    wall: float
    cpu: float
    begun: float
    """On the wall clock."""
    own: Own | None = None
    """Of `run` alone."""


Round = dict[str, Cost]


def run(effort: Effort) -> list[Goal]:
    """Measure and print; raises UntrueError if a record of `run`'s is not true."""
    versions = [restic for restic in binaries() if restic.speaks_json]
    if not versions:
        print(f"{REPORTED} / {BARE}: restic 0.16 or later is {NOT_INSTALLED}")
        return _goals([])
    size = LARGE if effort is FULL else SMALL
    with tempfile.TemporaryDirectory(prefix="agent-reporter-benchmark-") as name:
        restic = versions[-1]
        repository = make_repository(Path(name), restic, files=size.files, file_bytes=size.file_bytes)
        stage = Stage(Path(name) / "target", restic, repository)
        stage.cost(BARE)  # the first one is not counted
        rounds = []
        for _ in range(size.rounds):
            order = stage.contestants()
            random.shuffle(order)
            rounds.append({each: stage.cost(each) for each in order})
    _print(f"{restic}: {size.files:,} files, {repository.bytes / 1e9:g} GB", rounds)
    return _goals(rounds)


class Stage:
    """What is restored, and where to."""

    def __init__(self, target: Path, restic: RealRestic, repository: Repository) -> None:
        self._target = target
        self._command = [restic.path, "restore", "latest", "--target", str(target)]
        self._repository = repository

    def contestants(self) -> list[str]:
        """Those that can be had here."""
        peers = [CURL] if shutil.which("curl") else []
        return [BARE, REPORTED, *peers, *([REQUESTS] if find_spec("requests") else [])]

    def cost(self, name: str) -> Cost:
        """Of one restore by the contestant called `name`."""
        environment = self._repository.environment()
        if name == BARE:
            return _cost(self._command, environment, self._target)
        with control_plane() as server:
            if name == REPORTED:
                cost = self._reported_cost(environment, server)
                known = server.document()
                if (known["state"], known["bytes_restored"]) != ("completed", self._repository.bytes):
                    raise UntrueError(f"the record of a restore of {self._repository.bytes} bytes is {known}")
                return cost
            script = ["sh", "-c", _CURL, "sh"] if name == CURL else [sys.executable, "-c", _REQUESTS]
            variables = {"URL": server.restore_url, "TOKEN": TOKEN, "RESTIC_PROGRESS_FPS": "5"}
            return _cost([*script, *self._command], environment | variables, self._target)

    def _reported_cost(self, environment: dict[str, str], server: ControlPlane) -> Cost:
        restic, *arguments = self._command
        marked = server.directory / "restic"
        marked.write_text(_MARKED)
        marked.chmod(0o700)
        command, environment = _reported([str(marked), *arguments], environment, server)
        environment |= {"MARKS": str(server.directory), "RESTIC": str(restic)}
        cost = _cost(command, environment, self._target)
        begun, ended = (float((server.directory / mark).read_text()) for mark in ("begun", "ended"))
        of_engine = sum(map(_seconds, (server.directory / "times").read_text().split()))
        own = Own(begun - cost.begun, cost.begun + cost.wall - ended, cost.cpu - of_engine)
        return replace(cost, own=own)


def _seconds(shown: str) -> float:
    """What `times` of a shell shows as 1m2.50s."""
    minutes, _, seconds = shown.removesuffix("s").partition("m")
    return 60 * float(minutes) + float(seconds)


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
    at, before, begun = time.time(), os.times(), time.perf_counter()
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - begun, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(wall, cpu, at)


def _ratio(rounds: Sequence[Round], name: str) -> float:
    return median(each[name].wall / each[BARE].wall for each in rounds)


def _added(rounds: Sequence[Round], name: str) -> float:
    """Of a core, by the whole of what `name` runs."""
    return median((each[name].cpu - each[BARE].cpu) / each[name].wall for each in rounds)


def _goals(rounds: Sequence[Round]) -> list[Goal]:
    wall, cpu = (_ratio(rounds, REPORTED), _added(rounds, REPORTED)) if rounds else (None, None)
    return [
        Goal(f"{REPORTED}, wall", BARE, wall, WALL_LIMIT),
        Goal(f"{REPORTED}, CPU added", BARE, cpu, CPU_LIMIT, "of a core"),
    ]


def _print(title: str, rounds: Sequence[Round]) -> None:
    table = Table(title=title, title_justify="left")
    for heading in (
        "restore",
        "wall",
        "CPU",
        "wall, ratio",
        "CPU added, of a core",
        "wall, ratios of the rounds",
    ):
        table.add_column(heading, justify="right" if table.columns else "left")
    for name in (BARE, REPORTED, CURL, REQUESTS):
        if name not in rounds[0]:
            table.add_row(name, NOT_INSTALLED)
            continue
        wall, cpu = (median(getattr(each[name], field) for each in rounds) for field in ("wall", "cpu"))
        ratios = sorted(each[name].wall / each[BARE].wall for each in rounds)
        table.add_row(
            name,
            f"{wall:.2f} s",
            f"{cpu:.2f} s",
            f"{_ratio(rounds, name):.3f}",
            f"{_added(rounds, name):.3f}",
            "" if name == BARE else " ".join(f"{ratio:.3f}" for ratio in ratios),
        )
    console = Console()
    console.width = max(console.width, 180)
    console.print(table)
    own = [each[REPORTED].own for each in rounds]
    before, after, cpu = (
        1_000 * median(getattr(one, field) for one in own) for field in ("before", "after", "cpu")
    )
    print(
        f"of that run's own: {before:.0f} ms until restic begins, {after:.0f} ms from its end on, "
        f"{cpu:.0f} ms of CPU in all"
    )
