"""Finds calls that block the event loop. A test that is under it fails where the product waits in its loop."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from blockbuster import blockbuster_ctx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blockbuster import BlockBuster

PROC_READERS = {"read_stat", "boot_id"}
"""These read /proc, which is memory and not a disk."""


@contextmanager
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Raise where `agent_reporter` blocks a loop; its reference control plane may, as it says."""
    with blockbuster_ctx("agent_reporter", excluded_modules=["agent_reporter.reference"]) as watch:
        for function in ("io.BufferedReader.read", "os.stat"):
            watch.functions[function].can_block_in("agent_reporter/processes.py", PROC_READERS)
        # Coverage has a lock of its own, and takes it wherever it measures.
        watch.functions["threading.Lock.acquire"].can_block_in("coverage/collector.py", {"lock_data"})
        yield watch
