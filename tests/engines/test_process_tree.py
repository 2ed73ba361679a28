from __future__ import annotations

import errno
import os
import signal
import subprocess
from dataclasses import replace

import pytest

from agent_reporter import processes
from agent_reporter.engines.running.process_tree import _members
from agent_reporter.processes import ProcessStat

AGENT = ProcessStat(pid=100, state="S", parent=1, session=100, start_ticks=10)
ENGINE = ProcessStat(pid=200, state="S", parent=100, session=200, start_ticks=50)


def members(*others: ProcessStat) -> set[int]:
    stats = {stat.pid: stat for stat in (AGENT, ENGINE, *others)}
    return {stat.pid for stat in _members(stats, ENGINE.identity, frozenset({ENGINE.identity}), AGENT.pid)}


def stat(pid: int, parent: int, session: int, start_ticks: int = 60) -> ProcessStat:
    return ProcessStat(pid, "S", parent, session, start_ticks)


def test_descendants_are_members_whatever_their_session() -> None:
    assert members(stat(201, 200, 200), stat(202, 201, 202), stat(203, 202, 203)) == {200, 201, 202, 203}


def test_an_orphan_that_was_given_to_the_agent_is_a_member_with_its_children() -> None:
    assert members(stat(300, 100, 200), stat(301, 100, 301), stat(302, 301, 301)) == {200, 300, 301, 302}


def test_the_agents_own_helpers_are_no_members() -> None:
    assert members(stat(400, 100, 100), stat(401, 400, 100), stat(402, 100, 402, start_ticks=40)) == {200}


def test_strangers_are_no_members() -> None:
    assert members(stat(500, 1, 500), stat(501, 500, 200)) == {200}


def test_a_process_that_got_the_engines_number_is_no_member() -> None:
    recycled = replace(ENGINE, parent=1, start_ticks=999)
    stats = {100: AGENT, 200: recycled}
    assert _members(stats, ENGINE.identity, frozenset({ENGINE.identity}), AGENT.pid) == []


@pytest.fixture
def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["sleep", "60"])


def test_a_process_is_known_by_more_than_its_number(sleeper: subprocess.Popen[bytes]) -> None:
    who = processes.identity(sleeper.pid)
    assert who is not None
    assert processes.is_alive(who)
    assert not processes.is_alive(replace(who, start_ticks=who.start_ticks - 1))
    assert not processes.is_alive(replace(who, boot_id="another"))
    assert not processes.send_signal(replace(who, start_ticks=who.start_ticks - 1), signal.SIGKILL)
    assert processes.send_signal(who, signal.SIGKILL)
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert processes.identity(sleeper.pid) == who
    assert not processes.is_alive(who), "a zombie is not alive"
    assert not processes.send_signal(who, signal.SIGKILL)
    sleeper.wait()
    assert processes.identity(sleeper.pid) is None
    assert not processes.is_alive(who)
    assert not processes.send_signal(who, signal.SIGKILL)


def test_an_old_kernel_without_pidfd_will_do(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: int) -> int:
        raise OSError(errno.ENOSYS, "no such call")

    monkeypatch.setattr(os, "pidfd_open", missing)
    who = processes.identity(sleeper.pid)
    assert who is not None
    assert processes.send_signal(who, signal.SIGKILL)
    sleeper.wait()
    assert not processes.send_signal(who, signal.SIGKILL)


def test_a_name_with_parentheses_and_spaces_does_not_confuse() -> None:
    own = processes.read_stat(os.getpid())
    assert own is not None
    assert own.parent == os.getppid()
    assert own.session == os.getsid(0)
    weird = subprocess.Popen(["bash", "-c", "echo ') S 1 (' > /proc/self/comm; read"], stdin=subprocess.PIPE)
    try:
        while (seen := processes.read_stat(weird.pid)) and seen.start_ticks == 0:
            pass
        assert seen is not None
        assert seen.parent == os.getpid()
    finally:
        weird.communicate()
