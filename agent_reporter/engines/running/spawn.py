"""Starting an engine: in a session of its own, with its stdin as it is and both outputs in pipes."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Stream
from agent_reporter.engines.running.process_tree import become_subreaper
from agent_reporter.errors import AgentReporterError
from agent_reporter.processes import identity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent_reporter.model.process_identity import ProcessIdentity

NOT_FOUND = 127
NOT_EXECUTABLE = 126

_PIPE_BYTES = 1 << 20


class EngineNotStartedError(AgentReporterError):
    """The engine could not be started; `returncode` is what a shell would end with: 127 or 126."""

    def __init__(self, message: str, returncode: int) -> None:
        """Say why, and what to do."""
        super().__init__(message)
        self.returncode = returncode


@dataclass(frozen=True, slots=True)
class Spawned:
    """An engine that runs, and the reading ends of its pipes."""

    process: subprocess.Popen[bytes]
    identity: ProcessIdentity
    sources: Mapping[Stream, int]

    def abandon(self) -> None:
        """Kill it: nobody is there any more who wanted it. Blocks until it is gone."""
        os.killpg(self.process.pid, signal.SIGKILL)
        for source in self.sources.values():
            os.close(source)
        self.process.wait()


def spawn(command: Sequence[str], environment: Mapping[str, str]) -> Spawned:
    """Start `command`. Blocks until it is executed. Raises EngineNotStartedError."""
    try:
        become_subreaper()
        out, out_end = os.pipe()
        err, err_end = os.pipe()
    except OSError as error:
        raise EngineNotStartedError(
            f"{command[:1]} cannot be started: {error}. Free what this host or user has run out of.",
            NOT_EXECUTABLE,
        ) from error
    try:
        _enlarge(out)
        _enlarge(err)
        process = _execute(command, environment, out_end, err_end)
        return Spawned(process, _identify(process), {Stream.OUT: out, Stream.ERR: err})
    except BaseException:
        os.close(out)
        os.close(err)
        raise
    finally:
        os.close(out_end)
        os.close(err_end)


def _identify(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    """Who the engine is. It is not reaped yet, so it is in /proc, even if it has ended."""
    try:
        who = identity(process.pid)
    except OSError:  # such as no descriptor left
        who = None
    if who is None:
        process.kill()
        process.wait()
        raise EngineNotStartedError(
            "It cannot be read in /proc who the engine is. Mount it, and free descriptors of this user.",
            NOT_EXECUTABLE,
        )
    return who


def _execute(
    command: Sequence[str], environment: Mapping[str, str], out_end: int, err_end: int
) -> subprocess.Popen[bytes]:
    if not command:
        raise EngineNotStartedError("There is no command: name the engine and its arguments.", NOT_FOUND)
    try:
        return subprocess.Popen(  # noqa: S603 - running what the user asks for is the purpose
            command,
            env=environment,
            stdout=out_end,
            stderr=err_end,
            start_new_session=True,
            # What we open closes at exec; what we were given, such as a passphrase's pipe, is the engine's.
            close_fds=False,
        )
    except FileNotFoundError as error:
        raise EngineNotStartedError(
            f"{command[0]!r} was not found: install it, or give its full path. If the file is there, the "
            "interpreter in its first line is not.",
            NOT_FOUND,
        ) from error
    except (OSError, ValueError) as error:
        raise EngineNotStartedError(
            f"{command[0]!r} cannot be executed: {error}. Check that it is a program, that its file mode "
            "allows to execute it, and that its arguments are not too long.",
            NOT_EXECUTABLE,
        ) from error


def _enlarge(pipe: int) -> None:
    """Give the engine room to go on in while we are busy; what it has is enough if it cannot have more."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
