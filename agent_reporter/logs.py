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

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

CONCEALED = "[concealed]"
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
    """A secret as it is, and as it looks in JSON, in JSON within JSON, in a URL, and in base64."""
    in_json = json.dumps(secret)[1:-1]
    encoded = secret.encode(errors="surrogatepass")
    in_base64 = base64.b64encode(encoded).decode().rstrip("=")
    return secret, in_json, json.dumps(in_json)[1:-1], quote(encoded, safe=""), in_base64


def get_logger(**bound: object) -> structlog.typing.FilteringBoundLogger:
    """A logger whose events carry `bound`, such as the restore's id."""
    logger: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        _root,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact_event,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    ).bind(**bound)
    return logger


def _redact_event(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if _forms:
        for key, value in event.items():
            if isinstance(value, str):
                event[key] = redact(value)
            elif value is not None and not isinstance(value, int | float | bool):
                event[key] = redact(str(value))
    return event
