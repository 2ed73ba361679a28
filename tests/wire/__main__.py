"""Run it: `python -m tests.wire --seeds 500 --minutes 2`."""

from __future__ import annotations

import sys

from tests.wire.command import main

if __name__ == "__main__":
    sys.exit(main())
