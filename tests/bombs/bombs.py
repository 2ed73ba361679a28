"""What a hostile control plane answers: each bomb gives bytes to be sent, and seconds to wait before more.

A bomb knows which call it answers, and what a good answer to it would be, with the request done.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from itertools import chain, repeat
from typing import TYPE_CHECKING

from agent_reporter.control_plane.http import MAX_BODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

BLOCK = 65_536
TEN_GIGABYTES = 10_000_000_000
ALMOST_ALL = MAX_BODY - 1_024
"""Bytes just below the bound to which an answer is read: what is longer is not looked at."""
DEPTH = 100_000
ONE_BYTE_A_SECOND = 1.0


class Call(StrEnum):
    """The calls that an agent makes."""

    PATCH = "PATCH"
    READ = "read"
    EVENTS = "events"
    SIGN_IN = "sign-in"


@dataclass(frozen=True, slots=True)
class Target:
    """The request that a bomb answers."""

    call: Call
    good: bytes
    """The true answer, once the request was done; empty unless the bomb lets it be done."""
    path: str
    elsewhere: str
    """The URL of another origin."""
    request: bytes = b""
    """The whole of it: head and body."""


@dataclass(frozen=True, slots=True)
class Bomb:
    """One hostile answer. `lets_through` is whether the request is done before it."""

    name: str
    send: Callable[[Target], Iterable[bytes | float]]
    lets_through: bool = False
    before_request: bool = False
    """It comes as soon as there is a connection, whatever is asked over it."""


def _head(call: Call, *headers: str, status: int | None = None) -> bytes:
    """A head with a status that has the body looked at: a patch's answer is only read if it is a refusal."""
    status = status or (409 if call is Call.PATCH else 200)
    return "\r\n".join([f"HTTP/1.1 {status} Whatever", *headers, "", ""]).encode()


def _whole(call: Call, body: bytes, *headers: str, status: int | None = None) -> bytes:
    return _head(call, f"Content-Length: {len(body)}", *headers, status=status) + body


def _endless(start: bytes, block: bytes, of: Target, *headers: str) -> Iterator[bytes]:
    return chain([_head(of.call, *headers) + start], repeat(block))


def _raw_endless(start: bytes, block: bytes, _of: Target) -> Iterator[bytes]:
    return chain([start], repeat(block))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _bodies() -> Iterator[Bomb]:
    zeros, digits = bytes(BLOCK), b"7" * BLOCK
    chunked = "Transfer-Encoding: chunked"
    tiny = _chunk(b"x") * 8_000
    yield Bomb("10 GB body", lambda of: _endless(b"", zeros, of, f"Content-Length: {TEN_GIGABYTES}"))
    yield Bomb("endless body without a length", lambda of: _endless(b"", zeros, of))
    yield Bomb("endless chunks", lambda of: _endless(b"", _chunk(zeros), of, chunked))
    yield Bomb("endless chunks of one byte", lambda of: _endless(b"", tiny, of, chunked))
    yield Bomb("one chunk of 10 GB", lambda of: _endless(b"%x\r\n" % TEN_GIGABYTES, zeros, of, chunked))
    yield Bomb("endless size of a chunk", lambda of: _endless(b"", digits, of, chunked))
    yield Bomb("endless extension of a chunk", lambda of: _endless(b"1;", digits, of, chunked))
    yield Bomb("endless trailers", lambda of: _endless(b"0\r\n", b"a: b\r\n" * 8_000, of, chunked))
    yield Bomb("length of 5,000 digits", lambda of: [_head(of.call, f"Content-Length: {'9' * 5_000}")])
    yield Bomb("length below zero", lambda of: [_head(of.call, "Content-Length: -1"), zeros])
    yield Bomb(
        "two lengths", lambda of: [_head(of.call, "Content-Length: 2", "Content-Length: 9000"), b"{}" * 4_500]
    )


def _heads() -> Iterator[Bomb]:
    letters, small = b"a" * BLOCK, b"a: b\r\n" * 8_000
    line = b"HTTP/1.1 200 "
    continues = b"HTTP/1.1 100 Continue\r\n\r\n" * 2_500
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 1_500
    yield Bomb("endless status line", partial(_raw_endless, line, letters))
    yield Bomb("one endless header", partial(_raw_endless, line + b"OK\r\na: ", letters))
    yield Bomb("endless name of a header", partial(_raw_endless, line + b"OK\r\n", letters))
    yield Bomb("endless small headers", partial(_raw_endless, line + b"OK\r\n", small))
    yield Bomb("endless folded header", partial(_raw_endless, line + b"OK\r\na: b\r\n", b" b\r\n" * 8_000))
    yield Bomb("endless 100 Continue", partial(_raw_endless, b"", continues))
    yield Bomb("endless 103 Early Hints", partial(_raw_endless, b"", early))
    yield Bomb("endless empty lines", partial(_raw_endless, b"", b"\r\n" * 8_000))
    yield Bomb("endless zeros", partial(_raw_endless, b"", bytes(BLOCK)))
    yield Bomb("TLS on the plain port", partial(_raw_endless, b"\x16\x03\x03\x40\x00\x02", letters))


@cache
def _block_of_deflate() -> bytes:
    """16 MiB of zeros in 16 KiB, that may follow one another for ever."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packer.compress(b"")
    return packer.compress(bytes(1 << 24)) + packer.flush(zlib.Z_FULL_FLUSH)


@cache
def _nested() -> bytes:
    return zlib.compress(zlib.compress(_block_of_deflate() * 640, 9), 9)


def _packed() -> Iterator[Bomb]:
    gzip = b"\x1f\x8b\x08\0\0\0\0\0\2\xff"
    for start, form in ((gzip, "gzip"), (b"\x78\xda", "deflate"), (b"", "br"), (b"", "no-such-form")):
        yield Bomb(
            f"10 GB of zeros as {form}",
            lambda of, start=start, form=form: _endless(  # type: ignore[misc]  # mypy: lambdas with defaults
                start, _block_of_deflate(), of, f"Content-Encoding: {form}"
            ),
        )
    yield Bomb(
        "nested deflate",
        lambda of: [_whole(of.call, _nested(), "Content-Encoding: deflate, deflate, deflate")],
    )
    yield Bomb(
        "gzip as transfer coding",
        lambda of: _endless(
            _chunk(gzip), _chunk(_block_of_deflate()), of, "Transfer-Encoding: gzip, chunked"
        ),
    )


def _everywhere(call: Call, value: str) -> bytes:
    """A document of the protocol that has `value`, which is JSON, wherever a call looks for something."""
    match call:
        case Call.PATCH:
            return f'{{"message": {value}, "errors": [{value}]}}'.encode()
        case Call.READ:
            errors = f'{{"count": {value}, "reason": {value}, "diagnostics": {value}}}'
            return (
                f'{{"state": {value}, "started_time": {value}, "files_restored": {value}, "bytes_restored": '
                f'{value}, "errors": {errors}}}'.encode()
            )
        case Call.EVENTS:
            event = f'{{"id": {value}, "event": {value}, "restore": {{"id": {value}}}}}'
            return f'{{"events": [{event}]}}'.encode()
        case Call.SIGN_IN:
            return f'{{"token": {{"id": {value}, "expires": {value}}}}}'.encode()


def _in_progress(call: Call, value: str) -> bytes:
    """The same, but a state that is one: the counters are looked at."""
    state = '{"state": "in_progress", "bytes_restored": ' + value + "}"
    return state.encode() if call is Call.READ else _everywhere(call, value)


def _documents() -> Iterator[Bomb]:
    def bomb(name: str, body: Callable[[Call], bytes]) -> Bomb:
        return Bomb(name, lambda of: [_whole(of.call, body(of.call), "Content-Type: application/json")])

    text, number = json.dumps("x" * (ALMOST_ALL // 8)), "7" * (ALMOST_ALL // 8)
    deep = '{"":' * DEPTH
    keys = "{" + ",".join(f'"{number}":1' for number in range(ALMOST_ALL // 10)) + "}"
    yield bomb("100,000 arrays deep", lambda _: b"[" * DEPTH + b"]" * DEPTH)
    yield bomb("100,000 objects deep", lambda _: deep.encode() + b"1" + b"}" * DEPTH)
    yield bomb("arrays that are never closed", lambda _: b"[" * ALMOST_ALL)
    yield bomb("depth in every place", lambda call: _everywhere(call, "[" * 20_000 + "]" * 20_000))
    yield bomb("numbers of 65,000 digits", lambda call: _everywhere(call, number))
    yield bomb("numbers of 4,000 digits", lambda call: _in_progress(call, "7" * 4_000))
    yield bomb("infinity", lambda call: _in_progress(call, "1e999"))
    yield bomb("no number", lambda call: _in_progress(call, "NaN"))
    yield bomb("texts of 65 KB", lambda call: _everywhere(call, text))
    yield bomb("lone surrogates", lambda call: _everywhere(call, '"\\ud800\\u0000\\u001b[2J"'))
    yield bomb("as many small numbers as are read", lambda _: b"[" + b"1," * (ALMOST_ALL // 2 - 1) + b"1]")
    yield bomb("as many keys as are read", lambda _: keys.encode())
    yield bomb("as many events as are read", _many_events)
    yield bomb("no text", lambda _: b"\xff" * ALMOST_ALL)
    yield bomb("nulls", lambda call: _everywhere(call, "null"))
    yield Bomb("100 MB of one text", lambda of: _endless(b'{"message": "', b"x" * BLOCK, of))


def _many_events(call: Call) -> bytes:
    event = b'{"id":"1","event":"restore_progress"},'
    return (
        b'{"events": [' + event * (ALMOST_ALL // len(event) - 1) + b"{}]}" if call is Call.EVENTS else b"[]"
    )


def _redirects() -> Iterator[Bomb]:
    def where(of: Target) -> dict[str, str]:
        return {
            "another origin": f"{of.elsewhere}{of.path}",
            "another origin without a scheme": f"//{of.elsewhere.partition('//')[2]}{of.path}",
            "itself": of.path,
            "another path": "/elsewhere",
            "a file": "file:///etc/passwd",
            "a Unix socket": "http+unix://%2Frun%2Fagent-reporter%2Fapi.sock/v2/110011/restores",
        }

    names = list(where(Target(Call.READ, b"", "/", "http://127.0.0.1")))
    for status in (300, 301, 302, 303, 304, 305, 307, 308):
        for name in names if status in {302, 308} else names[:1]:

            def send(of: Target, status: int = status, name: str = name) -> list[bytes]:
                return [_whole(of.call, b"", f"Location: {where(of)[name]}", status=status)]

            yield Bomb(f"{status} to {name}", send)


def _slow() -> Iterator[Bomb]:
    def byte_by_byte(text: bytes) -> Iterator[bytes | float]:
        for byte in text:
            yield bytes([byte])
            yield ONE_BYTE_A_SECOND

    yield Bomb("silence", lambda _: repeat(ONE_BYTE_A_SECOND))
    yield Bomb("one byte a second of the status line", lambda of: byte_by_byte(_head(of.call)))
    yield Bomb(
        "one byte a second of the headers",
        lambda of: chain([_head(of.call)[:-2]], byte_by_byte(b"X-Slow: " + b"a" * 100)),
    )
    yield Bomb(
        "one byte a second of the body",
        lambda of: chain([_head(of.call, "Content-Length: 500")], byte_by_byte(b"{" + b" " * 499)),
    )


def _tricks() -> Iterator[Bomb]:
    more = b"HTTP/1.1 204 No Content\r\n\r\n"
    cookies = [f"Set-Cookie: c{number}={'x' * 2_000}; Domain=127.0.0.1; Path=/" for number in range(50)]

    def with_headers(good: bytes, *headers: str) -> bytes:
        status_line, _, rest = good.partition(b"\r\n")
        return b"\r\n".join([status_line, *(header.encode() for header in headers), rest])

    def answers(name: str, send: Callable[[Target], Iterable[bytes | float]]) -> Bomb:
        return Bomb(name, send, lets_through=True)

    yield answers("garbage after a good answer", lambda of: [of.good + b"\0garbage\r\n\r\n" * 5_000])
    yield answers("endless garbage after a good answer", lambda of: chain([of.good], repeat(bytes(BLOCK))))
    yield answers("answer after a good answer", lambda of: [of.good + more])
    yield answers("answer to what was not asked yet", lambda of: [of.good, 0.02, more])
    yield answers("endless answers", lambda of: chain([of.good], repeat(more * 2_000)))
    yield answers("cookies", lambda of: [with_headers(of.good, *cookies)])
    yield answers(
        "upgrade in a good answer", lambda of: [with_headers(of.good, "Connection: upgrade", "Upgrade: h2c")]
    )
    yield Bomb(
        "answer before the request",
        lambda _: [b"HTTP/1.1 503 Early\r\nContent-Length: 0\r\n\r\n"],
        before_request=True,
    )
    yield Bomb(
        "101 and endless frames",
        lambda of: chain(
            [_head(of.call, "Connection: upgrade", "Upgrade: websocket", status=101)], repeat(bytes(BLOCK))
        ),
    )
    yield Bomb(
        "Retry-After of 8,000 digits",
        lambda of: [_whole(of.call, b"", f"Retry-After: {'9' * 8_000}", status=503)],
    )
    yield Bomb(
        "Retry-After in the year 9999",
        lambda of: [_whole(of.call, b"", "Retry-After: Fri, 31 Dec 9999 23:59:59 GMT", status=503)],
    )
    yield Bomb("status 999", lambda of: [_whole(of.call, b"", status=999)])
    yield Bomb("HTTP/9.9", lambda _: [b"HTTP/9.9 200 OK\r\nContent-Length: 2\r\n\r\n{}"])
    yield Bomb("HTTP/0.9", lambda _: [b"<html>" * 1_000])
    yield Bomb("nothing at all", lambda _: [])


BOMBS = [
    *_bodies(),
    *_heads(),
    *_packed(),
    *_documents(),
    *_redirects(),
    *_slow(),
    *_tricks(),
]
