"""That the benchmarks run and count right. Their figures are for people, on a quiet machine."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent_reporter.engines.catalogue import OWN
from agent_reporter.engines.lines import LineSplitter
from tests.benchmarks import parsing
from tests.benchmarks.rounds import NOT_INSTALLED, QUICK

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parent.parent
OURS = (
    "a bare method that stores two attributes",
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
runpy.run_module("tests.benchmarks", run_name="__main__", alter_sys=True)
"""


def benchmark(*command: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", *command, "--quick"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
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


def test_each_row_is_printed_and_what_was_counted_is_exact() -> None:
    lines = benchmark("-m", "tests.benchmarks")
    for name in OURS:
        assert is_measured(lines, name), name
    for name in PEERS:
        assert is_measured(lines, name) or cells(lines, name)[0] == NOT_INSTALLED, name
    for name in ("job.advance, one thread", "job.advance, eight threads", "job.progress"):
        assert f"{name}: exact" in lines
    assert "job.progress, with a Reporter beside it: exact" in lines
    for engine in OWN:
        verdict = rf"{engine}: \d+\.\d\d of a core at 100,000 lines a second, (NOT )?under 0\.5 of a core"
        assert any(re.fullmatch(verdict, line) for line in lines), engine


def test_a_peer_that_is_not_installed_is_a_row_that_says_so() -> None:
    lines = benchmark("-c", WITHOUT_PEERS)
    for name in PEERS:
        assert cells(lines, name)[0] == NOT_INSTALLED
    for name in OURS:
        assert is_measured(lines, name), name
    assert "tqdm.update / job.progress: not installed" in lines


def test_a_line_that_no_reader_had_is_missed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Forgetful(LineSplitter):
        def feed(self, chunk: bytes) -> list[str]:
            return super().feed(chunk)[1:]

    monkeypatch.setattr(parsing, "LineSplitter", Forgetful)
    assert not parsing.run(QUICK)
    assert capsys.readouterr().out.count(": the reader had ") == len(OWN)


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
