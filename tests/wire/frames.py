"""Requests and answers as they go by in a stream of bytes: where each ends, and what it says.

Not the reading of aiohttp, which is what is tested: a plain one of its own, of what is sent here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

NO_BODY = frozenset({204, 304})


@dataclass(frozen=True)
class Frame:
    """One request or one answer."""

    first: str
    """Its first line."""
    headers: dict[str, str] = field(default_factory=dict)
    """By their names in lower case."""
    body: bytes = b""

    @property
    def status(self) -> int:
        """Of an answer."""
        return int(self.first.split()[1])

    @property
    def says_close(self) -> bool:
        """Whether the connection ends with it."""
        return self.headers.get("connection", "").lower() == "close"


def read_frame(stream: bytes) -> tuple[Frame, int] | None:
    """The first frame of `stream` and its length in bytes; None if it is not whole. Raises ValueError for none."""
    end = stream.find(b"\r\n\r\n")
    if end < 0:
        if not b"HTTP/".startswith(stream[:5]) and b"HTTP/" not in stream[:4096] and len(stream) > 4096:
            raise ValueError("no HTTP")
        return None
    first, *lines = stream[:end].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    start = end + 4
    if first.startswith("HTTP/") and (int(first.split()[1]) in NO_BODY or first.split()[1][0] == "1"):
        return Frame(first, headers), start
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _chunked(first, headers, stream, start)
    length = int(headers.get("content-length", "0"))
    if len(stream) < start + length:
        return None
    return Frame(first, headers, stream[start : start + length]), start + length


def _chunked(first: str, headers: dict[str, str], stream: bytes, start: int) -> tuple[Frame, int] | None:
    body = b""
    while (end := stream.find(b"\r\n", start)) >= 0:
        size = int(stream[start:end], 16)
        after = end + 2 + size + 2
        if len(stream) < after:
            return None
        body += stream[end + 2 : end + 2 + size]
        start = after
        if size == 0:
            return Frame(first, headers, body), start
    return None


def answer(status: int, body: bytes = b"", *lines: str) -> bytes:
    """The bytes of an answer."""
    length = () if status in NO_BODY else (f"Content-Length: {len(body)}",)
    return "\r\n".join([f"HTTP/1.1 {status} Made up", *lines, *length, "", ""]).encode() + body
