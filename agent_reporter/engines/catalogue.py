"""The engines that are known, those of other packages too, and which of them a command is for."""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Adapter
from agent_reporter.engines.borg import Borg
from agent_reporter.engines.guarded import FAULTS, Guarded
from agent_reporter.engines.observe import Observe
from agent_reporter.engines.pgbackrest import PgBackRest
from agent_reporter.engines.rclone import Rclone
from agent_reporter.engines.restic import Restic
from agent_reporter.engines.rsync import Rsync
from agent_reporter.engines.tar import Tar
from agent_reporter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from importlib.metadata import EntryPoint

    from agent_reporter.engines.command_line import Invocation

AUTO = "auto"
GROUP = "agent_reporter.engines"
"""The entry points under which other packages name their adapters."""
OWN: tuple[Adapter, ...] = (Restic(), Borg(), Rsync(), Rclone(), Tar(), PgBackRest())
FALLBACK: Adapter = Observe()

_logger = logging.getLogger(__name__)


def own_names() -> list[str]:
    """The engines that are known without another package."""
    return [adapter.name for adapter in (*OWN, FALLBACK)]


def choose(name: str, invocation: Invocation, warn: Callable[[str], None] = _logger.warning) -> Adapter:
    """The adapter called `name`, or, for "auto", the first that recognises the command.

    Our own are asked first; what is wrong with another package's is a sentence for `warn`, and that one is
    passed over. Raises ConfigurationError for a name that is not known, and for an adapter of
    another package that cannot be loaded and is asked for by name.
    """
    if name == AUTO:
        return next((adapter for adapter in _all(warn) if adapter.recognises(invocation)), FALLBACK)
    for adapter in (*OWN, FALLBACK):
        if adapter.name == name:
            return adapter
    others = _others()
    if name in others:
        return _loaded(others[name], warn)
    known = ", ".join([AUTO, *own_names(), *sorted(others)])
    raise ConfigurationError(f"There is no engine called {name!r}. Known engines: {known}.")


def to_start(
    adapter: Adapter, invocation: Invocation, environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The command and the environment to start it with, for output that the adapter can read.

    A command that the adapter does not recognise, being chosen by name, is left as it is.
    """
    if not adapter.recognises(invocation):
        return invocation.with_arguments(invocation.arguments), dict(environment)
    arguments, variables = adapter.prepare(invocation, environment)
    return invocation.with_arguments(arguments), variables


def _all(warn: Callable[[str], None]) -> Iterator[Adapter]:
    """Ours, then those of other packages that can be loaded."""
    yield from OWN
    try:
        others = _others()
    except ConfigurationError as problem:
        warn(f"{problem} Engines of other packages are passed over.")
        return
    for entry_point in others.values():
        try:
            yield _loaded(entry_point, warn)
        except ConfigurationError as problem:
            warn(f"{problem} It is passed over.")


@cache
def _others() -> Mapping[str, EntryPoint]:
    """What other packages name, by the name of the engine. None of ours is replaced.

    Raises ConfigurationError if the list of what is installed cannot be read.
    """
    ours = {AUTO, *own_names()}
    try:
        return {each.name: each for each in entry_points(group=GROUP) if each.name not in ours}
    except Exception as problem:
        raise ConfigurationError(
            f"The entry points of what is installed cannot be read: {problem!r}. A package is damaged."
        ) from problem


def _loaded(entry_point: EntryPoint, warn: Callable[[str], None]) -> Adapter:
    """An adapter of another package, guarded. Raises ConfigurationError, whatever its import raises."""
    source = f"The engine {entry_point.name!r}, {entry_point.value}"
    try:
        adapter = entry_point.load()()
    except FAULTS as problem:
        raise ConfigurationError(
            f"{source}, cannot be loaded: {problem!r}. Mend or remove the package that it is in."
        ) from problem
    if not isinstance(adapter, Adapter):
        raise ConfigurationError(f"{source}, is not an agent_reporter.engines.adapter.Adapter.")
    return Guarded(adapter, warn)
