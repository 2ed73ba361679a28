"""`agent-reporter`, with another place for the journal's socket: `python -m tests.canary.journaled SOCKET ...`."""

from __future__ import annotations

import sys

from agent_reporter import log_output
from agent_reporter.cli.main import main

if __name__ == "__main__":
    log_output.JOURNAL_SOCKET = sys.argv[1]
    sys.exit(main(sys.argv[2:]))
