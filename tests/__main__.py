"""All checks of the project, as one command: `python -m tests`. Stops at the first that fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
WORKERS = (os.cpu_count() or 1) + 1
"""One more than there are cores: many a test waits for a process or a socket."""
COVERED = ["--cov", "--cov-report="]

CHECKS = (
    ("lint", ["ruff", "check", "."]),
    ("format", ["ruff", "format", "--check", "."]),
    ("layers", ["lint-imports"]),
    ("types", ["mypy"]),
    ("types of the packaging", ["mypy", "--strict", *map(str, sorted(ROOT.glob("packaging/**/*.py")))]),
    ("tests", ["pytest", f"--numprocesses={WORKERS}", "--dist=worksteal", *COVERED, *sys.argv[1:]]),
    (
        "every branch of the model",
        ["coverage", "report", "--include=agent_reporter/model/*", "--fail-under=100", "--show-missing"],
    ),
    (
        "of spool and delivery all but what depends on which thread is first",
        ["coverage", "report", "--fail-under=99", "--precision=2", "--show-missing", "--skip-covered"],
    ),
)


def main() -> int:
    """Run each check, and return the exit status of the first that fails, or 0."""
    environment = os.environ | {"PATH": f"{BIN}:{os.environ.get('PATH', '')}"}
    for name, command in CHECKS:
        if name:
            print(f"== {name}: {' '.join(command)}", flush=True)
        begun = time.monotonic()
        status = subprocess.run(
            [BIN / command[0], *command[1:]], cwd=ROOT, env=environment, check=False
        ).returncode
        if status:
            print(f"== {name or command[0]} failed with exit status {status}", flush=True)
            return status
        if name:
            print(f"== {name}: ok in {time.monotonic() - begun:.1f} s\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
