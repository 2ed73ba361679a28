"""`status`: each restore of the spool and of the daemon, from the newest report to the next try."""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent_reporter.cli.main import FAILED, say
from agent_reporter.cli.options import add_settings, load_settings, seconds
from agent_reporter.cli.restores_shown import look, next_try
from agent_reporter.cli.wording import amount, counted, duration, printable, reason_of
from agent_reporter.settings import DaemonUse

if TYPE_CHECKING:
    from rich.table import Table

    from agent_reporter.cli.restores_shown import Look
    from agent_reporter.settings import Settings

LEAST_INTERVAL = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the command's options."""
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--json", action="store_true", help="print a JSON document")
    forms.add_argument(
        "--watch",
        action="store_true",
        help="show them live until Ctrl-C: a table on a terminal, else a line for each restore",
    )
    parser.add_argument(
        "--interval",
        type=_interval,
        default=1.0,
        metavar="SECONDS",
        help="with --watch: look again after so long (default: 1)",
    )
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Print what the spool holds and what the daemon has; 1 if the one that is needed cannot be read."""
    settings = load_settings(args)
    if args.watch:
        from agent_reporter.cli.watch import watch  # noqa: PLC0415 - it brings what draws

        return watch(settings, args.interval)
    found = look(settings)
    if args.json:
        print(json.dumps(_document(found, settings), indent=2))
    else:
        _print(found, settings)
    return _say_problems(found, settings)


def _document(found: Look, settings: Settings) -> dict[str, Any]:
    daemon = {"socket": str(settings.socket), "problem": found.daemon_problem}
    return {
        "restores": found.restores,
        "set_aside": found.set_aside,
        "daemon": None if found.told is None and not found.daemon_problem else daemon,
    }


def _print(found: Look, settings: Settings) -> None:
    if found.restores:
        from rich.console import Console  # noqa: PLC0415 - not for --json

        Console().print(_table(found.restores, datetime.now(UTC)))
    elif not found.spool_problem:
        print(f"Nothing is waiting in {settings.spool_dir}.")
    if found.told is not None and not found.told.restores:
        print("The daemon has no open restore.")
    for path in found.set_aside:
        print(f"Set aside, as it could not be read: {path}")


def _say_problems(found: Look, settings: Settings) -> int:
    status = 0
    if found.spool_problem:
        status = say(found.spool_problem, FAILED if found.told is None else 0)
    if found.daemon_problem:
        status |= say(found.daemon_problem, FAILED if settings.daemon is DaemonUse.ALWAYS else 0)
    return status


def _table(restores: list[dict[str, Any]], now: datetime) -> Table:
    from rich.table import Table  # noqa: PLC0415 - not for --json
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table()
    for name in ("restore", "newest", "acknowledged", "undelivered for", "next try", "why"):
        table.add_column(name, overflow="fold")
    for restore in restores:
        table.add_row(*(Text(printable(cell)) for cell in (restore["restore_id"], *_cells(restore, now))))
    return table


def _cells(restore: dict[str, Any], now: datetime) -> tuple[str, ...]:
    newest, known = restore.get("newest"), restore.get("acknowledged")
    if newest is None:
        return "?", "?", "", "", restore["problem"]
    count = newest["errors"]["count"]
    errors = f", {counted(count, 'error')}" if count else ""
    stops = ", stopping" if newest["stop_requested"] else ""
    told = "nothing" if known is None else f"{known['state']}, {amount(known['bytes_restored'])}"
    done = f"{amount(newest['bytes_restored'])}, {newest['files_restored']} files"
    return (
        f"{newest['state']}{stops}, {done}{errors}",
        told,
        _since(restore["undelivered_since"], now),
        next_try(restore, now) or "as it goes on",
        reason_of(restore["why"]),
    )


def _since(moment: str | None, now: datetime) -> str:
    return "" if moment is None else duration((now - datetime.fromisoformat(moment)).total_seconds())


def _interval(text: str) -> float:
    interval = seconds(text)
    if interval < LEAST_INTERVAL:
        raise argparse.ArgumentTypeError(f"{text} is too often: {LEAST_INTERVAL:g} seconds at least")
    return interval
