"""Answers as bytes on a connection: whole, or spoiled as a fault says."""

from __future__ import annotations

import http
from typing import TYPE_CHECKING

from aiohttp import web

from agent_reporter.reference.exchange import Answer, Call
from agent_reporter.reference.faults import Kind

if TYPE_CHECKING:
    from asyncio import Transport
    from collections.abc import Awaitable, Callable

    from agent_reporter.reference.faults import Fault

    Pause = Callable[[float], Awaitable[object]]


async def read_call(request: web.Request) -> Call:
    """A request, read to its end or to the size that is refused."""
    try:
        body: bytes | None = await request.read()
    except web.HTTPRequestEntityTooLarge:
        body = None
    return Call(
        method=request.method,
        path=request.path,
        names=request.match_info,
        query=request.query,
        headers=request.headers,
        body=body,
        origin=f"{request.scheme}://{request.host}",
    )


def response(answer: Answer) -> web.Response:
    """The answer as the server library writes it."""
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body or None)


async def write(request: web.Request, answer: Answer, fault: Fault | None, pause: Pause) -> web.Response:
    """What a handler has to return for `answer`, after spoiling it on the connection if a fault says so."""
    if fault is None:
        return response(answer)
    if fault.kind is Kind.SLOW:
        await pause(fault.seconds)
        return response(answer)
    if fault.kind in (Kind.ANSWER, Kind.APPLY_THEN_STATUS):
        return response(answer)
    if request.transport is not None:
        await _spoil(request.transport, raw(answer), fault, pause)
    return web.Response(status=500)  # The handler has to return something, though nobody is left to read it.


def raw(answer: Answer) -> bytes:
    """All bytes of an answer of our own, after which the connection is closed."""
    headers = {**answer.headers, "Connection": "close"}
    if answer.status != http.HTTPStatus.NO_CONTENT:
        headers["Content-Length"] = str(len(answer.body))
    lines = [f"HTTP/1.1 {answer.status} {http.HTTPStatus(answer.status).phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + answer.body


async def _spoil(transport: Transport, content: bytes, fault: Fault, pause: Pause) -> None:
    if fault.kind is Kind.TRUNCATE:
        transport.write(content[: len(content) // 2])
    elif fault.kind is Kind.TRICKLE:
        for byte in content:
            if transport.is_closing():
                return
            transport.write(bytes([byte]))
            await pause(fault.seconds)
    transport.close()
