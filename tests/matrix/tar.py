"""GNU tar, the one on PATH."""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from tests.matrix.scene import Case, Record, Scene
from tests.matrix.truth import (
    amount,
    counts_are,
    counts_are_between,
    diagnostics_say,
    differences,
    errors_are_of,
    it_is_full,
    not_restored,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SOME = "unable_to_process_some_files"
CHECKPOINT_BYTES = 2 << 20
FILE_BYTES = 80_000


def found() -> Sequence[Tar]:
    """The one on PATH, if it is GNU's."""
    if not shutil.which("tar"):
        return []
    printed = subprocess.run(["tar", "--version"], check=False, capture_output=True, text=True).stdout
    version = re.match(r"tar \(GNU tar\) (\S+)", printed)
    return [Tar(version[1])] if version else []


class Tar:
    name = "tar"
    cases = frozenset(Case) - {Case.PASSWORD}

    def __init__(self, version: str) -> None:
        self.version = version

    def build(self, directory: Path) -> None:
        """24 MB in 300 files."""
        self._source, self._archive = directory / "source", directory / "archive.tar"
        self._broken = directory / "broken.tar"
        content = random.Random(0)
        for folder in range(10):
            (self._source / f"dir{folder}").mkdir(parents=True)
            for file in range(30):
                (self._source / f"dir{folder}" / f"file{file:02}").write_bytes(content.randbytes(FILE_BYTES))
        names = sorted(path.name for path in self._source.iterdir())
        subprocess.run(["tar", "-cf", self._archive, "-C", self._source, *names], check=True)
        self._broken.write_bytes(self._archive.read_bytes()[:15_000_000])

    def scene(self, case: Case, target: Path) -> Scene:
        command = ["tar", "-xf", str(self._archive), "-C", str(target)]
        slowly = [*command, "--checkpoint-action=sleep=1"]
        match case:
            case Case.WELL:
                return Scene([*command, "-v"], ("completed", ""), partial(self._all_is_there, target))
            case Case.SOME_FAIL:
                for name in ("dir1/file03", "dir2/file04"):  # a folder that is not empty is not replaced
                    (target / name / "in the way").mkdir(parents=True)
                return Scene(command, ("completed_with_errors", SOME), partial(self._two_failed, target))
            case Case.FULL:
                return Scene(command, ("completed_with_errors", SOME), partial(self._many_failed, target))
            case Case.BROKEN:
                command = ["tar", "xf", str(self._broken), "-C", str(target)]
                return Scene(command, ("failed", "archive_damaged"), partial(self._some_is_there, target))
            case Case.STOPPED:
                return Scene(slowly, ("stopped", "stop_requested"), partial(self._some_is_there, target))
            case Case.KILLED:
                return Scene(slowly, ("failed", "engine_killed"), partial(self._some_is_there, target))
            case Case.PASSWORD:
                raise ValueError(case)

    def _all_is_there(self, target: Path, record: Record) -> list[str]:
        return [
            *differences(self._source, target),
            *errors_are_of(record, []),
            *self._archive_was_read(record),
            *counts_are(record, files=amount(target).files),
        ]

    def _two_failed(self, target: Path, record: Record) -> list[str]:
        names = ("dir1/file03", "dir2/file04")
        return [
            *differences(self._source, target, but_for=names),
            *errors_are_of(record, names),
            *self._archive_was_read(record),
        ]

    def _many_failed(self, target: Path, record: Record) -> list[str]:
        told = {error["type"] for error in record["errors"]["list"]}
        return [
            *it_is_full(target, FILE_BYTES),
            *errors_are_of(record, not_restored(self._source, target)),
            # Of the file that it was writing it says only how much it could write.
            *([] if "no_space_left" in told else [f"the types of errors are {sorted(told)}"]),
            *self._archive_was_read(record),
        ]

    def _archive_was_read(self, record: Record) -> list[str]:
        return [
            *counts_are(record, bytes=self._archive.stat().st_size),
            *diagnostics_say(record, "those that tar read of the archive"),
        ]

    def _some_is_there(self, target: Path, record: Record) -> list[str]:
        """What was read since the last checkpoint is on the disk, and not yet told; or read, and not written."""
        there = amount(target).bytes
        least, most = max(1, there - CHECKPOINT_BYTES), there + CHECKPOINT_BYTES
        return [*errors_are_of(record, []), *counts_are_between(record, bytes=(least, most), files=(0, 0))]
