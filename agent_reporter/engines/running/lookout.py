"""How far an engine is that tells nothing, seen from outside: by what it wrote, or what is in its target."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from agent_reporter.clock import Clock, SystemClock
from agent_reporter.engines.adapter import Progress
from agent_reporter.engines.running.io_counters import Data, TreeTotal, data_of, read_samples
from agent_reporter.engines.running.target_folder import Walk
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent_reporter.engines.running.process import EngineProcess
    from agent_reporter.engines.running.process_tree import ProcessTree

SECONDS_BETWEEN_LOOKS = 1.0
PAUSE_FOR_COST = 20
"""The pause after a look, in times of what the look took: looking may not slow the engine."""
LAST_WALK_SECONDS = 10.0

_TRIES = 5
"""A look at the processes is made again if one of them was reaped in its middle."""
_IN_PIPES_BYTES = 2 << 20
"""As much of the engine's output may be in its two pipes, and not be read yet."""
_CLOCK_OF_FILES_LAGS_NS = 20_000_000
"""Files get the time of the kernel's last tick."""
_FAILURES = (OSError, RuntimeError)
"""Of a look, for want of a descriptor or a thread: it is left out, as the next may go well."""
_NO_LAST_LOOK = " The last look failed, so there may be more."


class Lookout:
    """Looks at one engine, by its target folder if there is one, else by what its processes write."""

    def __init__(self, target: Path | None = None, clock: Clock | None = None) -> None:
        """To be made before the engine starts: what is in `target` counts if it is changed from now on."""
        self._target = target
        self._clock = clock or SystemClock()
        self._since_ns = int(self._clock.now().timestamp() * 1e9) - _CLOCK_OF_FILES_LAGS_NS
        self._one_look_at_a_time = threading.Lock()
        self._total = TreeTotal()
        self._data = Data()
        self._walk: Walk | None = None
        self._has_found = False
        self._shortfall = ""
        self.is_needed = False
        """Whether the engine does not tell its counts itself. May be set in any thread."""

    def look_at_exit(self, tree: ProcessTree) -> None:
        """Look at what the engine wrote in all. Called when it has ended and is not reaped: then it is gone.

        Whether that is needed may only come to light later, when all it printed is read.
        """
        if self._target is None:
            self._shortfall = _NO_LAST_LOOK  # until it has come about
            if self._look_at(tree):
                self._shortfall = ""

    async def go_on_looking(self, engine: EngineProcess, state: Callable[[Progress], None]) -> None:
        """State how far the engine is, again and again, until this is cancelled."""
        pause = SECONDS_BETWEEN_LOOKS
        while True:
            await self._clock.sleep(pause)
            if self.is_needed:
                began = self._clock.monotonic()
                with suppress(*_FAILURES):
                    state(await self._look(engine))
                pause = max(SECONDS_BETWEEN_LOOKS, PAUSE_FOR_COST * (self._clock.monotonic() - began))

    async def last_look(self, engine: EngineProcess, *, is_complete: bool) -> Progress:
        """How far the engine came. It has ended, and its output is read.

        `is_complete` says that all went well: then a file on the disk is worth its size.
        """
        if self._target is None:
            return self._progress_of_processes(engine, unread_bytes=0)
        walk = Walk(self._target, self._since_ns)
        try:
            async with asyncio.timeout(LAST_WALK_SECONDS):
                await _walk_through(walk)
        except TimeoutError:
            self._shortfall = f" They were counted for {LAST_WALK_SECONDS:g} seconds only: there may be more."
        except _FAILURES:
            self._shortfall = _NO_LAST_LOOK
            return Progress()
        return self._progress_of_walk(walk, is_complete=is_complete)

    @property
    def remark(self) -> str:
        """Says to a person that the counts were observed, and from what; "" if none was."""
        if not self._has_found and not self._shortfall:
            return ""
        seen = self._what_was_written() if self._target is None else self._what_was_changed()
        return f"The engine tells no counts: {seen}{self._shortfall}"

    def _what_was_written(self) -> str:
        seen = "bytes were observed from outside, by what its processes wrote"
        if self._data.has_pipes:
            seen += (
                ", also what went into pipes between them, over a network and to /dev/null "
                "(with --target, only what is in that folder)"
            )
        return f"{seen}.{' Processes of another user were not seen.' if self._total.has_unreadable else ''}"

    def _what_was_changed(self) -> str:
        seen = (
            "files and bytes were observed from outside, by what was changed in the target folder, "
            "complete or not."
        )
        if self._walk is not None and self._walk.unreadable_folders:
            seen += f" {self._walk.unreadable_folders} folders in it could not be read."
        if self._walk is not None and self._walk.mounted_folders:
            seen += f" {self._walk.mounted_folders} mounted folders in it were not entered."
        return seen

    async def _look(self, engine: EngineProcess) -> Progress:
        if self._target is None:
            await in_thread("engine-look", lambda: self._look_at(engine.tree))
            return self._progress_of_processes(engine, unread_bytes=_IN_PIPES_BYTES)
        walk = Walk(self._target, self._since_ns)
        await _walk_through(walk)
        return self._progress_of_walk(walk, is_complete=False)

    def _look_at(self, tree: ProcessTree) -> bool:
        """Look once; False if that did not come about. Raises OSError, and then knows what it knew before."""
        with self._one_look_at_a_time:
            for _ in range(_TRIES):
                samples = read_samples(tree.members())
                if samples is not None:
                    self._total.add(samples)
                    return True
            return False

    def _progress_of_processes(self, engine: EngineProcess, *, unread_bytes: int) -> Progress:
        data = data_of(self._total.written, engine.printed_bytes, unread_bytes)
        if data.bytes > self._data.bytes:  # what was told once stays told, and how it was counted
            self._data = data
        self._has_found = self._data.bytes > 0 or self._total.has_unreadable
        return Progress(bytes_restored=self._data.bytes)

    def _progress_of_walk(self, walk: Walk, *, is_complete: bool) -> Progress:
        self._has_found = True
        self._walk = walk
        return Progress(
            bytes_restored=walk.bytes if is_complete else walk.bytes_on_disk, files_restored=walk.files
        )


async def _walk_through(walk: Walk) -> None:
    """Walk to the end, or until this is cancelled."""
    try:
        await in_thread("target-walk", walk.run)
    finally:
        walk.end()
