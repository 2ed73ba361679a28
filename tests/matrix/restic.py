"""restic, each version that is found."""

from __future__ import annotations

import os
import random
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from tests.engines.real_restic import PASSWORD, binaries
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

    from tests.engines.real_restic import RealRestic

SOME = "unable_to_process_some_files"
FILE_BYTES = 80_000
SLOWLY = ("--limit-download", "3000")
OF_ITS_OWN = 65_536
"""Bytes that it writes beside the restore, in its cache and between its processes, at most."""


def found() -> Sequence[Restic]:
    """All versions on this machine."""
    return [Restic(binary) for binary in binaries()]


class Restic:
    name = "restic"
    cases = frozenset(Case)

    def __init__(self, binary: RealRestic) -> None:
        self._binary = binary
        self.version = ".".join(map(str, binary.version))
        self._tells_counts = binary.speaks_json

    def build(self, directory: Path) -> None:
        """24 MB in 300 files."""
        self._source, self._repository = directory / "source", directory / "repository"
        self._broken = directory / "broken"
        content = random.Random(0)
        for folder in range(10):
            (self._source / f"dir{folder}").mkdir(parents=True)
            for file in range(30):
                (self._source / f"dir{folder}" / f"file{file:02}").write_bytes(content.randbytes(FILE_BYTES))
        for words in (["init"], ["backup", "."]):
            self._do(*words, cwd=self._source)
        subprocess.run(["cp", "-r", str(self._repository), str(self._broken)], check=True)
        for index in (self._broken / "index").iterdir():
            index.chmod(0o600)
            index.write_bytes(b"broken" * 1000)

    def scene(self, case: Case, target: Path) -> Scene:  # noqa: PLR0911 - one for each case
        command = [self._binary.path, "restore", "latest", "--target", str(target)]
        scene = partial(Scene, environment=self._environment())
        match case:
            case Case.WELL:
                return scene(command, ("completed", ""), partial(self._all_is_there, target))
            case Case.SOME_FAIL:
                for name in ("dir1/file03", "dir2/file04"):  # a folder that is not empty is not replaced
                    (target / name / "in the way").mkdir(parents=True)
                return scene(command, ("completed_with_errors", SOME), partial(self._two_failed, target))
            case Case.FULL:
                return scene(command, ("completed_with_errors", SOME), partial(self._many_failed, target))
            case Case.BROKEN:
                broken = {
                    **self._environment(),
                    "RESTIC_REPOSITORY": str(self._broken),
                    "RESTIC_CACHE_DIR": f"{target}-cache",
                }
                return Scene(command, self._end_of_broken(), partial(self._none_is_there, target), broken)
            case Case.PASSWORD:
                wrong = {**self._environment(), "RESTIC_PASSWORD": "wrong"}
                return Scene(
                    command, ("failed", "wrong_password"), partial(self._none_is_there, target), wrong
                )
            case Case.STOPPED:
                some = partial(self._some_is_there, target)
                return scene([*command, *SLOWLY], ("stopped", "stop_requested"), some)
            case Case.KILLED:
                some = partial(self._some_is_there, target)
                return scene([*command, *SLOWLY], ("failed", "engine_killed"), some)

    def _environment(self) -> dict[str, str]:
        return {
            "RESTIC_REPOSITORY": str(self._repository),
            "RESTIC_PASSWORD": PASSWORD,
            "RESTIC_CACHE_DIR": str(self._repository.parent / "cache"),
        }

    def _do(self, *words: str, cwd: Path) -> None:
        environment = {**os.environ, **self._environment()}
        subprocess.run([self._binary.path, *words], check=True, capture_output=True, cwd=cwd, env=environment)

    def _all_is_there(self, target: Path, record: Record) -> list[str]:
        return [*differences(self._source, target), *errors_are_of(record, []), *self._counts(record, target)]

    def _two_failed(self, target: Path, record: Record) -> list[str]:
        names = ("dir1/file03", "dir2/file04")
        return [
            *differences(self._source, target, but_for=names),
            *errors_are_of(record, [f"/{name}" for name in names]),
            *self._counts_after_errors(record, target),
            *([] if self._tells_counts else self._counts(record, target)),
        ]

    def _many_failed(self, target: Path, record: Record) -> list[str]:
        failed = not_restored(self._source, target)
        return [
            *it_is_full(target, FILE_BYTES),
            *errors_are_of(record, [f"/{name}" for name in failed]),
            *types_of_errors_are(record, "no_space_left"),
            *self._counts_after_errors(record, target),
        ]

    def _none_is_there(self, target: Path, record: Record) -> list[str]:
        observed = 0 if self._tells_counts else OF_ITS_OWN
        return [*nothing_is_there(target, record, observed=observed), *errors_are_of(record, [])]

    def _some_is_there(self, target: Path, record: Record) -> list[str]:
        """Files have their full size from the start. Of a piece of a pack it may not have told yet."""
        there = amount(target)
        own, items = (0, there.files + there.folders) if self._tells_counts else (OF_ITS_OWN, 0)
        found = [] if not_restored(self._source, target) else ["it was all there before the end"]
        return [
            *found,
            *errors_are_of(record, []),
            *counts_are_between(record, bytes=(1, there.bytes + own), files=(0, items)),
        ]

    def _end_of_broken(self) -> tuple[str, str]:
        return "failed", "engine_failed"

    def _counts(self, record: Record, target: Path) -> list[str]:
        there = amount(target)
        if not self._tells_counts:
            return counts_are(record, bytes=there.bytes, files=0, within=0.01)
        # restic counts folders as files.
        return counts_are(record, bytes=there.bytes, files=there.files + there.folders)

    def _counts_after_errors(self, record: Record, target: Path) -> list[str]:
        """restic counts what it could not write: the record has to say so."""
        there, source = amount(target), amount(self._source)
        if not self._tells_counts:
            # Of a file system in memory no pages of a disk are counted.
            most = there.bytes + OF_ITS_OWN
            return [
                *counts_are_between(record, bytes=(1, most), files=(0, 0)),
                *diagnostics_say(record, "no counts"),
            ]
        restored = source.files - len(not_restored(self._source, target))
        return [
            *counts_are_between(
                record,
                bytes=(restored * FILE_BYTES, source.bytes),
                files=(restored, source.files + source.folders),
            ),
            *diagnostics_say(record, "include files that failed"),
        ]
