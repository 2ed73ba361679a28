"""`stop`: have a restore stopped, the third scenario of the protocol.

Where there is the daemon, it is asked first: it tells the engine, also while the control plane is away.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import tenacity

from agent_reporter.cli.main import FAILED, TEMPORARY_FAILURE, say
from agent_reporter.cli.options import add_settings, load_settings, seconds
from agent_reporter.cli.restores_shown import may_have_daemon, why_no_daemon
from agent_reporter.control_plane.connection import connect, connect_directly
from agent_reporter.errors import ConfigurationError, MalformedError, SignInError, TransportError
from agent_reporter.log_output import configure
from agent_reporter.model import verdict
from agent_reporter.model.patch import replace_state
from agent_reporter.model.report import state_of
from agent_reporter.model.restore_id import checked_restore_id
from agent_reporter.model.state import RestoreState
from agent_reporter.model.verdict import Verdict
from agent_reporter.settings import DaemonUse

if TYPE_CHECKING:
    import argparse

    from agent_reporter.control_plane.client import ControlPlane
    from agent_reporter.model.verdict import Answer
    from agent_reporter.settings import Settings

DEFAULT_TIMEOUT = 30.0


class NotNowError(TransportError):
    """Whoever was asked answered that it cannot do it now."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the command's arguments."""
    parser.add_argument("restore_id", metavar="RESTORE_ID")
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=DEFAULT_TIMEOUT,
        metavar="SECONDS",
        help="try again for so long while the control plane cannot be reached (default: 30)",
    )
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Ask, say what was answered, and return 0 if the stop stands."""
    restore_id = checked_restore_id(args.restore_id)
    settings = load_settings(args)
    configure(settings.log_level, settings.log_format)
    try:
        return asyncio.run(_request_stop(settings, restore_id, args.timeout))
    except (TransportError, SignInError) as problem:
        return say(f"restore {restore_id}: no stop was asked for: {problem}", TEMPORARY_FAILURE)
    except ConfigurationError as problem:
        if not may_have_daemon(settings):
            raise
        away = why_no_daemon(settings.socket, TransportError("nobody answers", uncertain=False))
        ways = f"The daemon: {away} The control plane: {problem}"
        return say(f"restore {restore_id}: no stop was asked for. {ways}", TEMPORARY_FAILURE)


async def _request_stop(settings: Settings, restore_id: str, timeout: float) -> int:  # noqa: ASYNC109 - the user's bound
    async with connect(settings) as control_plane:
        answer = await _ask_again_and_again(settings, control_plane, restore_id, timeout)
        if not (control_plane.is_daemon and answer.status == 404):
            return await _say(control_plane, restore_id, answer)
    unknown = f"restore {restore_id}: the daemon does not know it"
    alone = replace(settings, daemon=DaemonUse.NEVER)
    try:
        print(f"{unknown}; asking {alone.destination}")
        async with connect_directly(alone) as control_plane:
            answer = await _ask_again_and_again(settings, control_plane, restore_id, timeout)
            return await _say(control_plane, restore_id, answer)
    except ConfigurationError as problem:
        return say(f"{unknown}, and the control plane cannot be asked: {problem}", FAILED)


async def _ask_again_and_again(
    settings: Settings,
    control_plane: ControlPlane,
    restore_id: str,
    timeout: float,  # noqa: ASYNC109 - as above
) -> Answer:
    retrying = tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type((TransportError, SignInError)),
        wait=tenacity.wait_random_exponential(settings.retry_base, settings.retry_cap),
        stop=tenacity.stop_before_delay(timeout),
        reraise=True,
    )
    answer: Answer = await retrying(_ask, control_plane, restore_id)
    return answer


async def _say(control_plane: ControlPlane, restore_id: str, answer: Answer) -> int:
    if answer.status == 204:
        through = " through the daemon" if control_plane.is_daemon else ""
        print(f"restore {restore_id}: a stop was requested{through}")
        return 0
    if verdict.of(answer.status) is Verdict.RECONCILE:
        return say(f"restore {restore_id}: {await _state(control_plane, restore_id)}", FAILED)
    return say(f"restore {restore_id}: the stop was refused: {verdict.explain(answer)}", FAILED)


async def _ask(control_plane: ControlPlane, restore_id: str) -> Answer:
    operations = replace_state(RestoreState.STOP_REQUESTED)
    answer = await control_plane.update_restore(restore_id, operations)
    if verdict.of(answer.status) is Verdict.SIGN_IN:
        await control_plane.renew_token(answer)
        answer = await control_plane.update_restore(restore_id, operations)
    if verdict.of(answer.status) is Verdict.RETRY:
        raise NotNowError(verdict.explain(answer), uncertain=False)
    return answer


async def _state(control_plane: ControlPlane, restore_id: str) -> str:
    try:
        state = state_of((await control_plane.read_restore(restore_id)).document())
    except (TransportError, MalformedError):
        return "it cannot be stopped any more"
    return f"it has ended already, as {state.value}" if state.is_final else f"it is {state.value}"
