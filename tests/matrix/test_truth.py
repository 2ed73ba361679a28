"""Every comparison of the matrix is able to fail: what is true passes, and each thing made untrue of it is said."""

from __future__ import annotations

import copy
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from tests.matrix.__main__ import shortage
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
    from collections.abc import Callable
    from pathlib import Path

    from tests.matrix.scene import Record

FAILED = ("dir/b", "dir/c")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four files, a link of each kind, and a folder without anything."""
    source = tmp_path / "source"
    (source / "dir").mkdir(parents=True)
    (source / "empty").mkdir()
    for name in ("a", "b", "c", "d"):
        (source / "dir" / name).write_text(name * 1000)
    (source / "dir" / "symbolic").symlink_to("a")
    (source / "dir" / "hard").hardlink_to(source / "dir" / "d")
    return source


@pytest.fixture
def target(source: Path) -> Path:
    """All of it but FAILED."""
    target = source.parent / "target"
    shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("b", "c", "hard"))
    (target / "dir" / "hard").hardlink_to(target / "dir" / "d")
    return target


@pytest.fixture
def record(target: Path) -> Record:
    there = amount(target)
    return {
        "bytes_restored": there.bytes,
        "files_restored": there.files,
        "errors": {
            "count": 2,
            "list": [{"path": path, "type": "no_space_left"} for path in FAILED],
            "diagnostics": "The engine listed 2 errors.",
        },
    }


def untruths(source: Path, target: Path, record: Record) -> list[str]:
    """As a scene in which some files fail puts them together."""
    there = amount(target)
    return [
        *differences(source, target, but_for=FAILED),
        *errors_are_of(record, not_restored(source, target)),
        *types_of_errors_are(record, "no_space_left"),
        *counts_are(record, bytes=there.bytes, files=there.files),
        *counts_are_between(record, bytes=(1, there.bytes), files=(0, there.files)),
        *diagnostics_say(record, "listed 2 errors"),
    ]


def test_what_is_true_is_found_true(source: Path, target: Path, record: Record) -> None:
    assert untruths(source, target, record) == []


def listed(record: Record) -> list[dict[str, Any]]:
    errors: list[dict[str, Any]] = record["errors"]["list"]
    return errors


CHANGES_OF_THE_RECORD: dict[str, tuple[Callable[[Record], object], str]] = {
    "bytes doubled": (
        lambda record: record.update(bytes_restored=2 * record["bytes_restored"]),
        "bytes_rest",
    ),
    "no bytes": (lambda record: record.update(bytes_restored=0), "bytes_restored is 0"),
    "files doubled": (
        lambda record: record.update(files_restored=2 * record["files_restored"]),
        "files_rest",
    ),
    "no files": (lambda record: record.update(files_restored=0), "files_restored is 0"),
    "an error dropped": (lambda record: listed(record).pop(), "there is no error of dir/c"),
    "an error of another path": (lambda record: listed(record)[0].update(path="dir/a"), "an error of dir/a"),
    "an error too many": (lambda record: listed(record).append({**listed(record)[0], "path": "x"}), "of x"),
    "an error twice": (lambda record: listed(record).append(listed(record)[0]), "several errors of dir/b"),
    "errors counted twice": (lambda record: record["errors"].update(count=4), "the count of errors is 4"),
    "an error of another type": (lambda record: listed(record)[0].update(type="other"), "types of errors"),
    "no word of it": (lambda record: record["errors"].update(diagnostics=""), "the diagnostics do not say"),
}


@pytest.mark.parametrize(("change", "said"), CHANGES_OF_THE_RECORD.values(), ids=CHANGES_OF_THE_RECORD.keys())
def test_a_record_that_is_made_untrue_is_found(
    source: Path, target: Path, record: Record, change: Callable[[Record], object], said: str
) -> None:
    changed = copy.deepcopy(record)
    change(changed)
    assert said in "\n".join(untruths(source, target, changed))


def replaced(path: Path, content: str) -> None:
    path.unlink()
    path.write_text(content)


def moved_into(path: Path, folder: Path) -> None:
    folder.rmdir()
    path.rename(folder)


CHANGES_OF_THE_DISK: dict[str, tuple[Callable[[Path], object], str]] = {
    "a file missing": (lambda target: (target / "dir/a").unlink(), "there is no error of dir/a"),
    "a file too many": (lambda target: (target / "dir/e").touch(), "dir/e is on the disk, and never was"),
    "a link too many": (lambda target: (target / "l").symlink_to("dir"), "l is on the disk, and never was"),
    "another content": (
        lambda target: replaced(target / "dir/a", "b" * 1000),
        "dir/a is not on the disk as it",
    ),
    "half a file": (
        lambda target: replaced(target / "dir/a", "a" * 500),
        "dir/a is not on the disk as it was",
    ),
    "a copy for a link": (lambda target: replaced(target / "dir/symbolic", "a" * 1000), "symbolic is not on"),
    "a copy for a hard link": (lambda target: replaced(target / "dir/hard", "d" * 1000), "hard is not on"),
    "a folder missing": (lambda target: (target / "empty").rmdir(), "empty is not on the disk as it was"),
    "a file for a folder": (lambda target: moved_into(target / "dir/a", target / "empty"), "empty is not on"),
    "a file that did not fail": (
        lambda target: (target / "dir/b").write_text("b" * 1000),
        "there is an error of dir/b",
    ),
}


@pytest.mark.parametrize(("change", "said"), CHANGES_OF_THE_DISK.values(), ids=CHANGES_OF_THE_DISK.keys())
def test_a_disk_that_is_made_untrue_is_found(
    source: Path, target: Path, record: Record, change: Callable[[Path], object], said: str
) -> None:
    change(target)
    assert said in "\n".join(untruths(source, target, record))


def test_a_source_without_anything_is_compared_with_nothing(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "target").mkdir()
    for name in ("source", "missing"):
        assert "nothing in" in differences(tmp_path / name, tmp_path / "target")[0]


def test_a_target_is_empty_or_it_is_said(tmp_path: Path, record: Record) -> None:
    nothing = {**record, "bytes_restored": 0, "files_restored": 0}
    empty = tmp_path / "nothing"
    empty.mkdir()
    assert nothing_is_there(empty, nothing) == []
    assert nothing_is_there(empty, {**nothing, "bytes_restored": 1}) != []
    assert nothing_is_there(empty, {**nothing, "bytes_restored": 1}, observed=1) == []
    assert nothing_is_there(empty, {**nothing, "files_restored": 1}, observed=1) != []
    (empty / "folder").mkdir()
    assert nothing_is_there(empty, nothing) == ["there is something in the target"]


def test_a_target_with_room_is_not_full(tmp_path: Path) -> None:
    assert "bytes are free" in it_is_full(tmp_path, 1)[0]
    assert it_is_full(tmp_path, 1 << 60) == []


class Installed:
    def __init__(self, name: str) -> None:
        self.name = name


def test_an_engine_that_is_not_there_is_lacking_unless_it_may_be() -> None:
    def lacking(*names: str, may_lack: tuple[str, ...] = (), **wants: int) -> dict[str, str]:
        engines: Any = [Installed(name) for name in names]
        return shortage(("restic", "borg"), engines, wants, may_lack)

    assert lacking("restic", "borg") == {}
    assert lacking("restic") == {"borg": "not installed"}
    assert lacking("restic", may_lack=("borg",)) == {}
    assert lacking("restic", "borg", restic=2) == {"restic": "1 of 2 versions installed"}
    assert lacking("restic", "restic", "borg", restic=2) == {}
    assert lacking("restic", may_lack=("borg",), borg=1) == {"borg": "not installed"}
