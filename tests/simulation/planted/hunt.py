"""A copy of product and simulation, with a bug or without, and the seeds that it takes to find something there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.simulation.planted.patches import Bug

ROOT = Path(__file__).parents[3]
COPIED = ("agent_reporter", "tests/simulation")
HANGS = 600.0
"""Seconds of real time after which a hunt is given up."""

SEARCH = """
import json, sys
from tests.simulation.plan import plan_of
from tests.simulation.world import run

for seed in range(int(sys.argv[1]), int(sys.argv[1]) + int(sys.argv[2])):
    if violations := run(plan_of(seed)).violations:
        print(json.dumps([seed, *violations[0]]))
        break
"""


@dataclass(frozen=True)
class Found:
    """What came of a hunt."""

    seed: int | None
    """The first that found something; None if none of them did."""
    check: str
    what: str
    seconds: float


def copied(to: Path, bug: Bug | None = None) -> Path:
    """Make a copy in a directory, and plant `bug` there; raises DoesNotApplyError."""
    for name in COPIED:
        shutil.copytree(ROOT / name, to / name)
    (to / "tests/__init__.py").touch()
    for path, text in ({} if bug is None else bug.plant(to)).items():
        path.write_text(text, encoding="utf-8")
    return to


def hunt(copy: Path, first: int, seeds: int) -> Found:
    """Run seeds in a process of its own on a copy, until one finds something."""
    began = time.monotonic()
    try:
        told = subprocess.run(
            [sys.executable, "-c", SEARCH, str(first), str(seeds)],
            cwd=copy,
            env=os.environ | {"PYTHONPATH": str(copy)},
            check=True,
            capture_output=True,
            text=True,
            timeout=HANGS,
        ).stdout
    except subprocess.TimeoutExpired:
        told = ""
    except subprocess.CalledProcessError as problem:
        raise RuntimeError(f"{copy}: the simulation does not run: {problem.stderr[-1000:]}") from problem
    seconds = time.monotonic() - began
    if not told:
        return Found(None, "", "", seconds)
    seed, check, what = json.loads(told)
    return Found(seed, check, what, seconds)
