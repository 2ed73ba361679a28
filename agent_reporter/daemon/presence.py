"""An agent says to the control plane when it comes and when it goes (`protocol.md`, Events)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from agent_reporter.errors import AgentReporterError
from agent_reporter.logs import get_logger
from agent_reporter.model import pacing, verdict

if TYPE_CHECKING:
    from agent_reporter.control_plane.client import ControlPlane
    from agent_reporter.means import Means

FAREWELL_SECONDS = 2.0
"""For the control plane to hear that this agent leaves."""

_log = get_logger()


async def announce_startup(means: Means) -> None:
    """Have the control plane send what is pending. A fleet that starts together does not call together."""
    if means.control_plane.agent_id is None:
        return
    await means.clock.sleep(pacing.spread(means.settings.report_interval, means.clock.random()))
    attempt = 0
    while True:
        try:
            answer = await means.control_plane.announce("startup")
            if verdict.of(answer.status) is verdict.Verdict.SIGN_IN:
                await means.control_plane.renew_token(answer)
            elif verdict.of(answer.status) is not verdict.Verdict.RETRY:
                _log.info("daemon.announced", answer=verdict.explain(answer))
                return
            problem = verdict.explain(answer)
        except AgentReporterError as failure:
            problem = str(failure)
        attempt += 1
        _log.warning("daemon.not_announced", why=problem)
        await means.clock.sleep(means.backoff.delay(attempt, means.clock.random()))


async def say_farewell(control_plane: ControlPlane) -> None:
    """Tell the control plane that this agent leaves; if it does not hear it, it does not."""
    if control_plane.agent_id is None:
        return
    with suppress(AgentReporterError, TimeoutError):
        async with asyncio.timeout(FAREWELL_SECONDS):
            await control_plane.announce("shutdown")
