"""Events as structlog makes them: stamped, their exception as text, without secrets, in one line each.

It takes a while to load, and brings much: who has no event to say or to write does without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from agent_reporter.model.showing import printable

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable, Mapping

    from structlog.typing import EventDict, FilteringBoundLogger

_STAMP = structlog.processors.TimeStamper(fmt="iso", utc=True)
_JSON = structlog.processors.JSONRenderer()
_KEY_VALUE = structlog.processors.KeyValueRenderer(
    key_order=["timestamp", "level", "event"], drop_missing=True, repr_native_str=False
)


def bound_logger(
    root: logging.Logger, bound: Mapping[str, object], redacted: Callable[[EventDict], EventDict]
) -> FilteringBoundLogger:
    """What hands events that carry `bound`, once they are `redacted`, on to `root`."""
    logger: FilteringBoundLogger = structlog.wrap_logger(
        root,
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_log_level,
            _STAMP,
            structlog.processors.format_exc_info,
            lambda _logger, _method, event: redacted(event),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    ).bind(**bound)
    return logger


def stamped(event: EventDict) -> EventDict:
    """The event with the time of now, if it has none."""
    return event if "timestamp" in event else _STAMP(None, "", event)


def in_json(event: EventDict) -> str:
    """An event as a line of JSON."""
    return str(_JSON(None, "", event))


def in_one_line(event: Mapping[str, object]) -> str:
    """An event takes one line, and no text from outside steers the terminal."""
    return str(_KEY_VALUE(None, "", {key: printable(str(value)) for key, value in event.items()}))
