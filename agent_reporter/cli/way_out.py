"""`way-out`: pass the daemon's requests on to the control plane, so that the daemon needs no network."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

from agent_reporter.cli.options import add_settings, load_settings
from agent_reporter.daemon.notify import inherited_sockets
from agent_reporter.daemon.way_out import WayOut
from agent_reporter.errors import ConfigurationError
from agent_reporter.log_output import configure

if TYPE_CHECKING:
    import argparse

    from agent_reporter.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the command's options."""
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, and return 0."""
    settings = load_settings(args)
    configure(settings.log_level, settings.log_format)
    asyncio.run(_serve(settings))
    return 0


async def _serve(settings: Settings) -> None:
    inherited = inherited_sockets(os.environ, os.getpid())
    if len(inherited) != 1:
        raise ConfigurationError("there is no socket to serve: start agent-reporter-out.socket instead.")
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    server = await asyncio.start_unix_server(WayOut(settings).pass_on, sock=inherited[0])
    await ended.wait()
    server.close()
