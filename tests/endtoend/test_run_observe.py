"""`agent-reporter run` around programs that tell nothing: what the control plane learns all the same."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.endtoend.agent import Agent, ended, values

if TYPE_CHECKING:
    from pathlib import Path

    from agent_reporter.reference import ReferenceServer
    from tests.engines.real_restic import RealRestic, Repository

MB = 1_000_000


async def test_the_bytes_of_an_engine_that_tells_nothing_grow_while_it_runs(
    server: ReferenceServer, agent: Agent, tmp_path: Path
) -> None:
    restore_id = server.start_restore()
    script = f"cd {tmp_path}; head -c {MB} /dev/zero > one; read x < go-on; head -c {2 * MB} /dev/zero > two"
    os.mkfifo(tmp_path / "go-on")
    process = await agent.start("run", "--restore-id", restore_id, "--", "sh", "-c", script)
    await server.wait_until(lambda: server.document(restore_id)["bytes_restored"] == MB)
    with (tmp_path / "go-on").open("w") as go_on:
        go_on.write("\n")
    assert (await ended(process)).status == 0
    document = server.document(restore_id)
    assert values(server, restore_id, "/bytes-restored") == [MB, 3 * MB]
    assert (document["state"], document["files_restored"]) == ("completed", 0)
    assert "bytes were observed from outside" in document["errors"]["diagnostics"]


async def test_a_target_that_is_named_tells_files_and_bytes(
    server: ReferenceServer, agent: Agent, tmp_path: Path
) -> None:
    restore_id, source, target = server.start_restore(), tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for number in range(20):
        (source / f"{number}").write_bytes(b"x" * number)
        (target / f"there before {number}").write_bytes(b"x" * number)
    command = ("cp", "-a", f"{source}/.", str(target))
    printed = await agent.do("run", "--restore-id", restore_id, "--target", str(target), "--", *command)
    assert printed.status == 0
    document = server.document(restore_id)
    assert (document["files_restored"], document["bytes_restored"]) == (20, sum(range(20)))
    assert "changed in the target folder" in document["errors"]["diagnostics"]


async def test_lines_of_errors_make_a_restore_that_ended_with_0_completed_with_errors(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    script = (
        "for n in 1 1 2; do echo \"ERROR: /srv/file$n: No space left on device\" >&2; done; echo 'ERROR: '"
    )
    pattern = "^ERROR: (?P<path>.*): "
    printed = await agent.do(
        *("run", "--restore-id", restore_id, "--error-lines", pattern, "--", "sh", "-c", script)
    )
    assert printed.status == 0
    document, errors = server.document(restore_id), server.errors(restore_id)
    assert document["state"] == "completed_with_errors"
    assert errors["count"] == 3
    assert [(error["path"], error["type"]) for error in errors["list"]] == [
        ("/srv/file1", "no_space_left"),
        ("/srv/file2", "no_space_left"),
    ]


@pytest.mark.parametrize(
    ("option", "value", "why"),
    [
        ("--error-lines", "(", "no regular expression"),
        ("--error-lines", "", "found in every line"),
        ("--error-lines", "^(.|\\s)*: failed", "may take for ever"),
        ("--target", "", "--target is empty"),
        ("--target", "/dev/null", "/dev/null is not a folder"),
    ],
)
async def test_an_option_that_cannot_be_starts_nothing(
    agent: Agent, option: str, value: str, why: str
) -> None:
    printed = await agent.do("run", "--restore-id", "r1", option, value, "--", "echo", "started")
    assert printed.status == 125
    assert printed.out == b""
    assert why in printed.text


@pytest.mark.engine
async def test_a_restic_that_tells_no_counts_is_observed_and_one_that_does_is_not(
    restic: RealRestic, repository: Repository, server: ReferenceServer, agent: Agent, tmp_path: Path
) -> None:
    restore_id = server.start_restore()
    command = [restic.path, "restore", "latest", "--target", str(tmp_path / "target")]
    printed = await agent.run(restore_id, *command, environment=repository.environment())
    assert printed.status == 0, printed.err
    document = server.document(restore_id)
    observed = "observed from outside" in document["errors"]["diagnostics"]
    assert observed is not restic.speaks_json
    if observed:
        assert repository.bytes <= document["bytes_restored"] <= repository.bytes * 1.02
        print(f"\n{restic}: {document['bytes_restored']} bytes were seen, {repository.bytes} are there")


@pytest.mark.engine
async def test_by_its_target_a_restic_that_tells_no_counts_is_known_exactly(
    restic: RealRestic, repository: Repository, server: ReferenceServer, agent: Agent, tmp_path: Path
) -> None:
    restore_id, target = server.start_restore(), str(tmp_path / "target")
    command = [restic.path, "restore", "latest", "--target", target]
    printed = await agent.do(
        *("run", "--restore-id", restore_id, "--target", target, "--", *command),
        environment=repository.environment(),
    )
    assert printed.status == 0, printed.err
    document = server.document(restore_id)
    assert document["bytes_restored"] == repository.bytes
    # restic counts the folder, too
    assert document["files_restored"] == repository.files + restic.speaks_json
