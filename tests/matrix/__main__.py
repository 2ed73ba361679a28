"""Every engine in every case, for real: `python -m tests.matrix`.

Prints what each record should say and what it says, and whether the rest of it is true of the disk. The exit
status is 1 if anything is not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.matrix.engines import NAMES, found
from tests.matrix.play import Result, play
from tests.matrix.scene import Case

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.matrix.scene import RealEngine


async def play_all(engines: list[str], cases: list[str], at_once: int, console: Console) -> list[Result]:
    """Play what is asked for, several engines at once, each one's cases in turn: an empty list stands for all."""
    room = asyncio.Semaphore(at_once)

    async def play_one(engine: RealEngine, directory: Path) -> list[Result]:
        async with room:
            await asyncio.to_thread(engine.build, directory)
            results = []
            for case in Case:
                if case in engine.cases and (not cases or case.name.lower() in cases):
                    results.append(await play(engine, case, directory / f"case-{case.name.lower()}"))
                    _print(results[-1], console)
            return results

    with _folder() as folder:
        plays = [
            play_one(engine, _made(folder / f"{engine.name}-{engine.version.replace(' ', '-')}-{number}"))
            for number, engine in enumerate(found(engines or NAMES))
        ]
        return [result for results in await asyncio.gather(*plays) for result in results]


def _print(result: Result, console: Console) -> None:
    sign = "true" if result.is_true else "NOT TRUE"
    console.print(f"{result.engine} {result.version}, {result.case}: {sign} ({result.seconds:.1f} s)")
    for untruth in result.untruths:
        console.print(f"    {untruth}", markup=False)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that other users may enter, on a disk: `/tmp` is in memory on some hosts."""
    with tempfile.TemporaryDirectory(prefix="matrix-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


def table(results: list[Result]) -> Table:
    """A row for each case."""
    drawn = Table(title="Engines, and what their records say")
    for column in ("engine", "version", "case", "expected", "reported", "counters", ""):
        drawn.add_column(column)
    for result in results:
        drawn.add_row(
            result.engine,
            result.version,
            result.case,
            " ".join(result.expected),
            " ".join(result.reported),
            result.counters,
            "true" if result.is_true else "NOT TRUE",
        )
    return drawn


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument(
        "--engine", action="append", default=[], choices=NAMES, help="only this one; may be repeated"
    )
    parser.add_argument(
        "--case",
        action="append",
        default=[],
        choices=[case.name.lower() for case in Case],
        help="only this one; may be repeated",
    )
    parser.add_argument("--at-once", type=int, default=3, help="engines that are played at the same time")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("A target that is full is a file system of its own: this needs root to mount it.")
        return 2
    console = Console(width=None if sys.stdout.isatty() else 160)
    begun = time.monotonic()
    results = asyncio.run(play_all(args.engine, args.case, args.at_once, console))
    console.print(table(results))
    true = sum(result.is_true for result in results)
    print(f"{true} of {len(results)} records are true, in {time.monotonic() - begun:.0f} s.")
    return 0 if results and true == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
