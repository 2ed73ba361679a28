"""Takes the Debian package through its life on a real systemd: `drive.py GUEST FIRST.deb SECOND.deb`.

GUEST is what `make-guest` made. FIRST and SECOND are two builds, the second of a higher version. The control
plane is the reference, on this machine's loopback, which the guest shares. Prints a line for each step, and ends
with 1 if one has failed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PROJECT = "110011"
TOKEN = "the-token-of-the-package-test"  # noqa: S105 - of a control plane that ends with this test
SOCKET = "/run/agent-reporter/api.sock"
SERVICE, LISTENER = "agent-reporter.service", "agent-reporter.socket"
SPOOL = "/var/lib/agent-reporter/spool"
PATIENCE = 30.0
"""Seconds that anything may take to become true."""
AWAY = {"match": {"method": "PATCH"}, "for_seconds": 600, "answer": {"status": 503}}
"""A control plane that takes no reports."""


class StepError(Exception):
    """What a step wanted is not so."""


def insist(is_so: object, otherwise: str) -> None:
    """Raise StepError with `otherwise` if it is not so."""
    if not is_so:
        raise StepError(otherwise)


def wait_until(is_so: Callable[[], object], otherwise: str) -> None:
    """Wait for a condition; raises StepError if it does not come true in time."""
    deadline = time.monotonic() + PATIENCE
    while not is_so():
        insist(time.monotonic() < deadline, f"{otherwise} (waited {PATIENCE:g} s)")
        time.sleep(0.1)


class Guest:
    """The booted guest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._boot = subprocess.Popen([HERE / "boot-guest", root], start_new_session=True)
        wait_until(self._find_init, "the guest's init did not start")
        self.enter = ["nsenter", "--target", str(self._find_init()), *"-m -p -u -i -C -r -w".split()]
        wait_until(
            lambda: self.try_("systemctl", "is-active", "package-test.target").returncode == 0, "no boot"
        )

    def _find_init(self) -> int | None:
        insist(self._boot.poll() is None, "the guest does not boot")
        children = Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()
        inits = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"]
        return int(inits[0]) if inits else None

    def close(self) -> None:
        """End it. Its processes go with its init."""
        with suppress(OSError):
            self._boot.kill()
        self._boot.wait()

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command in the guest."""
        return subprocess.Popen(
            [*self.enter, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **options,
        )

    def try_(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest, however it ends."""
        process = self.start(*command)
        out, _ = process.communicate(timeout=300)
        return subprocess.CompletedProcess(command, process.returncode, out, "")

    def run(self, *command: str) -> str:
        """Run a command in the guest, and return what it printed; raises StepError if it fails."""
        done = self.try_(*command)
        insist(
            done.returncode == 0, f"`{' '.join(command)}` ended with {done.returncode}: {done.stdout[-2000:]}"
        )
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()

    def path(self, name: str) -> Path:
        """A file of the guest, seen from outside: not those in /run."""
        return self.root / name.lstrip("/")

    def install(self, package: Path) -> None:
        """Install a package file, with what it depends on, as an administrator does."""
        self.path("/root/package.deb").write_bytes(package.read_bytes())
        self.run(
            "env",
            "DEBIAN_FRONTEND=noninteractive",
            "apt-get",
            "-qq",
            "--no-install-recommends",
            "--yes",
            "install",
            "/root/package.deb",
        )


class ControlPlane:
    """The reference control plane, outside the guest."""

    def __init__(self, folder: Path) -> None:
        (folder / "token").write_text(TOKEN)
        command = [sys.executable, "-m", "agent_reporter.cli.main", "reference", "--listen", "127.0.0.1:0"]
        command += ["--data", str(folder / "data"), "--token-file", str(folder / "token"), "--faults"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        insist(self._process.stdout, "no pipe")
        self.url = self._process.stdout.readline().split()[-1]  # type: ignore[union-attr]  # insisted on

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request, with its answer's document; raises OSError for a refusal."""
        request = urllib.request.Request(self.url + path, method=method, headers={"X-Auth-Token": TOKEN})  # noqa: S310 - a URL of our own server
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - a URL of our own server
            content = answer.read()
        return json.loads(content) if content else None

    def start_restore(self) -> str:
        """Have a restore started, and return its id."""
        document = self.ask(
            "POST", f"/v2/{PROJECT}/restores", {"backup_id": "b", "destination_agent_id": "a"}
        )
        return str(document.get("id") or document["restore_id"])

    def record(self, restore_id: str) -> dict[str, Any]:
        """What it knows of a restore."""
        return dict(self.ask("GET", f"/v2/{PROJECT}/restores/{restore_id}"))

    @contextmanager
    def away(self) -> Iterator[None]:
        """For a while, it takes no reports."""
        self.ask("POST", "/faults", [AWAY])
        yield
        self.ask("DELETE", "/faults")


@dataclass
class Test:
    """What the steps share: the guest, the control plane, the packages, and what was reported."""

    guest: Guest
    control_plane: ControlPlane
    first: Path
    second: Path
    reported: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By restore, what the control plane has to know of it at the end."""

    @property
    def pid(self) -> int:
        """The daemon's main process; 0 while there is none."""
        return int(self.guest.show(SERVICE, "MainPID"))

    def call(self, restore_id: str, user: str = "engine", **values: object) -> subprocess.Popen[str]:
        """Start to report `values` of a restore with curl, as an engine's user."""
        operations = [
            {"op": "replace", "path": f"/{name.replace('_', '-')}", "value": value}
            for name, value in values.items()
        ]
        command = ["curl", "--silent", "--show-error", "--max-time", str(PATIENCE), "--unix-socket", SOCKET]
        command += ["--request", "PATCH", "--header", "Content-Type: application/json-patch+json"]
        command += ["--data", json.dumps(operations), "--write-out", "%{http_code}", "--output", "/dev/null"]
        url = f"http://agent/v2/{PROJECT}/restores/{restore_id}"
        return self.guest.start("runuser", "-u", user, "--", *command, url)

    def report(self, restore_id: str, **values: object) -> None:
        """Report `values`, and hold the daemon and the control plane to them."""
        answered(self.call(restore_id, **values))
        self.reported.setdefault(restore_id, {}).update(values)

    def is_delivered(self, restore_id: str) -> bool:
        """Whether the control plane knows all that was reported of a restore."""
        record = self.control_plane.record(restore_id)
        return all(record.get(name) == value for name, value in self.reported[restore_id].items())

    def deliver(self, *restore_ids: str) -> None:
        """Wait until the control plane knows what was reported."""
        for restore_id in restore_ids or self.reported:
            wait_until(lambda: self.is_delivered(restore_id), f"{restore_id} is not delivered")  # noqa: B023 - used at once

    def end_without_delivery(self) -> str:
        """Report a restore from its start to its end while the control plane is away, and return its id."""
        restore_id = self.control_plane.start_restore()
        self.report(restore_id, state="in_progress")
        self.report(restore_id, state="completed", files_restored=7, bytes_restored=700)
        return restore_id

    # --- the steps ----------------------------------------------------------------------------------------

    def install(self) -> None:
        """Install: the socket listens, and nothing runs before somebody calls."""
        self.guest.install(self.first)
        self.guest.run("id", "agent-reporter")
        insist(self.guest.show(LISTENER, "ActiveState") == "active", "the socket does not listen")
        insist(self.pid == 0, "the service runs before it is called")
        listed = self.guest.run("stat", "-c", "%U:%G %a", SOCKET, "/var/lib/agent-reporter").split("\n")
        insist(
            listed[:2] == ["root:agent-reporter 660", "agent-reporter:agent-reporter 700"],
            f"owners: {listed}",
        )
        for unit in (SERVICE, LISTENER):
            insist(
                self.guest.run("systemctl", "is-enabled", unit).strip() == "enabled", f"{unit} is not enabled"
            )
        out = self.guest.run("systemd-analyze", "verify", f"/lib/systemd/system/{SERVICE}")
        insist(not out, f"systemd-analyze verify: {out}")

    def own_environment(self) -> None:
        """Python packages of the host do not matter to it."""
        self.guest.path("/opt/bad").mkdir(exist_ok=True)
        self.guest.path("/opt/bad/aiohttp.py").write_text("raise SystemExit('the wrong aiohttp')\n")
        self.guest.run("env", "PYTHONPATH=/opt/bad", "agent-reporter", "check", "--help")

    def configure(self) -> None:
        """Settings in the conffile, the token as a credential, and users with and without the group."""
        settings = self.guest.path("/etc/agent-reporter/agent-reporter.toml")
        lines = {
            "endpoint": f'"{self.control_plane.url}"',
            "project_id": f'"{PROJECT}"',
            "drain_timeout": "1.0",
        }
        lines |= {"retry_base": "0.2", "retry_cap": "2.0"}
        settings.write_text(
            settings.read_text() + "".join(f"{name} = {value}\n" for name, value in lines.items())
        )
        token = self.guest.path("/etc/agent-reporter/token")
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        self.guest.run("useradd", "--groups", "agent-reporter", "engine")
        self.guest.run("useradd", "stranger")

    def activate(self) -> None:
        """The first call starts the service; a user outside of the group is not let in."""
        restore_id = self.control_plane.start_restore()
        out, _ = self.call(restore_id, user="stranger", state="in_progress").communicate()
        insist("000" in out, f"a stranger was answered: {out}")
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
        settings = self.guest.path("/etc/agent-reporter/agent-reporter.toml")
        settings.write_text(settings.read_text() + 'log_level = "debug"\n')
        self.guest.run("systemctl", "reload", SERVICE)
        insist(self.guest.show(SERVICE, "ActiveState") == "active", "it is not active after a reload")
        insist(self.pid == before, "the process was replaced")
        self.deliver(self.one_more())

    def one_more(self) -> str:
        """Report one more restore as a whole."""
        restore_id = self.control_plane.start_restore()
        self.report(restore_id, state="completed", files_restored=2, bytes_restored=20)
        return restore_id

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
        """An upgrade with undelivered reports, and with calls all the while: none is dropped, nothing is lost."""
        before, version = self.pid, self.guest.run("dpkg-query", "-W", "-f", "${Version}", "agent-reporter")
        with self.control_plane.away():
            restore_id = self.end_without_delivery()
            others = [self.control_plane.start_restore() for _ in range(4)]
            with self.reports_all_the_while(others):
                self.guest.install(self.second)
                wait_until(lambda: self.pid not in {0, before}, "the service was not restarted")
        after = self.guest.run("dpkg-query", "-W", "-f", "${Version}", "agent-reporter")
        insist(after != version, f"the version is still {version}")
        settings = self.guest.path("/etc/agent-reporter/agent-reporter.toml").read_text()
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
            self.left = self.end_without_delivery()
            self.guest.run("apt-get", "-qq", "--yes", "remove", "agent-reporter")
        insist(self.guest.try_("pgrep", "-u", "agent-reporter").returncode == 1, "a process is left")
        insist(self.guest.try_("test", "-e", SOCKET).returncode == 1, "the socket is left")
        insist(not self.guest.path("/usr/lib/agent-reporter").exists(), "files are left in /usr/lib")
        insist(self.guest.path("/etc/agent-reporter/agent-reporter.toml").exists(), "the settings are gone")
        insist(self.guest.run("find", SPOOL, "-type", "f"), "the spool is gone")

    def install_again(self) -> None:
        """Installed again after a removal: what was left is delivered."""
        self.guest.install(self.second)
        self.guest.run("systemctl", "start", SERVICE)
        self.deliver(self.left)

    def purge(self) -> None:
        """Purged: no file is left; the user stays."""
        self.guest.run("apt-get", "-qq", "--yes", "purge", "agent-reporter")
        for name in ("/var/lib/agent-reporter", "/etc/agent-reporter", "/usr/lib/agent-reporter"):
            insist(not self.guest.path(name).exists(), f"{name} is left")
        insist(
            self.guest.try_("test", "-e", "/run/agent-reporter").returncode == 1,
            "/run/agent-reporter is left",
        )
        links = self.guest.run(
            "find",
            "/etc/systemd",
            "/var/lib/systemd",
            "-name",
            "*agent-reporter*",
            "!",
            "-path",
            "*.service.d*",
        )
        insist(not links, f"left: {links}")
        self.guest.run("id", "agent-reporter")

    def every_record(self) -> None:
        """At the end, the control plane knows of every restore what was reported."""
        self.deliver()
        states = [self.control_plane.record(restore_id)["state"] for restore_id in self.reported]
        insist(set(states) == {"completed"}, f"states: {states}")


STEPS = [
    Test.install,
    Test.own_environment,
    Test.configure,
    Test.activate,
    Test.reload,
    Test.watchdog,
    Test.killed,
    Test.stop_and_start,
    Test.upgrade,
    Test.remove,
    Test.install_again,
    Test.purge,
    Test.every_record,
]


def answered(call: subprocess.Popen[str]) -> None:
    """Wait for a call; raises StepError if it is not answered with 204."""
    out, _ = call.communicate()
    insist(out == "204", f"a report was answered with {out!r}")


def main(root: Path, first: Path, second: Path) -> int:
    """Go through all steps; the first that fails is the last, as later ones build on it."""
    with tempfile.TemporaryDirectory() as folder:
        control_plane = ControlPlane(Path(folder))
        guest = None
        try:
            guest = Guest(root)
            test = Test(guest, control_plane, first, second)
            for step in STEPS:
                began = time.monotonic()
                try:
                    step(test)
                except (StepError, OSError, subprocess.SubprocessError) as problem:
                    print(f"FAILED  {step.__doc__}\n        {problem}", flush=True)
                    print(guest.try_("journalctl", "--no-pager", "--lines", "60").stdout)
                    return 1
                print(f"ok      {step.__doc__} ({time.monotonic() - began:.1f} s)", flush=True)
        finally:
            if guest is not None:
                guest.close()
            control_plane.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(*(Path(argument).resolve() for argument in sys.argv[1:])))
