from __future__ import annotations

import asyncio
import errno
import os
import signal
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from agent_reporter.engines.adapter import Begun, Outcome, Progress, StopCause, Stream
from agent_reporter.engines.observe import Observe
from agent_reporter.engines.running import lookout
from agent_reporter.engines.running.lookout import PAUSE_FOR_COST, SECONDS_BETWEEN_LOOKS, Lookout
from agent_reporter.engines.running.supervision import Supervision
from agent_reporter.engines.running.target_folder import Walk
from agent_reporter.job import Job
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState
from tests.builders import FakeClock, tiny_disk
from tests.engines.watcher import Watcher, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from agent_reporter.engines.adapter import Observation, StopCause

MB = 1_000_000
BY_WRITING = "bytes were observed from outside, by what its processes wrote."
BY_ALL_WRITING = (
    "bytes were observed from outside, by what its processes wrote, also what went into pipes between them, "
    "over a network and to /dev/null (with --target, only what is in that folder)."
)
BY_TARGET = (
    "files and bytes were observed from outside, by what was changed in the target folder, complete or not."
)


class Silent(Observe):
    """An engine that might have told its counts, and says that it will not."""

    begins_at_once = False
    tells_counts = True

    def reader(self) -> SilentReader:  # type: ignore[override]  # it reads as the other does
        return SilentReader()


class SilentReader:
    def read_line(self, _: Stream, line: str) -> Iterable[Observation]:
        return [Begun(tells_counts=False)] if line == "begun" else []

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:  # noqa: ARG002 - it always goes well
        return Outcome(RestoreState.COMPLETED)


class Talkative(Observe):
    tells_counts = True


def a_job() -> Job:
    now = datetime.now(UTC)
    return Job(Report("r-1", 1, RestoreState.PREPARING, now), lambda: datetime.now(UTC))


async def supervised(
    watcher: Watcher,
    script: str,
    *,
    adapter: Observe | None = None,
    target: Path | None = None,
) -> Report:
    job, look = a_job(), Lookout(target)
    supervision = Supervision(job, adapter or Observe(), look, grace_seconds=5)
    engine = await watcher.start("sh", "-c", script, on_line=supervision.read_line, at_exit=look.look_at_exit)
    await supervision.until_end(engine)
    return job.take_report()


async def test_a_run_that_is_over_before_the_first_look_tells_its_bytes(
    watcher: Watcher, tmp_path: Path
) -> None:
    report = await supervised(watcher, f"head -c {MB} /dev/zero > {tmp_path}/file")
    assert (report.state, report.bytes_restored, report.files_restored) == (RestoreState.COMPLETED, MB, 0)
    assert report.errors.diagnostics == f"The engine tells no counts: {BY_WRITING}"


@pytest.mark.parametrize(
    ("script", "size"),
    [
        ("head -c {MB} /dev/zero > {memory}/file; echo begun >> {disk}/log", MB),
        ("echo begun >> {disk}/log; head -c {MB} /dev/zero > {memory}/file", MB),
        ("head -c {MB} /dev/zero | cat | cat > {memory}/file", 3 * MB),
        ("head -c {MB} /dev/zero > /dev/null", MB),
    ],
)
async def test_what_is_not_on_a_disk_counts_as_often_as_it_is_written_and_that_is_said(
    watcher: Watcher, tmp_path: Path, script: str, size: int
) -> None:
    with tiny_disk(tmp_path / "memory", kibibytes=2048) as memory:
        report = await supervised(watcher, script.format(MB=MB, memory=memory, disk=tmp_path))
    assert size <= report.bytes_restored <= size + 10
    assert report.errors.diagnostics == f"The engine tells no counts: {BY_ALL_WRITING}"


async def test_what_an_engine_prints_is_not_restored(watcher: Watcher) -> None:
    report = await supervised(watcher, f"head -c {3 * MB} /dev/zero; echo oops >&2")
    assert report.bytes_restored == 0
    assert report.errors.diagnostics == ""


async def test_a_run_that_fails_says_how_its_bytes_are_known_and_why_it_failed(
    watcher: Watcher, tmp_path: Path
) -> None:
    words = "ü" * 3000
    report = await supervised(watcher, f"echo > {tmp_path}/file; echo {words} >&2; exit 3")
    assert report.state is RestoreState.FAILED
    assert BY_WRITING in report.errors.diagnostics
    assert "exit status 3. üüü" in report.errors.diagnostics
    assert len(report.errors.diagnostics.encode()) <= 4096


async def test_a_target_that_is_named_tells_files_and_bytes(watcher: Watcher, tmp_path: Path) -> None:
    target = tmp_path / "target"
    script = f"mkdir {target}; echo one > {target}/one; echo two > {target}/two; head -c {MB} /dev/zero > {tmp_path}/log"
    report = await supervised(watcher, script, target=target)
    assert (report.bytes_restored, report.files_restored) == (8, 2)
    assert report.errors.diagnostics == f"The engine tells no counts: {BY_TARGET}"


@pytest.mark.parametrize(("status", "size"), [(0, 3 << 20), (1, 0)])
async def test_a_file_with_holes_is_worth_its_size_only_when_all_went_well(
    watcher: Watcher, tmp_path: Path, status: int, size: int
) -> None:
    script = f"truncate -s {3 << 20} {tmp_path}/file; exit {status}"
    report = await supervised(watcher, script, target=tmp_path)
    assert (report.bytes_restored, report.files_restored) == (size, 1)


async def test_an_engine_that_says_that_it_tells_no_counts_is_observed(
    watcher: Watcher, tmp_path: Path
) -> None:
    script = f"head -c {MB} /dev/zero > {tmp_path}/file"
    report = await supervised(watcher, f"echo begun; {script}", adapter=Silent())
    assert report.bytes_restored == MB
    assert BY_WRITING in report.errors.diagnostics
    report = await supervised(watcher, f"echo sunk; {script}", adapter=Silent())
    assert (report.bytes_restored, report.errors.diagnostics) == (0, "")


async def test_an_engine_that_tells_its_counts_is_not_observed(watcher: Watcher, tmp_path: Path) -> None:
    script = f"echo one > {tmp_path}/one"
    report = await supervised(watcher, script, adapter=Talkative(), target=tmp_path)
    assert (report.bytes_restored, report.files_restored, report.errors.diagnostics) == (0, 0, "")


@pytest.mark.parametrize("by_target", [False, True])
async def test_an_engine_that_runs_is_looked_at_again_and_again(
    watcher: Watcher, tmp_path: Path, *, by_target: bool
) -> None:
    target = tmp_path / "target"
    go_on = [tmp_path / str(number) for number in (1, 2, 3)]  # one each: no writer meets the next reader
    for pipe in go_on:
        os.mkfifo(pipe)
    lookout = Lookout(target if by_target else None, FakeClock(moment=datetime.now(UTC)))
    lookout.is_needed = True
    script = f"cd {target}; for n in 1 2 3; do head -c {MB} /dev/zero > $n; read x < ../$n; done"
    engine = await watcher.start("sh", "-c", f"mkdir {target}; {script}", at_exit=lookout.look_at_exit)
    seen: list[Progress] = []
    looks = asyncio.create_task(lookout.go_on_looking(engine, seen.append))
    for number in (1, 2, 3):
        await until(lambda number=number: seen[-1:] == [progress(number, by_target=by_target)])  # type: ignore[misc]
        await asyncio.to_thread(go_on[number - 1].write_text, "\n")
    assert await engine.wait() == 0
    looks.cancel()


def look_in_vain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have looks fail, as for want of a descriptor."""

    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Walk, "run", fail)
    monkeypatch.setattr(lookout, "read_samples", fail)


@pytest.mark.parametrize("by_target", [False, True])
async def test_after_looks_that_fail_the_next_one_is_made_all_the_same(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_target: bool
) -> None:
    clock = Ticking()
    lookout = Lookout(tmp_path if by_target else None, clock)
    lookout.is_needed = True
    engine = await watcher.start("sh", "-c", f"head -c {MB} /dev/zero > {tmp_path}/file; echo done; sleep 60")
    await watcher.says("done")
    seen: list[Progress] = []
    with monkeypatch.context() as failing:
        look_in_vain(failing)
        looks = asyncio.create_task(lookout.go_on_looking(engine, seen.append))
        await until(lambda: len(clock.pauses) > 2)
        assert seen == []
    await until(lambda: seen != [])
    looks.cancel()
    await engine.stop(signal.SIGTERM, 5)
    assert seen[0] == progress(1, by_target=by_target)


def progress(files: int, *, by_target: bool) -> Progress:
    return Progress(bytes_restored=files * MB, files_restored=files if by_target else None)


class Ticking(FakeClock):
    """A clock by which everything takes seven seconds."""

    def __init__(self) -> None:
        super().__init__(moment=datetime.now(UTC))
        self.pauses: list[float] = []

    def monotonic(self) -> float:
        self.pass_by(7)
        return super().monotonic()

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await super().sleep(seconds)


@pytest.mark.parametrize("by_target", [False, True])
async def test_the_pause_after_a_look_is_many_times_as_long_as_the_look(
    watcher: Watcher, tmp_path: Path, *, by_target: bool
) -> None:
    clock = Ticking()
    lookout = Lookout(tmp_path if by_target else None, clock)
    lookout.is_needed = True
    engine = await watcher.start("sleep", "60")
    looks = asyncio.create_task(lookout.go_on_looking(engine, lambda _: None))
    await until(lambda: len(clock.pauses) > 2)
    looks.cancel()
    await engine.stop(signal.SIGTERM, 5)
    assert clock.pauses[:3] == [SECONDS_BETWEEN_LOOKS, PAUSE_FOR_COST * 7, PAUSE_FOR_COST * 7]


async def supervised_after_a_look(
    watcher: Watcher, tmp_path: Path, look: Lookout, then: Callable[[], None]
) -> Report:
    """A run that has told the file it made when `then` is called, and only ends after that."""
    (tmp_path / "target").mkdir()
    os.mkfifo(tmp_path / "go on")
    script = f"head -c {MB} /dev/zero > {tmp_path}/target/file; read x < '{tmp_path}/go on'"
    job = a_job()
    supervision = Supervision(job, Observe(), look, grace_seconds=5)
    engine = await watcher.start("sh", "-c", script, on_line=supervision.read_line, at_exit=look.look_at_exit)
    ended = asyncio.create_task(supervision.until_end(engine))
    await until(lambda: job.take_report().bytes_restored == MB)
    then()
    await asyncio.to_thread((tmp_path / "go on").write_text, "\n")
    assert await ended == 0
    return job.take_report()


async def test_a_last_walk_that_takes_too_long_is_ended_and_what_was_seen_before_stays(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookout, "LAST_WALK_SECONDS", 0.0)
    look = Lookout(tmp_path / "target", FakeClock(moment=datetime.now(UTC)))
    report = await supervised_after_a_look(watcher, tmp_path, look, lambda: None)
    assert (report.state, report.bytes_restored) == (RestoreState.COMPLETED, MB)
    assert report.errors.diagnostics.endswith("They were counted for 0 seconds only: there may be more.")


@pytest.mark.parametrize("by_target", [False, True])
async def test_when_the_last_look_fails_the_numbers_so_far_stay_and_that_is_said(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, by_target: bool
) -> None:
    look = Lookout(tmp_path / "target" if by_target else None, FakeClock(moment=datetime.now(UTC)))
    report = await supervised_after_a_look(watcher, tmp_path, look, lambda: look_in_vain(monkeypatch))
    assert (report.state, report.bytes_restored) == (RestoreState.COMPLETED, MB)
    assert report.errors.diagnostics.endswith("The last look failed, so there may be more.")


async def test_a_run_whose_only_look_failed_does_not_pass_for_one_that_wrote_nothing(
    watcher: Watcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_in_vain(monkeypatch)
    for target in (None, tmp_path):
        report = await supervised(watcher, "true", target=target)
        assert report.state is RestoreState.COMPLETED
        assert report.errors.diagnostics.endswith("The last look failed, so there may be more.")


async def test_folders_that_were_not_entered_are_told(watcher: Watcher, tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "mounted"):
        report = await supervised(watcher, f"echo > {tmp_path}/mounted/file", target=tmp_path)
    assert (report.bytes_restored, report.files_restored) == (0, 0)
    said = f"The engine tells no counts: {BY_TARGET} 1 mounted folders in it were not entered."
    assert report.errors.diagnostics == said
