"""A Debian guest with a real systemd, booted beside this machine's own, and driven from outside."""

from __future__ import annotations

import os
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
ENVIRONMENT = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
PATIENCE = 30.0
"""Seconds that anything may take to become true."""


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
        try:
            wait_until(self._find_init, "the guest's init did not start")
            inside = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--root", "--wd"]
            self._enter = ["nsenter", "--target", str(self._find_init()), *inside]
            wait_until(self._is_up, "the guest did not come up")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it: its processes go with its init. Then nothing of it is left but its files."""
        self._boot.kill()
        self._boot.wait()
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        tree = next(Path(words[1]) for words in mounts if words[2] == "cgroup2")
        for group, _, _ in os.walk(tree / f"agent-reporter-guest-{self._boot.pid}", topdown=False):
            wait_until(partial(_is_removed, Path(group)), f"{group} is still in use")

    def _find_init(self) -> int | None:
        insist(self._boot.poll() is None, "the guest does not boot")
        children = Path(f"/proc/{self._boot.pid}/task/{self._boot.pid}/children").read_text().split()
        inits = [pid for pid in children if Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"]
        return int(inits[0]) if inits else None

    def _is_up(self) -> bool:
        return self.try_("systemctl", "is-active", "package-test.target").returncode == 0

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command in the guest."""
        return subprocess.Popen(
            [*self._enter, "env", "-i", *ENVIRONMENT, *command],
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
        self.run("apt-get", "-qq", "--yes", "--no-install-recommends", "install", "/root/package.deb")


def _is_removed(group: Path) -> bool:
    """Remove a control group, unless its last processes are still ending."""
    try:
        group.rmdir()
    except OSError:
        return False
    return True
