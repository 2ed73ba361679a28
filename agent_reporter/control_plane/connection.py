"""A control plane to make a few calls to, with all it takes."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from agent_reporter.clock import Clock, SystemClock
from agent_reporter.control_plane.client import ControlPlane
from agent_reporter.control_plane.http import HttpSession
from agent_reporter.control_plane.sign_in import SignIn
from agent_reporter.control_plane.token_sources import choose_source
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from agent_reporter.settings import Settings


@asynccontextmanager
async def connect(settings: Settings, clock: Clock | None = None) -> AsyncIterator[ControlPlane]:
    """The control plane of `settings`; raises ConfigurationError if they do not say how to get there."""
    async with HttpSession(settings) as http:
        source = await in_thread("sign-in", partial(choose_source, settings, http))
        sign_in = SignIn(source, clock or SystemClock(), settings.backoff)
        yield ControlPlane(settings, http, sign_in)
