"""What the groups about whole processes judge by: imports, system calls, memory; each finds what it is there to find."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from agent_reporter.job import Job
from tests.benchmarks import outage
from tests.benchmarks.agent_process import agent, cpu_of, daemon
from tests.benchmarks.goals import UntrueError
from tests.benchmarks.idle import calls_in
from tests.benchmarks.memory import GROWTH_KIB, LARGE, Looks
from tests.benchmarks.starts import DAEMON, RUN, STATUS, UNUSED, imports, unused
from tests.long_life.host import HOUR

if TYPE_CHECKING:
    from pathlib import Path

STRACE = """\
41 1795547092.000000 epoll_wait(3, [], 2, 976) = 0 <0.976289>
41 1795547093.500000 epoll_wait(3, [], 2, 0) = 0 <0.000018>
41 1795547093.600000 fsync(9) = 0 <0.020000>
42 1795547094.000000 futex(0x7f97, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, FUTEX_BITSET_MATCH_ANY <unfinished ...>
41 1795547095.000000 sendto(9, "<... a body> = 0 <9.9>", 22, 0, NULL, 0) = 22 <0.000028>
42 1795547096.250000 <... futex resumed>) = 0 <2.250000>
42 1795547097.000000 +++ exited with 0 +++
"""


def test_a_wake_up_is_a_call_that_waited_and_came_back() -> None:
    calls = list(calls_in(STRACE))
    assert [call.name for call in calls] == ["epoll_wait", "epoll_wait", "fsync", "sendto", "futex"]
    woken = [call for call in calls if call.is_wake_up]
    assert [(call.name, round(call.ended - 1795547092, 3)) for call in woken] == [
        ("epoll_wait", 0.976),
        ("futex", 4.25),
    ]


def test_what_an_interpreter_imports_is_read_from_what_it_says() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import json.decoder"],
        check=True,
        capture_output=True,
        text=True,
    )
    found = imports(done.stderr)
    assert "json.decoder" in found
    assert "asyncio" not in found
    assert all(seconds < 10 for seconds in found.values())
    with pytest.raises(UntrueError, match="does not tell"):
        imports("agent-reporter: something else\n")


def test_a_module_that_a_command_does_not_use_is_named_by_what_is_listed() -> None:
    imported = ["aiohttp", "aiohttp.web_response", "agent_reporter.engines.tar", "rich", "rich.table", "json"]
    assert unused(RUN, imported) == {"aiohttp.web": 1, "agent_reporter.engines.tar": 1, "rich.": 1}
    assert unused(DAEMON, imported) == {"agent_reporter.engines": 1, "rich.": 1}
    assert unused(STATUS, imported) == {"aiohttp.web": 1, "agent_reporter.engines": 1}


def test_what_is_said_not_to_be_used_is_used_by_nobody_in_the_list_itself() -> None:
    """Else the list would count a module twice."""
    for prefixes in UNUSED.values():
        assert not [
            (one, other) for one in prefixes for other in prefixes if one != other and one.startswith(other)
        ]


def test_a_pointer_kept_of_each_of_a_million_is_growth_and_what_is_in_flight_at_one_look_is_none() -> None:
    steady = [40_000 + 10 * (look % 3) for look in range(20)]
    assert Looks(steady, 2).grown < GROWTH_KIB / 10
    assert Looks([*steady[:-1], 43_000], 2).grown < GROWTH_KIB / 10
    leak = 8 * LARGE.errors / 1024
    growing = [round(value + leak * look / 20) for look, value in enumerate(steady)]
    assert Looks(growing, 2).grown > 0.8 * leak > GROWTH_KIB


def test_an_outage_on_virtual_time_ends_with_true_records() -> None:
    week = outage.spend(HOUR)
    assert len(week.own) == 1
    assert week.requests > 100


def test_a_record_that_is_not_true_after_the_outage_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Job, "advance", lambda _job, **_: None)
    with pytest.raises(UntrueError, match="completed_with_errors, with 0 bytes of"):
        outage.spend(0)


def test_a_daemon_that_does_not_begin_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.agent_process.START_SECONDS", 0.5)
    nowhere = {"AGENT_REPORTER_ENDPOINT": "", "PATH": os.environ["PATH"]}
    with pytest.raises(UntrueError, match="not ready"), daemon(nowhere, tmp_path):
        pytest.fail("it began")


def test_the_processor_time_of_a_process_is_that_of_all_of_it() -> None:
    before = cpu_of(os.getpid())
    while cpu_of(os.getpid()) - before < 0.01:
        sum(range(10_000))
    assert cpu_of(os.getpid()) - before < 60


def test_the_command_is_started_as_its_script_starts_it() -> None:
    done = subprocess.run(agent("--version"), check=True, capture_output=True, text=True)
    assert done.stdout.startswith("agent-reporter ")
