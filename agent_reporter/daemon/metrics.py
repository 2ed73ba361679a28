"""The daemon's metrics for Prometheus: on a loopback address, or in a file for node_exporter to collect.

Nothing is counted here. What the parts of the daemon count for themselves is read when somebody looks.
"""

from __future__ import annotations

import asyncio
import ipaddress
from functools import partial
from typing import TYPE_CHECKING, Any

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest, write_to_textfile
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from agent_reporter.errors import ConfigurationError
from agent_reporter.logs import get_logger
from agent_reporter.threads import in_thread
from agent_reporter.version import __version__

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator
    from pathlib import Path

    from agent_reporter.daemon.door import Door
    from agent_reporter.daemon.registry import Registry
    from agent_reporter.means import Durations, Means
    from agent_reporter.spool import Spool

FILE_INTERVAL = 15.0
"""Seconds between two writes of the file."""

_log = get_logger()


class Metrics(Collector):
    """What there is to say of one daemon."""

    def __init__(self, means: Means, registry: Registry, door: Door, spool: Spool) -> None:
        self._means = means
        self._registry = registry
        self._door = door
        self._spool = spool
        self._in_spool: dict[str, int] = {}
        self._all = CollectorRegistry()
        self._all.register(self)

    async def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        self._in_spool = await in_thread("metrics-spool", self._spool.sizes)
        return generate_latest(self._all)

    async def serve(self, listen: str | socket.socket) -> asyncio.Server:
        """Answer `GET /metrics` at `listen`: a host:port, or a socket that listens.

        Raises ConfigurationError if that cannot be.
        """
        where: dict[str, Any] = {"sock": listen}
        if isinstance(listen, str):
            where = dict(zip(("host", "port"), loopback(listen), strict=True))

        async def handle(request: web.BaseRequest) -> web.Response:
            if (request.method, request.path) != ("GET", "/metrics"):
                return web.Response(status=404, text="There is /metrics.\n")
            return web.Response(body=await self.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

        loop = asyncio.get_running_loop()
        try:
            return await loop.create_server(web.Server(handle, access_log=None), **where)
        except OSError as problem:
            raise ConfigurationError(f"metrics_listen: {listen}: {problem.strerror or problem}") from problem

    async def write_again_and_again(self, file: Path) -> None:
        """Keep `file` up to date."""
        while True:
            self._in_spool = await in_thread("metrics-spool", self._spool.sizes)
            try:
                await in_thread("metrics-file", partial(write_to_textfile, str(file), self._all))
            except OSError as problem:
                _log.error("metrics.not_written", file=str(file), problem=str(problem))
            await self._means.clock.sleep(FILE_INTERVAL)

    def collect(self) -> Iterator[Metric]:
        """What prometheus_client asks for."""
        tally, locals_ = self._means.tally, self._registry.all()
        now = self._means.clock.now()
        waiting = [since for local in locals_ if (since := local.keeper.undelivered_since) is not None]
        ages = [(now - since).total_seconds() for since in waiting]
        yield InfoMetricFamily("agent_reporter", "This daemon.", {"version": __version__})
        yield GaugeMetricFamily("agent_reporter_restores_open", "Restores that are not over.", len(locals_))
        yield GaugeMetricFamily(
            "agent_reporter_oldest_undelivered_seconds",
            "Age of the oldest report that the control plane has not acknowledged.",
            max([0.0, *ages]),
        )
        yield CounterMetricFamily(
            "agent_reporter_reports_accepted", "Patches taken of engines.", tally.accepted
        )
        yield CounterMetricFamily(
            "agent_reporter_reports_conflated", "Reports that a newer one replaced.", tally.conflated
        )
        yield _by_label(
            "agent_reporter_requests", "Requests to the control plane.", "verdict", dict(tally.answers)
        )
        sign_in = self._means.control_plane.sign_in
        if sign_in is not None:
            yield _by_label("agent_reporter_sign_ins", "Tokens asked for.", "result", dict(sign_in.results))
        yield _histogram(
            "agent_reporter_stop_seconds", "From a stop request until its engine's end.", tally.stops
        )
        yield from self._spool_and_door()

    def _spool_and_door(self) -> Iterator[Metric]:
        spool = GaugeMetricFamily("agent_reporter_spool_files", "Files in the spool.", labels=["kind"])
        for kind in ("waiting", "dead", "aside"):
            spool.add_metric([kind], self._in_spool.get(kind, 0))
        yield spool
        yield GaugeMetricFamily(
            "agent_reporter_spool_bytes", "Size of all files in the spool.", self._in_spool.get("bytes", 0)
        )
        yield GaugeMetricFamily(
            "agent_reporter_connections", "Connections to the socket.", self._door.connections
        )
        yield _by_label(
            "agent_reporter_connections_closed",
            "Connections that the daemon closed, by why.",
            "why",
            {
                "for_room": self._door.closed_for_room,
                "no_room": self._door.refused,
                "too_slow": self._door.heads_timed_out,
            },
        )


def loopback(listen: str) -> tuple[str, int]:
    """The host and port of `listen`; raises ConfigurationError unless it is a port of this machine alone."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        if ipaddress.ip_address(host).is_loopback and 0 <= int(port) < 2**16:
            return host, int(port)
    except ValueError:
        pass
    raise ConfigurationError(
        f"metrics_listen: {listen} is no loopback address and port, such as 127.0.0.1:9187. Metrics are for "
        "this machine alone; let a proxy with access control show them to others."
    )


def _by_label(name: str, text: str, label: str, counts: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, text: str, durations: Durations) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text)
    total, buckets = 0, []
    for bound in (*durations.bounds, float("inf")):
        total += durations.counts[bound]
        buckets.append(("+Inf" if bound == float("inf") else str(bound), total))
    family.add_metric([], buckets, durations.sum)
    return family
