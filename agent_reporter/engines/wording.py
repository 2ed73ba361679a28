"""Sentences for a person, out of what engines print: bounded, encodable, and without passwords of URLs."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_DIAGNOSTICS_BYTES = 4096

_SHELL_SIGNAL_BASE = 128
_PASSWORD_IN_URL = re.compile(r"(://[^/@:\s]{0,256}:)[^/\s]{1,1024}@")
_SECRET_IN_QUERY = re.compile(
    r"([?&][\w-]{0,40}(?:sig|signature|token|secret|password|credential|key)=)[^&\s'\"]{1,2048}",
    re.IGNORECASE,
)
_MAX_CREDENTIALS_CHARACTERS = 1300


def clean(text: str, limit: int) -> str:
    """At most `limit` characters of `text`, without passwords of URLs.

    What cannot be encoded as UTF-8 becomes a question mark.
    """
    text = text[: limit + _MAX_CREDENTIALS_CHARACTERS]
    if "://" in text:  # before the cut, which may leave half of a password behind
        text = _PASSWORD_IN_URL.sub(r"\1***@", text)
        text = _SECRET_IN_QUERY.sub(r"\1***", text)
    text = text[:limit]
    if text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")


def diagnostics(sentences: Iterable[str]) -> str:
    """`sentences` joined with spaces, cut to 4 KiB of UTF-8."""
    text = " ".join(filter(None, (sentence.strip() for sentence in sentences)))
    text = clean(text, 4 * MAX_DIAGNOSTICS_BYTES)
    encoded = text.encode("utf-8")
    if len(encoded) <= MAX_DIAGNOSTICS_BYTES:
        return text
    return encoded[: MAX_DIAGNOSTICS_BYTES - 3].decode("utf-8", "ignore") + "..."


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 99` for what has no name here."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def how_it_ended(engine: str, returncode: int) -> str:
    """A sentence about an exit status as `subprocess` gives it: negative for a signal."""
    if returncode < 0:
        return f"{engine} was ended by {signal_name(-returncode)}."
    return f"{engine} ended with exit status {returncode}."


def signal_of(returncode: int) -> int:
    """The number of the signal an exit status tells of, also as shells and sudo pass it on; else 0."""
    if returncode < 0:
        return -returncode
    number = returncode - _SHELL_SIGNAL_BASE
    return number if 0 < number < signal.NSIG else 0
