"""What a test sees of an engine's process."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_reporter.engines.running.process import EngineProcess, Patience

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_reporter.engines.adapter import Stream
    from agent_reporter.engines.running.pump import Sink

QUICK = Patience(eof_seconds=0.3, drain_seconds=0.5, leftovers_seconds=0.3, kill_seconds=5)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.01)


class Watcher:
    """What a test sees of an engine."""

    def __init__(self) -> None:
        self.lines: list[tuple[Stream, str]] = []
        self.warnings: list[str] = []

    async def start(
        self,
        *command: str,
        sinks: dict[Stream, Sink | None] | None = None,
        on_line: Callable[[Stream, str], None] | None = None,
        **options: Any,
    ) -> EngineProcess:
        return await EngineProcess.start(
            command,
            dict(os.environ),
            on_line=on_line or (lambda stream, line: self.lines.append((stream, line))),
            sinks=sinks or {},
            patience=options.pop("patience", QUICK),
            warn=self.warnings.append,
            **options,
        )

    async def python(self, code: str, *arguments: str, **options: Any) -> EngineProcess:
        return await self.start(sys.executable, "-u", "-c", code, *arguments, **options)

    async def says(self, text: str) -> None:
        await until(lambda: text in [line for _, line in self.lines])
