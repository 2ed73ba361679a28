"""Structured events with dotted names, and one place where secrets are taken out of them.

A library says nothing unless its host wants to hear it: events go to the standard `logging` logger
`agent_reporter`, which is silent until a handler is added. The commands add that of `log_output`.
"""

from __future__ import annotations

import base64
import json
import logging
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import MutableMapping
    from types import ModuleType

    from structlog.typing import FilteringBoundLogger

CONCEALED = "[concealed]"
PRIORITIES = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
"""Of each level, as syslog counts them."""
KEPT_SECRETS = 256
"""A process that lives for years gets a token an hour, and none of them is of use for longer than a day."""

_root = logging.getLogger("agent_reporter")
_root.addHandler(logging.NullHandler())
_secrets: dict[str, tuple[str, ...]] = {}
"""The forms of each, in the order in which they were last concealed."""
_forms: tuple[str, ...] = ()
"""All of them, the longest first: one may begin with another."""
_one_at_a_time = threading.Lock()


def conceal(secret: str) -> None:
    """Keep `secret` out of every event from now on, until KEPT_SECRETS others were concealed."""
    global _forms  # noqa: PLW0603 - one process has one set of secrets
    if not secret:
        return
    with _one_at_a_time:
        _secrets.pop(secret, None)
        _secrets[secret] = _forms_of(secret)
        while len(_secrets) > KEPT_SECRETS:
            del _secrets[next(iter(_secrets))]
        _forms = tuple(sorted({form for forms in _secrets.values() for form in forms}, key=len, reverse=True))


def redact(text: str) -> str:
    """`text` without any secret that was concealed."""
    for form in _forms:
        text = text.replace(form, CONCEALED)
    return text


def _forms_of(secret: str) -> tuple[str, ...]:
    """A secret as it is, and as it looks in JSON, in JSON within JSON, in Python, in a URL, and in base64."""
    in_json = json.dumps(secret)[1:-1]
    encoded = secret.encode(errors="surrogatepass")
    in_base64 = base64.b64encode(encoded).decode().rstrip("=")
    in_python = repr(encoded + b"\"'")[2:-4]  # with both quotes in it, single ones are escaped
    unquoted = in_python.replace("\\'", "'")
    return (
        *(secret, in_json, json.dumps(in_json)[1:-1], in_python, unquoted),
        *(quote(encoded, safe=""), in_base64),
    )


def load() -> ModuleType:
    """Load what renders events. A process that lives long does so at its start, when nothing waits for it."""
    from agent_reporter import log_lines  # noqa: PLC0415 - as it says

    return log_lines


def get_logger(**bound: object) -> Logger:
    """A logger whose events carry `bound`, such as the restore's id."""
    return Logger(bound)


class Logger:
    """Says events if somebody hears them. What renders them is loaded with the first one."""

    __slots__ = ("_bound", "_events")

    def __init__(self, bound: dict[str, object]) -> None:
        self._bound = bound
        self._events: FilteringBoundLogger | None = None

    def info(self, event: str, **fields: object) -> None:
        """Something that is as it should be."""
        if heard := self._heard(logging.INFO):
            heard.info(event, **fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something that somebody may want to look at."""
        if heard := self._heard(logging.WARNING):
            heard.warning(event, **fields)

    def error(self, event: str, **fields: object) -> None:
        """Something that somebody has to do something about."""
        if heard := self._heard(logging.ERROR):
            heard.error(event, **fields)

    def exception(self, event: str, **fields: object) -> None:
        """As `error`, with the exception that is being handled."""
        if heard := self._heard(logging.ERROR):
            heard.exception(event, **fields)

    def _heard(self, level: int) -> FilteringBoundLogger | None:
        if not _root.isEnabledFor(level):
            return None
        if self._events is None:
            try:
                lines = load()
            except (ImportError, OSError):  # no descriptor is left to load it with: what we do goes on
                return None
            self._events = lines.bound_logger(_root, self._bound, _redacted)
        return self._events


def _redacted(event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _forms:
        for key, value in event.items():
            if isinstance(value, str):
                event[key] = redact(value)
            elif value is not None and not isinstance(value, int | float | bool):
                event[key] = redact(str(value))
    return event
