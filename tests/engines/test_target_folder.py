from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from agent_reporter.engines.running.target_folder import LARGE_FILE_BYTES, Walk, checked_target
from agent_reporter.errors import ConfigurationError
from tests.builders import needs_root, python, tiny_disk


def walked(folder: Path, since_ns: int = 0) -> Walk:
    walk = Walk(folder, since_ns)
    walk.run()
    return walk


def test_files_are_counted_with_their_sizes_and_folders_are_not(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(b"x" * 5)
    (tmp_path / "a" / "b" / os.fsdecode(b"caf\xe9")).write_bytes(b"x" * 70)
    os.mkfifo(tmp_path / "a" / "fifo")
    walk = walked(tmp_path)
    assert (walk.files, walk.bytes, walk.bytes_on_disk, walk.unreadable_folders) == (3, 75, 75, 0)


def test_a_file_counts_if_it_was_changed_since_the_start_whatever_its_time_says(tmp_path: Path) -> None:
    (tmp_path / "there before").write_bytes(b"x" * 5)
    restored = tmp_path / "restored"
    while True:  # files get the time of the kernel's last tick
        since_ns = time.time_ns()
        restored.write_bytes(b"x" * 70)
        os.utime(restored, (1, 1))
        if restored.stat().st_ctime_ns >= since_ns:
            break
    walk = walked(tmp_path, since_ns)
    assert (walk.files, walk.bytes) == (1, 70)


def test_symbolic_links_are_counted_and_not_followed(tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    target.mkdir()
    elsewhere.mkdir()
    (elsewhere / "file").write_bytes(b"x" * 5)
    (target / "folder").symlink_to(elsewhere)
    (target / "loop").symlink_to(target)
    (target / "nowhere").symlink_to("nowhere")
    walk = walked(target)
    assert (walk.files, walk.bytes) == (3, 0)


def test_a_target_that_is_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "file").write_bytes(b"x" * 5)
    (tmp_path / "link").symlink_to("target")
    assert walked(tmp_path / "link").bytes == 5


def test_the_names_of_one_file_share_its_size(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"x" * 30)
    for name in ("two", "three"):
        (tmp_path / name).hardlink_to(tmp_path / "one")
    walk = walked(tmp_path)
    assert (walk.files, walk.bytes) == (3, 30)


def test_a_large_file_that_has_its_size_before_its_content_is_known_by_what_is_on_the_disk(
    tmp_path: Path,
) -> None:
    with (tmp_path / "ahead").open("wb") as file:
        file.write(b"x" * 4096)
        file.truncate(10 * LARGE_FILE_BYTES)
    (tmp_path / "large").write_bytes(b"x" * (LARGE_FILE_BYTES + 1))
    walk = walked(tmp_path)
    assert walk.bytes == 11 * LARGE_FILE_BYTES + 1
    assert LARGE_FILE_BYTES + 1 <= walk.bytes_on_disk <= LARGE_FILE_BYTES + 1 + 2 * 4096


def test_what_is_mounted_below_is_not_entered_and_that_is_told(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "mounted") as mounted:
        (mounted / "file").write_bytes(b"x" * 5)
        (tmp_path / "file").write_bytes(b"x" * 70)
        walk, below = walked(tmp_path), walked(mounted)
        assert (walk.bytes, walk.mounted_folders) == (70, 1)
        assert (below.bytes, below.mounted_folders) == (5, 0)


def test_a_target_that_is_not_there_yet_holds_nothing(tmp_path: Path) -> None:
    walk = walked(tmp_path / "not yet")
    assert (walk.files, walk.unreadable_folders) == (0, 0)


@needs_root
def test_a_folder_that_may_not_be_read_is_passed_over_and_told(tmp_path: Path) -> None:
    target = Path(subprocess.check_output(["mktemp", "-d"], text=True).strip())
    try:
        (target / "closed").mkdir()
        (target / "unlisted").mkdir()
        (target / "file").write_bytes(b"x" * 5)
        (target / "unlisted" / "file").write_bytes(b"x" * 5)
        target.chmod(0o755)
        (target / "closed").chmod(0o700)
        (target / "unlisted").chmod(0o744)
        code = (
            "import os, pathlib, sys\n"
            "from agent_reporter.engines.running.target_folder import Walk\n"
            "os.setresuid(65534, 65534, 65534)\n"
            "for target in sys.argv[1:]:\n"
            "    walk = Walk(pathlib.Path(target), 0); walk.run()\n"
            "    print(walk.bytes, walk.unreadable_folders)"
        )
        printed = python(code, target, target / "closed" / "below", cwd=Path(__file__).parents[2])
        assert printed.stdout == "5 2\n0 1\n", printed.stderr
    finally:
        subprocess.run(["rm", "-r", target], check=True)


def test_files_that_come_and_go_meanwhile_do_no_harm(tmp_path: Path) -> None:
    ended = threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for number in range(20):
                folder = tmp_path / f"folder{number}"
                folder.mkdir()
                (folder / "file").touch()
            for number in range(20):
                (tmp_path / f"folder{number}" / "file").unlink()
                (tmp_path / f"folder{number}").rmdir()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for _ in range(300):
            assert walked(tmp_path).unreadable_folders == 0
    finally:
        ended.set()
        thread.join()


def test_a_walk_that_is_ended_counts_no_further(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5)
    walk = Walk(tmp_path, 0)
    walk.end()
    walk.run()
    assert walk.files == 0


def test_a_target_has_to_be_a_folder_or_not_to_be_there_yet(tmp_path: Path) -> None:
    assert checked_target(str(tmp_path)) == tmp_path
    assert checked_target(str(tmp_path / "not yet")) == tmp_path / "not yet"
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="file is not a folder"):
        checked_target(str(tmp_path / "file"))
    with pytest.raises(ConfigurationError, match="--target is empty"):
        checked_target("")
