"""What a request brings: its body, bounded in size and time, and what its headers tell."""

from __future__ import annotations

import asyncio
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from aiohttp import ClientPayloadError as PayloadError
from aiohttp.http_exceptions import HttpProcessingError

from agent_reporter.daemon.refusals import RefusedError
from agent_reporter.model.client import Facts
from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.processes import MAX_PID

if TYPE_CHECKING:
    from aiohttp import web

MAX_BODY = 1_000_000
"""Bytes. One JSON document of this API is at most 1 MB (`protocol.md`, Limits)."""
BODY_SECONDS = 10.0
"""A body is whole within so long after its head."""
MAX_PIDS = 16


async def read_body(request: web.BaseRequest) -> bytes:
    """The body of a request; raises RefusedError if it is too large, too slow, or no HTTP."""
    if (request.content_length or 0) > MAX_BODY:
        raise RefusedError(400, f"The body is larger than {MAX_BODY} bytes.", closes=True)
    if request.content.is_eof():  # it came with the head, as it mostly does
        body = request.content.read_nowait()
    else:
        body = await _rest_of_body(request)
    if len(body) > MAX_BODY:
        raise RefusedError(400, f"The body is larger than {MAX_BODY} bytes.", closes=True)
    return body


async def _rest_of_body(request: web.BaseRequest) -> bytes:
    """The body, or as much of it as shows that it is too large."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.content.iter_any():
                body += chunk
                if len(body) > MAX_BODY:
                    break
    except TimeoutError:
        raise RefusedError(408, f"The body was not whole within {BODY_SECONDS:g} s.", closes=True) from None
    except (HttpProcessingError, PayloadError) as problem:
        raise RefusedError(400, f"The body is no HTTP ({type(problem).__name__}).", closes=True) from None
    return bytes(body)


def read_facts(request: web.BaseRequest) -> Facts:
    """What the headers tell beside the protocol; raises RefusedError (400) for what cannot be true."""
    headers = request.headers
    pids = headers.get("X-Engine-Pid")
    return Facts(
        () if pids is None else _pids(pids),
        _total(headers.get("X-Total-Bytes"), "X-Total-Bytes"),
        _total(headers.get("X-Total-Files"), "X-Total-Files"),
    )


@lru_cache(maxsize=1_000)
def _pids(header: str) -> tuple[int, ...]:
    words = header.split(",", MAX_PIDS)
    if len(words) > MAX_PIDS:
        raise RefusedError(400, f"X-Engine-Pid names more than {MAX_PIDS} processes.")
    return tuple(int(number(word.strip(), "X-Engine-Pid", 1, MAX_PID)) for word in words)


def _total(header: str | None, name: str) -> int | None:
    return None if header is None else int(number(header, name, 0, MAX_COUNT))


def number(text: str, name: str, least: int, most: float) -> float:
    """The whole number that is called `name`; raises RefusedError (400) if it is none, or out of bounds."""
    if not re.fullmatch(r"[0-9]{1,19}", text) or not least <= int(text) <= most:
        raise RefusedError(400, f"{name} has to be a whole number from {least} to {most:.0f}.")
    return int(text)
