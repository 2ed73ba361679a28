"""The `reference` command: the reference control plane as a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_reporter.reference.exchange import RefusedError
from agent_reporter.reference.patches import Spelling
from agent_reporter.reference.server import (
    DEFAULT_EVENT_LIFETIME,
    DEFAULT_TOKEN_LIFETIME,
    ReferenceServer,
    is_loopback,
)

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the options of the command."""
    add = parser.add_argument
    add("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="port 0 takes a free one")
    add("--data", required=True, type=Path, metavar="DIR", help="where everything is kept over restarts")
    add("--token-file", required=True, type=Path, metavar="FILE", help="holds a token that is always valid")
    add("--strict", action="store_true", help="take counters, times and errors only beside a state")
    add("--spelling", default=Spelling.BOTH.value, choices=[*map(str, Spelling)], help="of the paths")
    add("--event-lifetime", default=DEFAULT_EVENT_LIFETIME, type=float, metavar="SECONDS")
    add("--token-lifetime", default=DEFAULT_TOKEN_LIFETIME, type=float, metavar="SECONDS")
    add("--faults", action="store_true", help="take faults at /faults, from this machine only")
    add("--fault-script", type=Path, metavar="FILE", help="a JSON array of faults to begin with")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status, 2 when it cannot start."""
    try:
        host, port = split_address(args.listen)
        script = None if args.fault_script is None else json.loads(args.fault_script.read_bytes())
        args.token_file.read_bytes()
        server = ReferenceServer(
            args.data,
            token_file=args.token_file,
            strict=args.strict,
            spelling=args.spelling,
            event_lifetime=args.event_lifetime,
            token_lifetime=args.token_lifetime,
            faults=args.faults,
            host=host,
            port=port,
        )
        asyncio.run(serve(server, script))
    except (OSError, ValueError, RefusedError) as problem:
        return _say(f"cannot serve: {_in_full(problem)}", status=2)
    return 0


async def serve(server: ReferenceServer, fault_script: Any = None) -> None:
    """Serve until SIGTERM or SIGINT. One line on standard output says when and where it listens."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    if fault_script is not None:
        server.faults.add(fault_script)
    async with server:
        if server.host != "localhost" and not is_loopback(server.host):
            _say("warning: this is plain HTTP, and tokens can be read on the way from other machines")
        sys.stdout.write(f"listening on {server.url}\n")
        sys.stdout.flush()
        await ended.wait()


def split_address(address: str) -> tuple[str, int]:
    """The host and the port of `HOST:PORT` or `[HOST]:PORT`; raises ValueError for anything else."""
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{address!r} is not HOST:PORT")
    return host, int(port)


def _say(sentence: str, *, status: int = 0) -> int:
    sys.stderr.write(f"reference: {sentence}\n")
    return status


def _in_full(problem: Exception) -> str:
    return " ".join([str(problem), *getattr(problem, "errors", [])])
