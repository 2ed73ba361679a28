"""How far an engine is that tells nothing, seen from outside: by what it wrote, or what is in its target."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from agent_reporter.clock import Clock, SystemClock
from agent_reporter.engines.adapter import Progress
from agent_reporter.engines.running.io_counters import TreeTotal, bytes_of_data, read_samples
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


class Lookout:
    """Looks at one engine, by its target folder if there is one, else by what its processes write."""

    def __init__(self, target: Path | None = None, clock: Clock | None = None) -> None:
        """To be made before the engine starts: what is in `target` counts if it is changed from now on."""
        self._target = target
        self._clock = clock or SystemClock()
        self._since_ns = int(self._clock.now().timestamp() * 1e9) - _CLOCK_OF_FILES_LAGS_NS
        self._one_look_at_a_time = threading.Lock()
        self._total = TreeTotal()
        self._unreadable_folders = 0
        self._has_found = False
        self.is_needed = False
        """Whether the engine does not tell its counts itself. May be set in any thread."""

    def look_at_exit(self, tree: ProcessTree) -> None:
        """Look at what the engine wrote in all. Called when it has ended and is not reaped: then it is gone.

        Whether that is needed may only come to light later, when all it printed is read.
        """
        if self._target is None:
            self._look_at(tree)

    async def go_on_looking(self, engine: EngineProcess, state: Callable[[Progress], None]) -> None:
        """State how far the engine is, again and again, until this is cancelled."""
        pause = SECONDS_BETWEEN_LOOKS
        while True:
            await self._clock.sleep(pause)
            if self.is_needed:
                began = self._clock.monotonic()
                state(await self._look(engine))
                pause = max(SECONDS_BETWEEN_LOOKS, PAUSE_FOR_COST * (self._clock.monotonic() - began))

    async def last_look(self, engine: EngineProcess, *, is_complete: bool) -> Progress:
        """How far the engine came. It has ended, and its output is read.

        `is_complete` says that all went well: then a file on the disk is worth its size.
        """
        if self._target is None:
            return self._progress_of_processes(engine, unread_bytes=0)
        walk = Walk(self._target, self._since_ns)
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WALK_SECONDS):
                await _walk_through(walk)
        return self._progress_of_walk(walk, is_complete=is_complete)

    @property
    def remark(self) -> str:
        """Says to a person that the counts were observed, and from what; "" if none was."""
        if not self._has_found:
            return ""
        if self._target is None:
            seen = "bytes were observed from outside, by what its processes wrote"
            missing = " Processes of another user were not seen." if self._total.has_unreadable else ""
        else:
            seen = (
                "files and bytes were observed from outside, by what was changed in the target folder, "
                "complete or not"
            )
            folders = self._unreadable_folders
            missing = f" {folders} folders in it could not be read." if folders else ""
        return f"The engine tells no counts: {seen}.{missing}"

    async def _look(self, engine: EngineProcess) -> Progress:
        if self._target is None:
            await in_thread("engine-look", lambda: self._look_at(engine.tree))
            return self._progress_of_processes(engine, unread_bytes=_IN_PIPES_BYTES)
        walk = Walk(self._target, self._since_ns)
        await _walk_through(walk)
        return self._progress_of_walk(walk, is_complete=False)

    def _look_at(self, tree: ProcessTree) -> None:
        with self._one_look_at_a_time:
            for _ in range(_TRIES):
                samples = read_samples(tree.members())
                if samples is not None:
                    self._total.add(samples)
                    break

    def _progress_of_processes(self, engine: EngineProcess, *, unread_bytes: int) -> Progress:
        written = self._total.written
        data = bytes_of_data(written, engine.printed_bytes, unread_bytes)
        self._has_found = self._has_found or data > 0 or self._total.has_unreadable
        return Progress(bytes_restored=data)

    def _progress_of_walk(self, walk: Walk, *, is_complete: bool) -> Progress:
        self._has_found = True
        self._unreadable_folders = walk.unreadable_folders
        return Progress(
            bytes_restored=walk.bytes if is_complete else walk.bytes_on_disk, files_restored=walk.files
        )


async def _walk_through(walk: Walk) -> None:
    """Walk to the end, or until this is cancelled."""
    try:
        await in_thread("target-walk", walk.run)
    finally:
        walk.end()
