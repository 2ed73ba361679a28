"""Bytes as they come from a pipe, in chunks cut anywhere, made into lines of text."""

from __future__ import annotations

import re

MAX_LINE_BYTES = 1 << 20
"""Lines longer than this are cut: an engine may print a line without end."""

_LEADING_CONTROL_SEQUENCES = re.compile(r"(?:\x1b\[[0-?]*[ -/]*[@-~])+")


class LineSplitter:
    r"""Splits at \n, \r and \r\n; the lines are the same wherever the chunks are cut.

    Bytes that are not UTF-8 become U+FFFD, terminal control sequences in front of a line are taken off, and
    what a line holds beyond `max_line_bytes` is thrown away. Holds at most that many bytes.
    """

    def __init__(self, max_line_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_line_bytes = max_line_bytes
        self._unfinished = bytearray()
        self._after_carriage_return = False

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that `chunk` finishes, without their ends."""
        if not chunk:
            return []
        if self._after_carriage_return and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        self._after_carriage_return = chunk.endswith(b"\r")
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        if not end:
            self._keep(chunk)
            return []
        finished = bytes(self._unfinished) + chunk[:end]
        self._unfinished.clear()
        self._keep(chunk[end:])
        return self._split(finished)

    def flush(self) -> list[str]:
        """The last line, when the stream ended without a line end."""
        last = bytes(self._unfinished)
        self._unfinished.clear()
        self._after_carriage_return = False
        return self._split(last + b"\n") if last else []

    def _keep(self, chunk: bytes) -> None:
        self._unfinished += chunk[: self._max_line_bytes - len(self._unfinished)]

    def _split(self, finished: bytes) -> list[str]:
        """Lines of `finished`, which ends in a line end. One decode and one split for the whole chunk."""
        if b"\r" in finished:
            finished = finished.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if len(finished) > self._max_line_bytes:
            finished = b"\n".join(line[: self._max_line_bytes] for line in finished.split(b"\n"))
        # A line end is never part of a broken character, so decoding first and splitting then is the same.
        lines = finished.decode("utf-8", "replace").split("\n")
        lines.pop()
        if b"\x1b" in finished:
            return [
                _LEADING_CONTROL_SEQUENCES.sub("", line, count=1) if line[:1] == "\x1b" else line
                for line in lines
            ]
        return lines
