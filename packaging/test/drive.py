"""Takes the Debian package through its life on a real systemd: `drive.py GUEST FIRST.deb SECOND.deb`.

GUEST is what `make-guest` made. FIRST and SECOND are two builds, the second of a higher version. The
control plane is the reference, on this machine's loopback, which the guest shares. Prints a line for each
step, and ends with 1 at the first that fails, as later ones build on it.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from control_plane import PROJECT, TOKEN, ControlPlane
from guest import PATIENCE, Guest, StepError, insist, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SOCKET = "/run/agent-reporter/api.sock"
SERVICE, LISTENER = "agent-reporter.service", "agent-reporter.socket"
OUT_SERVICE, OUT_LISTENER = "agent-reporter-out.service", "agent-reporter-out.socket"
METRICS = "agent-reporter-metrics.socket"
STATE, SPOOL = "/var/lib/agent-reporter", "/var/lib/agent-reporter/spool"
SETTINGS, TOKEN_FILE = "/etc/agent-reporter/agent-reporter.toml", "/etc/agent-reporter/token"


@dataclass
class Life:
    """What the steps share: the guest, the control plane, the packages, and what was reported."""

    guest: Guest
    control_plane: ControlPlane
    first: Path
    second: Path
    reported: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By restore, what the control plane has to know of it at the end."""
    left_behind: str = ""
    """The restore whose result was not delivered before the package was removed."""

    @property
    def pid(self) -> int:
        """The daemon's main process; 0 while there is none."""
        return int(self.guest.show(SERVICE, "MainPID"))

    def call(self, restore_id: str, values: dict[str, object], user: str = "engine") -> subprocess.Popen[str]:
        """Start to report `values` of a restore with curl, as an engine's user."""
        operations = [{"op": "replace", "path": f"/{name}", "value": value} for name, value in values.items()]
        command = ["curl", "--silent", "--show-error", "--max-time", str(PATIENCE), "--unix-socket", SOCKET]
        command += ["--request", "PATCH", "--header", "Content-Type: application/json-patch+json"]
        command += ["--data", json.dumps(operations), "--write-out", "%{http_code}"]
        url = f"http://agent/v2/{PROJECT}/restores/{restore_id}"
        return self.guest.start("runuser", "-u", user, "--", *command, url)

    def report(self, restore_id: str, **values: object) -> None:
        """Report `values`, and hold the daemon and the control plane to them."""
        answered(self.call(restore_id, values))
        self.reported.setdefault(restore_id, {}).update(values)

    def is_delivered(self, restore_id: str) -> bool:
        """Whether the control plane knows all that was reported of a restore."""
        record = self.control_plane.record(restore_id)
        return all(record.get(name) == value for name, value in self.reported[restore_id].items())

    def deliver(self, *restore_ids: str) -> None:
        """Wait until the control plane knows what was reported."""
        for restore_id in restore_ids or self.reported:
            wait_until(partial(self.is_delivered, restore_id), f"{restore_id} is not delivered")

    def end_without_delivery(self) -> str:
        """Report a restore from its start to its end while the control plane is away, and return its id."""
        restore_id = self.control_plane.start_restore()
        self.report(restore_id, state="in_progress")
        self.report(restore_id, state="completed", files_restored=7, bytes_restored=700)
        return restore_id

    def set(self, *lines: str) -> None:
        """Add lines to the settings file."""
        file = self.guest.path(SETTINGS)
        file.write_text("\n".join([file.read_text().rstrip(), *lines, ""]))

    # --- the steps ----------------------------------------------------------------------------------------

    def install(self) -> None:
        """Install: the socket listens, and nothing runs before somebody calls."""
        self.guest.install(self.first)
        self.guest.run("id", "agent-reporter")
        insist(self.guest.show(LISTENER, "ActiveState") == "active", "the socket does not listen")
        insist(self.pid == 0, "the service runs before it is called")
        owners = self.guest.run("stat", "--format", "%U:%G %a", SOCKET, STATE).split("\n")
        insist(owners[0] == "root:agent-reporter 660", f"{SOCKET}: {owners[0]}")
        insist(owners[1] == "agent-reporter:agent-reporter 700", f"{STATE}: {owners[1]}")
        for unit in (SERVICE, LISTENER):
            insist(self.guest.show(unit, "UnitFileState") == "enabled", f"{unit} is not enabled")
        units = [
            f"/lib/systemd/system/{unit}" for unit in (SERVICE, LISTENER, OUT_SERVICE, OUT_LISTENER, METRICS)
        ]
        said = self.guest.run("systemd-analyze", "verify", *units)
        insist(not said, f"systemd-analyze verify: {said}")

    def own_environment(self) -> None:
        """Python packages of the host do not matter to it."""
        self.guest.path("/opt/bad").mkdir(exist_ok=True)
        self.guest.path("/opt/bad/aiohttp.py").write_text("raise SystemExit('the wrong aiohttp')\n")
        self.guest.run("env", "PYTHONPATH=/opt/bad", "agent-reporter", "check", "--help")

    def configure(self) -> None:
        """Settings in the conffile, the token as a credential, and users with and without the group."""
        self.set(
            f'endpoint = "{self.control_plane.url}"',
            f'project_id = "{PROJECT}"',
            "drain_timeout = 1.0",
            "retry_base = 0.2",
            "retry_cap = 2.0",
        )
        token = self.guest.path(TOKEN_FILE)
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        self.guest.run("useradd", "--groups", "agent-reporter", "engine")
        self.guest.run("useradd", "stranger")

    def activate(self) -> None:
        """The first call starts the service; a user outside of the group is not let in."""
        restore_id = self.control_plane.start_restore()
        out, _ = self.call(restore_id, {"state": "in_progress"}, "stranger").communicate()
        insist(out.endswith("000"), f"a stranger was answered: {out}")
        insist(self.pid == 0, "a stranger has started the service")
        self.report(restore_id, state="in_progress")
        insist(self.guest.show(SERVICE, "ActiveState") == "active", "the service is not active")
        insist(self.guest.show(SERVICE, "StatusText"), "the service says no status")
        self.deliver(restore_id)
        self.report(restore_id, state="completed", files_restored=1, bytes_restored=10)
        self.deliver(restore_id)

    def reload(self) -> None:
        """A reload takes new settings over, and the process stays."""
        before = self.pid
        self.set('log_level = "debug"')
        self.guest.run("systemctl", "reload", SERVICE)
        insist(self.guest.show(SERVICE, "ActiveState") == "active", "it is not active after a reload")
        insist(self.pid == before, "the process was replaced")
        self.deliver(self.one_more())

    def one_more(self) -> str:
        """Report one more restore as a whole."""
        restore_id = self.control_plane.start_restore()
        self.report(restore_id, state="completed", files_restored=2, bytes_restored=20)
        return restore_id

    def other_sign_in(self) -> None:
        """Without the credential it starts just so, where the settings name another way to sign in."""
        credential, file = self.guest.path(TOKEN_FILE), self.guest.path(f"{STATE}/token")
        file.write_bytes(credential.read_bytes())
        self.guest.run("chown", "agent-reporter:", f"{STATE}/token")
        self.guest.run("chmod", "600", f"{STATE}/token")
        credential.rename(credential.with_name("kept"))
        self.set(f'token_file = "{STATE}/token"')
        self.guest.run("systemctl", "restart", SERVICE)
        self.deliver(self.one_more())
        credential.with_name("kept").rename(credential)

    def metrics(self) -> None:
        """Metrics are there once they are asked for, though the daemon has no network."""
        address = f"127.0.0.1:{free_port()}"
        drop_in = self.guest.path(f"/etc/systemd/system/{METRICS}.d/test.conf")
        drop_in.parent.mkdir()
        drop_in.write_text(f"[Socket]\nListenStream=\nListenStream={address}\n")
        self.guest.run("systemctl", "daemon-reload")
        self.guest.run("systemctl", "enable", METRICS)
        self.guest.run("systemctl", "restart", SERVICE)
        shown = self.guest.run("curl", "--silent", "--show-error", "--fail", f"http://{address}/metrics")
        insist("agent_reporter_restores_open" in shown, f"no metrics: {shown}")
        no_network = "import socket; socket.create_connection(('192.0.2.1', 9), 1)"
        inside = ["nsenter", "--target", str(self.pid), "--net", "python3", "-c", no_network]
        insist("unreachable" in self.guest.try_(*inside).stdout, "the daemon has a network")

    def watchdog(self) -> None:
        """A daemon that hangs is replaced, and a call that waits meanwhile is answered."""
        drop_in = self.guest.path(f"/etc/systemd/system/{SERVICE}.d/test.conf")
        drop_in.parent.mkdir(exist_ok=True)
        drop_in.write_text("[Service]\nWatchdogSec=3s\n")
        self.guest.run("systemctl", "daemon-reload")
        self.guest.run("systemctl", "restart", SERVICE)
        before = self.pid
        self.guest.run("kill", "-STOP", str(before))
        restore_id = self.one_more()
        insist(self.pid not in {0, before}, "the process was not replaced")
        insist("watchdog" in self.guest.run("journalctl", "--unit", SERVICE), "no word of the watchdog")
        drop_in.unlink()
        self.guest.run("systemctl", "daemon-reload")
        self.deliver(restore_id)

    def killed(self) -> None:
        """Killed three times with an undelivered result: it comes back each time, and the result arrives."""
        with self.control_plane.away():
            restore_id = self.end_without_delivery()
            for _ in range(3):
                before = self.pid
                self.guest.run("kill", "-KILL", str(before))
                self.one_more()
                insist(self.pid not in {0, before}, "the process was not replaced")
        self.deliver(restore_id)

    def stop_and_start(self) -> None:
        """A stop leaves undelivered reports in the spool; the next start delivers them."""
        with self.control_plane.away():
            restore_id = self.end_without_delivery()
            self.guest.run("systemctl", "stop", SERVICE)
            insist(self.guest.show(SERVICE, "Result") == "success", "the stop was not clean")
            insist(self.guest.run("find", SPOOL, "-type", "f"), "the spool is empty")
        insist(not self.is_delivered(restore_id), "delivered by nobody")
        self.guest.run("systemctl", "start", SERVICE)
        self.deliver(restore_id)

    def upgrade(self) -> None:
        """An upgrade with undelivered reports, and with calls all the while: nothing is lost or dropped."""
        before, version = self.pid, self.guest.run("dpkg-query", "-W", "-f", "${Version}", "agent-reporter")
        with self.control_plane.away():
            restore_id = self.end_without_delivery()
            others = [self.control_plane.start_restore() for _ in range(4)]
            with self.reports_all_the_while(others):
                self.guest.install(self.second)
                wait_until(lambda: self.pid not in {0, before}, "the service was not restarted")
        after = self.guest.run("dpkg-query", "-W", "-f", "${Version}", "agent-reporter")
        insist(after != version, f"the version is still {version}")
        settings = self.guest.path(SETTINGS).read_text()
        insist(self.control_plane.url in settings, "the settings were replaced")
        self.deliver(restore_id, *others)

    @contextmanager
    def reports_all_the_while(self, restore_ids: list[str]) -> Iterator[None]:
        """Reports of each restore, one after another without a pause, and its end at the end."""
        over = threading.Event()
        problems: list[StepError] = []

        def go_on(restore_id: str) -> None:
            count = 0
            try:
                self.report(restore_id, state="in_progress")
                while not over.is_set():
                    count += 1
                    self.report(restore_id, files_restored=count, bytes_restored=count * 100)
                self.report(restore_id, state="completed")
            except StepError as problem:
                problems.append(problem)

        threads = [threading.Thread(target=go_on, args=(restore_id,)) for restore_id in restore_ids]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            over.set()
            for thread in threads:
                thread.join()
        insist(not problems, f"a call was dropped: {problems}")

    def remove(self) -> None:
        """Removed: nothing runs or listens; settings, token and undelivered reports stay."""
        with self.control_plane.away():
            self.left_behind = self.end_without_delivery()
            self.guest.run("apt-get", "-qq", "--yes", "remove", "agent-reporter")
        insist(self.guest.try_("pgrep", "-u", "agent-reporter").returncode == 1, "a process is left")
        insist(self.guest.try_("test", "-e", SOCKET).returncode == 1, "the socket is left")
        insist(not self.guest.path("/usr/lib/agent-reporter").exists(), "files are left in /usr/lib")
        insist(self.guest.path(SETTINGS).exists(), "the settings are gone")
        insist(self.guest.run("find", SPOOL, "-type", "f"), "the spool is gone")

    def install_again(self) -> None:
        """Installed again after a removal: what was left is delivered."""
        self.guest.install(self.second)
        self.guest.run("systemctl", "start", SERVICE)
        self.deliver(self.left_behind)

    def purge(self) -> None:
        """Purged: no file is left; the user stays."""
        self.guest.run("apt-get", "-qq", "--yes", "purge", "agent-reporter")
        for name in (STATE, "/etc/agent-reporter", "/usr/lib/agent-reporter"):
            insist(not self.guest.path(name).exists(), f"{name} is left")
        insist(
            self.guest.try_("test", "-e", "/run/agent-reporter").returncode == 1,
            "/run/agent-reporter is left",
        )
        found = self.guest.run(
            "find", "/etc", "/usr", "/var/lib", "/run", "-name", "*agent-reporter*"
        ).split()
        left = [name for name in found if not name.endswith(".d") and "dpkg" not in name]  # .d: of this test
        insist(not left, f"left: {left}")
        self.guest.run("id", "agent-reporter")

    def every_record(self) -> None:
        """At the end, the control plane knows of every restore what was reported."""
        self.deliver()
        states = [self.control_plane.record(restore_id)["state"] for restore_id in self.reported]
        insist(set(states) == {"completed"}, f"states: {states}")


STEPS = [
    Life.install,
    Life.own_environment,
    Life.configure,
    Life.activate,
    Life.reload,
    Life.other_sign_in,
    Life.metrics,
    Life.watchdog,
    Life.killed,
    Life.stop_and_start,
    Life.upgrade,
    Life.remove,
    Life.install_again,
    Life.purge,
    Life.every_record,
]


def free_port() -> int:
    """A port of the loopback that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def answered(call: subprocess.Popen[str]) -> None:
    """Wait for a call; raises StepError if it is not answered with 204."""
    out, _ = call.communicate()
    insist(out == "204", f"a report was answered with {out!r}")


def main(root: Path, first: Path, second: Path) -> int:
    """Go through all steps, and return the exit status."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ControlPlane(Path(folder)) as control_plane,
        Guest(root) as guest,
    ):
        life = Life(guest, control_plane, first, second)
        for step in STEPS:
            began = time.monotonic()
            try:
                step(life)
            except (StepError, OSError, subprocess.SubprocessError) as problem:
                print(f"FAILED  {step.__doc__}\n        {problem}", flush=True)
                print(guest.try_("journalctl", "--no-pager", "--lines=40", "--unit=agent-reporter*").stdout)
                return 1
            print(f"ok      {step.__doc__} ({time.monotonic() - began:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*(Path(argument).resolve() for argument in sys.argv[1:])))
