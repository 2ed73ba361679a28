"""The wire in CI: some seeds, that a seed is the same whenever it runs, and that the checks can fail."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.wire.command import main, run_seeds
from tests.wire.loop import WireLoop
from tests.wire.plan import plan_of
from tests.wire.world import run

ROOT = Path(__file__).parents[2]
SEEDS = int(os.environ.get("AGENT_REPORTER_TEST_WIRE_SEEDS", "30"))
"""So many seeds are run."""
BASE = 1_000
"""The first of them: the same for everybody, so that a change is not blamed for what it did not do."""


@pytest.mark.parametrize("seed", [1022, 1044, 1053])
def test_a_doubled_answer_is_not_that_of_the_next_request(seed: int) -> None:
    assert not run(plan_of(seed)).violations


def test_seeds_keep_every_invariant() -> None:
    total = run_seeds(range(BASE, BASE + SEEDS))
    again = "again: python -m tests.wire --trace --seed"
    assert not total.failed, "\n".join(
        f"{check}: {what}; {again} {seed}" for seed, check, what in total.failed
    )
    assert total.calm_connects * 5 < total.calm_requests


def test_a_seed_runs_the_same_in_every_process() -> None:
    here = run(plan_of(BASE)).trace_hash
    told = {
        subprocess.run(
            [sys.executable, "-m", "tests.wire", "--seed", str(BASE)],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1
    assert here in told.pop()


def test_different_seeds_run_differently() -> None:
    assert len({run(plan_of(seed)).trace_hash for seed in range(BASE, BASE + 5)}) == 5


def test_time_stands_still_while_a_thread_works() -> None:
    loop = WireLoop()  # type: ignore[abstract]  # what nobody asks for is not there
    seen: list[float] = []

    def work() -> None:
        seen.append(loop.time())
        time.sleep(0.02)
        seen.append(loop.time())
        loop.call_soon_threadsafe(done.set)

    async def main() -> None:
        loop.start_thread(1.0, "worker", work)
        loop.call_later(1.001, lambda: seen.append(-1.0))
        await done.wait()

    done = asyncio.Event()
    loop.run(main())
    assert seen == [1.0, 1.0]


def test_the_command_says_what_its_seeds_saw(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "2", "--from", str(BASE)]) == 0
    told = capsys.readouterr().out
    assert "2 seeds, 0 violations" in told
    assert "faults made" in told


def test_a_connection_that_is_kept_too_long_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agent_reporter.control_plane.http.KEEP_ALIVE_SECONDS", 120.0)
    assert main(["--seed", "7"]) == 1
    assert "reused_in_time" in capsys.readouterr().out
