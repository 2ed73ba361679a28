"""The engines that are known, those of other packages too, and which of them a command is for."""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import distributions
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Adapter
from agent_reporter.engines.guarded import FAULTS, Guarded
from agent_reporter.engines.observe import Observe
from agent_reporter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from importlib.metadata import EntryPoint

    from agent_reporter.engines.command_line import Invocation

AUTO = "auto"
GROUP = "agent_reporter.engines"
"""The entry points under which other packages name their adapters."""
_CLASSES = {
    "restic": "Restic",
    "borg": "Borg",
    "rsync": "Rsync",
    "rclone": "Rclone",
    "tar": "Tar",
    "pgbackrest": "PgBackRest",
}
"""In the module of the engine's name: loaded once a command may be for it."""
OWN = tuple(_CLASSES)
"""The engines that are known without another package, in the order in which they are asked."""
FALLBACK: Adapter = Observe()

_logger = logging.getLogger(__name__)


def own_names() -> list[str]:
    """All that can be asked for by name without another package."""
    return [*OWN, FALLBACK.name]


@cache
def own(name: str) -> Adapter:
    """The adapter of an engine that is known without another package."""
    if name == FALLBACK.name:
        return FALLBACK
    adapter: Adapter = getattr(import_module(f"agent_reporter.engines.{name}"), _CLASSES[name])()
    return adapter


def choose(name: str, invocation: Invocation, warn: Callable[[str], None] = _logger.warning) -> Adapter:
    """The adapter called `name`, or, for "auto", the first that recognises the command.

    Our own are asked first; what is wrong with another package's is a sentence for `warn`, and that one is
    passed over. Raises ConfigurationError for a name that is not known, and for an adapter of
    another package that cannot be loaded and is asked for by name.
    """
    if name == AUTO:
        candidates = _candidates(invocation, warn)
        return next((adapter for adapter in candidates if adapter.recognises(invocation)), FALLBACK)
    if name in own_names():
        return own(name)
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


def _candidates(invocation: Invocation, warn: Callable[[str], None]) -> Iterator[Adapter]:
    """Ours whose name is part of the program's, then those of other packages that can be loaded."""
    yield from (own(name) for name in OWN if name in invocation.program)
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
        named = [
            each
            for package in distributions()
            if GROUP in (package.read_text("entry_points.txt") or "")  # to parse them all takes long
            for each in package.entry_points.select(group=GROUP)
        ]
    except Exception as problem:
        raise ConfigurationError(
            f"The entry points of what is installed cannot be read: {problem!r}. A package is damaged."
        ) from problem
    others: dict[str, EntryPoint] = {}
    for each in named:
        if each.name not in ours:
            others.setdefault(each.name, each)  # the first on the path, as for an import
    return others


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
