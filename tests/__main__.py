"""All checks of the project, as one command: `python -m tests`. Stops at the first that fails."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
WORKERS = (os.cpu_count() or 1) + 1
"""One more than there are cores: many a test waits for a process or a socket."""
COVERED = ["--cov", "--cov-report="]

Check = tuple[str, list[str]]
STATIC: tuple[Check, ...] = (
    ("lint", ["ruff", "check", "."]),
    ("format", ["ruff", "format", "--check", "."]),
    ("layers", ["lint-imports"]),
    ("types", ["mypy"]),
    ("types of the packaging", ["mypy", "--strict", *map(str, sorted(ROOT.glob("packaging/**/*.py")))]),
)
COLLECTION: Check = (
    "collection",
    ["pytest", "-qq", "-k", "test_a_restore_id_never_means_more_than_one_name"],
)
"""All tests are collected and one property is tried, beside the static checks, which keep one core busy: what Python,
pytest and hypothesis keep of that is there for each of the workers, which would all do it again."""
TESTS: tuple[Check, ...] = (
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


def environment() -> dict[str, str]:
    """Ours, but that Python keeps what it compiles: hundreds of tests start the program."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return own | {"PATH": f"{BIN}:{own.get('PATH', '')}"}


def run(check: Check, *, quietly: bool = False) -> int:
    """The exit status of a check. What one prints that runs beside others is shown only where it failed."""
    name, command = check
    if not quietly:
        print(f"== {name}: {' '.join(command)}", flush=True)
    begun = time.monotonic()
    done = subprocess.run(
        [BIN / command[0], *command[1:]],
        cwd=ROOT,
        env=environment(),
        check=False,
        stdout=subprocess.PIPE if quietly else None,
        stderr=subprocess.STDOUT if quietly else None,
    )
    if not done.returncode:
        print(f"== {name}: ok in {time.monotonic() - begun:.1f} s\n", flush=True)
        return 0
    if quietly:
        sys.stdout.buffer.write(done.stdout)
    print(f"== {name} failed with exit status {done.returncode}", flush=True)
    return done.returncode


def first_failure(checks: Iterable[Check]) -> int:
    """Run them one after another: the exit status of the first that fails, or 0."""
    return next((status for check in checks if (status := run(check))), 0)


def main() -> int:
    """Run each check, and return the exit status of the first that fails, or 0."""
    with ThreadPoolExecutor(1) as beside:
        collection = beside.submit(run, COLLECTION, quietly=True)
        status = first_failure(STATIC)
    return status or collection.result() or first_failure(TESTS)


if __name__ == "__main__":
    sys.exit(main())
