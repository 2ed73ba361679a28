"""rsync, the one on PATH."""

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
    nothing_is_there,
    types_of_errors_are,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SOME = "unable_to_process_some_files"
FILE_BYTES = 80_000
ON_ITS_WAY = 2_000_000
"""Bytes that have left the one end of rsync and are not on the disk of the other, at most."""


def found() -> Sequence[Rsync]:
    """The one on PATH, if there is one."""
    return [Rsync()] if shutil.which("rsync") else []


class Rsync:
    name = "rsync"
    cases = frozenset(Case) - {Case.PASSWORD}

    def __init__(self) -> None:
        printed = subprocess.run(["rsync", "--version"], check=True, capture_output=True, text=True).stdout
        version = re.search(r"version (\S+)", printed)
        self.version = version[1] if version else ""

    def build(self, directory: Path) -> None:
        """24 MB in 300 files."""
        self._source = directory / "source"
        content = random.Random(0)
        for folder in range(10):
            (self._source / f"dir{folder}").mkdir(parents=True)
            for file in range(30):
                (self._source / f"dir{folder}" / f"file{file:02}").write_bytes(content.randbytes(FILE_BYTES))

    def scene(self, case: Case, target: Path) -> Scene:
        command = ["rsync", "-a", f"{self._source}/", f"{target}/"]
        slowly = ["rsync", "-a", "--bwlimit=4000", *command[2:]]
        match case:
            case Case.WELL:
                return Scene(command, ("completed", ""), partial(self._all_is_there, target))
            case Case.SOME_FAIL:
                for name in ("dir1/file03", "dir2/file04"):  # a folder that is not empty is not replaced
                    (target / name / "in the way").mkdir(parents=True)
                return Scene(command, ("completed_with_errors", SOME), partial(self._two_failed, target))
            case Case.FULL:
                return Scene(command, ("failed", "target_full"), partial(self._one_failed, target))
            case Case.BROKEN:
                missing = f"{self._source}-missing"
                command = ["rsync", "-a", f"{missing}/", f"{target}/"]
                return Scene(
                    command, ("failed", "source_missing"), partial(self._none_is_there, target, missing)
                )
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
            *_counts_are_those_of(target, record),
        ]

    def _two_failed(self, target: Path, record: Record) -> list[str]:
        names = ("dir1/file03", "dir2/file04")
        return [
            *differences(self._source, target, but_for=names),
            *errors_are_of(record, names),
            *_counts_are_those_of(target, record),
        ]

    def _one_failed(self, target: Path, record: Record) -> list[str]:
        """rsync ends with the first file that does not fit."""
        failed = {str(target / name) for name in not_restored(self._source, target)}
        told = [error["path"] for error in record["errors"]["list"]]
        return [
            *it_is_full(target, FILE_BYTES),
            *errors_are_of(record, failed.intersection(told)),
            *([] if len(told) == 1 else [f"there should be one error, and there are {told}"]),
            *types_of_errors_are(record, "no_space_left"),
            *_counts_are_near_those_of(target, record),
        ]

    def _none_is_there(self, target: Path, missing: str, record: Record) -> list[str]:
        return [*errors_are_of(record, [missing]), *nothing_is_there(target, record)]

    def _some_is_there(self, target: Path, record: Record) -> list[str]:
        return [
            *errors_are_of(record, []),
            *_counts_are_near_those_of(target, record),
            *counts_are_between(record, bytes=(1, 300 * FILE_BYTES - 1)),
            *diagnostics_say(record, "incomplete file"),
        ]


def _counts_are_those_of(target: Path, record: Record) -> list[str]:
    there = amount(target)
    return counts_are(record, bytes=there.bytes, files=there.files)


def _counts_are_near_those_of(target: Path, record: Record) -> list[str]:
    """Where it ended early, rsync has counted what was on its way."""
    there = amount(target).bytes
    return counts_are_between(record, bytes=(max(0, there - ON_ITS_WAY), there + ON_ITS_WAY))
