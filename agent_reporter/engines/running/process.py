"""A running engine: its output pumped, its end awaited, and the ladder by which it is stopped.

The event loop waits for threads only through futures. The engine is reaped in the loop and nowhere else, so
that while it is not reaped its pid and its process group are its own and can be signalled; everything else
of its tree is signalled by identity.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent_reporter.engines.running.process_tree import ProcessTree, Signalled
from agent_reporter.engines.running.pump import Pump
from agent_reporter.engines.running.spawn import Spawned, spawn
from agent_reporter.threads import aside, call_in_loop, in_thread, start_daemon

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from agent_reporter.engines.adapter import Stream
    from agent_reporter.engines.running.pump import Sink
    from agent_reporter.model.process_identity import ProcessIdentity

LOST_STATUS = 255
"""Stands for an exit status that somebody else has taken: certainly not a success."""

_POLL_SECONDS = 0.05
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what may never come, in seconds."""

    eof_seconds: float = 5.0
    """For the pipes to end after the engine did: something it started may hold them open."""
    drain_seconds: float = 30.0
    """For the sinks to take the rest; in a stop it is `eof_seconds`."""
    reap_seconds: float = 0.2
    """For what an engine left behind to be reaped after its end; what goes on to run is left alone."""
    leftovers_seconds: float = 5.0
    """For what an engine left behind to end after SIGTERM."""
    kill_seconds: float = 10.0
    """For the tree to be gone after SIGKILL."""


@dataclass(frozen=True, slots=True)
class StopResult:
    """How a stop went."""

    killed: bool
    """Whether SIGKILL was needed."""
    survivors: tuple[ProcessIdentity, ...]
    """What still runs: somebody else's processes, or such as hang in the kernel."""

    @property
    def everything_is_gone(self) -> bool:
        """Whether nothing that the engine started runs any more: only then is a restore stopped."""
        return not self.survivors


class EngineProcess:
    """One engine from its start to its end. To be used in the event loop that started it."""

    def __init__(
        self,
        spawned: Spawned,
        *,
        on_line: Callable[[Stream, str], None],
        sinks: Mapping[Stream, Sink | None],
        patience: Patience,
        sleep: Callable[[float], Awaitable[None]],
        warn: Callable[[str], None],
        at_exit: Callable[[ProcessTree], None],
        alone: bool,
    ) -> None:
        """Use `start`."""
        self._process = spawned.process
        self.identity = spawned.identity
        self._tree = ProcessTree(spawned.identity)
        self._on_line = on_line
        self._at_exit = at_exit
        self._alone = alone
        self._patience = patience
        self._sleep = sleep
        self._warn = aside(warn)
        self._one_line_at_a_time = threading.Lock()
        self._on_line_failed = False
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._hastened: asyncio.Future[None] = self._loop.create_future()
        self._ladder: asyncio.Task[StopResult] | None = None
        self._pumps = [
            Pump(stream, source, sinks.get(stream), on_lines=self._show, warn=self._warn)
            for stream, source in spawned.sources.items()
        ]
        for pump in self._pumps:
            pump.start()
        start_daemon("engine-wait", self._await_exit)
        self._finished = asyncio.create_task(self._finish())

    @classmethod
    async def start(
        cls,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        on_line: Callable[[Stream, str], None],
        sinks: Mapping[Stream, Sink | None],
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        warn: Callable[[str], None] = _logger.warning,
        at_exit: Callable[[ProcessTree], None] = lambda _: None,
        alone: bool = False,
    ) -> EngineProcess:
        """Start `command` and read what it prints.

        `on_line` gets each line in a thread, never two at once; what it raises is warned of once. `sinks`
        get the same bytes as the engine printed; `warn` gets sentences for a person, from any thread.
        `at_exit` is called in a thread when the engine has ended and waits to be reaped, and has to be quick.
        `alone` says that it ends its helpers itself: signals go to it, and not to its process group.
        Raises EngineNotStartedError.
        """
        spawned = await in_thread(
            "engine-start", lambda: spawn(command, environment), abandoned=Spawned.abandon
        )
        return cls(
            spawned,
            on_line=on_line,
            sinks=sinks,
            patience=patience or Patience(),
            sleep=sleep,
            warn=warn,
            at_exit=at_exit,
            alone=alone,
        )

    @property
    def pid(self) -> int:
        """The engine's process id, which is its process group and its session as well."""
        return self.identity.pid

    @property
    def tree(self) -> ProcessTree:
        """The engine and all that descends from it."""
        return self._tree

    @property
    def printed_bytes(self) -> int:
        """How much of its output was read so far."""
        return sum(pump.read_bytes for pump in self._pumps)

    @property
    def is_read(self) -> bool:
        """Whether all lines have been shown. Not so, after `wait`, if showing one hangs."""
        return all(pump.read_to_end.done() for pump in self._pumps)

    @property
    def has_exited(self) -> bool:
        """Whether the engine itself has ended, though its pipes may not."""
        return self._exited.done()

    async def wait(self) -> int:
        """The exit status as `subprocess` gives it, once all lines were shown and all bytes passed on."""
        return await asyncio.shield(self._finished)

    def send_signal(self, number: signal.Signals) -> bool:
        """Pass a signal on to the engine, or as a terminal does to its group; False if none got it."""
        if self._exited.done():
            return False
        try:
            if self._alone:
                os.kill(self.pid, number)
            else:
                os.killpg(self.pid, number)
        except ProcessLookupError:
            return False
        except PermissionError:
            self._warn_of_refusal([self.identity])
            return False
        return True

    async def stop(self, first_signal: signal.Signals, grace_seconds: float) -> StopResult:
        """Stop the engine and all it started: `first_signal`, a grace, then SIGKILL.

        The first signal goes to the engine alone if that ends its helpers, else to its process group. What is
        left when the engine has ended gets SIGTERM and a short grace. Returns when nothing runs any more, or
        nothing more can be done. A second call waits for the first one's end; a caller that is cancelled
        does not interrupt it.
        """
        if self._ladder is None:
            self._ladder = asyncio.create_task(self._climb(first_signal, grace_seconds))
        return await asyncio.shield(self._ladder)

    def hasten(self) -> None:
        """End the graces of a stop now, for a user who does not want to wait."""
        if not self._hastened.done():
            self._hastened.set_result(None)

    async def _climb(self, first_signal: signal.Signals, grace_seconds: float) -> StopResult:
        for pump in self._pumps:  # an engine with a full pipe does not act on a signal
            pump.lift_bound()
        if self.send_signal(first_signal):
            self.send_signal(signal.SIGCONT)  # nor does a suspended one
        await self._first_of(grace_seconds, self._exited, self._hastened)
        living = await self._living()
        if living and self._exited.done():
            await self._signal_tree(signal.SIGTERM)
            living = await self._until_gone(self._patience.leftovers_seconds)
        killed = bool(living)
        if killed:
            self._warn(f"The engine did not end in time on {first_signal.name}: its processes are killed.")
            living = await self._kill()
        if not living:
            await asyncio.wait([self._exited])
        return StopResult(killed, tuple(living))

    async def _kill(self) -> Collection[ProcessIdentity]:
        """Kill the tree again and again, as it may grow meanwhile; returns who is left."""
        refused: tuple[ProcessIdentity, ...] = ()
        for _ in range(_polls(self._patience.kill_seconds)):
            signalled = await self._signal_tree(signal.SIGKILL)
            refused = signalled.refused
            if not signalled.reached:
                break
            await self._sleep(_POLL_SECONDS)
        if refused:
            self._warn_of_refusal(refused)
        return await self._living()

    async def _until_gone(self, seconds: float) -> Collection[ProcessIdentity]:
        """Wait until nothing of the tree runs; returns who still does."""
        living = await self._living()
        for _ in range(_polls(seconds)):
            if not living or self._hastened.done():
                break
            await self._sleep(_POLL_SECONDS)
            living = await self._living()
        return living

    async def _living(self) -> Collection[ProcessIdentity]:
        """Who of the tree runs; of a /proc that cannot be read, the engine is believed to, until it ends."""
        try:
            return await in_thread("engine-tree", self._tree.living)
        except OSError:
            return () if self._exited.done() else (self.identity,)

    async def _signal_tree(self, number: signal.Signals) -> Signalled:
        try:
            return await in_thread("engine-tree", lambda: self._tree.signal(number))
        except OSError:  # /proc cannot be read: the group is what is known without it
            if self._exited.done():
                return Signalled(0, ())
            os.killpg(self.pid, number)
            return Signalled(1, ())

    def _warn_of_refusal(self, refused: Collection[ProcessIdentity]) -> None:
        numbers = ", ".join(str(process.pid) for process in refused)
        self._warn(
            f"Processes of the engine run as another user and cannot be signalled: {numbers}. End them by "
            "hand. To be able to stop such an engine, run the agent as that user, or as root."
        )

    async def _finish(self) -> int:
        """Everything that comes after the engine's end and before `wait` returns."""
        await asyncio.wait([self._exited])
        for pump in self._pumps:  # what is still in the pipe is little: take it all
            pump.lift_bound()
        await self._all_of(self._patience.eof_seconds, [pump.read_to_end for pump in self._pumps])
        for pump in self._pumps:
            pump.give_up_reading()
        await self._all_of(self._patience.eof_seconds, [pump.read_to_end for pump in self._pumps])
        if not self.is_read:
            self._warn("The engine has ended, and who reads its output does not: the rest of it is not read.")
        patience = self._patience.eof_seconds if self._ladder else self._patience.drain_seconds
        await self._all_of(patience, [pump.drained for pump in self._pumps])
        for pump in self._pumps:
            if not pump.drained.done():
                pump.give_up_writing()
            if pump.dropped_bytes:
                self._warn(
                    f"{pump.dropped_bytes} bytes of the engine's {pump.stream} could not be passed on."
                )
        # Reaps what it left behind: that closes its pipes before it is a zombie, so it may take a moment.
        await self._until_gone(self._patience.reap_seconds)
        return self._exited.result()

    async def _first_of(self, seconds: float, *futures: asyncio.Future[int] | asyncio.Future[None]) -> None:
        """Wait until one of `futures` is done, or the time is over; cancels none."""
        timer = asyncio.ensure_future(self._sleep(seconds))
        try:
            await asyncio.wait([timer, *futures], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()

    async def _all_of(self, seconds: float, futures: Collection[asyncio.Future[None]]) -> None:
        """Wait until all of `futures` are done, or the time is over; cancels none."""
        timer = asyncio.ensure_future(self._sleep(seconds))
        try:
            while not timer.done() and (waiting := [future for future in futures if not future.done()]):
                await asyncio.wait([timer, *waiting], return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()

    def _show(self, stream: Stream, lines: Sequence[str]) -> None:
        """Show lines to the reader, in a pump's thread. Its errors are not the engine's: go on reading."""
        with self._one_line_at_a_time:
            for line in lines:
                try:
                    self._on_line(stream, line)
                except Exception as error:  # noqa: BLE001 - whatever it is, the pipe has to be read on
                    if not self._on_line_failed:
                        self._on_line_failed = True
                        self._warn(f"A line of the engine's output could not be understood: {error!r}.")

    def _await_exit(self) -> None:
        """Wait in a thread for the engine's end, leaving it to the loop to reap it."""
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        try:
            self._at_exit(self._tree)
        except Exception as error:  # noqa: BLE001 - whatever it is, the engine has to be reaped
            self._warn(f"The engine could not be looked at after its end: {error!r}.")
        call_in_loop(self._loop, self._reap)

    def _reap(self) -> None:
        try:
            _, status = os.waitpid(self.pid, os.WNOHANG)
            returncode = os.waitstatus_to_exitcode(status)
        except ChildProcessError:
            returncode = LOST_STATUS
            self._warn("Another part of this program took the engine's exit status: it counts as a failure.")
        self._process.returncode = returncode
        self._exited.set_result(returncode)


def _polls(seconds: float) -> int:
    return max(1, round(seconds / _POLL_SECONDS))
