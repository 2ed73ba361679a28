from __future__ import annotations

import asyncio
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from agent_reporter.engines.adapter import Begun, StopCause, Stream
from agent_reporter.engines.catalogue import choose, to_start
from agent_reporter.engines.command_line import taken_apart
from agent_reporter.engines.running.process import EngineProcess, StopResult
from agent_reporter.model.state import RestoreState
from tests.engines.captures import errors_of, last_progress

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent_reporter.engines.adapter import Observation, Outcome
    from tests.engines.real_restic import RealRestic, Repository

pytestmark = pytest.mark.engine


class Run:
    """One run of restic as the adapter has it started, read and judged."""

    def __init__(
        self, restic: RealRestic, repository: Repository, *arguments: str, **environment: str
    ) -> None:
        command = [restic.path, *arguments]
        invocation = taken_apart(command)
        self.adapter = choose("auto", invocation)
        self.reader = self.adapter.reader()
        self.command, self.environment = to_start(
            self.adapter, invocation, repository.environment(**environment)
        )
        self.observations: list[Observation] = []
        self.begun = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def on_line(self, stream: Stream, line: str) -> None:
        observed = list(self.reader.read_line(stream, line))
        self.observations += observed
        if any(isinstance(observation, Begun) for observation in observed):
            self.loop.call_soon_threadsafe(self.begun.set)

    async def start(self) -> EngineProcess:
        return await EngineProcess.start(self.command, self.environment, on_line=self.on_line, sinks={})

    async def to_its_end(self) -> Outcome:
        engine = await self.start()
        return self.reader.outcome(await engine.wait(), None)

    async def stopped_in_the_middle(self) -> tuple[Outcome, StopResult]:
        engine = await self.start()
        async with asyncio.timeout(20):
            await self.begun.wait()
        await asyncio.sleep(0.5)
        result = await engine.stop(self.adapter.stop_signal, 60)
        return self.reader.outcome(await engine.wait(), StopCause.CONTROL_PLANE), result


async def test_a_restore_that_goes_well_is_completed_with_all_counts(
    restic: RealRestic, repository: Repository, tmp_path: Path
) -> None:
    run = Run(restic, repository, "restore", "latest", "--target", str(tmp_path))
    outcome = await run.to_its_end()
    assert outcome.state is RestoreState.COMPLETED
    assert sum(isinstance(observation, Begun) for observation in run.observations) == 1
    assert len(list((tmp_path / "data").iterdir())) == repository.files
    if restic.speaks_json:
        progress = last_progress(run.observations)
        assert progress.files_restored == progress.total_files == repository.files + 1
        assert progress.bytes_restored == progress.total_bytes == repository.bytes


async def test_a_wrong_password_is_a_failure_that_says_so(
    restic: RealRestic, repository: Repository, tmp_path: Path
) -> None:
    run = Run(restic, repository, "restore", "latest", "--target", str(tmp_path), RESTIC_PASSWORD="wrong")
    outcome = await run.to_its_end()
    assert (outcome.state, outcome.reason) == (RestoreState.FAILED, "wrong_password")
    assert "wrong password" in outcome.diagnostics
    assert run.observations == []


async def test_a_restore_that_is_stopped_in_the_middle_is_stopped_and_leaves_no_lock(
    restic: RealRestic, repository: Repository, tmp_path: Path
) -> None:
    run = Run(restic, repository, "--limit-download", "1500", "restore", "latest", "--target", str(tmp_path))
    outcome, result = await run.stopped_in_the_middle()
    assert (outcome.state, outcome.reason) == (RestoreState.STOPPED, "stop_requested")
    assert result.everything_is_gone
    assert not result.killed
    assert list((repository.path / "locks").iterdir()) == []


@pytest.fixture
def small_target(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)], check=False)
    if mounted.returncode != 0:
        pytest.skip("no file system can be mounted here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


async def test_a_full_target_is_a_restore_with_errors_and_every_error_is_counted(
    restic: RealRestic, repository: Repository, small_target: Path
) -> None:
    run = Run(restic, repository, "restore", "latest", "--target", str(small_target))
    outcome = await run.to_its_end()
    errors = errors_of(run.observations)
    assert (outcome.state, outcome.reason) == (
        RestoreState.COMPLETED_WITH_ERRORS,
        "unable_to_process_some_files",
    )
    assert {(error.type, error.code) for error in errors} == {("no_space_left", 28)}
    assert all(error.path.startswith("/data/file") for error in errors)
    assert f"There were {len(errors)} errors" in outcome.diagnostics
