"""Whether the daemon does its work, told to the service manager: it is restarted if it is not told so.

The watchdog is fed by what it watches: a request that goes through the socket, the door and the API, and the
watcher of stop requests that keeps coming round.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from agent_reporter.errors import AgentReporterError
from agent_reporter.logs import get_logger

if TYPE_CHECKING:
    from agent_reporter.daemon.notify import Notifier
    from agent_reporter.daemon.registry import Registry
    from agent_reporter.means import Means
    from agent_reporter.stop import StopWatcher

CHECK_SECONDS = 10.0
"""A request to ourselves is answered within so long."""
STATUS_INTERVAL = 30.0
"""Seconds between two lines of status where there is no watchdog."""
LATE_LOOKS = 10
"""So many intervals after its last look, with a request's time each, the stop watcher hangs."""

_log = get_logger()


class UnwellError(AgentReporterError):
    """A part of the daemon does not do its work."""


class Vigil:
    """Looks after the daemon from inside."""

    def __init__(
        self, means: Means, registry: Registry, watcher: StopWatcher, notifier: Notifier, path: str
    ) -> None:
        """`path` is the socket that the API answers at."""
        self._means = means
        self._registry = registry
        self._watcher = watcher
        self._notifier = notifier
        self._path = path

    async def run(self) -> None:
        """Tell the service manager again and again that all is well, while it is."""
        while True:
            await self._means.clock.sleep(self._notifier.watchdog_interval or STATUS_INTERVAL)
            try:
                await self.check()
            except UnwellError as problem:
                _log.error("daemon.unwell", problem=str(problem))
            else:
                self._notifier.watchdog()
                self._notifier.status(self.status())

    async def check(self) -> None:
        """Return if all parts do their work; raises UnwellError."""
        last = self._watcher.last_look
        settings = self._means.settings
        bound = LATE_LOOKS * (settings.stop_poll_interval + settings.request_timeout)
        if last is not None and self._means.clock.monotonic() - last > bound:
            raise UnwellError(f"no look for stop requests ended within {bound:g} s")
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._ask()
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as problem:
            raise UnwellError(f"the daemon does not answer at {self._path}: {problem!r}") from None

    def status(self) -> str:
        """The state of the daemon in a line."""
        waiting = [local for local in self._registry.all() if local.delivery.exchange.attempt]
        return f"{len(self._registry.all())} restores open, {len(waiting)} waiting to be delivered"

    async def _ask(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._path)
        try:
            project = self._means.settings.project_id
            writer.write(f"GET /v2/{project}/restores HTTP/1.0\r\n\r\n".encode())
            line = await reader.readuntil(b"\r\n")
        finally:
            writer.close()
        if b" 200 " not in line:
            raise UnwellError(f"the daemon answered itself with {line!r}")
