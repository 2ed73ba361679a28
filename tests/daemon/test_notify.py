from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from agent_reporter.daemon.notify import Notifier, inherited_sockets
from tests.builders import listening

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PID = 4711


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """Where the service manager listens, and its address as it stands in the environment."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address.replace("@", "\0"))
        receiver.settimeout(60)
        yield receiver, address


def test_every_call_says_what_the_protocol_has_for_it(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address}, PID)
    notifier.ready("2 restores open")
    notifier.status("a lone \udcff surrogate")
    notifier.stopping()
    notifier.watchdog()
    notifier.extend_timeout(12.5)
    assert [receiver.recv(4096) for _ in range(5)] == [
        b"READY=1\nSTATUS=2 restores open",
        b"STATUS=a lone ? surrogate",
        b"STOPPING=1\nSTATUS=delivering what is left",
        b"WATCHDOG=1",
        b"EXTEND_TIMEOUT_USEC=12500000",
    ]


def test_a_reload_carries_the_moment_at_which_it_began(manager: tuple[socket.socket, str]) -> None:
    receiver, address = manager
    before = time.monotonic_ns() // 1000
    Notifier.from_environment({"NOTIFY_SOCKET": address}, PID).reloading()
    first, name, moment = receiver.recv(4096).decode().replace("=1\n", "\n").replace("=", "\n").split("\n")
    assert (first, name) == ("RELOADING", "MONOTONIC_USEC")
    assert before <= int(moment) <= time.monotonic_ns() // 1000


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}])
def test_without_a_service_manager_nothing_is_said(environment: dict[str, str]) -> None:
    with listening() as heard:
        Notifier.from_environment(environment, PID).ready("all is well")
    assert heard.events == []


@pytest.mark.parametrize("address", ["/nowhere/at/all", "@nobody-is-there", "relative", "/" + "x" * 200, "@"])
def test_a_service_manager_that_cannot_be_told_is_logged_once(address: str) -> None:
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": address}, PID)
    with listening() as heard:
        notifier.ready("all is well")
        notifier.watchdog()
    (event,) = heard.events
    assert (event["event"], event["socket"]) == ("daemon.not_notified", address)


def test_a_service_manager_that_does_not_read_is_not_waited_for(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver, listening() as heard:
        receiver.bind(str(tmp_path / "notify"))
        notifier = Notifier.from_environment({"NOTIFY_SOCKET": str(tmp_path / "notify")}, PID)
        for _ in range(100_000):
            notifier.watchdog()
            if heard.events:
                break
    assert [event["event"] for event in heard.events] == ["daemon.not_notified"]


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "30000000"}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 10.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_PID": str(PID)}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_the_watchdog_is_fed_three_times_as_often_as_it_bites(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert Notifier.from_environment(environment, PID).watchdog_interval == seconds


START = """
import os, sys
for target, passed in enumerate(sys.argv[2:], 3):
    os.dup2(int(passed), target + 100)
for target in range(3, 3 + len(sys.argv[2:])):
    os.dup2(target + 100, target)
    os.close(target + 100)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(sys.argv[2:])), LISTEN_FDNAMES="x")
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
"""What a service manager does between fork and exec."""

TAKE = """
import os
from agent_reporter.daemon.notify import inherited_sockets
from agent_reporter.errors import ConfigurationError
try:
    sockets = inherited_sockets(os.environ, os.getpid())
except ConfigurationError as problem:
    print(problem)
else:
    for taken in sockets:
        print(taken.fileno(), taken.getsockname(), taken.get_inheritable(), taken.getblocking())
    print([name for name in os.environ if name.startswith("LISTEN_")])
"""


def started_with(*passed: socket.socket | int) -> list[str]:
    """The lines that a process prints that a service manager starts with `passed` as descriptors 3, 4, ..."""
    descriptors = [one if isinstance(one, int) else one.fileno() for one in passed]
    said = subprocess.run(
        [sys.executable, "-c", START, TAKE, *map(str, descriptors)],
        pass_fds=descriptors,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (said.returncode, said.stderr) == (0, "")
    return said.stdout.splitlines()


def a_listening_socket(stack: ExitStack, path: Path) -> socket.socket:
    made = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    made.bind(str(path))
    made.listen()
    return made


def test_sockets_that_are_passed_on_are_taken_and_not_passed_on_further(tmp_path: Path) -> None:
    with ExitStack() as stack:
        sockets = [a_listening_socket(stack, tmp_path / name) for name in ("a", "b")]
        assert started_with(*sockets) == [
            f"3 {tmp_path}/a False False",
            f"4 {tmp_path}/b False False",
            "[]",
        ]


def test_what_is_no_listening_unix_socket_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with ExitStack() as stack:
        listens = a_listening_socket(stack, tmp_path / "a")
        inet = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        datagrams = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        deaf = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        for bad in (inet, datagrams, deaf):
            (line,) = started_with(listens, bad)
            assert "descriptor 4, which is no Unix socket that takes connections. Have one" in line
        reading, writing = os.pipe()
        (line,) = started_with(reading)
        os.close(reading)
        os.close(writing)
        assert "descriptor 3, which is no socket" in line


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "api"},
        {"LISTEN_PID": "no number", "LISTEN_FDS": "1"},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": str(PID)},
        {"LISTEN_PID": str(PID), "LISTEN_FDS": "0"},
        {"LISTEN_PID": str(PID), "LISTEN_FDS": "-1"},
        {"LISTEN_PID": str(PID), "LISTEN_FDS": "some"},
    ],
)
def test_what_is_meant_for_nobody_or_for_another_process_is_left_alone(environment: dict[str, str]) -> None:
    assert inherited_sockets(environment, PID) == []
    assert environment == {}
