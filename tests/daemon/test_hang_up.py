"""The end of a daemon while calls come in: each is answered, or waits for the next daemon; none is cut off."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from agent_reporter.daemon.door import Door

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALL = b"GET / HTTP/1.1\r\nHost: agent\r\n\r\n"
CALLERS = 100


@pytest.fixture
def listening(socket_directory: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(socket_directory / "api.sock"))
        listening.listen(CALLERS)
        listening.setblocking(False)
        yield listening


class House:
    """What serves behind a door."""

    def __init__(self) -> None:
        self.server = web.Server(self._answer, access_log=None)
        self.door = Door(self.server, CALLERS * 4)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        with self.door.busy(request.transport):
            return web.Response(text="hello")

    async def close(self, serving: asyncio.Server) -> None:
        await self.door.close(serving)
        self.server.pre_shutdown()
        await self.server.shutdown(1)


def callers(listening: socket.socket) -> list[socket.socket]:
    """As many as are there at the same moment."""
    made = [socket.socket(socket.AF_UNIX) for _ in range(CALLERS)]
    for caller in made:
        caller.connect(listening.getsockname())
        caller.setblocking(False)
    return made


def heard(caller: socket.socket) -> bytes | None:
    """What a caller was answered; None if it is not answered yet, and not cut off."""
    try:
        return caller.recv(1_000)
    except BlockingIOError:
        return None


@pytest.mark.parametrize("turns", range(6))
async def test_who_was_let_in_is_answered_and_who_was_not_waits_for_the_next(
    listening: socket.socket, turns: int
) -> None:
    house, next_house = House(), House()
    serving = await house.door.serve(listening.dup())
    waiting = callers(listening)
    for _ in range(turns):
        await asyncio.sleep(0)
    closing = asyncio.create_task(house.close(serving))
    await asyncio.sleep(0)
    for caller in waiting:
        caller.send(CALL)
    await closing
    first = [heard(caller) for caller in waiting]

    serving = await next_house.door.serve(listening.dup())
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10):
        answers = [
            said or await loop.sock_recv(caller, 1_000) for said, caller in zip(first, waiting, strict=True)
        ]
    await next_house.close(serving)
    for caller in waiting:
        caller.close()

    assert all(said.endswith(b"hello") for said in answers)
