"""Structured events with dotted names, and one place where secrets are taken out of them.

A library says nothing unless its host wants to hear it: events go to the standard `logging` logger
`agent_reporter`, which is silent until a handler is added. The commands add that of `log_output`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

CONCEALED = "[concealed]"

_root = logging.getLogger("agent_reporter")
_root.addHandler(logging.NullHandler())
_secrets: set[str] = set()


def conceal(secret: str) -> None:
    """Keep `secret` out of every event from now on."""
    if secret:
        _secrets.add(secret)


def redact(text: str) -> str:
    """`text` without any secret that was concealed."""
    # The longest first: a secret may begin with another one.
    for secret in sorted(_secrets.copy(), key=len, reverse=True):
        text = text.replace(secret, CONCEALED)
    return text


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
    if _secrets:
        for key, value in event.items():
            if isinstance(value, str):
                event[key] = redact(value)
            elif value is not None and not isinstance(value, int | float | bool):
                event[key] = redact(str(value))
    return event
