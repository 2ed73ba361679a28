"""Settings that a process of its own reads: what checks them does not stay in one that lives long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from agent_reporter.errors import ConfigurationError
from agent_reporter.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROGRAM = (
    "import gc, sys; gc.disable(); sys.path[:] = {};"
    " from agent_reporter.cli.settings_aside import main; main()"
)
"""Nothing that it makes is garbage before it ends."""


class Reading:
    """What `Settings.load` gives, read by another process from now on, while this one does something else."""

    def __init__(self, file: Path | None, overrides: Mapping[str, object]) -> None:
        """Raises ConfigurationError if no process can be started."""
        self._asked = json.dumps({"file": None if file is None else os.fspath(file), "overrides": overrides})
        # With our path, and not that of the directory it is started in: it imports what we would.
        options = ["-I" if sys.flags.isolated else "-P", *(["-B"] if sys.dont_write_bytecode else [])]
        command = [sys.executable, *options, "-c", _PROGRAM.format(sys.path)]
        pipe = subprocess.PIPE
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this Python, and no shell
                command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, errors="replace"
            )
        except OSError as problem:
            raise ConfigurationError(
                f"settings: the process to read them cannot be started: {problem}"
            ) from None

    def result(self) -> Settings:
        """The settings, once they are read; raises ConfigurationError as `Settings.load` does."""
        with self._process as process:
            answered, said = process.communicate(self._asked)
        try:
            answer = json.loads(answered.rpartition("\n")[2])  # before it, there may be what nobody asked for
            if "problem" in answer:
                raise ConfigurationError(answer["problem"])
            return Settings.from_json(answer["settings"])
        except (ValueError, TypeError, LookupError) as problem:
            why = said.strip()[-500:] or f"{problem!r:.200}"
            raise ConfigurationError(
                f"settings: the process to read them ended with {process.returncode}: {why}. If another "
                "version is installed by now than the one that runs, start it again."
            ) from None


def main() -> None:
    """The process that reads: what is asked comes on stdin, and the answer goes to stdout."""
    import_module("agent_reporter.setting_sources")  # before it is asked, as the other is busy, too
    asked = json.load(sys.stdin)
    file = None if asked["file"] is None else Path(asked["file"])
    try:
        answer = {"settings": Settings.load(file, **asked["overrides"]).to_json()}
    except ConfigurationError as problem:
        answer = {"problem": str(problem)}
    print("\n", json.dumps(answer), sep="", end="", flush=True)
    os._exit(0)  # what ends with the process is not taken to pieces first
