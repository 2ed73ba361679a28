from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_reporter import processes
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.processes import (
    all_stats,
    boot_id,
    identity,
    is_alive,
    own_identity,
    read_stat,
    send_signal,
)
from tests.builders import needs_root, python

if TYPE_CHECKING:
    from collections.abc import Iterator

BEYOND_ALL_PIDS = 2**22 + 1


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


def identity_of(pid: int) -> ProcessIdentity:
    found = identity(pid)
    assert found is not None
    return found


def wait_for_its_end(pid: int) -> None:
    """Wait until `pid` has ended, and leave it unreaped."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def seen_alive_and_killed(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the child is still seen alive, and is gone right after that look."""

    def look(_who: ProcessIdentity) -> bool:
        child.kill()
        child.wait()
        return True

    monkeypatch.setattr(processes, "is_alive", look)


def test_this_process_is_alive_and_who_it_says_it_is() -> None:
    me = own_identity()
    assert me == identity(os.getpid())
    assert me.boot_id == boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert is_alive(me)


def test_what_the_system_says_of_a_child_is_read(child: subprocess.Popen[bytes]) -> None:
    stat = read_stat(child.pid)
    assert stat is not None
    assert (stat.pid, stat.parent, stat.session) == (child.pid, os.getpid(), os.getsid(0))
    assert stat.start_ticks >= own_identity().start_ticks
    assert not stat.has_ended
    assert all_stats()[child.pid].identity == stat.identity == identity(child.pid)
    assert os.getpid() in all_stats()


@pytest.mark.parametrize("name", [") Z 1 (", "a b", "(((", ") R 1 1 1", "\n"])
def test_a_process_may_be_called_anything(tmp_path: Path, name: str) -> None:
    sleep = shutil.which("sleep")
    assert sleep is not None
    shutil.copy(sleep, tmp_path / name)
    with subprocess.Popen([tmp_path / name, "60"]) as process:
        try:
            stat = read_stat(process.pid)
            assert stat is not None
            assert (stat.pid, stat.parent) == (process.pid, os.getpid())
            assert is_alive(stat.identity)
        finally:
            process.kill()


def test_a_process_that_only_waits_to_be_reaped_is_not_alive_but_has_an_identity(
    child: subprocess.Popen[bytes],
) -> None:
    who = identity_of(child.pid)
    child.kill()
    wait_for_its_end(child.pid)
    stat = read_stat(child.pid)
    assert stat is not None
    assert stat.has_ended
    assert identity(child.pid) == who
    assert not is_alive(who)
    assert not send_signal(who, signal.SIGTERM)


def test_for_want_of_a_descriptor_nobody_is_taken_for_gone() -> None:
    code = (
        "import os, resource\n"
        "from agent_reporter import processes\n"
        "names = os.listdir('/proc')\n"
        "os.listdir = lambda _: names\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))\n"
        "for look in (processes.all_stats, lambda: processes.read_stat(os.getpid())):\n"
        "    try: print(look())\n"
        "    except OSError as error: print(error.strerror)\n"
        "print(processes.read_stat(0))"
    )
    printed = python(code, cwd=Path(__file__).parents[1])
    assert printed.stdout == "Too many open files\n" * 2 + "None\n", printed.stderr


@contextmanager
def shy_proc(folder: Path) -> Iterator[Path]:
    """A /proc that shows each user their own processes only."""
    mount = ["mount", "-t", "proc", "-o", "hidepid=1", "proc", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("/proc cannot be mounted here: needs root and CAP_SYS_ADMIN")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@needs_root
def test_a_process_that_may_not_be_seen_is_nobody(tmp_path: Path) -> None:
    with shy_proc(tmp_path) as proc:
        code = (
            "import os, pathlib, sys\n"
            "from agent_reporter import processes\n"
            "os.chdir(sys.argv[1])\n"
            "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
            "processes.Path = lambda path: pathlib.Path(path.removeprefix('/proc/'))\n"
            "print(processes.read_stat(1), processes.read_stat(os.getpid()) is not None)"
        )
        printed = python(code, proc, cwd=Path(__file__).parents[1])
    assert printed.stdout == "None True\n", printed.stderr


def test_a_process_that_is_gone_is_nobody(child: subprocess.Popen[bytes]) -> None:
    who = identity_of(child.pid)
    child.kill()
    child.wait()
    assert identity(child.pid) is None
    assert not is_alive(who)
    assert not send_signal(who, signal.SIGTERM)


def test_a_process_that_got_the_number_of_another_is_never_taken_for_it(
    child: subprocess.Popen[bytes],
) -> None:
    who = identity_of(child.pid)
    for other in (replace(who, start_ticks=who.start_ticks - 1), replace(who, boot_id="another boot")):
        assert not is_alive(other)
        assert not send_signal(other, signal.SIGKILL)
    assert child.poll() is None


@pytest.mark.parametrize(
    "pid", [0, BEYOND_ALL_PIDS, 2**31, 2**63, 2**64, 10**400], ids=lambda pid: f"{pid.bit_length()} bits"
)
def test_numbers_that_no_process_has_are_nobodys(pid: int) -> None:
    nobody = ProcessIdentity(pid, 1, boot_id())
    assert read_stat(pid) is None
    assert not is_alive(nobody)
    assert not send_signal(nobody, signal.SIGTERM)


def test_a_signal_reaches_the_process_that_is_meant(child: subprocess.Popen[bytes]) -> None:
    assert send_signal(identity_of(child.pid), signal.SIGTERM)
    assert child.wait(10) == -signal.SIGTERM


def test_a_signal_is_sent_by_number_where_the_kernel_has_no_pidfd(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_pid: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    who = identity_of(child.pid)
    assert not send_signal(replace(who, start_ticks=who.start_ticks - 1), signal.SIGKILL)
    assert send_signal(who, signal.SIGTERM)
    assert child.wait(10) == -signal.SIGTERM
    assert not send_signal(who, signal.SIGTERM)


def test_a_process_that_goes_between_the_look_and_the_signal_is_gone(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    who = identity_of(child.pid)
    seen_alive_and_killed(child, monkeypatch)
    assert not send_signal(who, signal.SIGTERM)


def test_a_process_that_goes_between_the_look_and_the_signal_by_number_is_gone(
    child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    who = identity_of(child.pid)
    seen_alive_and_killed(child, monkeypatch)
    assert not processes._send_signal_by_number(who, signal.SIGTERM)


def test_signalling_keeps_no_descriptor_open(child: subprocess.Popen[bytes]) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    who = identity_of(child.pid)
    for _ in range(5):
        send_signal(who, signal.SIGCONT)
        send_signal(replace(who, start_ticks=0), signal.SIGCONT)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@needs_root
def test_a_process_of_somebody_else_may_not_be_signalled(child: subprocess.Popen[bytes]) -> None:
    who = identity_of(child.pid)
    inside, outside = os.pipe()
    pid = os.fork()
    if pid == 0:  # a child of its own, as giving root up cannot be undone
        os.setuid(65534)
        try:
            send_signal(who, signal.SIGKILL)
        except PermissionError:
            os.write(outside, b"refused")
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(outside)
    with os.fdopen(inside, "rb") as file:
        assert file.read() == b"refused"
    assert child.poll() is None


def test_a_system_that_hides_this_process_still_has_an_identity_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(processes, "read_stat", lambda _pid: None)
    assert own_identity() == ProcessIdentity(os.getpid(), 0, boot_id())
