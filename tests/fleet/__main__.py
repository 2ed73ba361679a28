"""`python -m tests.fleet`: what a fleet of agents does to its control plane, in figures and as a chart."""

from __future__ import annotations

import argparse
import gc
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from agent_reporter.settings import Settings
from tests.fleet.chart import draw
from tests.fleet.scenarios import (
    CAPACITY,
    DRAINED_WITHIN,
    MOST_AT_RECOVERY,
    MOST_IN_OUTAGE,
    SCENARIOS,
    Figures,
    play,
)


def main() -> int:
    """Play the scenarios; the exit status is 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fleet", description=__doc__)
    parser.add_argument(
        "scenarios", nargs="*", metavar="WORDS", help="those with such words in their names (default: all)"
    )
    parser.add_argument("--agents", type=int, default=100_000, metavar="COUNT")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the load, as PNG")
    parser.add_argument(
        "--capacity",
        type=float,
        default=CAPACITY,
        metavar="TIMES",
        help="of the control plane, in times the steady load",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    chosen = [each for each in SCENARIOS if all(word in each.name for word in args.scenarios)]
    if args.agents < 1:
        parser.error("--agents has to be 1 or more")
    if not chosen:
        parser.error(f"no scenario has all these words: {' '.join(args.scenarios)}")
    gc.disable()  # nothing here is in cycles that matter, and there are millions of objects
    begun = time.process_time()
    settings = Settings(endpoint="https://backup.example.com", project_id="110011", agent_id="agent")
    results = []
    for scenario in chosen:
        figures, fleet = play(scenario, args.agents, settings, capacity=args.capacity, seed=args.seed)
        print(f"{scenario.name}: {fleet.events:,} events", file=sys.stderr)
        results.append(figures)
        del fleet
        gc.collect()
    show(results)
    print(f"{time.process_time() - begun:.0f} seconds of one core")
    if args.chart is not None:
        args.chart.write_bytes(draw(results))
    missed = [figures for figures in results if figures.misses]
    for figures in missed:
        print(f"missed: {figures.scenario.name}: {', '.join(figures.misses)}")
    return 1 if missed else 0


def show(results: list[Figures]) -> None:
    """Print the table."""
    title = f"{results[0].agents:,} agents, {results[0].steady:,.0f} requests a second when all is well"
    table = Table(title=title, caption="load in times that, the most in any second but for the mean")
    table.add_column("what happens to all", no_wrap=True)
    for name in (
        "mean in the outage",
        f"in the outage, at most {MOST_IN_OUTAGE}",
        f"at recovery, at most {MOST_AT_RECOVERY}",
        "sign-ins a second",
        f"99% drained, at most {DRAINED_WITHIN:.0f} s",
    ):
        table.add_column(name, justify="right")
    for figures in results:
        table.add_row(
            figures.scenario.name,
            _times(figures.mean_in_outage),
            _times(figures.in_outage),
            _times(figures.at_recovery),
            f"{figures.sign_ins:,.0f}",
            "" if figures.drained_after is None else f"{figures.drained_after:.0f}",
        )
    Console(width=132, highlight=False).print(table)


def _times(load: float | None) -> str:
    return "" if load is None else f"{load:.2f}"


if __name__ == "__main__":
    sys.exit(main())
