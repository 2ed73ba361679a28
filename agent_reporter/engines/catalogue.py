"""The engines that are known, those of other packages too, and which of them a command is for."""

from __future__ import annotations

import logging
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Adapter
from agent_reporter.engines.borg import Borg
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
        found = (adapter for adapter in _all(warn) if _recognised(adapter, invocation, warn))
        return next(found, FALLBACK)
    for adapter in (*OWN, FALLBACK):
        if adapter.name == name:
            return adapter
    if name in _others():
        return _loaded(_others()[name])
    known = ", ".join([AUTO, *own_names(), *sorted(_others())])
    raise ConfigurationError(f"There is no engine called {name!r}. Known engines: {known}.")


def to_start(
    adapter: Adapter,
    invocation: Invocation,
    environment: Mapping[str, str],
    warn: Callable[[str], None] = _logger.warning,
) -> tuple[list[str], dict[str, str]]:
    """The command and the environment to start it with, for output that the adapter can read.

    A command that the adapter does not recognise, being chosen by name, is left as it is; so is one for which
    another package's adapter raises, and `warn` gets a sentence.
    """
    if _recognised(adapter, invocation, warn):
        try:
            arguments, variables = adapter.prepare(invocation, environment)
        except Exception as problem:  # noqa: BLE001 - whatever it is, a restore is to start
            warn(f"The engine {adapter.name!r} raised {problem!r}. The command is started as it is.")
        else:
            return invocation.with_arguments(arguments), variables
    return invocation.with_arguments(invocation.arguments), dict(environment)


def _recognised(adapter: Adapter, invocation: Invocation, warn: Callable[[str], None]) -> bool:
    """Whether the command is the adapter's. One that raises must not keep a restore from its start."""
    try:
        return adapter.recognises(invocation)
    except Exception as problem:  # noqa: BLE001 - any error means that it cannot say
        warn(f"The engine {adapter.name!r} raised {problem!r} about the command. It is passed over.")
        return False


def _all(warn: Callable[[str], None]) -> Iterator[Adapter]:
    """Ours, then those of other packages that can be loaded."""
    yield from OWN
    for entry_point in _others().values():
        try:
            yield _loaded(entry_point)
        except ConfigurationError as problem:
            warn(f"{problem} It is passed over.")


@cache
def _others() -> Mapping[str, EntryPoint]:
    """What other packages name, by the name of the engine. None of ours is replaced."""
    ours = {AUTO, *own_names()}
    return {each.name: each for each in entry_points(group=GROUP) if each.name not in ours}


def _loaded(entry_point: EntryPoint) -> Adapter:
    """An adapter of another package. Raises ConfigurationError, whatever its import raises."""
    source = f"The engine {entry_point.name!r}, {entry_point.value}"
    try:
        adapter = entry_point.load()()
    except (Exception, SystemExit) as problem:
        raise ConfigurationError(
            f"{source}, cannot be loaded: {problem!r}. Mend or remove the package that it is in."
        ) from problem
    if not isinstance(adapter, Adapter):
        raise ConfigurationError(f"{source}, is not an agent_reporter.engines.adapter.Adapter.")
    return adapter
