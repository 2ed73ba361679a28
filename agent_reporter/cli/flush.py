"""`flush`: deliver what the spool holds. Exit status 0 when the spool is empty, 75 when it is not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent_reporter.cli.main import TEMPORARY_FAILURE
from agent_reporter.cli.options import add_settings, load_settings, seconds
from agent_reporter.clock import SystemClock
from agent_reporter.log_output import configure
from agent_reporter.reporter import Reporter
from agent_reporter.spool import Spool

if TYPE_CHECKING:
    import argparse

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
    for orphan in asyncio.run(_deliver(settings, args.timeout)):
        print(f"restore {orphan.restore_id}: {_say(orphan)}")
    left = [listed for listed in Spool(settings.spool_dir).listing() if not listed.dead]
    for listed in left:
        print(f"restore {listed.restore_id}: {_why_left(listed.owner, listed.problem)}")
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


def _say(orphan: Orphan) -> str:
    state = orphan.take_report().state.value
    if orphan.ending is None:
        return f"{state}, not delivered yet"
    return f"{state}, {orphan.ending.in_words}"


def _why_left(owner: int | None, problem: str) -> str:
    if owner is not None:
        return f"left to process {owner}, which reports it"
    return f"left in the spool{': ' if problem else ''}{problem}"
