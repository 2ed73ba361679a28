"""`python -m tests.canary`: secrets that are looked for in all that comes out of an agent."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from tests.bombs.play import Kind
from tests.canary.commands import RUN_OUTPUT, commanded, mistaken
from tests.canary.echoes import ECHOES
from tests.canary.scenes import WAYS, echoed
from tests.canary.secrets import API_KEY, PASSPHRASE, PASSWORD, REPOSITORY, TOKEN, Canary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.canary.places import Harvest, Hit

SCENES = ("echoes", "commands", "mistakes")
LEVELS = ("debug", "info", "warning", "error", "critical")
FORMS = ("text", "json", "journal")
OF_AGENT = (TOKEN, PASSWORD, API_KEY)
OF_ENGINE = (REPOSITORY, PASSPHRASE)
PUT_THERE_BY_THE_USER = {"/proc/PID/cmdline", "/proc/PID/environ", RUN_OUTPUT}
"""Where the secrets of an engine are by its user's own doing: in the command and the environment that he gives
both to `run` and to the engine, and in what the engine prints, which goes through as it is."""


def judge(harvest: Harvest, issued: Iterable[Canary] = ()) -> list[Hit]:
    """What came out and should not have."""
    elsewhere = harvest.found.keys() - PUT_THERE_BY_THE_USER
    return [*harvest.hits([*OF_AGENT, *issued]), *harvest.hits(OF_ENGINE, elsewhere)]


async def play(scene: str, args: argparse.Namespace) -> list[tuple[Harvest, list[Hit]]]:
    """Play a scene in all its forms."""
    results = []
    words = args.words
    for level, form in product(args.level or LEVELS, args.form or FORMS):
        if scene != "echoes":
            with tempfile.TemporaryDirectory(prefix="canary-", dir="/var/tmp") as folder:
                played = commanded if scene == "commands" else mistaken
                harvest = await played(Path(folder), level=level, form=form)
                results.append((harvest, judge(harvest)))
            continue
        if form == "journal":
            continue  # these write to stderr alone
        echoes = [echo for echo in ECHOES if all(word in echo.name for word in words)]
        for kind, way in product(args.of or list(Kind), WAYS):
            if args.way and way.name not in args.way:
                continue
            with tempfile.TemporaryDirectory(prefix="canary-", dir="/var/tmp") as folder:
                harvest, issued = await echoed(
                    Path(folder), Kind(kind), way, level=level, form=form, echoes=echoes
                )
                results.append((harvest, judge(harvest, issued)))
    return results


def table(results: list[tuple[Harvest, list[Hit]]]) -> Table:
    """A row for each place: how much was searched there, and what was found."""
    drawn = Table(title="What came out, and the secrets in it")
    drawn.add_column("place")
    drawn.add_column("bytes searched", justify="right")
    drawn.add_column("hits", justify="right")
    drawn.add_column("of")
    for place in sorted({place for harvest, _ in results for place in harvest.found}):
        hits = [hit for _, found in results for hit in found if hit.place == place]
        searched = sum(harvest.bytes_of(place) for harvest, _ in results)
        drawn.add_row(place, f"{searched:,}", str(len(hits)), ", ".join(sorted({hit.canary for hit in hits})))
    return drawn


def main() -> int:
    """Play the scenes; the exit status is 1 if a secret came out."""
    parser = argparse.ArgumentParser(prog="python -m tests.canary", description=__doc__)
    parser.add_argument("scene", nargs="?", choices=SCENES, help="only this one (default: all)")
    parser.add_argument(
        "words", nargs="*", metavar="WORDS", help="of the echoes only those with such words in their names"
    )
    parser.add_argument(
        "--level", action="append", default=[], choices=LEVELS, help="only this level of logs"
    )
    parser.add_argument("--form", action="append", default=[], choices=FORMS, help="only this form of logs")
    parser.add_argument(
        "--of", action="append", default=[], choices=list(Kind), help="only this part of the agent"
    )
    parser.add_argument(
        "--way",
        action="append",
        default=[],
        choices=[way.name for way in WAYS],
        help="only this way to sign in",
    )
    args = parser.parse_intermixed_args()
    logging.getLogger("aiohttp").setLevel(logging.CRITICAL)  # of the good control plane
    begun = time.monotonic()
    results = []
    for scene in [args.scene] if args.scene else SCENES:
        results += asyncio.run(play(scene, args))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(table(results))
    hits = [hit for _, found in results for hit in found]
    for hit in sorted(set(hits), key=str):
        console.print(f"{hit.canary} in {hit.place}, {hit.what}, as {hit.forms[0]}", markup=False)
    print(f"{len(results)} plays in {time.monotonic() - begun:.0f} s, {len(hits)} hits.")
    return 1 if hits or not results else 0


if __name__ == "__main__":
    sys.exit(main())
