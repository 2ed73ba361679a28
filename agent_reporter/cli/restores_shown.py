"""What there is to show of restores: those of the user's own spool, and those of the daemon of this host."""

from __future__ import annotations

import asyncio
import grp
import os
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agent_reporter.cli.wording import reason_of, rough_duration
from agent_reporter.errors import AgentReporterError, MalformedError, SpoolError, TransportError
from agent_reporter.model import verdict
from agent_reporter.model.documents import count_of, object_of, optional_count_of, text_of
from agent_reporter.model.state import FINAL_STATES, RestoreState
from agent_reporter.model.times import format_time
from agent_reporter.settings import DaemonUse
from agent_reporter.spool import Listed, Spool

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from agent_reporter.control_plane.client import ControlPlane
    from agent_reporter.settings import Settings

DAEMON = "daemon"
"""The owner of a restore that the daemon told of."""
ASKED_AT_ONCE = 50
"""Restores that are asked for by themselves in one look; further ones are in the next."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the daemon said: its restores, and those that were asked for beside and are not open any more.

    Of the latter, None is one that it does not know.
    """

    restores: list[dict[str, Any]] = field(default_factory=list)
    ended: dict[str, dict[str, Any] | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at one moment. A restore is a JSON object, as `describe` makes it.

    `told` is None where the daemon did not answer, and `daemon_problem` why; it is empty where there is none.
    `spool_problem` is why the spool could not be read.
    """

    restores: list[dict[str, Any]]
    set_aside: list[str]
    told: Told | None = None
    daemon_problem: str = ""
    spool_problem: str = ""


def look(settings: Settings, known: Collection[str] = ()) -> Look:
    """Read the spool, and ask the daemon if it is to be used and its socket is there. Blocks for both.

    Where it does not list restores that are `known`, it is asked what became of them.
    """
    told, daemon_problem = None, ""
    if may_have_daemon(settings):
        try:
            told = asyncio.run(_ask(settings, known))
        except AgentReporterError as problem:
            daemon_problem = f"The daemon is not asked: {why_no_daemon(settings.socket, problem)}"
    spool = Spool(settings.spool_dir)
    try:
        listing, set_aside, spool_problem = spool.listing(), spool.set_aside(), ""
    except SpoolError as problem:
        listing, set_aside, spool_problem = [], [], str(problem)
    of_daemon = [] if told is None else told.restores
    names = {restore["restore_id"] for restore in of_daemon}
    own = [
        describe(listed) for listed in listing if listed.restore_id not in names or not _is_passed_on(listed)
    ]
    return Look([*of_daemon, *own], [str(path) for path in set_aside], told, daemon_problem, spool_problem)


def may_have_daemon(settings: Settings) -> bool:
    """Whether restores may be reported through a daemon: always, or if there is its socket. Blocks."""
    if settings.daemon is not DaemonUse.AUTO:
        return settings.daemon is DaemonUse.ALWAYS
    try:
        settings.socket.stat()
    except OSError:
        return False
    return True


def why_no_daemon(path: Path, problem: AgentReporterError) -> str:
    """What is in the way to the daemon at the socket `path`, after a `problem`, and what to do. Blocks."""
    try:
        gid = path.stat().st_gid
    except OSError as missing:
        return f"{path}: {missing.strerror}. Start the daemon, or set socket."
    if os.access(path, os.W_OK):
        hint = ". Look whether the daemon runs." if isinstance(problem, TransportError) else ""
        return f"{path}: {reason_of(str(problem))}{hint}"
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return f"{path} is not for this user, but for group {group}. Have this user added to that."


async def ask_for_list(daemon: ControlPlane) -> list[dict[str, Any]]:
    """The daemon's restores, as `describe_told` makes them; raises AgentReporterError."""
    answer = await daemon.list_restores()
    if answer.status != 200:
        raise AgentReporterError(verdict.explain(answer))
    documents = answer.document().get("restores")
    if not isinstance(documents, list) or not all(isinstance(document, dict) for document in documents):
        raise MalformedError("'restores' has to be an array of objects")
    return [describe_told(document) for document in documents]


def next_try(restore: dict[str, Any], now: datetime) -> str:
    """When the next try to deliver a restore is, in words; empty if nothing stands in its way."""
    if restore["dead_letter"]:
        return "never: dead letter"
    if restore["owner"] is None:
        is_daemons = "uid" in restore and restore["newest"]["state"] not in FINAL_STATES
        return "once the daemon runs" if is_daemons else "at the next run or flush"
    if restore["next_try"] is None:
        return ""
    left = (datetime.fromisoformat(restore["next_try"]) - now).total_seconds()
    return f"in {rough_duration(left)}" if round(left) > 0 else "now"


async def _ask(settings: Settings, known: Collection[str]) -> Told:
    from agent_reporter.control_plane.connection import connect  # noqa: PLC0415 - not without a daemon

    always = replace(settings, daemon=DaemonUse.ALWAYS)
    _ = always.destination  # the paths have the project in them
    async with connect(always) as daemon:
        restores = await ask_for_list(daemon)
        missing = sorted(set(known) - {restore["restore_id"] for restore in restores})[:ASKED_AT_ONCE]
        ended = await asyncio.gather(*(_read(daemon, restore_id) for restore_id in missing))
    return Told(restores, dict(zip(missing, ended, strict=True)))


async def _read(daemon: ControlPlane, restore_id: str) -> dict[str, Any] | None:
    answer = await daemon.read_restore(restore_id)
    return describe_told(answer.document()) if answer.status == 200 else None


def _is_passed_on(listed: Listed) -> bool:
    """Whether the daemon's own word on a restore that it has says all that this record does."""
    if listed.dead or listed.record is None:
        return False
    return listed.record.client is not None or (
        listed.owner is not None and not listed.record.exchange.failure
    )


def describe(listed: Listed) -> dict[str, Any]:
    """One restore of the spool as a JSON object. Times are RFC 3339, counts are bytes and files."""
    described: dict[str, Any] = {
        "restore_id": listed.restore_id,
        "owner": listed.owner,
        "dead_letter": listed.dead,
        "problem": listed.problem,
    }
    if listed.record is None:
        return described
    report, exchange, client = listed.record.report, listed.record.exchange, listed.record.client
    known = exchange.acknowledged
    since, not_before = listed.record.undelivered_since, exchange.not_before
    is_stop_known = known is not None and known.state is RestoreState.STOP_REQUESTED
    is_stop_asked = client is not None and client.stop_requested
    if client is not None:
        described |= {"uid": client.uid, "pids": [process.pid for process in client.processes]}
    return described | {
        "newest": report.to_document()
        | {
            "errors": {"count": report.errors.count},
            "stop_requested": not report.is_final and (is_stop_known or is_stop_asked),
        },
        "acknowledged": None if known is None else known.to_document(),
        "undelivered_since": None if since is None else format_time(since),
        "attempts": exchange.attempt,
        "next_try": None if not_before is None else format_time(not_before),
        "why": exchange.failure,
        "ending": None if exchange.ending is None else exchange.ending.value,
    }


def describe_told(document: dict[str, Any]) -> dict[str, Any]:
    """A document of the daemon as `describe` shows a restore; raises MalformedError if it is none.

    What the daemon passes on of a restore that it does not have itself tells nothing of a delivery.
    """
    restore_id, state = text_of(document, "id"), text_of(document, "state")
    delivery = object_of(document, "delivery")
    return {
        "restore_id": restore_id,
        "owner": DAEMON,
        "dead_letter": False,
        "problem": "",
        "uid": delivery.get("uid"),
        "pids": delivery.get("pids", []),
        "newest": {
            "restore_id": restore_id,
            "state": text_of(delivery, "newest_state", state),
            "started_time": document.get("started_time"),
            "ended_time": document.get("ended_time"),
            "files_restored": count_of(document, "files_restored"),
            "bytes_restored": count_of(document, "bytes_restored"),
            "total_files": optional_count_of(delivery, "total_files"),
            "total_bytes": optional_count_of(delivery, "total_bytes"),
            "errors": {"count": count_of(object_of(document, "errors"), "count")},
            "stop_requested": state == RestoreState.STOP_REQUESTED,
        },
        "acknowledged": delivery.get("acknowledged"),
        "undelivered_since": delivery.get("undelivered_since"),
        "attempts": count_of(delivery, "attempts"),
        "next_try": delivery.get("next_try"),
        "why": text_of(delivery, "why", ""),
        "ending": delivery.get("ending"),
    }
