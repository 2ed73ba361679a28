"""The simulation in CI: seeds that once failed, more of them, and that a seed is the same whenever it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.command import failed_seeds, main, run_seeds
from tests.simulation.plan import plan_of
from tests.simulation.shrink import shrunk
from tests.simulation.world import Outcome, run

ROOT = Path(__file__).parents[2]
FRESH = int(os.environ.get("AGENT_REPORTER_TEST_SEEDS", "150"))
"""So many more seeds are run."""
BASE = int(os.environ.get("AGENT_REPORTER_TEST_SEEDS_FROM", "500000"))
"""The first of them: the same for everybody, so that a change is not blamed for what it did not do."""


def said(outcome: Outcome) -> str:
    return "\n".join(f"{check}: {what}" for check, what in outcome.violations)


@pytest.mark.parametrize("seed", failed_seeds())
def test_a_seed_that_once_failed_does_not(seed: int) -> None:
    outcome = run(plan_of(seed))
    assert not outcome.violations, said(outcome)


def test_more_seeds_keep_every_invariant() -> None:
    total = run_seeds(range(BASE, BASE + FRESH))
    again = "again: python -m tests.simulation --trace --shrink --seed"
    assert not total.failed, "\n".join(
        f"{check}: {what}; {again} {seed}" for seed, check, what in total.failed
    )


def test_a_seed_runs_the_same_in_every_process() -> None:
    assert run(plan_of(7)).trace_hash == run(plan_of(7)).trace_hash
    told = {
        subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "7"],
            cwd=ROOT,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(told) == 1
    assert run(plan_of(7)).trace_hash in told.pop()


def test_different_seeds_run_differently() -> None:
    assert len({run(plan_of(seed)).trace_hash for seed in range(10)}) == 10


def test_the_command_says_what_its_seeds_saw(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "3", "--from", "50"]) == 0
    said_there = capsys.readouterr().out
    assert f"{len(failed_seeds()) + 3} seeds, 0 violations" in said_there
    assert "seeds that saw" in said_there


def test_a_result_that_is_not_durable_is_found_and_made_small(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("agent_reporter.keeper.Keeper.keep_result", lambda _keeper, _report: "")
    assert main(["--seeds", "20", "--no-shrink"]) == 1
    told = capsys.readouterr().out
    assert "result_kept" in told
    first = int(told.rpartition("first failing seed: ")[2])
    outcome = run(plan_of(first))
    small = shrunk(outcome, seconds=5.0)
    assert any(check == outcome.violations[0][0] for check, _ in small.violations)
    assert len(small.plan.happenings) <= len(outcome.plan.happenings)
