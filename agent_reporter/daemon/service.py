"""The daemon's life: it goes on with what was left, answers, and at the end delivers for a bounded time."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from functools import partial
from typing import TYPE_CHECKING

from agent_reporter.control_plane.connection import connect_directly
from agent_reporter.daemon.api import Api
from agent_reporter.daemon.checkpoints import Checkpoints
from agent_reporter.daemon.descriptors import affordable_connections, raise_descriptor_limit
from agent_reporter.daemon.events import Events
from agent_reporter.daemon.journal import Journal
from agent_reporter.daemon.listening import listening_socket
from agent_reporter.daemon.peers import Rates
from agent_reporter.daemon.presence import announce_startup, say_farewell
from agent_reporter.daemon.registry import Registry
from agent_reporter.daemon.reload import merged
from agent_reporter.daemon.vigil import Vigil
from agent_reporter.deliveries import Deliveries
from agent_reporter.errors import ConfigurationError
from agent_reporter.logs import get_logger
from agent_reporter.means import Means
from agent_reporter.spool import Spool
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_reporter.clock import Clock
    from agent_reporter.daemon.notify import Notifier
    from agent_reporter.settings import Settings

START_SECONDS = 300.0
"""What another daemon left may be much, and the disk slow."""
HANG_UP_SECONDS = 2.0
"""For answers that are under way at the very end."""
LAST_WRITES_SECONDS = 10.0
"""Beyond the drain: what the end takes at most."""

_log = get_logger()


class Service:
    """One life of the daemon: `run` until `end`."""

    def __init__(
        self,
        settings: Settings,
        load: Callable[[], Settings],
        clock: Clock,
        notifier: Notifier,
        inherited: list[socket.socket],
    ) -> None:
        """`load` reads the settings again; `inherited` are the sockets that the service manager has made.

        A Unix socket among them is the local API's; ports are for metrics.
        """
        self.ready = asyncio.Event()
        """It answers."""
        self._settings = settings
        self._load = load
        self._clock = clock
        self._notifier = notifier
        self._inherited = [passed for passed in inherited if passed.family == socket.AF_UNIX]
        self._ports: list[str | socket.socket] = [each for each in inherited if each not in self._inherited]
        if settings.metrics_listen is not None:
            self._ports.append(settings.metrics_listen)
        self._over = asyncio.Event()
        self._reload = asyncio.Event()

    def end(self) -> None:
        """Deliver for a bounded time, and end."""
        self._over.set()

    def reload(self) -> None:
        """Take over what has changed in the settings, as far as that goes while it runs."""
        self._reload.set()

    async def run(self) -> None:
        """Serve until the end; raises ConfigurationError or SpoolError if it cannot begin."""
        connections = affordable_connections(
            raise_descriptor_limit(), self._settings.max_connections, self._settings.max_restores
        )
        async with AsyncExitStack() as stack:
            control_plane = await stack.enter_async_context(connect_directly(self._settings, self._clock))
            turns = asyncio.Semaphore(self._settings.concurrency)
            means = Means(self._settings, self._clock, control_plane, turns)
            spool, journal = Spool(self._settings.spool_dir), Journal(self._settings.spool_dir)
            deliveries, events = Deliveries(means, spool), Events(self._clock)
            registry = Registry(means, deliveries, spool, journal, events)
            checkpoints = Checkpoints(means, registry, spool, journal)
            stack.push_async_callback(journal.close)
            stack.push_async_callback(deliveries.close)
            stack.callback(registry.close)
            self._notifier.extend_timeout(START_SECONDS)
            await checkpoints.resume()
            listening = await self._listening()
            api = Api(means, registry, events, connections)
            stack.push_async_callback(_hang_up, api, await api.door.serve(listening))
            if self._ports or self._settings.metrics_file is not None:
                from agent_reporter.daemon.metrics import Metrics  # noqa: PLC0415 - where it is asked for

                metrics = Metrics(means, registry, api.door, spool)
                for port in self._ports:
                    stack.callback((await metrics.serve(port)).close)
                if self._settings.metrics_file is not None:
                    write = partial(metrics.write_again_and_again, self._settings.metrics_file)
                    deliveries.spawn("metrics", write)
            vigil = Vigil(means, registry, deliveries.watcher, self._notifier, listening.getsockname())
            await vigil.check()
            registry.start()
            deliveries.spawn("checkpoints", checkpoints.checkpoint_again_and_again)
            deliveries.spawn("takeover", deliveries.take_over_again_and_again)
            deliveries.spawn("startup", partial(announce_startup, means))
            deliveries.spawn("vigil", vigil.run)
            deliveries.spawn("reload", partial(self._reload_again_and_again, means, api))
            self._notifier.ready(vigil.status())
            _log.info("daemon.ready", socket=listening.getsockname())
            self.ready.set()
            await self._over.wait()
            await self._leave(means, deliveries, checkpoints)

    async def _listening(self) -> socket.socket:
        if len(self._inherited) > 1:
            raise ConfigurationError(
                "the service manager passed more than one Unix socket: have one ListenStream= with a path."
            )
        if self._inherited:
            return self._inherited[0]
        make = partial(listening_socket, self._settings.socket, group=self._settings.socket_group)
        return await in_thread("socket", make, abandoned=lambda made: made.close())

    async def _reload_again_and_again(self, means: Means, api: Api) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            self._notifier.reloading()
            try:
                means.settings, in_vain = merged(means.settings, await in_thread("settings", self._load))
            except ConfigurationError as problem:
                _log.error("daemon.not_reloaded", problem=str(problem), hint="it goes on with what it had")
            else:
                api.rates = Rates(means.settings.peer_rate, self._clock.monotonic)
                if in_vain:
                    _log.warning("daemon.needs_restart", settings=in_vain)
                _log.info("daemon.reloaded")
            self._notifier.ready("reloaded")

    async def _leave(self, means: Means, deliveries: Deliveries, checkpoints: Checkpoints) -> None:
        """Deliver for a bounded time, while engines are still answered; what is left stays in the spool."""
        seconds = means.settings.drain_timeout
        self._notifier.stopping()
        self._notifier.extend_timeout(seconds + LAST_WRITES_SECONDS)
        _log.info("daemon.leaving", open=len(deliveries.open))
        farewell = asyncio.create_task(say_farewell(means.control_plane))
        await deliveries.drain(seconds)
        await farewell
        await checkpoints.checkpoint()


async def _hang_up(api: Api, server: asyncio.Server) -> None:
    """Take no more connections, and let those who are being answered have their answer."""
    await api.door.close(server)
    api.server.pre_shutdown()
    await api.server.shutdown(HANG_UP_SECONDS)
