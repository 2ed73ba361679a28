"""The program `agent-reporter`: finds the command that is asked for, and says errors in a sentence."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn, Protocol

from agent_reporter.errors import AgentReporterError, ConfigurationError
from agent_reporter.model.showing import printable
from agent_reporter.version import __version__

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

COMMANDS = {
    "run": "run an engine's command, and report its restore",
    "daemon": "take the reports of every engine on this host, and deliver them",
    "way-out": "pass the daemon's requests on, so that the daemon needs no network",
    "flush": "deliver what the spool holds",
    "status": "show each restore of the daemon and of the spool: newest, acknowledged, next try, why",
    "stop": "ask the daemon, or the control plane, to stop a restore",
    "check": "check settings, daemon, sign-in, the way to the control plane, and the spool",
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


def program() -> NoReturn:
    """`main`, as a process of its own: it ends without taking to pieces what ends with it anyhow."""
    status = main()
    logging.shutdown()
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except OSError:
        sys.exit(status)  # what was said did not get there: the interpreter says so, and with which status
    os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status: 2 for wrong usage or settings."""
    _open_standard_streams()
    argv = sys.argv[1:] if argv is None else list(argv)
    chosen = next((word for word in argv if not word.startswith("-")), None)
    gc.disable()  # what is imported stays: to look for garbage in it takes a tenth of the start
    try:
        parser = build_parser([name for name in COMMANDS if name == chosen])
    finally:
        gc.enable()
    args, unknown = parser.parse_known_args(argv)
    if unknown:  # what is no option is not repeated: it may be a secret
        options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
        parser.error(f"what is not understood: {' '.join(options) or 'a word too many'}. See --help.")
    try:
        return _command(args.command).run(args)
    except ConfigurationError as problem:
        return say(problem, USAGE)
    except AgentReporterError as problem:
        return say(problem, FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED


def build_parser(commands: Collection[str]) -> argparse.ArgumentParser:
    """The parser of the program: all commands, and the options of those in `commands`.

    Of the others nothing is imported, so that a command starts without the weight of the rest.
    """
    parser = argparse.ArgumentParser(
        prog="agent-reporter",
        allow_abbrev=False,  # --token would be --token-file, and the token shown as a file that is not there
        description="Makes every restore on a backup host visible, stoppable, and its outcome certain.",
    )
    parser.add_argument("--version", action="version", version=f"agent-reporter {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        described = subparsers.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            allow_abbrev=False,
        )
        if name in commands:
            _command(name).add_arguments(described)
    return parser


def _open_standard_streams() -> None:
    """Where our caller has closed one, a file of ours would take its number, and what is said there."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def say(problem: object, status: int) -> int:
    """Say what is wrong on stderr, and return `status`."""
    with suppress(OSError):  # nobody reads: that is no reason to end in another way
        said = "\n".join(map(printable, str(problem).split("\n")))
        os.write(2, f"agent-reporter: {said}\n".encode(errors="replace"))
    return status


def _command(name: str) -> Command:
    if name == "reference":
        return import_module("agent_reporter.reference.command")
    return import_module(f"agent_reporter.cli.{name.replace('-', '_')}")


if __name__ == "__main__":
    program()
