"""What an engine has to bring along to be tried: a repository, a command for each case, and what is true then."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

Record = dict[str, Any]
"""A restore as the control plane shows it, with `errors.list`."""


class Case(StrEnum):
    """What happens to the restore."""

    WELL = "all well"
    SOME_FAIL = "some files fail"
    FULL = "target full"
    BROKEN = "repository broken"
    PASSWORD = "password wrong"
    STOPPED = "stopped by request"
    KILLED = "engine killed"


@dataclass(frozen=True)
class Scene:
    """One engine in one case."""

    command: Sequence[str]
    expected: tuple[str, str]
    """State and reason of the record."""
    untruths: Callable[[Record], Collection[str]]
    """Sentences about what the record says otherwise than the disk. Called after the engine's end."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Beside that of the test."""
    options: Sequence[str] = ()
    """Of `run`."""
    calls_run: bool = True
    """False if the command itself comes to call `run`, with RESTORE_ID, by a recipe of `config/`."""
    user: str = ""
    """Whom the engine runs as; "" for the user of the test, whom `run` runs as in any case."""


class RealEngine(Protocol):
    """One version of one engine on this machine."""

    name: str
    version: str
    cases: Collection[Case]
    """Those it can be in: an engine without a password has no wrong one."""

    def build(self, directory: Path) -> None:
        """Make what all cases restore from, in `directory`. Called once, before the scenes."""
        ...

    def scene(self, case: Case, target: Path) -> Scene:
        """Set up one case. `target` is an empty folder; for FULL, a file system of SMALL_BYTES.

        For STOPPED and KILLED, the restore has to take several seconds at least: the framework waits until
        the record is `in_progress`, and, where the engine tells counts, until it shows bytes; then it asks
        the control plane for the stop, or kills the engine with SIGKILL.
        """
        ...
