"""What is on the disk, and what a record says otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tests.matrix.scene import Record


@dataclass(frozen=True)
class Amount:
    """What a folder holds."""

    bytes: int
    files: int
    folders: int


def amount(folder: Path) -> Amount:
    """The files and folders below `folder`."""
    files = folders = size = 0
    for path in _below(folder):
        if path.is_dir() and not path.is_symlink():
            folders += 1
        else:
            files += 1
            size += path.lstat().st_size
    return Amount(size, files, folders)


def differences(source: Path, restored: Path, *, but_for: Collection[str] = ()) -> list[str]:
    """Files that are not restored as they were, but for those named, as paths below `source`."""
    found = []
    for path in _below(source):
        name = str(path.relative_to(source))
        if path.is_dir() or name in but_for:
            continue
        copy = restored / name
        if not copy.is_file() or copy.read_bytes() != path.read_bytes():
            found.append(f"{name} is not on the disk as it was")
    return found[:5]


def counts_are(
    record: Record,
    *,
    bytes: int | None = None,  # noqa: A002 - the word of the record
    files: int | None = None,
    within: float = 0,
) -> list[str]:
    """Counters that are not what they should be; `within` is the part by which bytes may be off."""
    found = []
    if bytes is not None and abs(record["bytes_restored"] - bytes) > bytes * within:
        found.append(f"bytes_restored is {record['bytes_restored']}, on the disk are {bytes}")
    if files is not None and record["files_restored"] != files:
        found.append(f"files_restored is {record['files_restored']}, on the disk are {files}")
    return found


def counts_are_between(record: Record, *, bytes: tuple[int, int]) -> list[str]:  # noqa: A002 - the record's word
    """Bytes that are less than the first or more than the second."""
    least, most = bytes
    if least <= record["bytes_restored"] <= most:
        return []
    return [f"bytes_restored is {record['bytes_restored']}, it should be from {least} to {most}"]


def errors_are_of(record: Record, paths: Collection[str]) -> list[str]:
    """Paths without an error, and errors of other paths, or two of one."""
    told = [error["path"] for error in record["errors"]["list"]]
    found = [f"there is no error of {path}" for path in paths if path not in told]
    found += [f"there is an error of {path}" for path in told if path not in paths]
    found += [f"there are several errors of {path}" for path in set(told) if told.count(path) > 1]
    return found[:5]


def diagnostics_say(record: Record, *words: str) -> list[str]:
    """Words that are not in the diagnostics."""
    said = record["errors"]["diagnostics"]
    return [f"the diagnostics do not say {word!r}: {said[:200]}" for word in words if word not in said]


def _below(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        yield from (Path(root, name) for name in [*folders, *files])
