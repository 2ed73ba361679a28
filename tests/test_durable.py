from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter.durable import Reserve, replace_file, write_whole
from tests.builders import fill, names, python_that_waits, tiny_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tiny_disk(tmp_path / "disk") as mounted:
        yield mounted


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Every sync and rename from now on, with the name of what it was for."""
    calls: list[tuple[str, str]] = []
    fsync, write = os.fsync, os.write
    replace: Callable[..., Any] = os.replace

    def name_of(descriptor: int) -> str:
        return Path(f"/proc/self/fd/{descriptor}").readlink().name

    def note_fsync(descriptor: int) -> None:
        calls.append(("fsync", name_of(descriptor)))
        fsync(descriptor)

    def note_write(descriptor: int, content: bytes) -> int:
        calls.append(("write", name_of(descriptor)))
        return write(descriptor, content)

    def note_replace(source: Any, target: Any, **options: Any) -> None:
        calls.append(("rename", Path(target).name))
        replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "write", note_write)
    monkeypatch.setattr(os, "replace", note_replace)
    monkeypatch.setattr(os, "rename", note_replace)
    return calls


def test_what_was_written_is_what_the_file_holds(tmp_path: Path) -> None:
    replace_file(tmp_path / "a", b"one")
    replace_file(tmp_path / "a", b"two, which is longer")
    replace_file(tmp_path / "a", b"3")
    assert (tmp_path / "a").read_bytes() == b"3"
    assert names(tmp_path) == ["a"]


def test_a_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        replace_file(tmp_path / "a", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_a_file_is_written_and_synced_before_it_takes_its_name_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = recorded(monkeypatch)
    replace_file(tmp_path / "a", b"content")
    assert calls == [
        ("write", ".a.new"),
        ("fsync", ".a.new"),
        ("rename", "a"),
        ("fsync", tmp_path.name),
    ]


def test_writes_that_take_little_at_a_time_end_in_the_whole_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:3]))
    replace_file(tmp_path / "a", b"a content of more than three bytes")
    assert (tmp_path / "a").read_bytes() == b"a content of more than three bytes"


def test_nothing_at_all_is_written_whole_as_well(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path / "a", os.O_WRONLY | os.O_CREAT)
    try:
        write_whole(descriptor, b"")
    finally:
        os.close(descriptor)
    assert (tmp_path / "a").read_bytes() == b""


@pytest.mark.parametrize("broken", ["write", "fsync", "replace"])
def test_the_old_content_stays_when_any_step_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    replace_file(tmp_path / "a", b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    monkeypatch.setattr(os, broken, fail)
    with pytest.raises(OSError, match="the disk is broken"):
        replace_file(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_the_old_content_stays_on_a_disk_that_is_really_full(disk: Path) -> None:
    replace_file(disk / "a", b"old")
    fill(disk)
    with pytest.raises(OSError, match="No space left") as caught:
        replace_file(disk / "a", b"new")
    assert caught.value.errno == errno.ENOSPC
    assert (disk / "a").read_bytes() == b"old"
    assert names(disk) == ["a", "ballast"]


def test_a_disk_that_fills_up_in_the_middle_of_a_file_keeps_the_old_one(disk: Path) -> None:
    replace_file(disk / "a", b"old")
    ballast = fill(disk)
    os.truncate(ballast, ballast.stat().st_size - 2 * 4096)
    with pytest.raises(OSError, match="No space left"):
        replace_file(disk / "a", b"n" * 64 * 1024)
    assert (disk / "a").read_bytes() == b"old"
    replace_file(disk / "a", b"n" * 4096)
    assert (disk / "a").read_bytes() == b"n" * 4096


def test_what_a_killed_writer_left_aside_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / ".a.new").write_bytes(b"half of something long that nobody finished")
    replace_file(tmp_path / "a", b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert names(tmp_path) == ["a"]


def test_a_link_in_the_way_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    (tmp_path / ".a.new").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(tmp_path / "a", b"whole")
    assert victim.read_bytes() == b"untouched"


def test_a_writer_killed_between_the_sync_and_the_rename_leaves_the_old_content(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from agent_reporter.durable import replace_file\n"
        "def wait(*_, **__): print('ready', flush=True); sys.stdin.read()\n"
        "replace_file(pathlib.Path(sys.argv[1]), b'old')\n"
        "os.replace = os.rename = wait\n"
        "replace_file(pathlib.Path(sys.argv[1]), b'new')\n"
    )
    with python_that_waits(script, tmp_path / "a") as writer:
        writer.kill()
        writer.wait()
    assert (tmp_path / "a").read_bytes() == b"old"


def test_a_reserve_writes_a_file_on_a_full_disk(disk: Path) -> None:
    reserve = Reserve(disk, ".reserve", 64 * 1024)
    replace_file(disk / "a", b"old")
    fill(disk)
    with pytest.raises(OSError, match="No space left"):
        replace_file(disk / "a", b"new")
    reserve.spend(b"n" * 64 * 1024, disk / "a")
    assert (disk / "a").read_bytes() == b"n" * 64 * 1024
    assert names(disk) == ["a", "ballast"]


def test_the_reserve_of_a_process_before_is_kept_where_no_new_one_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    Reserve(tmp_path, ".reserve", 4096)
    monkeypatch.setattr(os, "posix_fallocate", full)
    Reserve(tmp_path, ".reserve", 4096).spend(b"x" * 4096, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"x" * 4096


def test_a_reserve_is_synced_before_it_takes_its_name_and_the_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Reserve(tmp_path, ".reserve", 4096)
    calls = recorded(monkeypatch)
    reserve.spend(b"content", tmp_path / "a")
    assert calls == [
        ("write", ".reserve"),
        ("fsync", ".reserve"),
        ("rename", "a"),
        ("fsync", tmp_path.name),
    ]
    assert (tmp_path / "a").read_bytes() == b"content"


def test_a_reserve_can_be_spent_only_once(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, ".reserve", 4096)
    reserve.spend(b"one", tmp_path / "a")
    with pytest.raises(OSError, match="no reserve"):
        reserve.spend(b"two", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"one"


def test_a_reserve_is_not_spent_on_more_than_it_holds(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, ".reserve", 4096)
    with pytest.raises(OSError, match="no reserve for 4097 bytes"):
        reserve.spend(b"x" * 4097, tmp_path / "a")
    reserve.spend(b"x" * 4096, tmp_path / "a")
    assert (tmp_path / "a").stat().st_size == 4096


def test_a_reserve_that_is_not_enough_is_a_full_disk(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, ".reserve", 4096)
    with pytest.raises(OSError, match="no reserve for 5000 bytes") as raised:
        reserve.spend(b"x" * 5000, tmp_path / "a")
    assert raised.value.errno == errno.ENOSPC


def test_a_link_in_the_place_of_a_reserve_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"untouched")
    reserve = Reserve(tmp_path, ".reserve", 4096)
    (tmp_path / ".reserve").unlink()
    (tmp_path / ".reserve").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        reserve.spend(b"content", tmp_path / "a")
    Reserve(tmp_path, ".reserve", 4096)
    assert victim.read_bytes() == b"untouched"
    assert not (tmp_path / "a").exists()


def test_a_reserve_that_was_given_back_takes_no_space_and_cannot_be_spent(disk: Path) -> None:
    reserve = Reserve(disk, ".reserve", 64 * 1024)
    used = os.statvfs(disk).f_bfree
    reserve.release()
    reserve.release()
    assert os.statvfs(disk).f_bfree == used + 16
    assert names(disk) == []
    with pytest.raises(OSError, match="no reserve"):
        reserve.spend(b"x", disk / "a")


def test_a_disk_without_room_for_a_reserve_is_gone_without(disk: Path) -> None:
    ballast = fill(disk)
    os.truncate(ballast, ballast.stat().st_size - 8 * 4096)
    reserve = Reserve(disk, ".reserve", 64 * 1024)
    assert names(disk) == ["ballast"]
    with pytest.raises(OSError, match="no reserve"):
        reserve.spend(b"x", disk / "a")
    reserve.release()


def test_a_reserve_whose_write_fails_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserve = Reserve(tmp_path, ".reserve", 4096)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="the disk is broken"):
            reserve.spend(b"first, and longer", tmp_path / "a")
    assert not (tmp_path / "a").exists()
    reserve.spend(b"second", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"second"
