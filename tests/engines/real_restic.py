"""Real restic binaries and small repositories for tests that need them.

Binaries are `restic-*` in the directory that AGENT_REPORTER_TEST_ENGINES names, and `restic` on PATH.
"""

from __future__ import annotations

import functools
import os
import random
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "a password for tests"


@dataclass(frozen=True)
class RealRestic:
    path: str
    version: tuple[int, ...]

    def __str__(self) -> str:
        return "restic-" + ".".join(map(str, self.version))

    @property
    def speaks_json(self) -> bool:
        return self.version >= (0, 16)


@dataclass(frozen=True)
class Repository:
    path: Path
    files: int
    """Regular files; restic counts their folder as well."""
    bytes: int

    def environment(self, **changes: str) -> dict[str, str]:
        """What restic needs to find and open it, with its cache beside it."""
        own = {
            "RESTIC_REPOSITORY": str(self.path),
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(self.path.parent / "cache"),
        }
        return {**os.environ, **own, **changes}


@functools.cache
def binaries() -> tuple[RealRestic, ...]:
    """All that can be found, one of each version, the oldest first."""
    directory = os.environ.get("AGENT_REPORTER_TEST_ENGINES", "")
    paths = sorted(map(str, Path(directory).glob("restic-*"))) if directory else []
    on_path = shutil.which("restic")
    found = [RealRestic(path, _version(path)) for path in [*paths, *([on_path] if on_path else [])]]
    return tuple(
        sorted({restic.version: restic for restic in reversed(found)}.values(), key=lambda r: r.version)
    )


def _version(path: str) -> tuple[int, ...]:
    printed = subprocess.run([path, "version"], check=True, capture_output=True, text=True).stdout
    match = re.match(r"restic (\d+)\.(\d+)\.(\d+)", printed)
    assert match, printed
    return tuple(map(int, match.groups()))


def make_repository(directory: Path, restic: RealRestic, *, files: int, file_bytes: int) -> Repository:
    """A repository with one snapshot, of one folder `data` with `files` files of `file_bytes` random bytes."""
    repository = Repository(directory / "repository", files, files * file_bytes)
    data = directory / "data"
    data.mkdir()
    content = random.Random(0)
    for number in range(files):
        (data / f"file{number:04}").write_bytes(content.randbytes(file_bytes))
    for arguments in (["init"], ["backup", "data"]):
        subprocess.run(
            [restic.path, *arguments],
            check=True,
            capture_output=True,
            cwd=directory,
            env=repository.environment(),
        )
    return repository
