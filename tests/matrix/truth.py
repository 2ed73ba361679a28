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


def is_as(copy: Path, original: Path) -> bool:
    """Whether `copy` is a folder, a link or a file with the content of `original`, whichever that is."""
    if original.is_symlink():
        return copy.is_symlink() and copy.readlink() == original.readlink()
    if original.is_dir():
        return copy.is_dir() and not copy.is_symlink()
    return (
        copy.is_file()
        and not copy.is_symlink()
        and copy.stat().st_nlink == original.stat().st_nlink
        and copy.read_bytes() == original.read_bytes()
    )


def differences(source: Path, restored: Path, *, but_for: Collection[str] = ()) -> list[str]:
    """What is not restored as it was, and files that never were, but for those named, as paths below `source`."""
    names = set(_names(source))
    if not names:
        return [f"there is nothing in {source} to compare with"]
    found = [
        f"{name} is not on the disk as it was"
        for name in sorted(names.difference(but_for))
        if not is_as(restored / name, source / name)
    ]
    found += [
        f"{name} is on the disk, and never was in what was restored"
        for name in sorted(set(_names(restored)).difference(names, but_for))
        if (restored / name).is_symlink() or not (restored / name).is_dir()
    ]
    return found[:5]


def not_restored(source: Path, restored: Path) -> list[str]:
    """Files that are missing or not as they were, as paths below `source`."""
    return [
        name
        for name in _names(source)
        if (source / name).is_file() and not is_as(restored / name, source / name)
    ]


def it_is_full(target: Path, file_bytes: int) -> list[str]:
    """Whether the file system of `target` has room for more than the one file that did not fit."""
    state = os.statvfs(target)
    free = state.f_bavail * state.f_frsize
    return [f"the target is not full: {free:,} bytes are free"] if free >= 2 * file_bytes else []


def nothing_is_there(target: Path, record: Record, *, observed: int = 0) -> list[str]:
    """Anything in `target`, and counters other than 0; `observed` bytes of the engine's own files may be."""
    found = ["there is something in the target"] if any(target.iterdir()) else []
    return found + counts_are_between(record, bytes=(0, observed), files=(0, 0))


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


def counts_are_between(
    record: Record,
    *,
    bytes: tuple[int, int],  # noqa: A002 - the word of the record
    files: tuple[int, int] | None = None,
) -> list[str]:
    """Counters that are less than the first or more than the second."""
    bounds = {"bytes_restored": bytes} | ({"files_restored": files} if files else {})
    return [
        f"{name} is {record[name]}, it should be from {least} to {most}"
        for name, (least, most) in bounds.items()
        if not least <= record[name] <= most
    ]


def errors_are_of(record: Record, paths: Collection[str]) -> list[str]:
    """Paths without an error, errors of other paths, or two of one, and a count that is another."""
    told = [error["path"] for error in record["errors"]["list"]]
    found = [f"there is no error of {path}" for path in paths if path not in told]
    found += [f"there is an error of {path}" for path in told if path not in paths]
    found += [f"there are several errors of {path}" for path in set(told) if told.count(path) > 1]
    if record["errors"]["count"] != len(told):
        found.append(f"the count of errors is {record['errors']['count']}, and {len(told)} are listed")
    return found[:5]


def types_of_errors_are(record: Record, *types: str) -> list[str]:
    """Types that should be there and are not, or the other way round."""
    told = {error["type"] for error in record["errors"]["list"]}
    return [] if told == set(types) else [f"the types of errors are {sorted(told)}"]


def diagnostics_say(record: Record, *words: str) -> list[str]:
    """Words that are not in the diagnostics."""
    said = record["errors"]["diagnostics"]
    return [f"the diagnostics do not say {word!r}: {said[:200]}" for word in words if word not in said]


def _names(folder: Path) -> Iterator[str]:
    return (str(path.relative_to(folder)) for path in _below(folder))


def _below(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        yield from (Path(root, name) for name in [*folders, *files])
