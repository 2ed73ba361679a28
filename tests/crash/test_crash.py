"""A fixed sample of the points that `python -m tests.crash` plays, and that what plays them can be believed."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import pytest

from agent_reporter.reference import ReferenceServer
from tests.crash.faults import CALLS, Fault, Point
from tests.crash.play import points_of, theatre, why_impossible
from tests.crash.programs import PROGRAMS
from tests.crash.truth import (
    End,
    Kind,
    message_untruths,
    record_untruths,
    spool_untruths,
)
from tests.endtoend.agent import TOKEN

if TYPE_CHECKING:
    from pathlib import Path

SAMPLE = [
    ("run", Point(Fault.KILL, "rename", ".IDa.json.new", 3)),
    ("run", Point(Fault.FULL, "openat", ".IDa.json.new", 2)),
    ("daemon", Point(Fault.KILL, "fdatasync", "journal.1", 4)),
]
WRITER = """
import os, sys, threading
def write(name):
    file = os.open(os.path.join(sys.argv[1], name), os.O_WRONLY | os.O_CREAT)
    try:
        print(name, os.write(file, b"12345678"), flush=True)
        os.fsync(file)
    except OSError as problem:
        print(name, problem.errno, flush=True)
for name in "ab":
    thread = threading.Thread(target=write, args=(name,))
    thread.start()
    thread.join()
"""
"""Writes two files, each in a thread of its own."""


@cache
def why_not() -> str:
    return why_impossible()


@pytest.fixture
def traceable() -> None:
    if why := why_not():
        pytest.skip(f"the crash matrix is not played: {why}")


@pytest.mark.parametrize(("name", "point"), SAMPLE, ids=str)
async def test_a_record_is_true_whatever_happens_at_a_call(
    name: str, point: Point, traceable: None, tmp_path: Path
) -> None:
    program = next(program for program in PROGRAMS if program.name == name)
    async with theatre(tmp_path) as stage:
        await stage.prepare(program)
        played = await stage.play(program, point)
    assert played.has_hit, played.calls
    assert played.untruths == []


def traced(directory: Path, point: Point | None, text: str = WRITER) -> tuple[int, str, list[str]]:
    """The exit status and output of a small program, and the calls that were seen."""
    words = [str(directory / "calls"), str(directory / "spool"), "" if point is None else point.encode()]
    (directory / "spool").mkdir()
    came = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.crash.tracer",
            *words,
            "--",
            sys.executable,
            "-c",
            text,
            f"{directory}/spool",
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    return came.returncode, came.stdout, (directory / "calls").read_text().splitlines()


def test_a_program_that_meets_no_fault_ends_as_it_does_alone(traceable: None, tmp_path: Path) -> None:
    status, out, calls = traced(tmp_path, None)
    assert (status, out) == (0, "a 8\nb 8\n")
    assert sum('"write"' in call for call in calls) == 2


def test_an_error_is_met_by_one_call_of_one_thread(traceable: None, tmp_path: Path) -> None:
    _, out, calls = traced(tmp_path, Point(Fault.EIO, "fsync", "b", 1))
    assert out == "a 8\nb 8\nb 5\n"
    assert sum('"hit": true' in call for call in calls) == 1


def test_an_error_that_lasts_is_met_by_all_calls_after_it(traceable: None, tmp_path: Path) -> None:
    _, out, _ = traced(tmp_path, Point(Fault.FULL, "write", "a", 1))
    assert out == "a 28\n"  # and the other thread could not open its file
    assert not (tmp_path / "spool" / "b").exists()


def test_a_short_write_writes_the_first_half(traceable: None, tmp_path: Path) -> None:
    _, out, _ = traced(tmp_path, Point(Fault.SHORT, "write", "b", 1))
    assert out == "a 8\nb 4\n"
    assert (tmp_path / "spool" / "b").read_bytes() == b"1234"


def test_a_kill_comes_before_the_call_does_anything(traceable: None, tmp_path: Path) -> None:
    status, out, _ = traced(tmp_path, Point(Fault.KILL, "write", "b", 1))
    assert (status, out) == (137, "a 8\n")
    assert (tmp_path / "spool" / "b").read_bytes() == b""


def test_every_call_is_played_with_every_fault_that_fits_it() -> None:
    calls = [{"call": call.name, "on": on, "nth": 1} for call in CALLS.values() for on in ("net", "ID.json")]
    assert len(points_of(calls, Fault.KILL)) == len(calls)
    assert {point.on for point in points_of(calls, Fault.RESET)} == {"net"}
    assert {point.on for point in points_of(calls, Fault.ENOSPC)} == {"ID.json"}
    assert {point.call for point in points_of(calls, Fault.SHORT)} == {"write", "sendto"}
    changing = points_of(calls, Fault.KILL, kills_at_looks=False)
    assert {"rename", "fsync", "unlink", "write", "sendto", "recvfrom"} <= {point.call for point in changing}
    assert "newfstatat" not in {point.call for point in changing}


def test_a_point_is_the_same_after_it_was_an_argument() -> None:
    for _, point in SAMPLE:
        assert Point.decode(point.encode()) == point
    assert Point.decode("") is None


async def test_a_record_that_is_not_true_is_found(tmp_path: Path) -> None:
    async with ReferenceServer(tmp_path, token=TOKEN) as server:
        running, failed = server.start_restore(state="in_progress"), server.start_restore(state="failed")
        kinds = {untruth.kind for untruth in record_untruths(server, running, End("completed"))}
        assert kinds == {Kind.LOST}
        assert (
            record_untruths(server, failed, End("failed", "", 0, 0))[0].what == "the record has no end time"
        )
        for end in (End("completed"), End("failed", "reporter_lost"), End("failed", "", 4, 0)):
            assert len(record_untruths(server, failed, end)) == 2


def test_what_is_left_in_the_spool_is_found(tmp_path: Path) -> None:
    (tmp_path / "dead").mkdir()
    assert spool_untruths(tmp_path) == []
    for name in (".ID.json.new", "ID.lock", "dead/ID.json", "journal.1"):
        (tmp_path / name).touch()
    assert len(spool_untruths(tmp_path)) == 4
    assert len(spool_untruths(tmp_path, may_be=("journal.",))) == 3


def test_a_stack_trace_is_no_message() -> None:
    assert message_untruths("run", "spool.write_failed: make room") == []
    assert message_untruths("run", "Traceback (most recent call last):") != []
