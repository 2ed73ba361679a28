"""What stands between client and server, and is wrong: it answers itself, or spoils an answer that it passes on."""

from __future__ import annotations

import gzip
from functools import cache
from typing import TYPE_CHECKING

from tests.wire.frames import answer as framed

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.wire.frames import Frame
    from tests.wire.network import Connection, Exchange
    from tests.wire.plan import Fault

HTML = b"<html><head><title>502 Bad Gateway</title></head><body><center>nginx</center></body></html>"
HTML_TYPE = "Content-Type: text/html"
ELSEWHERE = "http://elsewhere.example.com:8080"
CHUNK = b"x" * 16_384
ENDLESS = 3 * 1024 * 1024
BOMB = 48 * 1024 * 1024


@cache
def bomb() -> bytes:
    """Small on the way, and large where it is unpacked."""
    return gzip.compress(bytes(BOMB), mtime=0)


ITSELF: dict[str, Callable[[], bytes]] = {
    "bad_gateway": lambda: framed(502, HTML, HTML_TYPE),
    "unavailable": lambda: framed(503, b'{"message": "Later."}', "Retry-After: 3"),
    "captive": lambda: framed(200, HTML, HTML_TYPE),
    "redirect": lambda: framed(307, b"", f"Location: {ELSEWHERE}/v2/110011/restores/restore-0"),
    "redirect_home": lambda: framed(301, b"", "Location: /elsewhere"),
    "bomb": lambda: framed(503, bomb(), "Content-Encoding: gzip"),
    "junk": lambda: b"\x16\x03\x01\x02\x00junk\r\n\r\n",
    "short": lambda: framed(503, HTML, HTML_TYPE).replace(b"Length: 9", b"Length: 99"),
    "rechunked": lambda: _chunked(503, HTML),
}
"""Without asking the server."""
NEVER_ENDING = ("endless", "endless_headers")
PASSED_ON = ("gateway_timeout", "gzip", "cookie", "continue", "chunks", "says_close", "twice", "timeout_408")
SORTS = (*ITSELF, *NEVER_ENDING, *PASSED_ON)


def answers_itself(fault: Fault | None) -> bool:
    """Whether the server does not get to see the request."""
    return fault is not None and (fault.sort in ITSELF or fault.sort in NEVER_ENDING)


def answer(connection: Connection, exchange: Exchange) -> None:
    """Answer in the server's place."""
    fault = exchange.fault
    assert fault is not None
    match fault.sort:
        case "endless":
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {10**12}\r\n\r\n".encode()
            connection.server.send(head, delay=fault.delay)
            _pour(connection, CHUNK, ENDLESS)
        case "endless_headers":
            connection.server.send(b"HTTP/1.1 200 OK\r\n", delay=fault.delay)
            _pour(connection, b"X-More: and more\r\n" * 900, ENDLESS)
        case sort:
            connection.server.send(ITSELF[sort](), delay=fault.delay)


def pass_on(connection: Connection, fault: Fault, frame: Frame, whole: bytes) -> None:
    """Pass the server's answer on, in a way of its own."""
    server = connection.server
    match fault.sort:
        case "gateway_timeout":
            server.send(framed(504, HTML, HTML_TYPE), delay=fault.delay)
        case "gzip" if frame.body:
            packed = gzip.compress(frame.body, mtime=0)
            server.send(framed(frame.status, packed, "Content-Encoding: gzip"), delay=fault.delay)
        case "cookie":
            head, _, rest = whole.partition(b"\r\n")
            server.send(head + b"\r\nSet-Cookie: session=abc; Path=/\r\n" + rest)
        case "continue":
            server.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
            server.send(whole, delay=fault.delay)
        case "chunks" if frame.body:
            for piece in _pieces(_chunked(frame.status, frame.body), 7):
                server.send(piece, delay=0.001)
        case "says_close":
            head, _, rest = whole.partition(b"\r\n")
            server.send(head + b"\r\nConnection: close\r\n" + rest)
            server.tell_end(delay=fault.delay)
        case "twice":
            server.send(whole)
            server.send(whole, delay=0.001)
        case "timeout_408":
            server.send(whole)
            server.send(framed(408, b"", "Connection: close"), delay=1.0)
            server.tell_end(delay=1.0)
        case _:
            server.send(whole)


def _pour(connection: Connection, piece: bytes, left: int) -> None:
    """As much as is taken, and no more than is left."""
    if left > 0 and connection.is_open and not connection.is_silent:
        if connection.server.in_flight < 4 * len(piece):
            connection.server.send(piece)
            left -= len(piece)
        connection.loop.later(0.005, _pour, connection, piece, left)


def _chunked(status: int, body: bytes) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in _pieces(body, 50))
    return f"HTTP/1.1 {status} Made up\r\nTransfer-Encoding: chunked\r\n\r\n".encode() + chunks + b"0\r\n\r\n"


def _pieces(content: bytes, size: int) -> list[bytes]:
    return [content[first : first + size] for first in range(0, len(content), size)]
