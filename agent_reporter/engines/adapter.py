"""What an engine's adapter is: facts about the engine, and a pure reader of what it prints.

An adapter starts nothing and does no IO. It recognises its engine's command, asks the engine for output
that a machine can read, and turns each line into observations; when the engine has ended, it judges the
outcome from the exit status, the summary and the errors together (`judgement` has a table for that).

A package of somebody else's adds an engine with an entry point in the group `agent_reporter.engines` that
names a class which is an `Adapter`; `agent_reporter.testing` has a conformance kit for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import signal
    from collections.abc import Iterable, Mapping

    from agent_reporter.engines.command_line import Invocation
    from agent_reporter.model.state import RestoreState


class Stream(StrEnum):
    """One of the two pipes an engine writes to."""

    OUT = "out"
    ERR = "err"


class StopCause(StrEnum):
    """Who asked for the stop of an engine."""

    CONTROL_PLANE = "control_plane"
    """A stop request of the control plane."""
    HOST = "host"
    """A SIGINT or SIGTERM that the wrapper got on this host and passed on."""

    @property
    def reason(self) -> str:
        """The reason token of a restore that was stopped so."""
        return "stop_requested" if self is StopCause.CONTROL_PLANE else "stopped_on_host"


class Begun(NamedTuple):
    """The engine has opened its repository and restores from now on."""

    tells_counts: bool = True
    """False if it will not print how far it is: then bytes and files are observed from outside."""


class Progress(NamedTuple):
    """Absolute counters; None where the engine does not say.

    `bytes_restored` and `total_bytes` are bytes, `files_restored` and `total_files` count files and
    folders as the engine does.
    """

    bytes_restored: int | None = None
    files_restored: int | None = None
    total_bytes: int | None = None
    total_files: int | None = None


class EngineError(NamedTuple):
    """One error the engine printed: of a path, or, with an empty path, of the whole restore."""

    path: str
    type: str
    description: str
    code: int = 0
    details: str = ""


Observation = Begun | Progress | EngineError


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a restore ended: a final state, a reason token, and sentences for a person."""

    state: RestoreState
    reason: str = ""
    diagnostics: str = ""
    errors: tuple[EngineError, ...] = ()
    """Errors that were certain only at the end, such as those of an attempt that none followed."""


class OutputReader(Protocol):
    """Reads the output of one run. Never raises, whatever the lines hold; its memory is bounded."""

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        """Observations from one line, without its line end.

        Both streams are read by the same reader, never two lines at once, in any order between them.
        Counters never go down from one Progress to the next.
        """
        ...

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        """Judge the run after both pipes ended.

        `returncode` is as `subprocess` gives it: negative for a signal. `stop` says who asked for a stop,
        or None: only an engine that was asked to stop can have stopped.
        """
        ...


@runtime_checkable
class Adapter(Protocol):
    """Facts about one engine."""

    name: str
    """What `--engine` calls it: lower case, one word."""
    stop_signal: signal.Signals
    """The first rung of the stop ladder, the one this engine cleans up after."""
    ends_its_helpers: bool
    """Whether it ends what it has started, such as ssh, when it gets a signal: then it gets signals alone.

    An engine that needs its helpers to clean up, such as ssh to remove a lock, is kept from that by a signal
    to all of them. Of a program that is not known, the whole process group gets it, as from a terminal.
    """
    begins_at_once: bool
    """Whether the engine restores from its start, as far as can be told: its reader never says Begun."""
    tells_counts: bool
    """Whether the engine can print how far it is. If not, bytes and files are observed from outside."""

    def recognises(self, invocation: Invocation) -> bool:
        """Whether the command starts this engine."""
        ...

    def restores_nothing(self, invocation: Invocation) -> bool:
        """Whether the command surely restores nothing, such as a dry run or a listing: `run` refuses it."""
        ...

    def prepare(
        self, invocation: Invocation, environment: Mapping[str, str]
    ) -> tuple[list[str], dict[str, str]]:
        """Arguments and environment that make the engine print what the reader can read.

        The arguments are those of `invocation`, with words put between them; none is taken away. They must
        not change what is restored. A command that does not restore is left as it is.
        """
        ...

    def reader(self) -> OutputReader:
        """A reader for one run."""
        ...
