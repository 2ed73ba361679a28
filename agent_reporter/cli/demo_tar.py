"""A restore of a tar archive through the library's hook: the demo's engine where there is no restic.

It is also an example of an engine without an event loop.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import time
from pathlib import Path

from agent_reporter import Reporter, Settings

BLOCK = 256 * 1024


def main() -> int:
    """Restore the archive into the target; the exit status is 0, also if it was stopped."""
    parser = argparse.ArgumentParser()
    parser.add_argument("archive", type=Path)
    parser.add_argument("--target", type=Path)
    parser.add_argument("--limit-download", type=int, metavar="KIB")
    parser.add_argument("--restore-id")
    parser.add_argument("--config", type=Path)
    args = parser.parse_args()
    with (
        Reporter.in_background(Settings.load(args.config)) as reporter,
        reporter.restore(args.restore_id) as job,
        tarfile.open(args.archive) as archive,
    ):
        job.preparing()
        members = archive.getmembers()
        files = [member for member in members if member.isfile()]
        job.start(total_bytes=sum(member.size for member in files), total_files=len(files))
        for member in files:
            target = args.target / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            source = archive.extractfile(member)
            with target.open("wb") as file:
                while source is not None and (block := source.read(BLOCK)):
                    job.raise_if_stop_requested()
                    file.write(block)
                    job.advance(bytes=len(block))
                    time.sleep(len(block) / (args.limit_download * 1024))
            job.advance(files=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
