"""Run the simulation: `python -m tests.simulation --seeds 10000 --minutes 10 --jobs 2`."""

from __future__ import annotations

import sys

from tests.simulation.command import main

if __name__ == "__main__":
    sys.exit(main())
