"""`agent-reporter run` around any command: its output, its exit status, its signals."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.endtoend.agent import Agent, ended, make_agent, values

if TYPE_CHECKING:
    from agent_reporter.reference import ReferenceServer

NOISE = (
    "import sys, os; os.write(1, bytes(range(256)) * 20_000); os.write(2, b'\\xff\\r\\0oops'); sys.exit(7)"
)


async def test_output_goes_through_byte_for_byte_and_the_exit_status_is_the_engines(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    printed = await agent.run(restore_id, sys.executable, "-c", NOISE)
    assert printed.status == 7
    assert printed.out == bytes(range(256)) * 20_000
    assert printed.err == b"\xff\r\0oops"
    document = server.document(restore_id)
    assert document["state"] == "failed"
    assert document["errors"]["reason"] == "engine_failed"
    assert "exit status 7" in document["errors"]["diagnostics"]
    assert "oops" in document["errors"]["diagnostics"]


async def test_an_engine_of_our_own_is_in_progress_and_then_completed(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    assert (await agent.run(restore_id, "sleep", "0.5")).status == 0
    assert values(server, restore_id, "/state") == ["preparing", "in_progress", "completed"]


async def test_the_exit_status_of_an_engine_that_a_signal_ended_is_128_and_the_signal(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    assert (await agent.run(restore_id, "sh", "-c", "kill -KILL $$")).status == 128 + signal.SIGKILL
    assert server.document(restore_id)["state"] == "failed"


async def test_sigterm_is_passed_on(server: ReferenceServer, agent: Agent) -> None:
    restore_id = server.start_restore()
    script = "trap 'echo got it; exit 9' TERM; echo ready; while :; do sleep 0.05; done"
    process = await agent.start("run", "--restore-id", restore_id, "--", "sh", "-c", script)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    printed = await ended(process)
    assert printed.status == 9
    assert printed.out == b"got it\n"
    assert server.document(restore_id)["state"] == "stopped"


async def test_a_stop_ends_the_whole_tree_also_what_left_the_session(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    script = (
        "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & wait; sleep 60"
    )
    process = await agent.start("run", "--restore-id", restore_id, "--grace", "0.5", "--", "sh", "-c", script)
    assert process.stdout is not None
    escaped = int(await process.stdout.readline())
    await server.wait_until(lambda: server.document(restore_id)["state"] == "in_progress")
    server.request_stop(restore_id)
    await server.wait_until(lambda: server.document(restore_id)["state"] == "stopped", within=30)
    with pytest.raises(ProcessLookupError):
        os.kill(escaped, 0)
    assert (await ended(process)).status == 128 + signal.SIGKILL


async def test_an_engine_that_is_not_there_is_failed_with_127(server: ReferenceServer, agent: Agent) -> None:
    restore_id = server.start_restore()
    printed = await agent.run(restore_id, "/no/such/engine")
    assert printed.status == 127
    assert restore_id in printed.text
    assert "not found" in printed.text
    document = server.document(restore_id)
    assert (document["state"], document["errors"]["reason"]) == ("failed", "engine_not_started")


async def test_a_restore_id_that_is_none_starts_nothing(agent: Agent) -> None:
    printed = await agent.run("../evil", "echo", "started")
    assert printed.status == 125
    assert printed.out == b""
    assert "'../evil' is no restore id" in printed.text


async def test_settings_that_are_missing_start_nothing_and_say_what_to_set(agent: Agent) -> None:
    printed = await agent.run("r1", "echo", "started", environment={"AGENT_REPORTER_ENDPOINT": ""})
    assert printed.status == 125
    assert printed.out == b""
    assert "endpoint is not set. Set it with --endpoint" in printed.text


async def test_a_second_run_of_the_same_restore_is_refused_while_the_first_goes_on(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    first = await agent.start("run", "--restore-id", restore_id, "--", "sh", "-c", "echo ready; sleep 60")
    assert first.stdout is not None
    await first.stdout.readline()
    second = await agent.run(restore_id, "echo", "started")
    assert second.status == 125
    assert second.out == b""
    assert f"process {first.pid} reports it already" in second.text
    first.send_signal(signal.SIGTERM)
    assert (await ended(first)).status == 128 + signal.SIGTERM


async def test_without_a_control_plane_the_engine_runs_and_flush_delivers_later(tmp_path: Path) -> None:
    agent = make_agent(tmp_path / "host", "http://127.0.0.1:9", drain_timeout="0.3")
    printed = await agent.run("e87e6f7d", "echo", "restored")
    assert printed.status == 0
    assert printed.out == b"restored\n"
    assert "`agent-reporter flush` delivers it" in printed.text
    left = await agent.do("flush", "--timeout", "0.5")
    assert left.status == 75
    assert "e87e6f7d" in left.text
    status = await agent.do("status", "--json")
    assert '"state": "completed"' in status.text
    assert "no connection" in status.text


async def test_signals_while_it_waits_for_the_control_plane_keep_the_engine_from_starting(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    server.add_fault({"slow": 1.0}, method="GET", restore_id=restore_id)
    process = await agent.start("run", "--restore-id", restore_id, "--", "echo", "started")
    await server.wait_until(lambda: bool(server.history(restore_id)))
    process.send_signal(signal.SIGTERM)
    printed = await ended(process)
    assert printed.out == b""
    assert "not started" in printed.text
    assert server.document(restore_id)["state"] == "stopped"


def all_that_others_may_see(agent: Agent, pid: int) -> list[bytes]:
    spooled = [path for path in agent.spool.rglob("*") if path.is_file()]
    return [
        path.read_bytes()
        for path in [*spooled, *(Path(f"/proc/{pid}/{name}") for name in ("cmdline", "environ"))]
    ]


async def test_the_token_is_in_no_output_no_process_and_no_spool_file(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    server.add_fault({"status": 401}, times=3, method="PATCH")
    command = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(1)"]
    process = await agent.start("run", "--log-level", "debug", "--restore-id", restore_id, "--", *command)
    assert process.stdout is not None
    await process.stdout.readline()
    token = (agent.directory / "token").read_bytes()
    seen = all_that_others_may_see(agent, process.pid)
    printed = await ended(process)
    assert not any(token in content for content in [*seen, printed.out, printed.err])


async def test_a_reader_that_goes_away_does_not_end_the_restore(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    script = "import os\nfor _ in range(100): os.write(1, b'x' * 65536)"
    reading, writing = os.pipe()
    process = await agent.start(
        "run", "--restore-id", restore_id, "--", sys.executable, "-c", script, stdout=writing
    )
    os.close(writing)
    os.close(reading)
    assert (await ended(process)).status == 0
    assert server.document(restore_id)["state"] == "completed"


async def test_two_restores_at_once_do_not_disturb_each_other(server: ReferenceServer, agent: Agent) -> None:
    one, other = server.start_restore(), server.start_restore()
    await asyncio.gather(agent.run(one, "sleep", "0.2"), agent.run(other, "false"))
    assert [server.document(id_)["state"] for id_ in (one, other)] == ["completed", "failed"]


async def test_a_restore_that_has_ended_already_is_not_started_again(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore(state="completed")
    printed = await agent.run(restore_id, "echo", "started")
    assert printed.status == 125
    assert printed.out == b""
    assert f"restore {restore_id}: the control plane has this restore as completed already" in printed.text
    assert server.document(restore_id)["state"] == "completed"
    assert not [path for path in agent.spool.rglob("*") if path.is_file()]


async def test_a_stderr_that_nobody_reads_any_more_changes_neither_outcome_nor_exit_status(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    reading, writing = os.pipe()
    os.close(reading)
    process = await agent.start(
        "run", "--restore-id", restore_id, "--", "sh", "-c", "echo x >&2; exit 0", stderr=writing
    )
    os.close(writing)
    assert (await ended(process)).status == 0
    assert server.document(restore_id)["state"] == "completed"


async def test_an_engine_that_ignores_sigterm_is_killed_though_nobody_reads_stderr(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    reading, writing = os.pipe()
    process = await agent.start(
        *("run", "--restore-id", restore_id, "--grace", "0.5", "--"),
        *("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"),
        stderr=writing,
    )
    os.close(writing)
    os.close(reading)
    assert process.stdout is not None
    await process.stdout.readline()
    server.request_stop(restore_id)
    assert (await ended(process)).status == 128 + signal.SIGKILL
    assert server.document(restore_id)["state"] == "stopped"


async def test_what_the_caller_ignores_as_nohup_does_stays_ignored(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    words = f"{sys.executable} -m agent_reporter.cli.main run --restore-id {restore_id}"
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f"trap '' HUP; exec {words} -- sh -c 'echo ready; sleep 1'"),
        env=agent.environment,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert (await ended(process)).status == 0
    assert server.document(restore_id)["state"] == "completed"


async def test_a_signal_during_the_last_deliveries_cuts_them_short_and_keeps_the_exit_status(
    tmp_path: Path,
) -> None:
    agent = make_agent(tmp_path / "host", "http://127.0.0.1:9", drain_timeout="60", retry_cap="5")
    process = await agent.start("run", "--restore-id", "e87e6f7d", "--", "sh", "-c", "exit 4")
    while b'"failed"' not in b"".join(path.read_bytes() for path in agent.spool.glob("*.json")):  # noqa: ASYNC110 - another process's file
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(20):
        printed = await ended(process)
    assert printed.status == 4
    assert "`agent-reporter flush` delivers it" in printed.text


async def test_a_stop_after_the_engines_own_end_does_not_change_how_it_ended(
    server: ReferenceServer, agent: Agent
) -> None:
    restore_id = server.start_restore()
    process = await agent.start(
        "run", "--restore-id", restore_id, "--", "sh", "-c", "sleep 60 & echo $$; exit 3"
    )
    assert process.stdout is not None
    pid = int(await process.stdout.readline())
    while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110, ASYNC240 - another process
        await asyncio.sleep(0.02)
    server.request_stop(restore_id)
    assert (await ended(process)).status == 3
    document = server.document(restore_id)
    assert (document["state"], document["errors"]["reason"]) == ("failed", "engine_failed")


@pytest.mark.parametrize("command", [["no-such-engine"], ["rsync", "-an", "/a", "/b"]])
async def test_a_caller_that_takes_some_statuses_lightly_can_choose_that_of_a_restore_that_was_not_run(
    agent: Agent, server: ReferenceServer, command: list[str]
) -> None:
    start = ("run", "--not-run", "2", "--restore-id", server.start_restore(), "--")
    assert (await agent.do(*start, *command)).status == 2
    start = ("run", "--not-run", "2", "--restore-id", server.start_restore(), "--")
    assert (await agent.do(*start, "sh", "-c", "exit 125")).status == 125


async def test_a_dry_run_is_refused_before_anything_starts(agent: Agent, server: ReferenceServer) -> None:
    restore_id = server.start_restore()
    ended = await agent.run(restore_id, "rsync", "-an", "/a", "/b")
    assert ended.status == 125
    assert f"restores nothing, so there is nothing to report of restore {restore_id}" in ended.text
    assert server.document(restore_id)["state"] == "start_requested"


async def test_descriptors_that_run_was_given_are_the_engines_and_no_others(
    agent: Agent, server: ReferenceServer
) -> None:
    read, write = os.pipe()
    os.write(write, b"a passphrase")
    os.close(write)
    lists = f"cat /proc/self/fd/{read}; ls /proc/self/fd | wc -l"
    ended = await agent.run(server.start_restore(), "sh", "-c", lists, pass_fds=[read])
    os.close(read)
    # The three standard ones, the one that was given, and that of `ls` itself.
    assert ended.out.decode() == "a passphrase5\n"
