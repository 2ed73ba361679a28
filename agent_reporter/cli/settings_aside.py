"""Settings that a process of its own reads: what checks them does not stay in one that lives long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from agent_reporter.errors import ConfigurationError
from agent_reporter.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROGRAM = "import sys; sys.path[:] = {}; from agent_reporter.cli.settings_aside import main; main()"


def load_aside(file: Path | None, overrides: Mapping[str, object]) -> Settings:
    """What `Settings.load` gives. It blocks, for about as long as Python takes to start.

    Raises ConfigurationError as that does, and if no process can be started.
    """
    asked = json.dumps({"file": None if file is None else os.fspath(file), "overrides": overrides})
    # Isolated, and with our path: it imports what we would, and nothing else.
    command = [sys.executable, "-I", "-c", _PROGRAM.format(sys.path)]
    try:
        reading = subprocess.run(  # noqa: S603 - this Python, and no shell
            command, input=asked, capture_output=True, text=True, check=False
        )
    except OSError as problem:
        raise ConfigurationError(f"settings: the process to read them cannot be started: {problem}") from None
    try:
        answer = json.loads(reading.stdout)
    except ValueError:
        said = reading.stderr.strip()[-500:]
        raise ConfigurationError(
            f"settings: the process to read them ended with {reading.returncode}: {said}"
        ) from None
    if "problem" in answer:
        raise ConfigurationError(answer["problem"])
    return Settings.from_json(answer["settings"])


def main() -> None:
    """The process that reads: what is asked comes on stdin, and the answer goes to stdout."""
    asked = json.load(sys.stdin)
    file = None if asked["file"] is None else Path(asked["file"])
    try:
        answer = {"settings": Settings.load(file, **asked["overrides"]).to_json()}
    except ConfigurationError as problem:
        answer = {"problem": str(problem)}
    json.dump(answer, sys.stdout)
