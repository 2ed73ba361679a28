"""rclone, from a `crypt` remote: the one on PATH, and the newest of those for tests."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
from functools import partial
from pathlib import Path
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
    types_of_errors_are,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOME = "unable_to_process_some_files"
PASSWORD = "a password for tests"
IN_THE_WAY = ("dir1/file03", "dir2/file04")
FILE_BYTES = 75_000
ON_ITS_WAY = 4 * FILE_BYTES
"""Bytes that are read and not yet on the disk, at most: of four files at a time."""
ONE_ATTEMPT = ("--retries", "1", "--low-level-retries", "1")
SLOWLY = ("--bwlimit", "3M")


def found() -> Sequence[Rclone]:
    """The version of the distribution, and the newest."""
    directory = os.environ.get("AGENT_REPORTER_TEST_ENGINES", "")
    of_tests = [Rclone(str(path)) for path in Path(directory).glob("rclone-*")] if directory else []
    newest = sorted(of_tests, key=lambda rclone: rclone.release)[-1:]
    on_path = shutil.which("rclone")
    return [*([Rclone(on_path)] if on_path else []), *newest]


class Rclone:
    name = "rclone"
    cases = frozenset(Case)

    def __init__(self, path: str) -> None:
        self._path = path
        self.version = re.findall(r"v([\d.]+)", self._printed("version"))[0]
        self.release = tuple(map(int, self.version.split(".")))

    def build(self, directory: Path) -> None:
        """15 MB in 200 files, encrypted."""
        self._source, self._repository = directory / "source", directory / "repository"
        self._broken, self._config = directory / "broken", directory / "rclone.conf"
        self._config.touch()
        content = random.Random(0)
        for folder in range(10):
            (self._source / f"dir{folder}").mkdir(parents=True)
            for file in range(20):
                (self._source / f"dir{folder}" / f"file{file:02}").write_bytes(content.randbytes(FILE_BYTES))
        self._files = [str(path.relative_to(self._source)) for path in self._source.glob("*/*")]
        self._printed("copy", str(self._source), "backup:", environment=self._environment())
        shutil.copytree(self._repository, self._broken)
        for path in (path for path in self._broken.rglob("*") if path.is_file()):
            path.write_bytes(b"no magic" + path.read_bytes()[8:])

    def scene(self, case: Case, target: Path) -> Scene:  # noqa: PLR0911 - one for each case
        command = [self._path, "copy", "backup:", str(target)]
        scene = partial(Scene, environment=self._environment())
        match case:
            case Case.WELL:
                return scene(command, ("completed", ""), partial(self._all_is_there, target))
            case Case.SOME_FAIL:  # in each of the three attempts
                for name in IN_THE_WAY:
                    (target / name / "in the way").mkdir(parents=True)
                return scene(command, ("completed_with_errors", SOME), partial(self._two_failed, target))
            case Case.FULL:
                command += ONE_ATTEMPT
                return scene(command, ("completed_with_errors", SOME), partial(self._many_failed, target))
            case Case.BROKEN:
                broken = self._environment(repository=self._broken)
                return Scene(
                    [*command, *ONE_ATTEMPT], ("failed", SOME), partial(self._all_failed, target), broken
                )
            case Case.PASSWORD:
                wrong = self._environment(password="not this one")
                return Scene(
                    command, ("failed", "wrong_password"), partial(self._none_is_there, target), wrong
                )
            case Case.STOPPED:
                some = partial(self._some_is_there, target)
                return scene([*command, *SLOWLY], ("stopped", "stop_requested"), some)
            case Case.KILLED:
                some = partial(self._some_is_there, target)
                return scene([*command, *SLOWLY], ("failed", "engine_killed"), some)

    def _environment(self, repository: Path | None = None, password: str = PASSWORD) -> dict[str, str]:
        return {
            "RCLONE_CONFIG": str(self._config),
            "RCLONE_CONFIG_BACKUP_TYPE": "crypt",
            "RCLONE_CONFIG_BACKUP_REMOTE": str(repository or self._repository),
            "RCLONE_CONFIG_BACKUP_PASSWORD": self._printed("obscure", password).strip(),
            # Before 1.66, names that cannot be decrypted are passed over without a word.
            "RCLONE_CONFIG_BACKUP_FILENAME_ENCRYPTION": "standard" if self.release >= (1, 66) else "off",
        }

    def _printed(self, *words: str, environment: Mapping[str, str] | None = None) -> str:
        return subprocess.run(
            [self._path, *words],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "RCLONE_CONFIG": os.devnull, **(environment or {})},
        ).stdout

    def _all_is_there(self, target: Path, record: Record) -> list[str]:
        there = amount(target)
        return [
            *differences(self._source, target),
            *errors_are_of(record, []),
            *counts_are(record, bytes=there.bytes, files=there.files),
        ]

    def _two_failed(self, target: Path, record: Record) -> list[str]:
        there = amount(target)
        return [
            *differences(self._source, target, but_for=IN_THE_WAY),
            *errors_are_of(record, IN_THE_WAY),
            *counts_are(record, files=there.files),
            # 1.75 counts what it read of the two files with each attempt.
            *counts_are_between(record, bytes=(there.bytes, there.bytes + 3 * 2 * FILE_BYTES)),
            *diagnostics_say(record, "may include what was read of files that failed"),
        ]

    def _many_failed(self, target: Path, record: Record) -> list[str]:
        """1.60 leaves an empty file for each that failed."""
        failed = not_restored(self._source, target)
        restored = len(self._files) - len(failed)
        return [
            *it_is_full(target, 2 * FILE_BYTES),  # four at a time do not fit
            *errors_are_of(record, failed),
            *types_of_errors_are(record, "no_space_left"),
            *counts_are(record, bytes=restored * FILE_BYTES, files=restored),
        ]

    def _all_failed(self, target: Path, record: Record) -> list[str]:
        """1.75 misses the folders as well."""
        folders = {f"dir{folder}" for folder in range(10)}
        told = {error["path"] for error in record["errors"]["list"]} & folders
        return [*errors_are_of(record, [*self._files, *told]), *self._none_is_there(target, record)]

    def _none_is_there(self, target: Path, record: Record) -> list[str]:
        """1.60 leaves folders, and an empty file for each that failed."""
        found = ["there is something in the target"] if amount(target).bytes else []
        return [*found, *counts_are(record, bytes=0, files=0)]

    def _some_is_there(self, target: Path, record: Record) -> list[str]:
        """The newest counters may be a second old."""
        failed = not_restored(self._source, target)
        most = amount(target).bytes + ON_ITS_WAY
        return [
            *([] if failed else ["it was all there before the end"]),
            *errors_are_of(record, []),
            *counts_are_between(record, bytes=(1, most), files=(0, len(self._files) - len(failed))),
        ]
