"""The lines of the journal's segments: how they are written, and how much of a segment can be read."""

from __future__ import annotations

import json
import os
import zlib
from itertools import islice
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import MalformedError
from agent_reporter.logs import get_logger
from agent_reporter.model.documents import object_of, parse_object, text_of
from agent_reporter.model.restore_id import is_restore_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from typing import BinaryIO

HEADER = b"agent-reporter journal 1\n"
READINGS = 3
"""A segment is read so often before it is given up: a disk that failed once may give it the next time."""

_to_json = json.JSONEncoder(separators=(",", ":")).encode
_log = get_logger()


def lines_at(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each line of the segment at `path` says.

    Raises MalformedError where it is damaged, and OSError if it cannot be read, in READINGS tries.
    """
    done = 0
    for left in reversed(range(READINGS)):
        try:
            with open(path, "rb", opener=open_without_waiting) as file:
                for line in islice(lines_of(file), done, None):
                    done += 1
                    yield line
        except OSError:
            if not left:
                raise
        else:
            return


def lines_of(segment: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each line of a segment says; raises MalformedError where it is damaged, and OSError."""
    if not HEADER.startswith(segment.readline(len(HEADER))):
        raise MalformedError("it is no journal that this version reads")
    for line in segment:
        try:
            decoded = decode(line)
        except MalformedError:
            if segment.read(1):
                raise
            _log.info("journal.torn", file=segment.name, bytes=len(line))  # as a kill leaves it
            return
        yield decoded


def encode(restore_id: str, changes: Mapping[str, Any]) -> bytes:
    """One line: a checksum, then a JSON object with the restore and what changes of it."""
    content = _to_json({"restore_id": restore_id, "changes": changes}).encode()
    return b"%08x %b\n" % (zlib.crc32(content), content)


def decode(line: bytes) -> tuple[str, dict[str, Any]]:
    """The restore's id and the changes in a line; raises MalformedError for a torn or damaged one."""
    checksum, _, content = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or checksum != b"%08x" % zlib.crc32(content):
        raise MalformedError("a line is torn or damaged; what comes after it is not read")
    document = parse_object(content)
    restore_id = text_of(document, "restore_id")
    if not is_restore_id(restore_id):
        raise MalformedError(f"{restore_id!r:.60} is no restore's id")
    return restore_id, object_of(document, "changes")


def open_without_waiting(path: str, flags: int) -> int:
    """Open what may be no file at all, and a pipe with nobody at its other end."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
