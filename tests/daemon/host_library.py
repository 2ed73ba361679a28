"""An engine in Python, as a process of its own: `python -m tests.daemon.host_library ID DIRECTORY SECONDS WAY`.

It writes files into its directory, and writes down what it has done before it says so to its job.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent_reporter import Reporter
from tests.daemon.host_notes import Notebook
from tests.daemon.host_plan import Way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent_reporter import Job

STEP_SECONDS = 0.1
BLOCK = 4_096
FILES_FOR_AN_ERROR = 20


class DiskBrokenError(Exception):
    """What an engine gives up for."""


def steps(job: Job, directory: Path, seconds: float, way: Way) -> Iterator[None]:
    """Restore file by file, with a pause wherever this yields."""
    notebook = Notebook(directory / "notes")
    until = time.monotonic() + seconds
    files = errors = 0
    job.start()
    while time.monotonic() < until:
        if job.stop_requested:
            notebook.write("stop")
            notebook.write("end", "stopped", errors)
            job.raise_if_stop_requested()
        (directory / f"file{files}").write_bytes(bytes(BLOCK))
        files += 1
        notebook.write("done", files, files * BLOCK)
        job.advance(bytes=BLOCK, files=1)
        if way is Way.ERRORS and files % FILES_FOR_AN_ERROR == 1:
            errors += 1
            job.error(path=f"/lost/file{files}", type="file_or_folder_missing", code=2)
        yield
    if way is Way.GIVES_UP:
        notebook.write("end", "failed", errors)
        raise DiskBrokenError("the disk is broken")
    notebook.write("end", "completed_with_errors" if errors else "completed", errors)


async def in_loop(restore_id: str, directory: Path, seconds: float, way: Way) -> None:
    async with Reporter() as reporter, reporter.restore(restore_id) as job:
        for _ in steps(job, directory, seconds, way):
            await asyncio.sleep(STEP_SECONDS)


def in_thread(restore_id: str, directory: Path, seconds: float, way: Way) -> None:
    with Reporter.in_background() as reporter, reporter.restore(restore_id) as job:
        for _ in steps(job, directory, seconds, way):
            time.sleep(STEP_SECONDS)


def main() -> int:
    restore_id, directory, seconds, way = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), Way(sys.argv[4])
    try:
        if way in {Way.WHOLE_IN_THREAD, Way.STOPS_IN_THREAD, Way.KILLED}:
            in_thread(restore_id, directory, seconds, way)
        else:
            asyncio.run(in_loop(restore_id, directory, seconds, way))
    except DiskBrokenError:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
