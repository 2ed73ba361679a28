"""Events as entries of the systemd journal, in its native protocol."""

from __future__ import annotations

import errno
import re
import socket
from typing import TYPE_CHECKING

from agent_reporter.log_lines import in_one_line
from agent_reporter.logs import PRIORITIES
from agent_reporter.model.showing import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from structlog.typing import EventDict


class Journal:
    """Writes events to the socket `path` as the journal's native protocol wants them: a datagram each."""

    CUTS = (None, 16384, 2048, 256)
    """Letters that are left of a value, where the one before made too large a datagram."""

    def __init__(self, path: str) -> None:
        self._path = path
        # Kept open: an event that says that the process is out of file descriptors has to be written, too.
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def write(self, event: EventDict) -> None:
        """Write `event`, with long values cut if need be; raises OSError if the journal does not take it."""
        fields = journal_fields(event)
        for cut in self.CUTS:
            entry = encode_fields({name: _shortened(value, cut) for name, value in fields.items()})
            try:
                self._socket.sendto(entry, self._path)
            except OSError as problem:
                if problem.errno != errno.EMSGSIZE:
                    raise
            else:
                return


def journal_fields(event: EventDict) -> dict[str, str]:
    """The fields of an entry: those that the journal knows, `EVENT`, `RESTORE_ID`, and `AR_*` for all else.

    The prefix keeps names valid, whatever the key, and apart from those that mean something to the journal.
    """
    said = {
        key: value for key, value in event.items() if key not in {"timestamp", "level", "event", "exception"}
    }
    message = f"{printable(str(event['event']))} {in_one_line(said)}".rstrip()
    fields = {
        "MESSAGE": f"{message}\n{event['exception']}" if "exception" in event else message,
        "PRIORITY": str(PRIORITIES.get(event["level"], PRIORITIES["info"])),
        "SYSLOG_IDENTIFIER": "agent-reporter",
        "EVENT": str(event["event"]),
    }
    for key, value in event.items():
        if key == "restore_id":
            fields["RESTORE_ID"] = str(value)
        elif key not in {"level", "event"}:
            fields[f"AR_{re.sub('[^A-Z0-9_]', '_', key.upper())}"[:64]] = str(value)
    return fields


def encode_fields(fields: Mapping[str, str]) -> bytes:
    """The datagram of an entry: `NAME=value` a line, or for a value of several lines its length before it."""
    entry = bytearray()
    for name, text in fields.items():
        value = text.encode(errors="backslashreplace")
        if b"\n" in value:
            entry += b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
        else:
            entry += b"%s=%s\n" % (name.encode(), value)
    return bytes(entry)


def _shortened(text: str, cut: int | None) -> str:
    return text if cut is None or len(text) <= cut else f"{text[:cut]}…"
