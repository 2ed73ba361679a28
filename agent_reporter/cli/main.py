"""The program `agent-reporter`: finds the command that is asked for, and says errors in a sentence."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from agent_reporter.errors import AgentReporterError, ConfigurationError
from agent_reporter.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "run": "run an engine's command, and report its restore",
    "flush": "deliver what the spool holds",
    "status": "show each restore of the spool: newest, acknowledged, next try, why",
    "stop": "ask the control plane to stop a restore",
    "check": "check settings, sign-in, the way to the control plane, and the spool",
    "reference": "run the reference control plane, for tests and trials",
    "demo": "show it all on this machine in half a minute",
}

FAILED = 1
USAGE = 2
TEMPORARY_FAILURE = 75
"""EX_TEMPFAIL of sysexits.h: try again later."""
INTERRUPTED = 130


class Command(Protocol):
    """What each command's module has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Give `parser` the command's options."""
        ...

    def run(self, args: argparse.Namespace) -> int:
        """Do it, and return the exit status."""
        ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 2 for wrong usage or settings."""
    argv = sys.argv[1:] if argv is None else list(argv)
    parser = argparse.ArgumentParser(
        prog="agent-reporter",
        description="Makes every restore on a backup host visible, stoppable, and its outcome certain.",
    )
    parser.add_argument("--version", action="version", version=f"agent-reporter {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, summary in COMMANDS.items():
        described = commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.")
        if name == chosen:
            _command(name).add_arguments(described)
    args = parser.parse_args(argv)
    try:
        return _command(args.command).run(args)
    except ConfigurationError as problem:
        return say(problem, USAGE)
    except AgentReporterError as problem:
        return say(problem, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


def say(problem: object, status: int) -> int:
    """Say what is wrong on stderr, and return `status`."""
    with suppress(OSError):  # nobody reads: that is no reason to end in another way
        os.write(2, f"agent-reporter: {problem}\n".encode(errors="replace"))
    return status


def _command(name: str) -> Command:
    if name == "reference":
        return import_module("agent_reporter.reference.command")
    return import_module(f"agent_reporter.cli.{name}")


if __name__ == "__main__":
    sys.exit(main())
