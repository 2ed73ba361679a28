"""borg: the one on PATH, and the newest `borg-*` of AGENT_REPORTER_TEST_ENGINES."""

from __future__ import annotations

import os
import random
import re
import shlex
import shutil
import subprocess
import sys
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
    nothing_is_there,
    types_of_errors_are,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

SOME = "unable_to_process_some_files"
PASSWORD = "a password for tests"
FILES, FILE_BYTES = 300, 80_000
SLOW_BYTES_PER_SECOND = 2_000_000

# borg has no limit for what it reads. It takes this for ssh: the server that it asks for, behind a slow pipe.
SLOW_SHELL = f"""#!/bin/sh
shift
"$@" | {sys.executable} -c '
import os, time
while block := os.read(0, 16384):
    os.write(1, block)
    time.sleep(len(block) / {SLOW_BYTES_PER_SECOND})
'
"""


def found() -> Sequence[Borg]:
    """At most two, of different versions."""
    directory = os.environ.get("AGENT_REPORTER_TEST_ENGINES", "")
    others = (
        sorted((_version(str(path)), str(path)) for path in Path(directory).glob("borg-*"))
        if directory
        else []
    )
    on_path = shutil.which("borg")
    programs = dict([*others[-1:], *([(_version(on_path), on_path)] if on_path else [])])
    return [Borg(programs[version], version) for version in sorted(programs)]


def _version(program: str) -> tuple[int, ...]:
    printed = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    numbers = re.search(r"(\d+)\.(\d+)\.(\d+)", printed)
    assert numbers, printed
    return tuple(map(int, numbers.groups()))


class Borg:
    name = "borg"
    cases = frozenset(Case)

    def __init__(self, program: str, version: tuple[int, ...]) -> None:
        self._program = program
        self.version = ".".join(map(str, version))

    def build(self, directory: Path) -> None:
        """24 MB in 300 files, with a link of each kind."""
        self._directory = directory
        self._source, self._repository = directory / "source", directory / "repository"
        self._broken, self._slow_shell = directory / "broken", directory / "slow-shell"
        content = random.Random(0)
        for folder in range(10):
            (self._source / f"dir{folder}").mkdir(parents=True)
            for file in range(FILES // 10):
                (self._source / f"dir{folder}" / f"file{file:02}").write_bytes(content.randbytes(FILE_BYTES))
        (self._source / "dir0" / "symbolic").symlink_to("file00")
        (self._source / "dir0" / "hard").hardlink_to(self._source / "dir0" / "file01")
        self._do("init", "--encryption", "repokey", str(self._repository))
        self._do("create", f"{self._repository}::archive", *(f"dir{folder}" for folder in range(10)))
        shutil.copytree(self._repository, self._broken)
        largest = max((self._broken / "data").rglob("*"), key=lambda path: path.stat().st_size)
        with largest.open("r+b") as segment:
            segment.seek(FILES * FILE_BYTES // 2)
            segment.write(b"broken" * 1000)
        self._slow_shell.write_text(SLOW_SHELL)
        self._slow_shell.chmod(0o755)

    def scene(self, case: Case, target: Path) -> Scene:  # noqa: PLR0911 - one for each case
        command = self._extract(target, str(self._repository))
        scene = partial(Scene, environment=self._environment("base"))
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
                broken = self._extract(target, str(self._broken))
                environment = self._environment("base-of-broken")
                return Scene(
                    broken, ("failed", "data_corrupted"), partial(self._half_is_there, target), environment
                )
            case Case.PASSWORD:
                wrong = {**self._environment("base"), "BORG_PASSPHRASE": "wrong"}
                return Scene(command, ("failed", "wrong_password"), partial(nothing_is_there, target), wrong)
            case Case.STOPPED:
                return self._slow(target, ("stopped", "stop_requested"))
            case Case.KILLED:
                return self._slow(target, ("failed", "engine_killed"))

    def _slow(self, target: Path, expected: tuple[str, str]) -> Scene:
        remote = {"BORG_RSH": str(self._slow_shell), "BORG_REMOTE_PATH": self._program}
        return Scene(
            self._extract(target, f"ssh://host{self._repository}"),
            expected,
            partial(self._some_is_there, target),
            {**self._environment("base-of-slow"), **remote},
        )

    def _extract(self, target: Path, repository: str) -> list[str]:
        """borg restores to where it stands."""
        words = [self._program, "extract", f"{repository}::archive"]
        return ["sh", "-c", f"cd {shlex.quote(str(target))} && exec {shlex.join(words)}"]

    def _environment(self, base: str) -> dict[str, str]:
        """borg asks when it finds a repository elsewhere than before, and `base` is what it remembers."""
        return {"BORG_PASSPHRASE": PASSWORD, "BORG_BASE_DIR": str(self._directory / base)}

    def _do(self, *words: str) -> None:
        environment = {**os.environ, **self._environment("base")}
        subprocess.run(
            [self._program, *words], check=True, capture_output=True, cwd=self._source, env=environment
        )

    def _all_is_there(self, target: Path, record: Record) -> list[str]:
        there = amount(target)
        hard = (target / "dir0" / "hard").stat().st_size  # its bytes are counted once
        return [
            *differences(self._source, target),
            *errors_are_of(record, []),
            *counts_are(record, bytes=there.bytes - hard, files=there.files + there.folders),
        ]

    def _two_failed(self, target: Path, record: Record) -> list[str]:
        names = ("dir1/file03", "dir2/file04")
        restored = (FILES - len(names)) * FILE_BYTES
        return [
            *differences(self._source, target, but_for=names),
            *errors_are_of(record, names),
            *counts_are(record, bytes=restored, files=self._items() - len(names)),
            *diagnostics_say(record, "ended with exit status 1"),
        ]

    def _many_failed(self, target: Path, record: Record) -> list[str]:
        failed = not_restored(self._source, target)
        restored = self._items() - len(failed)
        return [
            *it_is_full(target, FILE_BYTES),
            *errors_are_of(record, failed),
            *types_of_errors_are(record, "no_space_left"),
            # It counts what it takes from the repository, whatever becomes of it.
            *counts_are(record, bytes=FILES * FILE_BYTES, files=restored),
            *diagnostics_say(record, "files that failed"),
        ]

    def _half_is_there(self, target: Path, record: Record) -> list[str]:
        return self._some_is_there(target, record) + diagnostics_say(record, "Data integrity error")

    def _some_is_there(self, target: Path, record: Record) -> list[str]:
        """It counts a piece before it writes it, and a file once the next one begins."""
        there = amount(target)
        items = there.files + there.folders
        return [
            *errors_are_of(record, []),
            *counts_are_between(
                record,
                bytes=(max(there.bytes - 3 * FILE_BYTES, 1), there.bytes + FILE_BYTES),
                files=(items - 2, items),
            ),
        ]

    def _items(self) -> int:
        """What borg lists: folders, too."""
        source = amount(self._source)
        return source.files + source.folders
