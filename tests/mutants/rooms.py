"""What is mutated, and which tests are to find it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Room:
    """Modules that are mutated together, with tests in two ranks."""

    name: str
    modules: tuple[str, ...]
    tests: tuple[str, ...]
    """Quick ones: those of them that enter a function run for each mutant of it, the quickest first."""
    more: tuple[str, ...] = ()
    """These run for what the quick ones let live."""
    left_out: tuple[str, ...] = ()
    """Tests that cannot run among mutants."""


SIMULATION = "tests/simulation/test_simulation.py::test_more_seeds_keep_every_invariant"

ROOMS = (
    Room(
        "model",
        ("agent_reporter/model/*",),
        ("tests/model",),
        ("tests/model/test_exchange_as_a_whole.py",),
        ("tests/model/test_exchange_as_a_whole.py",),
    ),
    Room(
        "spool",
        ("agent_reporter/spool.py", "agent_reporter/durable.py"),
        ("tests/test_spool.py", "tests/test_durable.py"),
        ("tests/test_keeper.py", SIMULATION),
        # It becomes another user, who may not read what mutmut reads in each process.
        ("tests/test_spool.py::test_files_that_may_not_be_read_stop_neither_listing_nor_orphans",),
    ),
    Room(
        "delivery",
        ("agent_reporter/delivery.py", "agent_reporter/keeper.py"),
        ("tests/delivery/test_one_delivery.py", "tests/test_keeper.py"),
        (
            SIMULATION,
            "tests/delivery/test_answers.py",
            "tests/delivery/test_reconcile.py",
            "tests/delivery/test_takeover.py",
        ),
    ),
    Room(
        "deliveries",
        ("agent_reporter/deliveries.py", "agent_reporter/takeover.py"),
        ("tests/delivery/test_takeover.py", "tests/delivery/test_spelling.py"),
        (SIMULATION, "tests/delivery/test_stop.py", "tests/delivery/test_reconcile.py"),
    ),
)
