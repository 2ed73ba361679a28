"""`daemon`: take the reports of every engine on this host over a Unix socket, and deliver them."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

from agent_reporter.cli.options import add_settings, given_settings
from agent_reporter.cli.settings_aside import Reading
from agent_reporter.clock import SystemClock
from agent_reporter.daemon.notify import Notifier, inherited_sockets
from agent_reporter.log_output import configure
from agent_reporter.logs import load

if TYPE_CHECKING:
    import argparse

    from agent_reporter.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the command's options."""
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, and return 0."""
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # structlog would bring it: nothing is drawn here
    reading = Reading(args.config, given_settings(args))
    load()
    import_module("agent_reporter.daemon.service")  # while the settings are read
    asyncio.run(_serve(_configured(reading), args))
    return 0


async def _serve(settings: Settings, args: argparse.Namespace) -> None:
    from agent_reporter.daemon.service import Service  # noqa: PLC0415 - not before the settings are being read

    inherited = inherited_sockets(os.environ, os.getpid())
    notifier = Notifier.from_environment(os.environ, os.getpid())
    service = Service(settings, partial(_load_again, args), SystemClock(), notifier, inherited)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, service.end)
    loop.add_signal_handler(signal.SIGHUP, service.reload)
    await service.run()


def _load_again(args: argparse.Namespace) -> Settings:
    return _configured(Reading(args.config, given_settings(args)))


def _configured(reading: Reading) -> Settings:
    """The settings, by which events are said from now on; a service says more, if not told otherwise."""
    settings = reading.result()
    if "log_level" not in settings.given:
        settings = replace(settings, log_level="info")
    configure(settings.log_level, settings.log_format)
    return settings
