"""That the benchmarks run and count right. Their figures are for people, on a quiet machine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from agent_reporter.engines.catalogue import OWN
from agent_reporter.engines.lines import LineSplitter
from tests.benchmarks import parsing
from tests.benchmarks.__main__ import GROUPS, main
from tests.benchmarks.goals import Goal, UntrueError
from tests.benchmarks.rounds import NOT_INSTALLED, QUICK

ROOT = Path(__file__).parent.parent
OURS = (
    "a bare method that stores two attributes",
    "a method with the same names that does nothing",
    "job.progress",
    "job.progress, with a Reporter beside it",
    "job.advance, one thread",
    "job.advance, eight threads",
    "loop.call_soon_threadsafe",
)
PEERS = ("tqdm.update", "prometheus_client Counter.inc", "OpenTelemetry Counter.add")
WITHOUT_PEERS = """
import runpy, sys
for name in ("tqdm", "prometheus_client", "opentelemetry"):
    sys.modules[name] = None
sys.argv.insert(1, "hot_path")
runpy.run_module("tests.benchmarks", run_name="__main__", alter_sys=True)
"""
TARGETS = {
    "hot_path": 4,
    "parsing": len(OWN),
    "restore": 2,
    "rates": 2,
    "latency": 3,
    "starts": 12,
    "memory": 6,
    "scaling": 3,
    "idle": 2,
    "traffic": 3,
}
"""How many each group has."""


def benchmark(*command: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", *command, "--quick"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout.splitlines()


def cells(lines: list[str], name: str) -> list[str]:
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in lines]
    return next(row[1:] for row in rows if len(row) > 1 and row[0] == name)


def is_measured(lines: list[str], name: str) -> bool:
    figures = cells(lines, name)
    return len(figures) == 3 and all(cell.replace(".", "", 1).isdecimal() for cell in figures)


@pytest.mark.parametrize("group", GROUPS)
def test_each_group_prints_its_targets_and_draws_them(group: str, tmp_path: Path) -> None:
    chart = tmp_path / "chart.png"
    lines = benchmark("-m", "tests.benchmarks", group, "--chart", str(chart))
    assert sum(" at most " in line or " at least " in line for line in lines) == TARGETS[group]
    assert chart.read_bytes().startswith(b"\x89PNG")


def test_each_call_is_printed_and_what_was_counted_is_exact() -> None:
    lines = benchmark("-m", "tests.benchmarks", "hot_path")
    for name in OURS:
        assert is_measured(lines, name), name
    for name in PEERS:
        assert is_measured(lines, name) or cells(lines, name)[0] == NOT_INSTALLED, name
    for name in ("job.advance, one thread", "job.advance, eight threads", "job.progress"):
        assert f"{name}: exact" in lines
    assert "job.progress, with a Reporter beside it: exact" in lines


def test_a_peer_that_is_not_installed_is_a_row_that_says_so() -> None:
    lines = benchmark("-c", WITHOUT_PEERS)
    for name in PEERS:
        assert cells(lines, name)[0] == NOT_INSTALLED
    for name in OURS:
        assert is_measured(lines, name), name
    assert any("tqdm.update" in line and line.strip("│ ").endswith(NOT_INSTALLED) for line in lines)


def test_a_line_that_no_reader_had_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(LineSplitter):
        def feed(self, chunk: bytes) -> list[str]:
            return super().feed(chunk)[1:]

    monkeypatch.setattr(parsing, "LineSplitter", Forgetful)
    with pytest.raises(UntrueError, match="the reader had"):
        parsing.run(QUICK)


def test_a_target_is_met_on_its_own_side_only() -> None:
    assert Goal("a", "b", 2.0, 2.0).is_met
    assert not Goal("a", "b", 2.1, 2.0).is_met
    assert Goal("a", "b", 3.0, 3.0, is_floor=True).is_met
    assert not Goal("a", "b", 2.9, 3.0, is_floor=True).is_met
    assert Goal("a", "b", None, 3.0).is_met is None


def test_what_the_others_measured_is_shown_though_a_group_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(_: object) -> list[Goal]:
        raise ZeroDivisionError("no rounds")

    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)  # as `main` does, and as it was afterwards
    monkeypatch.setattr(sys, "argv", ["benchmarks", "rates", "idle", "--quick"])
    monkeypatch.setitem(GROUPS, "rates", fails)
    monkeypatch.setitem(GROUPS, "idle", lambda _: [Goal("wake-ups of an idle daemon", "-", 0.3, 1.0)])
    assert main() == 1
    shown = capsys.readouterr()
    assert "wake-ups of an idle daemon" in shown.out
    assert "untrue: rates failed: ZeroDivisionError: no rounds" in shown.out
    assert "ZeroDivisionError" in shown.err


def test_a_group_that_is_not_there_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", "cold_path"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "there is no group cold_path" in done.stderr
