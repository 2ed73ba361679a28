"""The engines that are known, and which of them a command is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_reporter.engines.generic import Generic
from agent_reporter.engines.restic import Restic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent_reporter.engines.adapter import Adapter

AUTO = "auto"
ADAPTERS: tuple[Adapter, ...] = (Restic(), Generic())
"""In the order in which they are asked whether they recognise a command; the last takes any."""


def names() -> list[str]:
    """What `choose` takes beside "auto"."""
    return [adapter.name for adapter in ADAPTERS]


def choose(name: str, command: Sequence[str]) -> Adapter:
    """The adapter called `name`, or, for "auto", the first that recognises `command`.

    Raises ValueError for a name that is not known.
    """
    if name == AUTO:
        return next((adapter for adapter in ADAPTERS if adapter.recognises(command)), ADAPTERS[-1])
    for adapter in ADAPTERS:
        if adapter.name == name:
            return adapter
    known = ", ".join([AUTO, *names()])
    raise ValueError(f"There is no engine called {name!r}. Known engines: {known}.")
