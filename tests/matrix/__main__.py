"""Every engine in every case, for real: `python -m tests.matrix`.

Prints what each record should say and what it says, and whether the rest of it is true of the disk. The exit
status is 1 if anything is not, and if an engine is not installed, in as many versions as are wanted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.matrix.engines import NAMES, found
from tests.matrix.play import Result, play
from tests.matrix.scene import Case

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from tests.matrix.scene import RealEngine


async def play_all(
    engines: Sequence[RealEngine], cases: list[str], at_once: int, console: Console
) -> list[Result]:
    """Play several engines at once, each one's cases in turn: an empty list stands for all cases."""
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
            for number, engine in enumerate(engines)
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


def shortage(
    names: Collection[str], engines: Sequence[RealEngine], wants: Mapping[str, int], may_lack: Collection[str]
) -> dict[str, str]:
    """What to say of each engine that is there in fewer versions than are wanted: one, if nothing else is said."""
    there = Counter(engine.name for engine in engines)
    return {
        name: f"{there[name]} of {wanted} versions installed" if there[name] else "not installed"
        for name in names
        for wanted in [wants.get(name, 0 if name in may_lack else 1)]
        if there[name] < wanted
    }


def table(results: list[Result], lacking: Mapping[str, str]) -> Table:
    """A row for each case, and one for each engine of which versions are lacking."""
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
    for name, what in lacking.items():
        drawn.add_row(name, what, "", "", "", "", "LACKING")
    return drawn


def _wanted(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if name not in NAMES or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=NUMBER, with a name of: {', '.join(NAMES)}")
    return name, int(number)


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
    parser.add_argument(
        "--may-lack", action="append", default=[], choices=NAMES, help="need not be there; may be repeated"
    )
    parser.add_argument(
        "--wants",
        action="append",
        default=[],
        type=_wanted,
        metavar="NAME=NUMBER",
        help="has to be there in at least so many versions; may be repeated",
    )
    parser.add_argument("--at-once", type=int, default=3, help="engines that are played at the same time")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("A target that is full is a file system of its own: this needs root to mount it.")
        return 2
    console = Console(width=None if sys.stdout.isatty() else 160)
    begun = time.monotonic()
    names = args.engine or NAMES
    engines = list(found(names))
    lacking = shortage(names, engines, dict(args.wants), args.may_lack)
    results = asyncio.run(play_all(engines, args.case, args.at_once, console))
    console.print(table(results, lacking))
    true = sum(result.is_true for result in results)
    print(f"{true} of {len(results)} records are true, in {time.monotonic() - begun:.0f} s.")
    for name, what in lacking.items():
        print(f"{name}: {what}.")
    return 0 if results and true == len(results) and not lacking else 1


if __name__ == "__main__":
    sys.exit(main())
