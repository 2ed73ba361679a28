"""What bombs are thrown at, in a process of its own: `python -m tests.bombs.subject engine` or `daemon`.

The engine is one that uses the library's hook; the daemon is the daemon. Both measure how long their event loop is
held up. Lines on stdin say what to do, and each is answered by a line of JSON on stdout.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import sys
import time
from typing import TYPE_CHECKING

from agent_reporter import Reporter, Settings
from agent_reporter.clock import SystemClock
from agent_reporter.daemon.notify import Notifier
from agent_reporter.daemon.service import Service
from agent_reporter.log_output import configure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BEAT_SECONDS = 0.005
STEP_SECONDS = 0.02
STEP_BYTES = 1_000


class Heart:
    """Beats in the event loop, and knows how long its thread worked at most from one beat to the next.

    That is what holds the loop up, in time of a processor: what else runs on the machine is not counted.
    """

    def __init__(self) -> None:
        self._longest = 0.0

    async def beat(self) -> None:
        while True:
            begun = time.thread_time()
            await asyncio.sleep(BEAT_SECONDS)
            self._longest = max(self._longest, time.thread_time() - begun)

    def take(self) -> float:
        """The longest work in seconds since the last call."""
        longest, self._longest = self._longest, 0.0
        return longest


class Engine:
    """Restores until it is told that it has all, or to stop."""

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._ending = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._steps = 0
        self._state = ""

    async def do(self, word: str, restore_id: str) -> dict[str, object]:
        if word == "begin":
            self._ending.clear()
            self._steps = 0
            self._task = asyncio.create_task(self._restore(restore_id))
        elif self._task is not None:
            self._ending.set()
            await self._task
        return {"steps": self._steps, "bytes": self._steps * STEP_BYTES, "state": self._state}

    async def _restore(self, restore_id: str) -> None:
        async with self._reporter.restore(restore_id) as job:
            job.start()
            while not self._ending.is_set() and not job.stop_requested:
                self._steps += 1
                job.progress(bytes_restored=self._steps * STEP_BYTES, files_restored=self._steps)
                await asyncio.sleep(STEP_SECONDS)
            job.raise_if_stop_requested()
        self._state = job.state.value


async def _obey(do: Callable[[str, str], Awaitable[dict[str, object]]]) -> None:
    """Do what the lines on stdin say, until they end."""
    heart = Heart()
    beating = asyncio.create_task(heart.beat())
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while words := (await reader.readline()).decode().split():
        if words[0] == "figures":
            answer: dict[str, object] = {"stall": heart.take()}
        elif words[0] == "rest":
            gc.collect()
            answer = {"stall": heart.take()}
        else:
            answer = await do(words[0], words[-1])
        print(json.dumps(answer), flush=True)
    beating.cancel()


async def _engine() -> None:
    async with Reporter() as reporter:
        await _obey(Engine(reporter).do)


async def _daemon() -> None:
    async def nothing(_word: str, _restore_id: str) -> dict[str, object]:
        return {}

    service = Service(Settings.load(), Settings.load, SystemClock(), Notifier.from_environment({}, 0), [])
    running = asyncio.create_task(service.run())
    await service.ready.wait()
    await _obey(nothing)
    service.end()
    await running


def main(mode: str) -> None:
    settings = Settings.load()
    configure(settings.log_level, settings.log_format)
    says_all = settings.log_level == "debug"
    if says_all:  # all that the libraries have to say, too
        logging.getLogger().setLevel(logging.DEBUG)
    asyncio.run(_daemon() if mode == "daemon" else _engine(), debug=says_all)


if __name__ == "__main__":
    main(sys.argv[1])
