"""`status`: each restore of the spool, from the newest report to the next try, for a person or as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from agent_reporter.cli.options import add_settings, load_settings
from agent_reporter.cli.wording import amount, duration
from agent_reporter.model.times import format_time
from agent_reporter.spool import Listed, Spool

if TYPE_CHECKING:
    import argparse

    from rich.table import Table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the command's options."""
    parser.add_argument("--json", action="store_true", help="print a JSON document")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Print what the spool holds."""
    settings = load_settings(args)
    spool = Spool(settings.spool_dir)
    restores = [describe(listed) for listed in spool.listing()]
    set_aside = [str(path) for path in spool.set_aside()]
    if args.json:
        print(json.dumps({"restores": restores, "set_aside": set_aside}, indent=2))
        return 0
    if restores:
        from rich.console import Console  # noqa: PLC0415 - not for --json

        Console().print(_table(restores, datetime.now(UTC)))
    else:
        print(f"Nothing is waiting in {settings.spool_dir}.")
    for path in set_aside:
        print(f"Set aside, as it could not be read: {path}")
    return 0


def describe(listed: Listed) -> dict[str, Any]:
    """One restore as a JSON object. Times are RFC 3339, counts are bytes and files."""
    described: dict[str, Any] = {
        "restore_id": listed.restore_id,
        "owner": listed.owner,
        "dead_letter": listed.dead,
        "problem": listed.problem,
    }
    if listed.record is None:
        return described
    report, exchange = listed.record.report, listed.record.exchange
    known = exchange.acknowledged
    since, not_before = listed.record.undelivered_since, exchange.not_before
    return described | {
        "newest": report.to_document() | {"errors": {"count": report.errors.count}},
        "acknowledged": None if known is None else known.to_document(),
        "undelivered_since": None if since is None else format_time(since),
        "attempts": exchange.attempt,
        "next_try": None if not_before is None else format_time(not_before),
        "why": exchange.failure,
        "ending": None if exchange.ending is None else exchange.ending.value,
    }


def _table(restores: list[dict[str, Any]], now: datetime) -> Table:
    from rich.table import Table  # noqa: PLC0415 - not for --json

    table = Table()
    for name in ("restore", "newest", "acknowledged", "undelivered for", "next try", "why"):
        table.add_column(name, overflow="fold")
    for restore in restores:
        table.add_row(restore["restore_id"], *_cells(restore, now))
    return table


def _cells(restore: dict[str, Any], now: datetime) -> tuple[str, ...]:
    newest, known = restore.get("newest"), restore.get("acknowledged")
    if newest is None:
        return "?", "?", "", "", restore["problem"]
    errors = f", {newest['errors']['count']} errors" if newest["errors"]["count"] else ""
    told = "nothing" if known is None else f"{known['state']}, {amount(known['bytes_restored'])}"
    if restore["dead_letter"]:
        following = "never: dead letter"
    elif restore["owner"] is None:
        following = "at the next run or flush"
    else:
        following = _until(restore["next_try"], now)
    return (
        f"{newest['state']}, {amount(newest['bytes_restored'])}, {newest['files_restored']} files{errors}",
        told,
        _since(restore["undelivered_since"], now),
        following,
        restore["why"],
    )


def _since(moment: str | None, now: datetime) -> str:
    return "" if moment is None else duration((now - datetime.fromisoformat(moment)).total_seconds())


def _until(moment: str | None, now: datetime) -> str:
    if moment is None:
        return "as it goes on"
    left = (datetime.fromisoformat(moment) - now).total_seconds()
    return f"in {duration(left)}" if left > 0 else "now"
