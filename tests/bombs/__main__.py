"""`python -m tests.bombs`: a hostile control plane against the real agent, and what each of its answers costs."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bombs.bombs import BOMBS, Bomb, Call
from tests.bombs.play import MOST_MEMORY, MOST_STALL, Kind, Result, open_scene


async def play_all(kinds: list[Kind], calls: list[Call], bombs: list[Bomb], console: Console) -> list[Result]:
    """Throw each bomb at each call, one after the other; what was harmed by one is replaced for the next."""
    results: list[Result] = []
    for kind in kinds:
        plays = [(bomb, call) for call in calls for bomb in bombs]
        while plays:
            with tempfile.TemporaryDirectory(prefix="bombs-", dir="/var/tmp") as folder:
                async with open_scene(Path(folder), kind) as scene:
                    while plays:
                        result = await scene.play(*plays.pop(0))
                        results.append(result)
                        if result.problems:
                            said = "; ".join(result.problems)
                            console.print(f"{kind}, {result.call}, {result.bomb.name}: {said}")
                            break
    return results


def table(results: list[Result]) -> Table:
    """A row for each bomb and call, of all parts of the agent the worst."""
    drawn = Table(title="What a hostile control plane can do")
    for name in ("bomb", "call"):
        drawn.add_column(name)
    for name in ("sent, MB", "over after, s", "healed after, s", "memory, MB", "stall, ms"):
        drawn.add_column(name, justify="right")
    drawn.add_column("")
    rows: dict[tuple[str, Call], list[Result]] = {}
    for result in results:
        rows.setdefault((result.bomb.name, result.call), []).append(result)
    for (name, call), group in rows.items():
        drawn.add_row(
            name,
            call,
            f"{max(result.sent for result in group) / 1e6:.1f}",
            f"{max(result.given_up for result in group):.1f}",
            f"{max(result.healed for result in group):.1f}",
            f"{max(result.memory for result in group) / 1e6:.1f}",
            f"{max(result.stall for result in group) * 1e3:.0f}",
            "; ".join(problem for result in group for problem in result.problems),
        )
    return drawn


def main() -> int:
    """Throw the bombs; the exit status is 1 if one did harm."""
    parser = argparse.ArgumentParser(prog="python -m tests.bombs", description=__doc__)
    parser.add_argument(
        "bombs", nargs="*", metavar="WORDS", help="those with such words in their names (default: all)"
    )
    parser.add_argument("--call", action="append", default=[], choices=list(Call), help="only at this call")
    parser.add_argument("--of", action="append", default=[], choices=list(Kind), help="only at this part")
    parser.add_argument(
        "--stall",
        type=float,
        default=MOST_STALL,
        metavar="SECONDS",
        help=f"most that the event loop may be held up, in time of a processor (default: {MOST_STALL})",
    )
    args = parser.parse_args()
    bombs = [bomb for bomb in BOMBS if all(word in bomb.name for word in args.bombs)]
    kinds = [Kind(name) for name in args.of] or list(Kind)
    calls = [Call(name) for name in args.call] or list(Call)
    if not bombs:
        parser.error(f"no bomb has all these words: {' '.join(args.bombs)}")
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # of the good control plane
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    begun = time.monotonic()
    results = asyncio.run(play_all(kinds, calls, bombs, console))
    for result in results:
        if result.stall > args.stall:
            result.problems.append(f"the loop was held up for {result.stall * 1e3:.0f} ms")
    console.print(table(results))
    harmful = [result for result in results if result.problems]
    print(
        f"{len(results)} plays in {time.monotonic() - begun:.0f} s. The most: "
        f"{max(result.memory for result in results) / 1e6:.1f} MB of {MOST_MEMORY / 1e6:.1f} over the baseline, "
        f"{max(result.stall for result in results) * 1e3:.0f} ms. {len(harmful)} did harm."
    )
    return 1 if harmful else 0


if __name__ == "__main__":
    sys.exit(main())
