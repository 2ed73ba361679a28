"""A control plane to make calls to, with all it takes; or the daemon of this host in its place."""

from __future__ import annotations

import socket
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from http.client import HTTPException, parse_headers
from typing import TYPE_CHECKING
from urllib.parse import quote

from agent_reporter.clock import Clock, SystemClock
from agent_reporter.control_plane.client import ControlPlane
from agent_reporter.control_plane.http import MAX_LOCAL_BODY, HttpSession
from agent_reporter.control_plane.sign_in import SignIn
from agent_reporter.control_plane.token_sources import choose_source
from agent_reporter.errors import ConfigurationError
from agent_reporter.logs import get_logger
from agent_reporter.settings import DaemonUse
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from agent_reporter.settings import Settings

PROBE_SECONDS = 2.0
MAX_LINE = 1_024
ENDPOINT_HEADER = "X-Endpoint"
"""In an answer of the daemon: the control plane that it reports to."""

_log = get_logger()


@asynccontextmanager
async def connect(settings: Settings, clock: Clock | None = None) -> AsyncIterator[ControlPlane]:
    """The way of `settings`: to the daemon where it is to be used, else to the control plane itself.

    Raises ConfigurationError if they do not say how to get there.
    """
    async with AsyncExitStack() as stack:
        if await _uses_daemon(settings):
            http = HttpSession(settings, settings.socket, max_body=MAX_LOCAL_BODY)
            yield ControlPlane(settings, await stack.enter_async_context(http), None)
            return
        try:
            control_plane = await stack.enter_async_context(connect_directly(settings, clock))
        except ConfigurationError as problem:
            hint = await in_thread("daemon-hint", partial(_hint, settings))
            raise ConfigurationError(f"{problem}{hint}") from None
        yield control_plane


@asynccontextmanager
async def connect_directly(settings: Settings, clock: Clock | None = None) -> AsyncIterator[ControlPlane]:
    """The control plane itself; raises ConfigurationError if `settings` do not say how to get there."""
    async with HttpSession(settings, settings.way_out) as http:
        source = await in_thread("sign-in", partial(choose_source, settings, http))
        sign_in = SignIn(source, clock or SystemClock(), settings.backoff, settings.report_interval)
        yield ControlPlane(settings, http, sign_in)


async def _uses_daemon(settings: Settings) -> bool:
    if settings.daemon is not DaemonUse.AUTO:
        return settings.daemon is DaemonUse.ALWAYS
    return await in_thread("daemon-probe", partial(serves, settings))


def _hint(settings: Settings) -> str:
    """What else could be mended where a process has to deliver by itself, and cannot. Blocks for the disk."""
    if settings.daemon is DaemonUse.NEVER or not settings.socket.exists():
        return ""
    return (
        f" Or use the daemon of this host: its socket {settings.socket} is there, but does not answer this "
        "user. `agent-reporter check` says why."
    )


def serves(settings: Settings) -> bool:
    """Whether a daemon answers at the socket, for the project of `settings`, and their endpoint if any.

    A report never goes to another control plane than that of its process. Blocks for an instant.
    """
    if not answers(settings.socket):
        return False
    path = f"/v2/{quote(settings.project_id, safe='')}/agents/self/events?limit=1"
    try:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(PROBE_SECONDS)
            probe.connect(str(settings.socket))
            probe.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            with probe.makefile("rb") as answer:
                status = answer.readline(MAX_LINE).split()[1:2]
                endpoint = parse_headers(answer).get(ENDPOINT_HEADER)
    except (OSError, HTTPException):
        return True  # it is there, and busy or just starting: it is asked again and again
    is_other = status == [b"404"] or bool(settings.endpoint and endpoint and endpoint != settings.endpoint)
    if is_other:
        why = f"it reports to {endpoint}" if endpoint else "it reports for another project"
        _log.warning("daemon.not_used", socket=str(settings.socket), problem=why)
    return not is_other


def answers(path: Path) -> bool:
    """Whether somebody takes connections at the Unix socket `path`, and takes ours. Blocks for an instant."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except FileNotFoundError:
            return False
        except BlockingIOError:
            return True  # it does, and has a queue before the door
        except (OSError, ValueError) as problem:
            _log.info("daemon.not_used", socket=str(path), problem=str(problem))
            return False
    return True
