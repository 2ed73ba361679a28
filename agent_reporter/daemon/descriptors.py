"""How many files the daemon may have open, and how many connections that allows."""

from __future__ import annotations

import resource
from contextlib import suppress

from agent_reporter.daemon.door import ACCEPTED_AT_ONCE
from agent_reporter.errors import ConfigurationError

MAX_DESCRIPTORS = 65_536
OWN_DESCRIPTORS = 128 + 4 * ACCEPTED_AT_ONCE
"""For the daemon itself: libraries, logs, the way to the control plane, files being written; and for
connections that are accepted and not judged yet, or closed and not gone yet: four turns of the loop."""
DESCRIPTORS_OF_RESTORE = 2
"""Its lock in the spool, and the pidfd of its engine."""
MIN_CONNECTIONS = 16


def raise_descriptor_limit() -> int:
    """Let this process open as many files as it may, up to `MAX_DESCRIPTORS`; returns how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    raised = max(soft, min(hard, MAX_DESCRIPTORS))
    with suppress(OSError, ValueError):  # a sandbox may forbid it
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def affordable_connections(limit: int, max_connections: int, max_restores: int) -> int:
    """How many connections may be open under `limit` open files, so that accepting one never fails.

    The daemon's own files come off first (`OWN_DESCRIPTORS`), then two for each of `max_restores` open
    restores. Raises ConfigurationError if fewer than `MIN_CONNECTIONS` are left.
    """
    taken = OWN_DESCRIPTORS + DESCRIPTORS_OF_RESTORE * max_restores
    if limit - taken < min(MIN_CONNECTIONS, max_connections):
        raise ConfigurationError(
            f"{limit} open files are too few for {max_restores} restores, which need {taken}, and for "
            f"connections. Allow at least {taken + MIN_CONNECTIONS}, with LimitNOFILE= in the unit or "
            "`ulimit -n`, or have fewer restores open at once."
        )
    return min(max_connections, limit - taken)
