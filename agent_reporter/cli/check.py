"""`check`: settings, daemon, sign-in, control plane and spool: each line is ok, or says what to do."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from agent_reporter.cli.main import FAILED
from agent_reporter.cli.options import add_settings, load_settings
from agent_reporter.cli.restores_shown import ask_for_list, may_have_daemon, why_no_daemon
from agent_reporter.cli.wording import amount, counted
from agent_reporter.control_plane.connection import connect, connect_directly
from agent_reporter.errors import AgentReporterError, ConfigurationError
from agent_reporter.model import verdict
from agent_reporter.settings import DaemonUse
from agent_reporter.spool import Spool
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from agent_reporter.control_plane.client import ControlPlane
    from agent_reporter.settings import Settings

PROBE_ID = "agent-reporter-check"
"""The id of a restore that is in no spool; and, at the control plane, of none that exists."""
LITTLE_SPACE = 64 * 1024 * 1024


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the command's options."""
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Check each thing, and return 0 if all are ok."""
    try:
        settings = load_settings(args)
        destination = settings.destination
    except ConfigurationError as problem:
        print(f"settings       {problem}")
        return FAILED
    print(f"settings       ok: {destination if settings.endpoint else f'project {settings.project_id}'}")
    problems = [*asyncio.run(_check_ways(settings)), *_check_spool(settings)]
    return FAILED if any(problems) else 0


async def _check_ways(settings: Settings) -> list[bool]:
    """The daemon, if restores are reported through it, else the control plane itself."""
    if settings.daemon is DaemonUse.NEVER:
        return [_line("daemon", ok="not used"), *await _check_control_plane(settings)]
    if not await in_thread("socket", partial(may_have_daemon, settings)):
        alone = f"there is none at {settings.socket}, each process delivers by itself"
        return [_line("daemon", ok=alone), *await _check_control_plane(settings)]
    try:
        async with connect(replace(settings, daemon=DaemonUse.ALWAYS)) as daemon:
            restores = await ask_for_list(daemon)
    except AgentReporterError as problem:
        why = await in_thread("socket", partial(why_no_daemon, settings.socket, problem))
        said = _line("daemon", problem=why)
        is_needed = settings.daemon is DaemonUse.ALWAYS
        return [said] if is_needed else [said, *await _check_control_plane(settings)]
    count = counted(len(restores), "restore")
    failing = [restore["why"] for restore in restores if restore["why"]]
    delivers = f"the daemon cannot deliver {len(failing)} of {count}: {failing[0]}" if failing else ""
    return [
        _line("daemon", ok=f"{settings.socket} answers, and this user may use it; it shows {count}"),
        _line("sign-in", ok="the daemon signs in"),
        _line("control plane", ok="the daemon delivers, and nothing is held up", problem=delivers),
    ]


async def _check_control_plane(settings: Settings) -> list[bool]:
    try:
        async with connect_directly(settings) as control_plane:
            return await _check_calls(settings, control_plane)
    except ConfigurationError as problem:
        return [_line("sign-in", problem=str(problem))]


async def _check_calls(settings: Settings, control_plane: ControlPlane) -> list[bool]:
    try:
        source = await control_plane.sign_in_source()
    except AgentReporterError as problem:
        return [_line("sign-in", problem=str(problem))]
    signed_in = _line("sign-in", ok=source)
    try:
        answer = await control_plane.read_restore(PROBE_ID)
    except AgentReporterError as problem:
        return [signed_in, _line("control plane", problem=f"{problem}. Check endpoint and the network.")]
    if answer.status in {200, 404}:
        return [signed_in, _line("control plane", ok=f"{settings.endpoint} answers")]
    hint = {
        401: "The token is not taken: renew it.",
        403: "The token is not for this project: check project_id.",
    }.get(answer.status, "Check endpoint.")
    return [signed_in, _line("control plane", problem=f"{verdict.explain(answer)}. {hint}")]


def _check_spool(settings: Settings) -> Iterator[bool]:
    spool = Spool(settings.spool_dir)
    try:
        spool.open(PROBE_ID).discard()
        listing = spool.listing()
    except AgentReporterError as problem:
        yield _line("spool", problem=str(problem))
        return
    free = shutil.disk_usage(settings.spool_dir).free
    if free < LITTLE_SPACE:
        yield _line("spool", problem=f"{settings.spool_dir} has {amount(free)} left. Free some space.")
    elif settings.spool_dir.stat().st_mode & 0o077:
        yield _line("spool", problem=f"{settings.spool_dir} is open to others: chmod 700 it.")
    else:
        yield _line("spool", ok=f"{settings.spool_dir}, {amount(free)} free")
    orphans = sum(not listed.dead and listed.owner is None for listed in listing)
    if orphans:
        yield _line("undelivered", problem=f"{orphans} restores wait: agent-reporter flush delivers them")
    dead = sum(listed.dead for listed in listing)
    if dead:
        yield _line("dead letters", problem=f"{dead}: see agent-reporter status, then remove {spool.dead}/*")
    if aside := spool.set_aside():
        yield _line("set aside", problem=f"{len(aside)} files could not be read: look into {spool.aside}")


def _line(name: str, *, ok: str = "", problem: str = "") -> bool:
    """Print one line, and return whether it is a problem."""
    print(f"{name:<14} {problem or f'ok: {ok}'}")
    return bool(problem)
