"""`flush`: deliver what the spool holds. Exit status 0 when the spool is empty, 75 when it is not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent_reporter.cli.main import TEMPORARY_FAILURE
from agent_reporter.cli.options import add_settings, load_settings, seconds
from agent_reporter.cli.restores_shown import may_have_daemon
from agent_reporter.clock import SystemClock
from agent_reporter.control_plane.connection import answers
from agent_reporter.log_output import configure
from agent_reporter.model.exchange import Ending
from agent_reporter.reporter import Reporter
from agent_reporter.settings import DaemonUse
from agent_reporter.spool import Listed, Spool

if TYPE_CHECKING:
    import argparse

    from agent_reporter.model.record import Destination
    from agent_reporter.settings import Settings
    from agent_reporter.takeover import Orphan

DEFAULT_TIMEOUT = 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the command's options."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="give up after so long; what is left stays in the spool (default: 60)",
    )
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Deliver, say what became of each restore, and return 0 if nothing is left."""
    settings = load_settings(args)
    configure(settings.log_level, settings.log_format)
    is_through_daemon = settings.daemon is DaemonUse.ALWAYS or (
        may_have_daemon(settings) and answers(settings.socket)
    )
    for orphan in asyncio.run(_deliver(settings, args.timeout)):
        print(f"restore {orphan.restore_id}: {_say(orphan, is_through_daemon=is_through_daemon)}")
    left = [listed for listed in Spool(settings.spool_dir).listing() if not listed.dead]
    for listed in left:
        print(f"restore {listed.restore_id}: {_why_left(listed, settings.destination)}")
    return TEMPORARY_FAILURE if left else 0


async def _deliver(settings: Settings, timeout: float) -> list[Orphan]:  # noqa: ASYNC109 - the user's bound
    clock = SystemClock()
    until = clock.monotonic() + timeout
    orphans: list[Orphan] = []
    async with Reporter(settings, clock=clock, takes_over=False) as reporter:
        while found := await reporter.take_over(at_once=True):
            orphans += found
            await reporter.settle_all(until - clock.monotonic())
    return orphans


def _say(orphan: Orphan, *, is_through_daemon: bool) -> str:
    state = orphan.take_report().state.value
    if orphan.ending is None:
        return f"{state}, not delivered yet"
    if is_through_daemon and orphan.ending is Ending.DELIVERED:
        return f"{state}, taken by the daemon, which delivers it"
    return f"{state}, {orphan.ending.in_words}"


def _why_left(listed: Listed, destination: Destination) -> str:
    record = listed.record
    if record is None:
        return f"left in the spool: {listed.problem}"
    if record.client is not None and (listed.owner is not None or not record.report.is_final):
        runs = "once it runs again" if listed.owner is None else f"as process {listed.owner}"
        return f"left to the daemon, which goes on with it {runs}"
    if listed.owner is not None:
        return f"left to process {listed.owner}, which reports it"
    if record.destination != destination:
        return f"left in the spool: it is for {record.destination}"
    return "left in the spool"
