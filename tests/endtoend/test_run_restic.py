"""`agent-reporter run` around a real `restic restore`, against the reference control plane."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.endtoend.agent import Agent, Ended, ended, patches, values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent_reporter.reference import ReferenceServer
    from tests.engines.real_restic import RealRestic, Repository

pytestmark = pytest.mark.engine

STATES_BEFORE = {"queued", "preparing"}


@pytest.fixture
def small_target(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    target = tmp_path / "small"
    target.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(target)], check=False
        ).returncode
    ):
        pytest.skip("a small file system can be mounted by root only")
    yield target
    subprocess.run(["umount", "--lazy", str(target)], check=True)


def restore(restic: RealRestic, target: Path, *options: str) -> list[str]:
    return [restic.path, "restore", "latest", "--target", str(target), *options]


def summary_of(printed: Ended) -> dict[str, Any]:
    lines = [json.loads(line) for line in printed.out.splitlines() if line.startswith(b"{")]
    return next(line for line in lines if line["message_type"] == "summary")


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def processes_about(path: Path) -> list[int]:
    """The processes that have `path` in their command line, but for the reporter's own."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if process.name.isdecimal() and str(path).encode() in words and b"--restore-id" not in words:
            found.append(int(process.name))
    return found


async def test_a_restore_of_two_thousand_files_is_followed_from_its_preparation_to_its_summary(
    restic: RealRestic, repository: Repository, server: ReferenceServer, agent: Agent, tmp_path: Path
) -> None:
    restore_id = server.start_restore()
    command = restore(restic, tmp_path / "target", "--limit-download", "60000")
    printed = await agent.run(restore_id, *command, environment=repository.environment())
    document = server.document(restore_id)
    assert printed.status == 0, printed.err
    assert printed.err == b""
    assert document["state"] == "completed"
    told = values(server, restore_id, "/state")
    assert told[0] in STATES_BEFORE
    assert told[-2:] == ["in_progress", "completed"]
    if restic.speaks_json:
        summary = summary_of(printed)
        assert document["files_restored"] == summary["files_restored"] == repository.files + 1
        assert document["bytes_restored"] == summary["bytes_restored"] == repository.bytes
        growing = values(server, restore_id, "/bytes-restored")
        assert len(growing) >= 5
        assert growing == sorted(growing)
        print(f"\n{restic}: bytes as they were told: {growing}")
    result = patches(server, restore_id)[-1]
    assert set(result) == {
        "/state",
        "/started-time",
        "/ended-time",
        "/errors",
        "/files_restores",
        "/bytes-restored",
    }
    assert names(tmp_path / "target" / "data") == names(repository.path.parent / "data")
    assert not list(agent.spool.glob("*.json"))


async def test_a_target_that_fills_up_is_never_completed_and_its_errors_are_counted_exactly(
    restic: RealRestic, repository: Repository, server: ReferenceServer, agent: Agent, small_target: Path
) -> None:
    restore_id = server.start_restore()
    printed = await agent.run(
        restore_id, *restore(restic, small_target), environment=repository.environment()
    )
    document, errors = server.document(restore_id), server.errors(restore_id)
    assert printed.status == 1
    assert document["state"] == "completed_with_errors"
    assert document["errors"]["reason"] == "unable_to_process_some_files"
    said = printed.err.decode().rsplit("There were ", 1)[1].split()[0]
    assert errors["count"] == int(said) > 500
    assert len(errors["list"]) == 500
    assert len({(record["path"], record["type"]) for record in errors["list"]}) == 500
    assert "no_space_left" in {record["type"] for record in errors["list"]}
    assert len(json.dumps(errors)) < 1_000_000
    print(f"\n{restic}: {document['state']}, {errors['count']} errors, of which {len(errors['list'])} listed")


async def test_a_wrong_password_is_failed(
    restic: RealRestic, repository: Repository, server: ReferenceServer, agent: Agent, tmp_path: Path
) -> None:
    restore_id = server.start_restore()
    printed = await agent.run(
        restore_id,
        *restore(restic, tmp_path / "target"),
        environment=repository.environment(RESTIC_PASSWORD="wrong"),
    )
    document = server.document(restore_id)
    assert printed.status == (12 if restic.version >= (0, 17) else 1)
    assert document["state"] == "failed"
    assert document["errors"]["reason"] == "wrong_password"
    assert document["started_time"]
    assert document["ended_time"]


async def test_a_stop_in_the_middle_ends_restic_before_stopped_is_reported(
    restic: RealRestic, repository: Repository, server: ReferenceServer, agent: Agent, tmp_path: Path
) -> None:
    restore_id, target = server.start_restore(), tmp_path / "target"
    command = restore(restic, target, "--limit-download", "20000")
    process = await agent.start(
        "run", "--restore-id", restore_id, "--", *command, environment=repository.environment()
    )
    await server.wait_until(lambda: server.document(restore_id)["state"] == "in_progress", within=30)
    if restic.speaks_json:
        await server.wait_until(lambda: server.document(restore_id)["bytes_restored"] > 0, within=30)
    assert processes_about(target)
    asked = time.monotonic()
    answer = await agent.do("stop", restore_id)
    assert answer.status == 0, answer.err
    await server.wait_until(lambda: server.document(restore_id)["state"] == "stopped", within=60)
    assert not processes_about(target)
    printed = await ended(process)
    assert printed.status == 130
    assert server.document(restore_id)["bytes_restored"] < repository.bytes
    assert values(server, restore_id, "/state")[-2:] == ["stop_requested", "stopped"]
    assert server.erased_stops(restore_id) == 0
    print(f"\n{restic}: {time.monotonic() - asked:.2f} s from the request until stopped was reported")


async def test_a_stop_before_the_start_keeps_restic_from_starting(
    restic: RealRestic, repository: Repository, server: ReferenceServer, agent: Agent, tmp_path: Path
) -> None:
    restore_id, target = server.start_restore(), tmp_path / "target"
    server.request_stop(restore_id)
    printed = await agent.run(restore_id, *restore(restic, target), environment=repository.environment())
    assert printed.status == 130
    assert b"not started" in printed.err
    assert server.document(restore_id)["state"] == "stopped"
    assert server.erased_stops(restore_id) == 0
    assert not target.exists()


async def test_an_interrupt_on_this_host_is_passed_on_and_told_as_stopped_here(
    restic: RealRestic, repository: Repository, server: ReferenceServer, agent: Agent, tmp_path: Path
) -> None:
    restore_id, target = server.start_restore(), tmp_path / "target"
    command = restore(restic, target, "--limit-download", "20000")
    process = await agent.start(
        "run", "--restore-id", restore_id, "--", *command, environment=repository.environment()
    )
    await server.wait_until(lambda: server.document(restore_id)["state"] == "in_progress", within=30)
    process.send_signal(2)
    printed = await ended(process)
    document = server.document(restore_id)
    assert printed.status == 130
    assert document["state"] == "stopped"
    assert document["errors"]["reason"] == "stopped_on_host"
    assert not processes_about(target)


async def test_piped_output_is_what_restic_prints_by_itself(
    restic: RealRestic, repository: Repository, server: ReferenceServer, agent: Agent, tmp_path: Path
) -> None:
    """But for times and counters in the middle, which differ from run to run."""
    command = restore(restic, tmp_path / "target")
    bare = await asyncio.create_subprocess_exec(
        restic.path,
        "--json",
        *command[1:],
        env=repository.environment(RESTIC_PROGRESS_FPS="5"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    alone = await ended(bare)
    reported = await agent.run(
        server.start_restore(),
        *restore(restic, tmp_path / "other"),
        environment=repository.environment(),
    )
    assert reported.err == alone.err == b""
    if restic.speaks_json:
        assert summary_of(reported)["files_restored"] == summary_of(alone)["files_restored"]
        assert {line[:25] for line in reported.out.splitlines()} == {
            line[:25] for line in alone.out.splitlines()
        }
    else:
        assert reported.out.replace(b"other", b"target") == alone.out
