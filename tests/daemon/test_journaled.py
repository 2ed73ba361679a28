"""The record of a restore in the journal: what was acknowledged can be read again, whatever failed beside it."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent_reporter.daemon.journal import Files, Journal
from agent_reporter.daemon.journaled import JournaledKeeper
from agent_reporter.daemon.left_behind import brought_together
from agent_reporter.errors import SpoolError
from agent_reporter.model.client import Client
from agent_reporter.model.state import RestoreState
from agent_reporter.spool import Spool
from tests.builders import FakeClock, a_record, a_report

if TYPE_CHECKING:
    from pathlib import Path

    from agent_reporter.model.record import Record

FIRST = a_report("r-1", revision=1)
SECOND = replace(FIRST, revision=2, bytes_restored=7)
CLIENT = Client(1000)


class Held(Files):
    """The first line of a restore waits to be written, and finds the disk full."""

    def __init__(self) -> None:
        self.reached, self.go = threading.Event(), threading.Event()
        self.is_full = True

    def write(self, descriptor: int, content: memoryview | bytes) -> int:  # type: ignore[override]  # it fails
        if self.is_full and b"r-1" in bytes(content):
            self.reached.set()
            self.go.wait(10)
            self.is_full = False
            raise OSError(errno.ENOSPC, "No space left on device")
        return os.write(descriptor, content)


async def keeper_of(directory: Path, files: Files | None = None) -> tuple[JournaledKeeper, Journal]:
    journal = Journal(directory, files=files)
    await asyncio.to_thread(journal.replay)
    await journal.start()
    entry = await asyncio.to_thread(Spool(directory).open, "r-1")
    return JournaledKeeper(entry, a_record(FIRST), FakeClock(), journal), journal


async def left(directory: Path) -> Record | None:
    """What the next daemon finds."""
    journal = Journal(directory)
    lines = await asyncio.to_thread(journal.replay)
    await journal.close()
    return brought_together(None, lines.get("r-1", {}))


async def test_a_report_that_was_taken_beside_one_that_failed_is_whole(tmp_path: Path) -> None:
    files = Held()
    keeper, journal = await keeper_of(tmp_path, files)
    first = asyncio.create_task(keeper.take(FIRST, CLIENT))
    await asyncio.to_thread(files.reached.wait)
    second = asyncio.create_task(keeper.take(SECOND, CLIENT))
    await asyncio.sleep(0)
    files.go.set()
    failed, taken = await asyncio.gather(first, second, return_exceptions=True)
    assert isinstance(failed, SpoolError)
    assert taken is None
    await journal.close()
    record = await left(tmp_path)
    assert record is not None
    assert (record.report, record.client) == (SECOND, CLIENT)


async def test_the_same_report_again_is_not_taken_before_it_is_durable(tmp_path: Path) -> None:
    files = Held()
    keeper, journal = await keeper_of(tmp_path, files)
    first = asyncio.create_task(keeper.take(FIRST, CLIENT))
    await asyncio.to_thread(files.reached.wait)
    again = asyncio.create_task(keeper.take(FIRST, CLIENT))
    await asyncio.sleep(0)
    assert not again.done()
    files.go.set()
    await asyncio.gather(first, again, return_exceptions=True)
    assert again.exception() is None
    await journal.close()
    record = await left(tmp_path)
    assert record is not None
    assert record.report == FIRST


async def test_what_follows_is_told_as_a_change(tmp_path: Path) -> None:
    keeper, journal = await keeper_of(tmp_path)
    await keeper.take(FIRST, CLIENT)
    before = (tmp_path / "journal.1").stat().st_size
    await keeper.take(SECOND, CLIENT)
    assert (tmp_path / "journal.1").stat().st_size - before < 100
    await journal.close()
    record = await left(tmp_path)
    assert record is not None
    assert record.report == SECOND


async def test_a_result_that_the_journal_has_no_room_for_is_in_the_spool(tmp_path: Path) -> None:
    files = Held()
    files.go.set()
    keeper, journal = await keeper_of(tmp_path, files)
    result = replace(SECOND, state=RestoreState.FAILED)
    await keeper.take(result, CLIENT)
    await journal.close()
    await keeper.release()
    (listed,) = await asyncio.to_thread(Spool(tmp_path).listing)
    assert listed.record is not None
    assert listed.record.report == result


async def test_a_report_that_is_no_result_is_refused_where_there_is_no_room(tmp_path: Path) -> None:
    files = Held()
    files.go.set()
    keeper, journal = await keeper_of(tmp_path, files)
    with pytest.raises(SpoolError, match="Free some space"):
        await keeper.take(SECOND, CLIENT)
    await keeper.take(SECOND, CLIENT)
    await journal.close()
