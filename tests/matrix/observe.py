"""Programs that tell nothing: dd by its own counters, cp by its target, and a script with lines of errors."""

from __future__ import annotations

import os
import random
import re
import subprocess
import threading
import time
from contextlib import suppress
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
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

FILES = 60
FILE_BYTES = 200_000
FED_BYTES_A_SECOND = 1 << 20
SECONDS_OF_FOOD = 30
SECONDS_UNSEEN = 3
"""From the last look to the end of what was killed, at most."""
IN_THE_WAY = ("dir1/file03", "dir2/file04")
FAILED = ("failed", "engine_failed")
SOME = ("completed_with_errors", "unable_to_process_some_files")

RESTORE = """#!/bin/sh
# restore SOURCE TARGET: goes on after errors, and says nothing else
cd "$1" || exit 2
find . ! -type d | sort | while read -r file; do
    mkdir -p "$2/${file%/*}"
    why=$({ cat "$file" > "$2/$file"; } 2>&1) || echo "ERROR: ${file#./}: $why" >&2
done
exit 0
"""


def found() -> Sequence[Silent]:
    """Each is on every Debian."""
    return [Dd(), Cp(), Script()]


class Silent:
    """What the three have in common."""

    name = "observe"
    version = ""
    cases: Collection[Case] = frozenset(Case) - {Case.PASSWORD}
    options: tuple[str, ...] = ()

    def build(self, directory: Path) -> None:
        """12 MB in 60 files; and a named pipe instead, which is fed slowly when it is opened."""
        self._source, self._slow, self._missing = (directory / name for name in ("source", "slow", "missing"))
        content = random.Random(0)
        for number in range(FILES):
            file = self._source / f"dir{number % 6}" / f"file{number // 6:02}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content.randbytes(FILE_BYTES))
        self._slow.mkdir()
        os.mkfifo(self._slow / "pipe")
        self._script = directory / "restore"
        self._script.write_text(RESTORE)
        self._script.chmod(0o755)

    def scene(self, case: Case, target: Path) -> Scene:
        scene = partial(Scene, options=self.options)
        command = self.command(self._source, target)
        match case:
            case Case.WELL:
                return scene(command, ("completed", ""), partial(self.all_is_there, target))
            case Case.SOME_FAIL:
                for name in IN_THE_WAY:
                    (target / name / "in the way").mkdir(parents=True)
                return scene(command, self.end_after_errors(), partial(self.two_failed, target))
            case Case.FULL:
                return scene(command, self.end_of_full(), partial(self.is_full, target))
            case Case.BROKEN:
                return scene(self.command(self._missing, target), FAILED, partial(nothing_is_there, target))
            case Case.STOPPED:
                feed = Feed(self._slow / "pipe")
                untruths = partial(self.some_is_there, target, feed)
                return scene(self.command(self._slow, target), ("stopped", "stop_requested"), untruths)
            case Case.KILLED:
                feed = Feed(self._slow / "pipe")
                untruths = partial(self.some_is_there, target, feed)
                return scene(self.command(self._slow, target), ("failed", "engine_killed"), untruths)
        raise AssertionError(case)

    def command(self, source: Path, target: Path) -> list[str]:
        raise NotImplementedError

    def end_after_errors(self) -> tuple[str, str]:
        return FAILED

    def end_of_full(self) -> tuple[str, str]:
        return ("failed", "target_full")

    def all_is_there(self, target: Path, record: Record) -> list[str]:
        return [
            *differences(self._source, target),
            *errors_are_of(record, []),
            *self.counts_are_true(target, record),
        ]

    def two_failed(self, target: Path, record: Record) -> list[str]:
        return [
            *differences(self._source, target, but_for=IN_THE_WAY),
            *errors_are_of(record, [self.path_told(target, name) for name in IN_THE_WAY]),
            *self.counts_are_true(target, record),
        ]

    def path_told(self, target: Path, name: str) -> str:
        """What the program calls a file."""
        return str(target / name)

    def is_full(self, target: Path, record: Record) -> list[str]:
        failed = not_restored(self._source, target)
        told = {error["type"] for error in record["errors"]["list"]}
        return [
            *it_is_full(target, FILE_BYTES),
            *([] if failed else ["all is on the disk"]),
            *errors_are_of(record, self.failures_told(target, failed)),
            *([] if told <= {"no_space_left"} else [f"the types of errors are {sorted(told)}"]),
            *self.counts_are_true(target, record),
        ]

    def failures_told(self, target: Path, failed: Sequence[str]) -> list[str]:
        """Paths of the errors that should be listed."""
        return [self.path_told(target, name) for name in failed]

    def some_is_there(self, target: Path, feed: Feed, record: Record) -> list[str]:
        """Something is, and what was seen of it is not more. (A script's processes have a word together.)"""
        there = amount(target).bytes
        feed.end()
        least = max(1, there - SECONDS_UNSEEN * FED_BYTES_A_SECOND)
        return [
            *errors_are_of(record, []),
            *counts_are_between(record, bytes=(least, there + 1000)),
            *diagnostics_say(record, "observed"),
        ]

    def counts_are_true(self, target: Path, record: Record) -> list[str]:
        """By the counters of processes: bytes as they are, and no files."""
        counts = counts_are(record, bytes=amount(target).bytes, files=0, within=0.01)
        return [*counts, *diagnostics_say(record, "bytes were observed from outside")]


class Dd(Silent):
    """One file, by its own counters."""

    cases = frozenset(Case) - {Case.PASSWORD, Case.SOME_FAIL}

    def __init__(self) -> None:
        self.version = f"dd {_version_of('dd')}"

    def build(self, directory: Path) -> None:
        super().build(directory)
        whole = b"".join(path.read_bytes() for path in sorted(self._source.rglob("file*")))
        subprocess.run(["rm", "-r", self._source], check=True)
        self._source.mkdir()
        (self._source / "pipe").write_bytes(whole)

    def command(self, source: Path, target: Path) -> list[str]:
        return ["dd", f"if={source}/pipe", f"of={target}/pipe", "bs=64k"]

    def failures_told(self, target: Path, failed: Sequence[str]) -> list[str]:  # noqa: ARG002 - it is not asked
        return []


class Cp(Silent):
    """Many files, by the target; it says what failed, and ends with 1 then, as it does when all is lost."""

    errors = ("--error-lines", r"^cp: .*?'(?P<path>[^']*)'")

    def __init__(self) -> None:
        self.version = f"cp {_version_of('cp')}"

    def scene(self, case: Case, target: Path) -> Scene:
        self.options = (*self.errors, "--target", str(target))
        return super().scene(case, target)

    def command(self, source: Path, target: Path) -> list[str]:
        return ["cp", "-aT", "--copy-contents", str(source), str(target)]

    def counts_are_true(self, target: Path, record: Record) -> list[str]:
        there = amount(target)
        counts = counts_are(record, bytes=there.bytes, files=there.files)
        return [*counts, *diagnostics_say(record, "files and bytes were observed from outside")]


class Script(Silent):
    """A company's own, which ends with 0 whatever happens: only its words say what failed."""

    version = "a script"
    options = ("--error-lines", "^ERROR: (?P<path>[^:]*): ")

    def command(self, source: Path, target: Path) -> list[str]:
        return [str(self._script), str(source), str(target)]

    def end_after_errors(self) -> tuple[str, str]:
        return SOME

    def end_of_full(self) -> tuple[str, str]:
        return SOME

    def path_told(self, target: Path, name: str) -> str:  # noqa: ARG002 - it calls them as they were
        return name


class Feed:
    """Writes into a named pipe slowly, from when it is opened until nobody reads it or this is ended."""

    def __init__(self, pipe: Path) -> None:
        self._ended = threading.Event()
        threading.Thread(target=self._feed, args=(pipe,), daemon=True).start()

    def end(self) -> None:
        self._ended.set()

    def _feed(self, pipe: Path) -> None:
        until = time.monotonic() + SECONDS_OF_FOOD
        with suppress(BrokenPipeError), pipe.open("wb", buffering=0) as opened:
            while time.monotonic() < until and not self._ended.wait(0.05):
                opened.write(bytes(FED_BYTES_A_SECOND // 20))


def _version_of(program: str) -> str:
    printed = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    version = re.search(r"\d+\.\d+", printed)
    return version[0] if version else "unknown"
