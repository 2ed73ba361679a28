"""The journal: what was acknowledged is there after any crash, and what was not does no harm."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_reporter.daemon.journal import HEADER, Files, Journal
from agent_reporter.errors import SpoolError
from tests.blocking import no_blocking_calls
from tests.builders import needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator


def replayed(directory: Path) -> dict[str, dict[str, Any]]:
    """What a daemon finds that starts now; the journal is left to the next one."""
    journal = Journal(directory)
    try:
        return journal.replay()
    finally:
        asyncio.run(journal.close())


async def opened(directory: Path, **options: Any) -> Journal:
    journal = Journal(directory, **options)
    await asyncio.to_thread(journal.replay)
    await journal.start()
    return journal


def segments(directory: Path) -> list[Path]:
    return sorted(directory.glob("journal.[0-9]*"), key=lambda path: int(path.suffix[1:]))


async def test_what_was_appended_is_found_merged_in_order(tmp_path: Path) -> None:
    with no_blocking_calls():
        journal = await opened(tmp_path)
        await journal.append("a", {"bytes": 1, "state": "queued"})
        await journal.append("b", {"bytes": 7})
        await journal.append("a", {"bytes": 2})
        await journal.close()
    expected = {"a": {"bytes": 2, "state": "queued"}, "b": {"bytes": 7}}
    assert await asyncio.to_thread(replayed, tmp_path) == expected


async def test_what_is_appended_together_is_synced_together(tmp_path: Path) -> None:
    class Counting(Files):
        syncs = 0

        def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]  # it counts for this test
            self.syncs += 1
            os.fdatasync(descriptor)

    files = Counting()
    journal = await opened(tmp_path, files=files)
    before = files.syncs
    await asyncio.gather(*(journal.append(str(number % 100), {"bytes": number}) for number in range(2_000)))
    await journal.close()
    print(f"\n2,000 lines in {files.syncs - before} syncs")
    assert files.syncs - before < 200
    assert len(await asyncio.to_thread(replayed, tmp_path)) == 100


async def test_a_line_is_written_though_whoever_appended_it_has_left(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    task = asyncio.create_task(journal.append("a", {"bytes": 1}))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await journal.close()
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"bytes": 1}}


async def test_segments_that_are_not_needed_go(tmp_path: Path) -> None:
    journal = await opened(tmp_path, segment_bytes=100)
    assert not journal.wants_rotation
    await journal.append("a", {"text": "x" * 200})
    assert journal.wants_rotation
    number = await journal.rotate()
    await journal.append("b", {"bytes": 1})
    assert len(segments(tmp_path)) == 2
    await journal.forget(number)
    assert not journal.wants_rotation
    await journal.close()
    assert await asyncio.to_thread(replayed, tmp_path) == {"b": {"bytes": 1}}


async def test_a_journal_has_one_owner(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    with pytest.raises(SpoolError, match="another daemon works in this spool"):
        await asyncio.to_thread(Journal(tmp_path).replay)
    await journal.close()
    assert await asyncio.to_thread(replayed, tmp_path) == {}


async def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    await journal.close()
    with pytest.raises(SpoolError, match="the daemon ends"):
        await journal.append("a", {})
    with pytest.raises(SpoolError):
        await journal.rotate()


async def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="cannot be used"):
        await asyncio.to_thread(Journal(tmp_path / "file" / "spool").replay)


# --- what is on the disk --------------------------------------------------------------------------------------

ids = st.sampled_from("abc")
changes = st.dictionaries(
    st.sampled_from(["bytes", "files", "text"]), st.integers(0, 9) | st.text(max_size=3)
)
acts = st.lists(st.tuples(ids, changes) | st.just("rotate"), max_size=12)


@settings(deadline=None, max_examples=60)
@given(acts, st.data())
def test_after_a_crash_at_any_byte_there_is_a_prefix_with_all_that_was_acknowledged(
    done: list[Any], data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        lines = asyncio.run(_do(directory, done))
        last = segments(directory)[-1]
        size = last.stat().st_size
        kept = data.draw(st.integers(0, size))
        os.truncate(last, kept)
        survived = max(number for number, (path, end) in enumerate(lines) if path != last or end <= kept)
        merged: dict[str, dict[str, Any]] = {}
        for restore_id, change in [act for act in done if act != "rotate"][:survived]:
            merged.setdefault(restore_id, {}).update(change)
        assert replayed(directory) == merged
        assert replayed(directory) == merged


async def _do(directory: Path, done: list[Any]) -> list[tuple[Path | None, int]]:
    """Do it, and return after each line which segment it is in and where it ends; the first is no line."""
    journal = await opened(directory)
    ends: list[tuple[Path | None, int]] = [(None, 0)]
    for act in done:
        if act == "rotate":
            await journal.rotate()
        else:
            await journal.append(*act)
            last = segments(directory)[-1]
            ends.append((last, last.stat().st_size))
    await journal.close()
    return ends


@pytest.mark.parametrize("garbage", [b"", b"agent", b"something else\n", HEADER + b"torn", b"\0" * 4096])
async def test_a_segment_that_is_none_does_not_stop_a_start(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "journal.3").write_bytes(garbage)
    journal = await opened(tmp_path)
    await journal.append("a", {"bytes": 1})
    await journal.close()
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"bytes": 1}}


async def test_a_damaged_segment_counts_up_to_the_damage_and_is_set_aside(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    for number in range(3):
        await journal.append(str(number), {"bytes": number})
    await journal.close()
    (segment,) = segments(tmp_path)
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"1", b"9", 1)
    segment.write_bytes(b"".join(lines))
    assert await asyncio.to_thread(replayed, tmp_path) == {"0": {"bytes": 0}}
    assert segments(tmp_path) == []
    assert [path.name.rpartition(".")[0] for path in (tmp_path / "aside").iterdir()] == [segment.name]


async def test_every_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    journal = await opened(tmp_path / "spool")
    await journal.append("a", {})
    await journal.close()
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "spool").iterdir()} == {0o600}
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


# --- what can go wrong ----------------------------------------------------------------------------------------


class Failing(Files):
    """Fails as often as it is told to, and writes little at a time."""

    def __init__(self) -> None:
        self.writes: list[int] = []
        self.syncs: list[int] = []
        self.at_once = 1 << 20

    def write(self, descriptor: int, content: memoryview | bytes) -> int:  # type: ignore[override]  # it fails
        if self.writes:
            os.write(descriptor, bytes(content)[: len(content) // 2])
            raise OSError(self.writes.pop(), "as the test wants")
        return os.write(descriptor, bytes(content)[: self.at_once])

    def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]  # it fails
        if self.syncs:
            raise OSError(self.syncs.pop(), "as the test wants")
        os.fdatasync(descriptor)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("where", ["writes", "syncs"])
async def test_what_cannot_be_kept_is_said_and_what_was_kept_stays(
    tmp_path: Path, where: str, number: int
) -> None:
    files = Failing()
    journal = await opened(tmp_path, files=files)
    await journal.append("a", {"bytes": 1})
    getattr(files, where).append(number)
    with pytest.raises(SpoolError, match=r"cannot be written.*(Free some space|Look at the disk)"):
        await journal.append("a", {"bytes": 2})
    await journal.append("b", {"bytes": 3})
    await journal.close()
    found = await asyncio.to_thread(replayed, tmp_path)
    assert found == {"a": {"bytes": 1}, "b": {"bytes": 3}}


async def test_writes_that_take_little_make_whole_lines(tmp_path: Path) -> None:
    files = Failing()
    files.at_once = 3
    journal = await opened(tmp_path, files=files)
    await journal.append("a", {"text": "x" * 100})
    await journal.close()
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"text": "x" * 100}}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@needs_root
async def test_on_a_disk_that_is_really_full_nothing_is_lost_and_it_goes_on_afterwards(
    small_disk: Path,
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 100_000)
    journal = await opened(small_disk / "spool")
    kept = 0
    problem = ""
    while not problem:
        try:
            await journal.append("a", {"bytes": kept, "text": "x" * 1_000})
        except SpoolError as full:
            problem = str(full)
        else:
            kept += 1
    assert "Free some space" in problem
    assert (await asyncio.to_thread(_read, small_disk / "spool"))["a"]["bytes"] == kept - 1
    ballast.unlink()
    await journal.append("a", {"bytes": kept})
    await journal.close()
    assert (await asyncio.to_thread(replayed, small_disk / "spool"))["a"]["bytes"] == kept


def _read(directory: Path) -> dict[str, dict[str, Any]]:
    """What the segments hold, though their owner lives."""
    journal = Journal(directory)
    journal._own = lambda: None  # type: ignore[method-assign]  # it is only looked at
    return journal.replay()


APPENDING = """
import asyncio, sys
from pathlib import Path
from agent_reporter.daemon.journal import Journal

async def main():
    journal = Journal(Path(sys.argv[1]), segment_bytes=20_000)
    journal.replay()
    await journal.start()
    async def engine(name):
        for number in range(1_000_000):
            await journal.append(name, {"bytes": number})
            print(name, number, flush=True)
            if journal.wants_rotation:
                await journal.rotate()
    await asyncio.gather(*(engine(name) for name in "abcdefgh"))

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 500, 3_000])
def test_after_a_kill_all_that_was_acknowledged_is_there(tmp_path: Path, lines: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", APPENDING, tmp_path],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout is not None
    acknowledged: dict[str, int] = {}
    for _ in range(lines):
        name, number = child.stdout.readline().split()
        acknowledged[name] = int(number)
    child.send_signal(signal.SIGKILL)
    rest, _ = child.communicate()
    for line in rest.splitlines(keepends=True):
        if line.endswith("\n"):
            name, number = line.split()
            acknowledged[name] = int(number)
    found = replayed(tmp_path)
    for name, count in acknowledged.items():
        assert found[name]["bytes"] >= count
