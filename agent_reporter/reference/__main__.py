"""`python -m agent_reporter.reference`: the reference control plane alone."""

from __future__ import annotations

import argparse
import sys

from agent_reporter.reference.command import add_arguments, run


def main() -> int:
    """Serve as the command line says; returns the exit status."""
    parser = argparse.ArgumentParser(prog="agent_reporter.reference", description=__doc__)
    add_arguments(parser)
    return run(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
