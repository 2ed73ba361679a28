"""The journal: what was acknowledged is there after any crash, and what was not does no harm."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent_reporter.daemon import journal as journal_module
from agent_reporter.daemon import journal_lines
from agent_reporter.daemon.journal import Files, Journal
from agent_reporter.daemon.journal_lines import HEADER, READINGS, lines_of
from agent_reporter.durable import sync_directory
from agent_reporter.errors import SpoolError
from agent_reporter.spool import Spool
from tests.blocking import no_blocking_calls
from tests.builders import fill, tiny_disk

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


def replayed(directory: Path) -> dict[str, dict[str, Any]]:
    """What a daemon finds that starts now; the journal is left to the next one."""
    journal = Journal(directory)
    try:
        return journal.replay()
    finally:
        asyncio.run(journal.close())


def replayed_beside(directory: Path) -> dict[str, dict[str, Any]]:
    """What a daemon would find if the one that has the journal were killed now."""
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(directory, copy, dirs_exist_ok=True)
        return replayed(Path(copy))


async def opened(directory: Path, **options: Any) -> Journal:
    journal = Journal(directory, **options)
    await asyncio.to_thread(journal.replay)
    await journal.start()
    return journal


async def appended(directory: Path, *lines: tuple[str, dict[str, Any]]) -> Path:
    """Have `lines` in a segment, which is returned."""
    journal = await opened(directory)
    for line in lines:
        await journal.append(*line)
    await journal.close()
    return segments(directory)[-1]


def segments(directory: Path) -> list[Path]:
    paths = (path for path in directory.glob("journal.*") if path.suffix[1:].isdigit())
    return sorted(paths, key=lambda path: int(path.suffix[1:]))


def merged(lines: list[tuple[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for restore_id, changes in lines:
        found.setdefault(restore_id, {}).update(changes)
    return found


class Gate(Files):
    """A disk that does not answer while the gate is shut."""

    def __init__(self) -> None:
        self.reached = threading.Semaphore(0)
        self.opened = threading.Event()
        self.opened.set()

    def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]  # it waits
        self.reached.release()
        assert self.opened.wait(60)
        os.fdatasync(descriptor)


# --- what is kept ---------------------------------------------------------------------------------------------


async def test_what_was_appended_is_found_merged_in_order(tmp_path: Path) -> None:
    with no_blocking_calls():
        journal = await opened(tmp_path)
        await journal.append("a", {"bytes": 1, "state": "queued"})
        await journal.append("b", {"bytes": 7})
        await journal.append("a", {"bytes": 2})
        await journal.forget(0)
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
    text = "x" * 160

    async def engine(name: str) -> None:
        for number in range(20):
            await journal.append(name, {"bytes_restored": number, "text": text})

    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(engine(f"r-{number}") for number in range(1_000)))
    took, used = time.perf_counter() - began, time.process_time() - used
    await journal.close()
    print(
        f"\n1,000 restores, 20,000 lines of 200 bytes: {20_000 / took:,.0f} a second, {files.syncs} syncs, "
        f"{used / 20_000 * 1e6:.0f} us of CPU each"
    )
    assert files.syncs < 2_000
    found = await asyncio.to_thread(replayed, tmp_path)
    assert [found[f"r-{number}"]["bytes_restored"] for number in range(1_000)] == [19] * 1_000


async def test_a_line_is_written_though_whoever_appended_it_has_left(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    task = asyncio.create_task(journal.append("a", {"bytes": 1}))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, journal.append("b", {"bytes": 2}), return_exceptions=True)
    await journal.close()
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"bytes": 1}, "b": {"bytes": 2}}


async def test_where_there_is_no_room_lines_stand_in_the_order_of_the_calls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "PENDING_BYTES", 100)
    files = Gate()
    journal = await opened(tmp_path, files=files)
    files.opened.clear()
    tasks = [asyncio.create_task(journal.append("a", {"number": 0}))]
    await asyncio.to_thread(files.reached.acquire)
    for number in range(1, 9):
        tasks.append(asyncio.create_task(journal.append("a", {"number": number, "text": "x" * 40})))
        await asyncio.sleep(0)
    assert journal._batch.size < 300, "more is pending than there is room for"
    make_room = journal._has_room.set

    def come_as_there_is_room() -> None:
        tasks.append(asyncio.create_task(journal.append("a", {"number": len(tasks)})))
        make_room()

    monkeypatch.setattr(journal._has_room, "set", come_as_there_is_room)
    files.opened.set()
    await asyncio.gather(*tasks)
    monkeypatch.undo()
    await asyncio.gather(*tasks)
    await journal.close()
    (segment,) = segments(tmp_path)
    lines = segment.read_bytes().splitlines()[1:]
    numbers = [json.loads(line.partition(b" ")[2])["changes"]["number"] for line in lines]
    assert numbers == list(range(len(tasks)))


async def test_segments_that_are_not_needed_go(tmp_path: Path) -> None:
    journal = await opened(tmp_path, segment_bytes=100)
    wants = [journal.wants_rotation]
    await journal.append("a", {"text": "x" * 200})
    wants.append(journal.wants_rotation)
    number = await journal.rotate()
    await journal.append("b", {"bytes": 1})
    wants.append(journal.wants_rotation)
    assert wants == [False, True, False]
    assert len(segments(tmp_path)) == 2
    await journal.forget(number)
    assert len(segments(tmp_path)) == 1
    await journal.close()
    assert await asyncio.to_thread(replayed, tmp_path) == {"b": {"bytes": 1}}


async def test_the_number_of_a_rotation_names_no_segment_that_was_begun_after_it(tmp_path: Path) -> None:
    files = Gate()
    journal = await opened(tmp_path, files=files)
    await journal.append("a", {"bytes": 1})
    await asyncio.to_thread(files.reached.acquire)
    files.opened.clear()
    before = asyncio.create_task(journal.append("a", {"bytes": 2}))
    await asyncio.to_thread(files.reached.acquire)
    rotated = asyncio.create_task(journal.rotate())
    await asyncio.sleep(0)
    files.opened.set()
    while not journal._in_hand.rotating:  # and the loop does not learn of the rotation meanwhile
        pass
    after = journal._put("b", {"bytes": 3})
    files.reached.acquire()
    await asyncio.gather(before, after)
    await journal.forget(await rotated)
    await journal.close()
    assert await asyncio.to_thread(replayed, tmp_path) == {"b": {"bytes": 3}}


async def test_a_daemon_that_had_nothing_to_keep_leaves_no_segment(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    await journal.forget(await journal.rotate())
    await journal.close()
    assert segments(tmp_path) == []


async def test_a_journal_has_one_owner(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    with pytest.raises(SpoolError, match="another daemon works in this spool"):
        await asyncio.to_thread(Journal(tmp_path).replay)
    await journal.close()
    assert await asyncio.to_thread(replayed, tmp_path) == {}


@pytest.mark.parametrize("restore_id", ["journal", "journal.1", "journal.lock"])
async def test_a_restore_may_be_called_like_the_journal(tmp_path: Path, restore_id: str) -> None:
    journal = await opened(tmp_path)
    entry = await asyncio.to_thread(Spool(tmp_path).open, restore_id)
    await journal.append(restore_id, {"bytes": 1})
    await asyncio.to_thread(entry.release)
    with pytest.raises(SpoolError, match="another daemon works in this spool"):
        await asyncio.to_thread(Journal(tmp_path).replay)
    await journal.close()
    assert await asyncio.to_thread(replayed, tmp_path) == {restore_id: {"bytes": 1}}


async def test_a_closed_journal_takes_nothing(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    await journal.close()
    await journal.close()
    with pytest.raises(SpoolError, match=r"restore a: the daemon ends.*Report again"):
        await journal.append("a", {})
    with pytest.raises(SpoolError, match="not open"):
        await journal.rotate()


async def test_a_directory_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="cannot be used"):
        await asyncio.to_thread(Journal(tmp_path / "file" / "spool").replay)


async def test_every_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    await appended(tmp_path / "spool", ("a", {}))
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "spool").iterdir()} == {0o600}
    assert (tmp_path / "spool").stat().st_mode & 0o777 == 0o700


# --- what is on the disk --------------------------------------------------------------------------------------

ids = st.sampled_from("abc")
changes = st.dictionaries(
    st.sampled_from(["bytes", "files", "text"]), st.integers(0, 9) | st.text(max_size=3)
)
some_lines = st.lists(st.tuples(ids, changes), min_size=1, max_size=4)
tails = st.sampled_from([b"", b"\n", b"torn", b"torn\n", b"two\nlines\n", b"\0" * 4096]) | st.binary(
    max_size=9
)
acts = st.lists(some_lines | st.sampled_from(["rotate", "forget"]) | tails, max_size=10)


@settings(deadline=None, max_examples=150)
@given(acts, tails, st.data())
def test_after_crashes_at_any_byte_there_is_a_prefix_with_all_that_was_acknowledged(
    done: list[Any], tail: bytes, data: st.DataObject
) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        lines = asyncio.run(_do(directory, done))
        last = segments(directory)[-1]
        content = last.read_bytes()
        ends = list(itertools.accumulate(map(len, content.splitlines(keepends=True))))[1:]
        cut = data.draw(st.integers(0, len(content)))
        left = content[:cut] + tail
        last.write_bytes(left)
        whole = next(
            (place for place, (old, new) in enumerate(zip(content, left, strict=False)) if old != new),
            len(left),
        )
        survived = len(lines) - sum(end > whole for end in ends)
        for _ in range(2):  # a start that is cut short takes nothing from the next one
            assert replayed(directory) == merged(lines[:survived])


async def _do(directory: Path, done: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    """Do it; returns the lines that are not forgotten, in order."""
    journal = await opened(directory)
    lines: list[tuple[str, dict[str, Any]]] = []
    for act in done:
        if act == "rotate":
            await journal.rotate()
        elif act == "forget":
            await journal.forget(await journal.rotate())
            lines = []
        elif isinstance(act, bytes):
            await journal.close()
            for segment in segments(directory)[-1:]:
                segment.write_bytes(segment.read_bytes() + act)
            journal = await opened(directory)
            await journal.rotate()
        else:
            await asyncio.gather(*(journal.append(*line) for line in act))
            lines += act
    await journal.append("a", {})  # so that the last segment is whole
    lines.append(("a", {}))
    await journal.close()
    return lines


@pytest.mark.parametrize(
    "garbage",
    [b"", b"agent", b"something else\n", b"agent-reporter journal 2\n", HEADER + b"torn", b"\0" * 4096],
)
async def test_a_segment_that_is_none_does_not_stop_a_start(tmp_path: Path, garbage: bytes) -> None:
    (tmp_path / "journal.3").write_bytes(garbage)
    await appended(tmp_path, ("a", {"bytes": 1}))
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"bytes": 1}}


@pytest.mark.parametrize(("tail", "is_damage"), [(b"torn", False), (b"torn\n", False), (b"x\ny\n", True)])
async def test_a_torn_last_line_is_no_damage(tmp_path: Path, tail: bytes, is_damage: bool) -> None:  # noqa: FBT001 - a case
    segment = await appended(tmp_path, ("a", {"bytes": 1}))
    segment.write_bytes(segment.read_bytes() + tail)
    journal = await opened(tmp_path)
    await journal.forget(await journal.rotate())
    await journal.close()
    assert (tmp_path / "aside").exists() == is_damage


async def test_a_segment_of_another_version_is_set_aside_unread(tmp_path: Path) -> None:
    segment = await appended(tmp_path, ("a", {"bytes": 1}))
    segment.write_bytes(segment.read_bytes().replace(b"journal 1", b"journal 2"))
    journal = Journal(tmp_path)
    assert await asyncio.to_thread(journal.replay) == {}
    await journal.start()
    await journal.forget(await journal.rotate())
    await journal.close()
    assert len(list((tmp_path / "aside").iterdir())) == 1


@pytest.mark.parametrize("name", ["journal.007", "journal.0", "journal.x", "journal.1.json", "journal.-1"])
async def test_what_is_called_otherwise_is_let_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(HEADER)
    journal = await opened(tmp_path)
    await journal.append("a", {})
    await journal.forget(await journal.rotate())
    await journal.close()
    assert (tmp_path / name).read_bytes() == HEADER
    assert segments(tmp_path) in ([], [tmp_path / name])


async def test_a_segment_follows_the_greatest_number_however_great_it_is(tmp_path: Path) -> None:
    (tmp_path / f"journal.{'9' * 18}").write_bytes(HEADER)
    await appended(tmp_path, ("a", {"bytes": 1}))
    await appended(tmp_path, ("a", {"bytes": 2}))
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"bytes": 2}}


async def test_a_damaged_segment_counts_up_to_the_damage_and_is_set_aside_when_it_is_not_needed(
    tmp_path: Path,
) -> None:
    segment = await appended(tmp_path, *((str(number), {"bytes": number}) for number in range(3)))
    lines = segment.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"1", b"9", 1)
    segment.write_bytes(b"".join(lines))
    for _ in range(2):
        assert await asyncio.to_thread(replayed, tmp_path) == {"0": {"bytes": 0}}
    journal = await opened(tmp_path)
    await journal.forget(await journal.rotate())
    await journal.close()
    assert segments(tmp_path) == []
    (aside,) = (tmp_path / "aside").iterdir()
    assert aside.read_bytes() == b"".join(lines)
    assert aside.name.startswith(segment.name)


@pytest.mark.parametrize("kind", ["directory", "FIFO", "symlink", "dangling symlink"])
async def test_a_segment_that_is_no_file_stops_neither_a_start_nor_the_forgetting_of_others(
    tmp_path: Path, kind: str
) -> None:
    directory = tmp_path / "spool"
    await appended(directory, ("a", {"bytes": 1}))
    await appended(directory, ("b", {"bytes": 2}))
    segments(directory)[0].rename(directory / "journal.3")
    wrong = directory / "journal.1"
    if kind == "directory":
        wrong.mkdir()
    elif kind == "FIFO":
        os.mkfifo(wrong)
    else:
        wrong.symlink_to(tmp_path / "elsewhere")
        if kind == "symlink":
            shutil.copy(await appended(tmp_path / "other", ("z", {})), tmp_path / "elsewhere")
    journal = Journal(directory)
    assert await asyncio.to_thread(journal.replay) == {"a": {"bytes": 1}, "b": {"bytes": 2}}
    await journal.start()
    await journal.forget(await journal.rotate())
    await journal.close()
    assert segments(directory) == []
    if kind == "symlink":
        assert (tmp_path / "elsewhere").exists()


async def test_a_segment_that_cannot_be_read_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment = await appended(tmp_path, ("a", {"bytes": 1}))
    content = segment.read_bytes()

    def fail(path: str, flags: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal_lines, "open_without_waiting", fail)
    journal = await opened(tmp_path)
    await journal.forget(await journal.rotate())
    await journal.close()
    assert [path.read_bytes() for path in (tmp_path / "aside").iterdir()] == [content]


@pytest.mark.parametrize("failures", range(READINGS))
@pytest.mark.parametrize("read", range(4))
async def test_a_segment_that_fails_to_be_read_is_read_again_from_where_it_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, read: int
) -> None:
    lines = [("a", {"bytes": number}) for number in range(3)]
    await appended(tmp_path, *lines)
    left = [failures]

    def failing(file: BinaryIO) -> Iterator[tuple[str, dict[str, Any]]]:
        for number, line in enumerate(lines_of(file)):
            if number == read and left[0]:
                break
            yield line
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(journal_lines, "lines_of", failing)
    journal = Journal(tmp_path)
    assert await asyncio.to_thread(journal.replay) == merged(lines)
    await journal.start()
    await journal.forget(await journal.rotate())
    await journal.close()
    assert not (tmp_path / "aside").exists()
    assert segments(tmp_path) == []


async def test_no_segment_goes_before_an_older_one(tmp_path: Path) -> None:
    segment = await appended(tmp_path, ("a", {"bytes": 1}))
    segment.write_bytes(segment.read_bytes() + b"damage\nand more\n")
    (tmp_path / "aside").write_text("no directory")
    journal = await opened(tmp_path)
    await journal.append("a", {"over": True})
    await journal.forget(await journal.rotate())
    await journal.close()
    assert len(segments(tmp_path)) == 2
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"bytes": 1, "over": True}}


# --- what can go wrong ----------------------------------------------------------------------------------------


class Failing(Files):
    """Fails as it is told to, a write in the middle of it; writes little at a time."""

    def __init__(self, failures: Mapping[int, int] | None = None, at_once: int = 1 << 20) -> None:
        self.failures: dict[int | str, int] = dict((failures or {}).items())
        """How a call fails: the one with that number, counted from 0, or the next one of that name."""
        self.failed: list[str] = []
        self.calls: list[str] = []
        self._at_once = at_once

    def _problem(self, name: str) -> int | None:
        problem = self.failures.pop(len(self.calls), None) or self.failures.pop(name, None)
        self.calls.append(name)
        if problem is not None:
            self.failed.append(name)
        return problem

    def _meet(self, name: str) -> None:
        if (problem := self._problem(name)) is not None:
            raise OSError(problem, os.strerror(problem))

    def open(self, path: Path, flags: int, mode: int) -> int:  # type: ignore[override]  # it fails
        self._meet("open")
        return os.open(path, flags, mode)

    def write(self, descriptor: int, content: memoryview | bytes) -> int:  # type: ignore[override]  # it fails
        if (problem := self._problem("write")) is not None:
            os.write(descriptor, bytes(content)[: len(content) // 2])
            raise OSError(problem, os.strerror(problem))
        return os.write(descriptor, bytes(content)[: self._at_once])

    def fdatasync(self, descriptor: int) -> None:  # type: ignore[override]  # it fails
        self._meet("fdatasync")
        os.fdatasync(descriptor)

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._meet("ftruncate")
        os.ftruncate(descriptor, size)

    def sync_directory(self, directory: Path) -> None:
        self._meet("sync_directory")
        sync_directory(directory)


async def test_a_line_is_acknowledged_after_it_and_the_name_of_its_segment_are_synced(tmp_path: Path) -> None:
    files = Failing()
    journal = await opened(tmp_path, files=files)
    await journal.append("a", {"bytes": 1})
    assert files.calls == ["open", "write", "sync_directory", "write", "fdatasync"]
    await journal.append("a", {"bytes": 2})
    assert files.calls[5:] == ["write", "fdatasync"]
    await journal.close()


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.integers(1, 4) | st.just("rotate"), max_size=8),
    st.dictionaries(
        st.integers(0, 25), st.sampled_from([errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EMFILE])
    ),
    st.sampled_from([7, 1 << 20]),
)
def test_whatever_fails_all_that_was_acknowledged_is_there_and_it_goes_on(
    done: list[Any], failures: dict[int, int], at_once: int
) -> None:
    files = Failing(failures, at_once)

    async def do(directory: Path) -> tuple[set[str], set[str]]:
        journal = await opened(directory, files=files)
        kept: set[str] = set()
        refused: set[str] = set()
        numbers = itertools.count()
        for act in done:
            if act == "rotate":
                await journal.rotate()
                continue
            names = [f"line {next(numbers)}" for _ in range(act)]
            results = await asyncio.gather(
                *(journal.append("a", {name: 1}) for name in names), return_exceptions=True
            )
            for name, result in zip(names, results, strict=True):
                assert result is None or isinstance(result, SpoolError)
                (kept if result is None else refused).add(name)
        files.failures = {}
        await journal.append("a", {"last": 1})
        await journal.close()
        return kept | {"last"}, refused

    with tempfile.TemporaryDirectory() as name:
        kept, refused = asyncio.run(do(Path(name)))
        found = set(replayed(Path(name))["a"])
        assert found >= kept
        if "ftruncate" not in files.failed:
            assert not found & refused


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
@pytest.mark.parametrize("where", ["write", "fdatasync"])
async def test_what_cannot_be_kept_is_said_of_each_restore(tmp_path: Path, where: str, number: int) -> None:
    files = Failing()
    journal = await opened(tmp_path, files=files)
    await journal.append("a", {"bytes": 1})
    files.failures[where] = number
    answers = await asyncio.gather(
        journal.append("a", {"bytes": 2}), journal.append("b", {"bytes": 3}), return_exceptions=True
    )
    advice = "Look at the disk" if number == errno.EIO else "Free some space"
    for restore_id, answer in zip("ab", answers, strict=True):
        assert isinstance(answer, SpoolError)
        assert str(answer).startswith(f"restore {restore_id}: ")
        assert os.strerror(number) in str(answer)
        assert advice in str(answer)
    await journal.append("b", {"bytes": 4})
    assert len(segments(tmp_path)) == (1 if where == "write" else 2), (
        "a failed sync leaves its segment for good"
    )
    await journal.close()
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"bytes": 1}, "b": {"bytes": 4}}


async def test_a_torn_line_that_cannot_be_cut_off_leaves_its_segment_for_good(tmp_path: Path) -> None:
    files = Failing()
    journal = await opened(tmp_path, files=files)
    await journal.append("a", {"bytes": 1})
    files.failures |= {"write": errno.ENOSPC, "ftruncate": errno.EIO}
    with pytest.raises(SpoolError, match=r"restore a: .*No space left"):
        await journal.append("a", {"bytes": 2})
    await journal.append("a", {"bytes": 3})
    await journal.close()
    assert len(segments(tmp_path)) == 2
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"bytes": 3}}


async def test_a_file_in_the_way_of_a_new_segment_is_in_the_way_once(tmp_path: Path) -> None:
    journal = await opened(tmp_path)
    (tmp_path / "journal.1").write_text("not ours")
    with pytest.raises(SpoolError, match="File exists"):
        await journal.append("a", {"bytes": 1})
    await journal.append("a", {"bytes": 2})
    await journal.close()
    assert (tmp_path / "journal.1").read_text() == "not ours"
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"bytes": 2}}


async def test_a_disk_that_hangs_keeps_the_segment_and_the_lock_until_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "CLOSE_SECONDS", 0.05)
    files = Gate()
    journal = await opened(tmp_path, files=files)
    files.opened.clear()
    tasks = [asyncio.create_task(journal.append("a", {"bytes": 1}))]
    await asyncio.to_thread(files.reached.acquire)
    tasks.append(asyncio.create_task(journal.append("b", {"bytes": 2})))
    await asyncio.sleep(0)
    await journal.close()
    for restore_id, answer in zip("ab", await asyncio.gather(*tasks, return_exceptions=True), strict=True):
        assert isinstance(answer, SpoolError)
        assert f"restore {restore_id}: " in str(answer)
        assert "the disk does not answer" in str(answer)
    with pytest.raises(SpoolError, match="another daemon works in this spool"):
        await asyncio.to_thread(Journal(tmp_path).replay)
    files.opened.set()
    await journal.close()
    assert journal._thread is not None
    await asyncio.to_thread(journal._thread.join)
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"bytes": 1}, "b": {"bytes": 2}}


async def test_a_journal_whose_files_do_not_close_well_ends_and_closes_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close, closed = os.close, []

    def fails_afterwards(descriptor: int) -> None:
        close(descriptor)
        closed.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    journal = await opened(tmp_path)
    await journal.append("a", {"bytes": 1})
    with monkeypatch.context() as broken:
        broken.setattr(os, "close", fails_afterwards)
        await journal.close()
        await journal.close()
    assert len(closed) == len(set(closed)) == 2  # the segment and the lock
    assert await asyncio.to_thread(replayed, tmp_path) == {"a": {"bytes": 1}}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with tiny_disk(tmp_path / "disk") as mounted:
        yield mounted


async def test_on_a_disk_that_is_really_full_nothing_is_lost_and_it_goes_on_afterwards(disk: Path) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(b"x" * 100_000)
    journal = await opened(disk / "spool")
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
    assert (await asyncio.to_thread(replayed_beside, disk / "spool"))["a"]["bytes"] == kept - 1
    ballast.unlink()
    await journal.append("a", {"bytes": kept})
    await journal.close()
    assert len(segments(disk / "spool")) == 1
    assert (await asyncio.to_thread(replayed, disk / "spool"))["a"]["bytes"] == kept


async def test_a_daemon_starts_on_a_full_disk_and_takes_reports_once_there_is_space(disk: Path) -> None:
    await appended(disk / "spool", ("a", {"bytes": 1}))
    ballast = await asyncio.to_thread(fill, disk)
    journal = await opened(disk / "spool")
    await journal.rotate()
    for _ in range(3):
        with pytest.raises(SpoolError, match=r"restore a: .*No space left.*Free some space"):
            await journal.append("a", {"bytes": 2})
    ballast.unlink()
    await journal.append("a", {"bytes": 3})
    await journal.close()
    assert len(segments(disk / "spool")) == 2, "what could not be begun was left"
    assert await asyncio.to_thread(replayed, disk / "spool") == {"a": {"bytes": 3}}


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
