"""What is told to a service manager over its real socket, and the sockets that it passes on to a real child."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_reporter.daemon.notify import PINGS_IN_TIME, Notifier
from tests.builders import listening

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHILD = """
import json, os, sys
from agent_reporter.daemon.notify import inherited_sockets
from agent_reporter.errors import ConfigurationError
if os.environ.get("LISTEN_PID") == "mine":
    os.environ["LISTEN_PID"] = str(os.getpid())
try:
    passed = inherited_sockets(os.environ, os.getpid())
    said = [[each.getsockname(), each.gettimeout(), each.get_inheritable()] for each in passed]
except ConfigurationError as problem:
    said = str(problem)
print(json.dumps([said, sorted(name for name in os.environ if name.startswith("LISTEN_"))]))
"""


class Manager:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(f"\0{address[1:]}" if address[0] == "@" else address)
        self.socket.settimeout(0)

    def heard(self) -> dict[str, str]:
        """The assignments of the oldest message."""
        lines = self.socket.recv(4096).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def has_heard_all(self) -> bool:
        try:
            self.socket.recv(4096)
        except BlockingIOError:
            return True
        return False


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, socket_directory: Path) -> Iterator[Manager]:
    path = str(socket_directory / "notify")
    manager = Manager(path if request.param == "path" else f"@{path}")
    yield manager
    manager.socket.close()


SAID: list[tuple[Callable[[Notifier], None], dict[str, str]]] = [
    (lambda notifier: notifier.ready("3 restores open"), {"READY": "1", "STATUS": "3 restores open"}),
    (lambda notifier: notifier.status("3 restores = all"), {"STATUS": "3 restores = all"}),
    (Notifier.stopping, {"STOPPING": "1", "STATUS": "delivering what is left"}),
    (Notifier.watchdog, {"WATCHDOG": "1"}),
    (lambda notifier: notifier.extend_timeout(20.5), {"EXTEND_TIMEOUT_USEC": "20500000"}),
]


@pytest.mark.parametrize(("say", "heard"), SAID)
def test_each_thing_is_told_in_the_words_of_the_manager(
    manager: Manager, say: Callable[[Notifier], None], heard: dict[str, str]
) -> None:
    say(Notifier(manager.address))
    assert manager.heard() == heard
    assert manager.has_heard_all()


def test_a_reload_is_told_with_the_moment_of_its_beginning(manager: Manager) -> None:
    before = time.monotonic_ns() // 1000
    Notifier(manager.address).reloading()
    heard = manager.heard()
    assert heard["RELOADING"] == "1"
    assert before <= int(heard["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000


def test_what_no_text_can_carry_is_told_as_far_as_it_can(manager: Manager) -> None:
    Notifier(manager.address).status("at /srv/\udcff")
    assert manager.heard() == {"STATUS": "at /srv/?"}


@pytest.mark.parametrize("address", [None, ""])
def test_without_a_manager_nothing_is_told(address: str | None) -> None:
    with listening() as heard:
        Notifier(address).ready("all is well")
    assert heard.events == []


def test_a_manager_that_is_gone_is_said_to_be_so_once_and_told_again_when_it_is_back(
    socket_directory: Path,
) -> None:
    address = str(socket_directory / "notify")
    notifier = Notifier(address)
    with listening() as heard:
        for _ in range(10):
            notifier.watchdog()
    [event] = heard.named("daemon.not_notified")
    assert event["socket"] == address
    manager = Manager(address)
    notifier.watchdog()
    assert manager.heard() == {"WATCHDOG": "1"}
    manager.socket.close()


def test_a_manager_that_does_not_listen_holds_nobody_up(manager: Manager) -> None:
    notifier = Notifier(manager.address)
    for _ in range(5_000):
        notifier.watchdog()
    assert manager.heard() == {"WATCHDOG": "1"}


PID = 4711


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 30 / PINGS_IN_TIME),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(PID)}, 30 / PINGS_IN_TIME),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "9" * 5_000}, None),
    ],
)
def test_the_watchdog_is_fed_several_times_in_its_time_if_it_is_ours(
    environ: dict[str, str], interval: float | None
) -> None:
    assert Notifier.from_environment(environ, PID).watchdog_interval == interval


def test_the_environment_says_where_the_manager_listens(manager: Manager) -> None:
    Notifier.from_environment({"NOTIFY_SOCKET": manager.address}, PID).watchdog()
    assert manager.heard() == {"WATCHDOG": "1"}


def in_child(*passed: socket.socket | int, **environ: str) -> tuple[list[list[object]] | str, list[str]]:
    """What a real child makes of descriptors that it inherits from 3 on."""
    descriptors = [each if isinstance(each, int) else each.fileno() for each in passed]
    with ExitStack() as stack:
        # Out of the way of the numbers that the child has them at.
        high = [200 + index for index in range(len(descriptors))]
        for fd, number in zip(descriptors, high, strict=True):
            os.dup2(fd, number, inheritable=True)
            stack.callback(os.close, number)
        moves = "\n".join(f"os.dup2({number}, {3 + index})" for index, number in enumerate(high))
        done = subprocess.run(
            [sys.executable, "-c", f"import os\n{moves}\n{CHILD}"],
            env={"PYTHONPATH": str(Path(__file__).parents[2]), **environ},
            pass_fds=high,
            capture_output=True,
            check=True,
            timeout=60,
        )
    said, left = json.loads(done.stdout)
    return said, left


@pytest.fixture
def listener(socket_directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(socket_directory / "api.sock"))
        listener.listen()
        yield listener


def test_a_child_takes_over_the_socket_that_it_is_passed_and_passes_it_to_nobody(
    listener: socket.socket,
) -> None:
    said, left = in_child(listener, LISTEN_PID="mine", LISTEN_FDS="1", LISTEN_FDNAMES="api")
    assert said == [[listener.getsockname(), 0.0, False]]
    assert left == []


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_a_child_takes_over_a_port_of_this_machine_beside_it(
    listener: socket.socket, family: socket.AddressFamily, host: str
) -> None:
    with socket.socket(family) as port:
        try:
            port.bind((host, 0))
        except OSError as problem:
            pytest.skip(f"{host} is not there: {problem}")
        port.listen()
        said, _ = in_child(listener, port, LISTEN_PID="mine", LISTEN_FDS="2", LISTEN_FDNAMES="api:metrics")
        assert said == [[listener.getsockname(), 0.0, False], [list(port.getsockname()), 0.0, False]]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "mine"},
        {"LISTEN_PID": "mine", "LISTEN_FDS": "0"},
        {"LISTEN_PID": "mine", "LISTEN_FDS": "-1"},
        {"LISTEN_PID": "mine", "LISTEN_FDS": "one"},
        {"LISTEN_PID": "", "LISTEN_FDS": ""},
        {"LISTEN_PID": "mine", "LISTEN_FDS": "9" * 5_000},
    ],
)
def test_what_is_meant_for_another_process_is_not_taken(
    listener: socket.socket, environ: dict[str, str]
) -> None:
    assert in_child(listener, **environ) == ([], [])


def test_what_is_no_socket_that_takes_connections_is_said_to_be_so(socket_directory: Path) -> None:
    def refusal(passed: socket.socket | int) -> str:
        said, left = in_child(passed, LISTEN_PID="mine", LISTEN_FDS="1")
        assert isinstance(said, str)
        assert "descriptor 3, which is no " in said
        assert "ListenStream=" in said
        assert left == []
        return said

    with socket.socket() as network, socket.socket(socket.AF_UNIX) as quiet, Path(__file__).open() as file:
        quiet.bind(str(socket_directory / "quiet"))
        network.bind(("0.0.0.0", 0))
        network.listen()
        assert "no Unix socket" in refusal(network)
        assert "no Unix socket" in refusal(quiet)
        assert "no socket" in refusal(file.fileno())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(socket_directory / "datagrams"))
        assert "no Unix socket" in refusal(datagrams)


def test_a_descriptor_that_was_promised_and_is_not_there_is_said_to_be_so(listener: socket.socket) -> None:
    said, _ = in_child(listener, LISTEN_PID="mine", LISTEN_FDS="90")
    assert "descriptor 4, which is no socket" in said
