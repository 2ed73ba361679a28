"""What the demo restores, and with what: restic, or, where there is none, a restore of a tar archive."""

from __future__ import annotations

import asyncio
import filecmp
import os
import random
import re
import shutil
import sys
import tarfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SMALL_FILES = 300
LARGE_FILES = 4
LARGE_BYTES = 9 * 1024 * 1024
RATE_KIB = 12 * 1024
"""KiB a second at which the demo restores if nothing else is said, so that there is something to see."""


@dataclass(frozen=True, slots=True)
class DemoEngine:
    """A way to restore `source`. `files` and `bytes` are what a whole restore counts."""

    name: str
    source: Path
    files: int
    bytes: int
    words: tuple[str, ...]
    is_hook: bool = False
    environment: dict[str, str] = field(default_factory=dict)

    def command(self, options: Sequence[str], target: Path, rate_kib: int) -> list[str]:
        """What restores into `target` at so many KiB a second, reported with these options of `run`."""
        restoring = [*self.words, "--limit-download", str(rate_kib), "--target", str(target)]
        if self.is_hook:
            return [*restoring, *options]
        return [sys.executable, "-m", "agent_reporter.cli.main", "run", *options, "--", *restoring]

    def restored(self, target: Path) -> Path:
        """Where in `target` the data is: restic puts it below its whole path."""
        return target if self.is_hook else target / self.source.relative_to("/")


def make_data(directory: Path) -> Path:
    """Make some files to restore, and return where they are."""
    chance = random.Random(1)  # noqa: S311 - it makes demo data
    for number in range(SMALL_FILES):
        file = directory / f"{number % 10}" / f"small-{number}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(chance.randbytes(chance.randrange(1_000, 40_000)))
    for number in range(LARGE_FILES):
        (directory / f"large-{number}").write_bytes(chance.randbytes(LARGE_BYTES))
    return directory


async def prepare_engine(directory: Path, source: Path) -> DemoEngine:
    """Restic with a backup of `source`, if there is one that tells its progress; else a tar archive."""
    restic = shutil.which("restic")
    if restic is not None and await _tells_progress(restic):
        return await _prepare_restic(restic, directory, source)
    return await asyncio.to_thread(_prepare_tar, directory, source)


def is_same(source: Path, restored: Path) -> bool:
    """Whether both directories hold the same files with the same content."""
    names = _names(source)
    if names != _names(restored):
        return False
    _, different, unreadable = filecmp.cmpfiles(source, restored, names, shallow=False)
    return not different and not unreadable


def _names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


async def _tells_progress(restic: str) -> bool:
    """Restic prints JSON for a restore from 0.16 on."""
    version = re.search(r"restic (\d+)\.(\d+)", await _output([restic, "version"], {}))
    return version is not None and (int(version[1]), int(version[2])) >= (0, 16)


async def _prepare_restic(restic: str, directory: Path, source: Path) -> DemoEngine:
    environment = {
        "RESTIC_REPOSITORY": str(directory / "repository"),
        "RESTIC_PASSWORD": "demo",
        "RESTIC_CACHE_DIR": str(directory / "cache"),
    }
    await _output([restic, "init", "--quiet"], environment)
    await _output([restic, "backup", "--quiet", str(source)], environment)
    return DemoEngine(
        name="restic",
        source=source,
        files=await asyncio.to_thread(_files_as_restic_counts, source),
        bytes=_size(source),
        words=(restic, "restore", "latest"),
        environment=environment,
    )


def _files_as_restic_counts(source: Path) -> int:
    """Folders are among them, also those above the data."""
    return len(list(source.rglob("*"))) + len(source.relative_to("/").parts)


def _prepare_tar(directory: Path, source: Path) -> DemoEngine:
    archive = directory / "data.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(source, arcname=".")
    return DemoEngine(
        name="a tar archive and the library's hook, as there is no restic 0.16 or later",
        source=source,
        files=len(_names(source)),
        bytes=_size(source),
        words=(sys.executable, "-m", "agent_reporter.cli.demo_tar", str(archive)),
        is_hook=True,
    )


def _size(source: Path) -> int:
    return sum(path.stat().st_size for path in source.rglob("*") if path.is_file())


async def _output(command: Sequence[str], environment: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *command, env=os.environ | environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return output.decode(errors="replace")
