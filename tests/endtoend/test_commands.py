"""`flush`, `status`, `stop`, `check`, `reference`, `demo`, and what the program says of itself."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from agent_reporter.cli.main import COMMANDS
from tests.endtoend.agent import Agent, ended, make_agent
from tests.engines.real_restic import binaries

if TYPE_CHECKING:
    from pathlib import Path

    from agent_reporter.reference import ReferenceServer


@pytest.mark.parametrize("command", COMMANDS)
async def test_each_command_explains_itself(command: str, agent: Agent) -> None:
    printed = await agent.do(command, "--help")
    assert printed.status == 0
    assert f"agent-reporter {command}" in printed.text


async def test_a_command_that_is_none_is_wrong_usage(agent: Agent) -> None:
    assert (await agent.do("restore")).status == 2
    assert (await agent.do()).status == 2


@pytest.mark.parametrize("words", [["--token", "s3cret"], ["--token=s3cret"], ["s3cret"]])
async def test_what_is_not_understood_is_not_repeated_as_it_may_be_a_secret(
    words: list[str], agent: Agent
) -> None:
    ended = await agent.do("status", *words)
    assert ended.status == 2
    assert "not understood" in ended.text
    assert "s3cret" not in ended.text


async def test_a_result_that_an_outage_kept_back_is_shown_and_delivered_by_flush(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    server.add_fault(
        {"status": 503, "headers": {"Retry-After": "3"}}, times=1000, method="PATCH", restore_id=restore_id
    )
    assert (await agent.run(restore_id, "true")).status == 0
    shown = json.loads((await agent.do("status", "--json")).out)["restores"][0]
    assert shown["restore_id"] == restore_id
    assert shown["newest"]["state"] == "completed"
    assert shown["acknowledged"]["state"] == "start_requested"
    assert shown["why"] == "HTTP 503"
    assert shown["next_try"]
    assert shown["owner"] is None
    table = await agent.do("status", environment={"COLUMNS": "200"})
    assert restore_id in table.text
    assert "at the next run or flush" in table.text
    server.faults.clear()
    flushed = await agent.do("flush")
    assert flushed.status == 0
    assert f"restore {restore_id}: completed, delivered" in flushed.text
    assert server.document(restore_id)["state"] == "completed"
    assert "Nothing is waiting" in (await agent.do("status")).text


async def test_the_next_run_takes_over_what_another_left(server: ReferenceServer, agent: Agent) -> None:
    left, following = server.start_restore(), server.start_restore()
    server.add_fault({"status": 503}, times=1000, method="PATCH", restore_id=left)
    await agent.run(left, "true")
    server.faults.clear()
    assert (await agent.run(following, "sleep", "1")).status == 0
    assert server.document(left)["state"] == "completed"
    assert not list(agent.spool.glob("*.json"))


async def test_a_restore_that_the_control_plane_does_not_know_is_kept_as_a_dead_letter(
    server: ReferenceServer, agent: Agent
) -> None:
    printed = await agent.run("unknown", "echo", "restored")
    assert (printed.status, printed.out) == (0, b"restored\n")
    assert "kept as a dead letter" in printed.text
    shown = json.loads((await agent.do("status", "--json")).out)["restores"][0]
    assert shown["dead_letter"]
    assert shown["ending"] == "gone"
    assert (await agent.do("flush")).status == 0
    assert "dead letters   1" in (await agent.do("check")).text


async def test_with_when_refused_stop_the_engine_is_stopped_for_an_unknown_restore(agent: Agent) -> None:
    printed = await agent.run("unknown", "sleep", "60", environment={"AGENT_REPORTER_WHEN_REFUSED": "stop"})
    assert printed.status == 128 + signal.SIGTERM


async def test_stop_says_what_the_control_plane_answered(server: ReferenceServer, agent: Agent) -> None:
    restore_id = server.start_restore()
    assert (await agent.do("stop", restore_id)).status == 0
    assert server.document(restore_id)["state"] == "stop_requested"
    over = server.start_restore(state="completed")
    refused = await agent.do("stop", over)
    assert refused.status == 1
    assert f"restore {over}: it has ended already, as completed" in refused.text
    unknown = await agent.do("stop", "unknown")
    assert unknown.status == 1
    assert "404" in unknown.text


async def test_stop_tries_again_through_an_outage(server: ReferenceServer, agent: Agent) -> None:
    restore_id = server.start_restore()
    server.add_fault({"status": 503}, times=2, method="PATCH")
    server.add_fault("drop", times=1, method="PATCH")
    assert (await agent.do("stop", restore_id)).status == 0
    assert server.document(restore_id)["state"] == "stop_requested"


async def test_stop_gives_up_after_its_timeout(tmp_path: Path) -> None:
    agent = make_agent(tmp_path / "host", "http://127.0.0.1:9")
    printed = await agent.do("stop", "e87e6f7d", "--timeout", "0.3")
    assert printed.status == 75
    assert "no stop was asked for" in printed.text


async def test_check_says_ok_or_what_to_do(server: ReferenceServer, agent: Agent) -> None:
    fine = await agent.do("check")
    assert fine.status == 0
    assert all(" ok: " in line for line in fine.text.splitlines()), fine.text
    (agent.directory / "token").chmod(0o644)
    readable = await agent.do("check")
    assert readable.status == 1
    assert "chmod o-rwx" in readable.text
    (agent.directory / "token").chmod(0o600)
    (agent.directory / "token").write_text("another")
    refused = await agent.do("check")
    assert refused.status == 1
    assert "The token is not taken: renew it." in refused.text
    assert (await agent.do("check", "--endpoint", "ftp://x")).status == 1


async def test_the_reference_control_plane_is_one_command(tmp_path: Path, agent: Agent) -> None:
    process = await agent.start(
        "reference",
        *("--listen", "127.0.0.1:0", "--data", str(tmp_path / "data")),
        *("--token-file", str(agent.directory / "token")),
    )
    assert process.stdout is not None
    said = (await process.stdout.readline()).decode()
    assert said.startswith("listening on http://127.0.0.1:")
    checked = await agent.do("check", "--endpoint", said.split()[-1])
    assert checked.status == 0, checked.text
    process.send_signal(signal.SIGTERM)
    assert (await ended(process)).status == 0


@pytest.mark.parametrize("with_restic", [True, False], ids=["restic", "tar"])
async def test_the_demo_is_right_and_leaves_nothing_behind(
    *, with_restic: bool, agent: Agent, tmp_path: Path
) -> None:
    room, programs = tmp_path / "room", tmp_path / "programs"
    room.mkdir()
    programs.mkdir()
    if with_restic:
        if not binaries() or not binaries()[-1].speaks_json:
            pytest.skip("no restic 0.16 or later")
        shutil.copy(binaries()[-1].path, programs / "restic")
    printed = await agent.do("demo", environment={"TMPDIR": str(room), "PATH": str(programs)})
    assert printed.status == 0, printed.text
    assert "Every record is right." in printed.text
    assert ("with restic" in printed.text) == with_restic
    assert not list(room.iterdir())


async def test_on_a_terminal_there_is_a_bar_with_what_a_person_wants_to_know(
    server: ReferenceServer, agent: Agent
) -> None:
    fake = agent.directory / "restic"
    fake.write_text(RECORDED)
    fake.chmod(0o755)
    restore_id = server.start_restore()
    reading, writing = os.openpty()
    process = await agent.start(
        *("run", "--restore-id", restore_id, "--", str(fake), "restore", "latest"),
        stdout=writing,
        stderr=writing,
        environment={"COLUMNS": "160", "TERM": "xterm"},
    )
    os.close(writing)
    shown = await asyncio.to_thread(read_terminal, reading)
    assert await process.wait() == 1
    assert "in_progress" in shown
    assert "50/61 files" in shown
    assert "reported" in shown
    assert "1 errors" in shown
    assert "/data/big0.bin: no space left on device" in shown
    assert '{"message_type"' not in shown
    assert f"restore {restore_id}: completed_with_errors" in shown


RECORDED = """#!/bin/sh
echo '{"message_type":"status","percent_done":0.5,"total_files":61,"files_restored":50,"total_bytes":220528765,"bytes_restored":110264382}'
sleep 1
echo '{"message_type":"error","error":{"message":"no space left on device"},"during":"restore","item":"/data/big0.bin"}' >&2
echo '{"message_type":"summary","total_files":61,"files_restored":61,"total_bytes":220528765,"bytes_restored":220528765}'
echo '{"message_type":"exit_error","code":1,"message":"Fatal: There were 1 errors"}' >&2
exit 1
"""


def read_terminal(descriptor: int) -> str:
    content = b""
    try:
        while chunk := os.read(descriptor, 65_536):
            content += chunk
    except OSError:
        pass  # the other side is closed
    finally:
        os.close(descriptor)
    return content.decode()
