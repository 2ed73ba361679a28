"""Sockets that the service manager has made: one for the local API, and one for metrics, if it is wanted."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import aiohttp

from agent_reporter.daemon.notify import Notifier
from agent_reporter.daemon.service import Service
from tests.daemon.conftest import client_of

if TYPE_CHECKING:
    from tests.daemon.conftest import Daemons


async def test_metrics_are_shown_at_a_port_that_the_daemon_could_not_make_itself(daemons: Daemons) -> None:
    api, port = socket.socket(socket.AF_UNIX), socket.create_server(("127.0.0.1", 0))
    api.bind(str(daemons.socket))
    api.listen()
    for passed in (api, port):
        passed.setblocking(False)
    url = f"http://127.0.0.1:{port.getsockname()[1]}/metrics"
    settings = daemons.settings()
    service = Service(settings, lambda: settings, daemons.rig.clock, Notifier(None), [port, api])
    running = asyncio.create_task(service.run())
    await service.ready.wait()
    try:
        async with client_of(daemons.socket) as client:
            await client.tell(daemons.rig.server.start_restore(), state="in_progress")
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            text = await answer.text()
    finally:
        service.end()
        await running

    assert "agent_reporter_restores_open 1.0" in text
