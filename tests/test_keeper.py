from __future__ import annotations

import asyncio
import errno
import os
import threading
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_reporter.keeper import PROGRESS_INTERVAL, Keeper
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.client import Client, Facts
from agent_reporter.model.exchange import Ending, Exchange
from agent_reporter.model.process_identity import ProcessIdentity
from agent_reporter.model.record import Record
from agent_reporter.model.state import RestoreState
from agent_reporter.spool import Entry, Spool
from tests.blocking import no_blocking_calls
from tests.builders import START, FakeClock, a_record, a_report, a_result, fill, listening, names, tiny_disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent_reporter.model.report import Report


@pytest.fixture(autouse=True)
def _no_blocking_call_in_a_loop() -> Iterator[None]:
    with no_blocking_calls():
        yield


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "spool"


@pytest.fixture
def entry(directory: Path) -> Iterator[Entry]:
    entry = Spool(directory).open("r-1")
    yield entry
    entry.release()


@pytest.fixture
def keeper(entry: Entry, clock: FakeClock) -> Keeper:
    return Keeper(entry, a_record(), clock)


def on_disk(directory: Path) -> Record:
    return Record.decode((directory / "r-1.json").read_bytes())


def progressed(bytes_restored: int) -> Report:
    return a_report(revision=bytes_restored, bytes_restored=bytes_restored)


async def test_the_first_report_is_kept_at_once(keeper: Keeper, directory: Path) -> None:
    await keeper.keep(a_report())
    assert on_disk(directory).report == a_report()


async def test_mere_progress_is_kept_now_and_then(keeper: Keeper, directory: Path, clock: FakeClock) -> None:
    await keeper.keep(progressed(1))
    clock.pass_by(PROGRESS_INTERVAL - 0.1)
    await keeper.keep(progressed(2))
    assert on_disk(directory).report == progressed(1)
    clock.pass_by(0.1)
    await keeper.keep(progressed(3))
    assert on_disk(directory).report == progressed(3)


async def test_what_was_kept_already_is_not_written_again(
    keeper: Keeper, directory: Path, clock: FakeClock
) -> None:
    report = progressed(1)
    await keeper.keep(report)
    before = (directory / "r-1.json").stat().st_ino
    for same in (report, replace(report)):
        clock.pass_by(2 * PROGRESS_INTERVAL)
        await keeper.keep(same)
    assert (directory / "r-1.json").stat().st_ino == before


@pytest.mark.parametrize("state", [RestoreState.PREPARING, RestoreState.STOPPED])
async def test_states_and_results_are_kept_at_once(
    keeper: Keeper, directory: Path, state: RestoreState
) -> None:
    await keeper.keep(a_report(state=RestoreState.QUEUED))
    await keeper.keep(a_report(revision=2, state=state))
    assert on_disk(directory).report.state is state


async def test_a_failure_to_deliver_is_kept_at_once_so_that_the_backoff_survives(
    keeper: Keeper, directory: Path
) -> None:
    await keeper.keep(a_report())
    keeper.exchange = Exchange(attempt=1, not_before=START, failure="HTTP 503")
    await keeper.keep(a_report())
    kept = on_disk(directory).exchange
    assert (kept.attempt, kept.not_before, kept.failure) == (1, START, "HTTP 503")


async def test_the_moment_since_when_something_waits_is_kept_until_it_is_acknowledged(
    keeper: Keeper, directory: Path, clock: FakeClock
) -> None:
    await keeper.keep(progressed(1))
    clock.pass_by(60)
    await keeper.keep(progressed(2))
    assert on_disk(directory).undelivered_since == START
    keeper.exchange = Exchange(acknowledged=Acknowledged(revision=2))
    clock.pass_by(60)
    await keeper.keep(progressed(2))
    await keeper.keep(progressed(3))
    clock.pass_by(PROGRESS_INTERVAL)
    await keeper.keep(progressed(4))
    assert on_disk(directory).undelivered_since == START + timedelta(seconds=120)


def test_a_result_is_kept_in_the_thread_that_states_it(keeper: Keeper, directory: Path) -> None:
    assert keeper.keep_result(a_result()) == ""
    assert on_disk(directory).report == a_result()


def test_a_result_without_a_spool_is_not_said_to_be_kept(clock: FakeClock) -> None:
    assert Keeper(None, a_record(), clock).keep_result(a_result()) == "there is no spool"


def test_a_result_after_the_entry_was_released_is_not_said_to_be_kept(keeper: Keeper, entry: Entry) -> None:
    entry.release()
    with listening() as heard:
        problem = keeper.keep_result(a_result())
    assert problem.startswith("restore r-1: it is not ours any more")
    (event,) = heard.named("spool.write_failed")
    assert (event["restore_id"], event["problem"]) == ("r-1", problem)


async def test_without_a_spool_everything_else_goes_on_in_memory(clock: FakeClock) -> None:
    keeper = Keeper(None, a_record(), clock)
    await keeper.keep(a_report())
    await keeper.settle(a_result(), Ending.GONE)
    await keeper.release()


async def test_a_disk_that_is_full_is_tried_again_later_and_said_each_time(
    tmp_path: Path, clock: FakeClock
) -> None:
    with tiny_disk(tmp_path / "disk") as disk, listening() as heard:
        entry = await asyncio.to_thread(Spool(disk).open, "r-1")
        keeper = Keeper(entry, a_record(), clock)
        ballast = fill(disk)
        await keeper.keep(progressed(1))
        await keeper.keep(progressed(2))
        assert len(heard.named("spool.write_failed")) == 1
        assert not (disk / "r-1.json").exists()
        clock.pass_by(PROGRESS_INTERVAL)
        await keeper.keep(progressed(3))
        assert len(heard.named("spool.write_failed")) == 2
        assert await asyncio.to_thread(keeper.keep_result, a_result()) == "", "out of the reserve"
        ballast.unlink()
        clock.pass_by(PROGRESS_INTERVAL)
        await keeper.keep(a_result())
        assert on_disk(disk).report == a_result()
        assert len(heard.named("spool.write_failed")) == 2
        assert all("cannot be written" in event["problem"] for event in heard.named("spool.write_failed"))
        await asyncio.to_thread(entry.release)


async def test_a_restore_that_was_delivered_is_forgotten(keeper: Keeper, directory: Path) -> None:
    await keeper.keep(a_result())
    await keeper.settle(a_result(), Ending.DELIVERED)
    assert names(directory) == ["aside", "dead"]
    assert names(directory / "dead") == []


async def test_a_record_that_cannot_be_cleared_up_is_left_to_who_looks_for_orphans(
    keeper: Keeper, clock: FakeClock, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keeper.keep(a_result())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _read_only)
        await keeper.settle(a_result(), Ending.DELIVERED)
    began = clock.elapsed
    await keeper.settle_at_last()
    assert clock.elapsed == began, "nothing is left for us to do"
    assert "r-1.json" in names(directory)
    (orphan,) = await asyncio.to_thread(lambda: list(Spool(directory).orphans()))
    await asyncio.to_thread(orphan.release)


async def test_a_dead_letter_whose_end_is_nowhere_is_held_on_to_so_that_nobody_takes_it_for_lost(
    keeper: Keeper, entry: Entry, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await keeper.keep(a_report())
    with monkeypatch.context() as patch, listening() as heard:
        patch.setattr(Path, "replace", _read_only)
        await keeper.settle(a_result(), Ending.GONE)
        (written,), (cleared,) = heard.named("spool.write_failed"), heard.named("spool.clearing_failed")
        assert "r-1.json cannot be written" in written["problem"]
        assert "Read-only file system" in cleared["problem"]
    assert on_disk(directory).report == a_report()
    assert await asyncio.to_thread(lambda: list(Spool(directory).orphans())) == []


@pytest.mark.parametrize(("ending", "left"), [(Ending.DELIVERED, []), (Ending.GONE, ["r-1.json"])])
async def test_what_a_broken_disk_did_not_let_us_settle_is_settled_when_it_is_well(
    keeper: Keeper, directory: Path, monkeypatch: pytest.MonkeyPatch, ending: Ending, left: list[str]
) -> None:
    await keeper.keep(a_report())
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", _read_only)
        patch.setattr(Path, "replace", _read_only)
        await keeper.settle(a_result(), ending)
        assert "r-1.json" in names(directory)
    await keeper.settle_at_last()
    assert names(directory) == ["aside", "dead"]
    assert names(directory / "dead") == left


def _read_only(path: Path, *_: object, **_options: object) -> None:
    raise OSError(errno.EROFS, "Read-only file system", str(path))


@pytest.mark.parametrize("ending", [ending for ending in Ending if not ending.loses_nothing])
async def test_every_other_end_leaves_a_dead_letter_with_the_result_and_why(
    keeper: Keeper, directory: Path, ending: Ending
) -> None:
    await keeper.keep(a_report())
    keeper.exchange = Exchange(ending=ending, failure="HTTP 404")
    await keeper.settle(a_result(), ending)
    assert names(directory) == ["aside", "dead"]
    record = Record.decode((directory / "dead" / "r-1.json").read_bytes())
    assert (record.report, record.exchange.ending, record.exchange.failure) == (
        a_result(),
        ending,
        "HTTP 404",
    )


async def test_what_was_kept_becomes_the_dead_letter_where_the_disk_takes_no_more(
    tmp_path: Path, clock: FakeClock
) -> None:
    with tiny_disk(tmp_path / "disk") as disk, listening() as heard:
        entry = await asyncio.to_thread(Spool(disk).open, "r-1")
        keeper = Keeper(entry, a_record(), clock)
        await keeper.keep(a_report())
        fill(disk)
        await keeper.settle(a_report(revision=2), Ending.GONE)
        assert Record.decode((disk / "dead" / "r-1.json").read_bytes()).report == a_report()
        assert heard.named("spool.write_failed")


async def test_the_engine_is_named_in_the_record_once_it_is_known(keeper: Keeper, directory: Path) -> None:
    engine = ProcessIdentity(4711, 5, "boot")
    await keeper.keep(a_report())
    await keeper.name_engine(engine, a_report())
    assert on_disk(directory).engine == engine
    assert on_disk(directory).report == a_report()


async def test_the_daemon_is_told_which_processes_a_restore_ends_with_and_how_much_there_is(
    clock: FakeClock,
) -> None:
    keeper = Keeper(None, a_record(), clock)
    going = a_report(total_bytes=500, total_files=7)
    assert keeper.facts(going) == Facts((os.getpid(),), 500, 7)
    for pid in (1, 4_000_000):
        await keeper.name_engine(ProcessIdentity(pid, 5, "boot"), going)
        assert keeper.facts(going) == Facts(tuple(sorted([pid, os.getpid()])), 500, 7)
    assert keeper.facts(a_result()) == Facts(()), "it is over: nothing more ends it"


async def test_what_waits_for_the_disk_does_so_in_threads_that_are_named_after_it(
    directory: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for name in ("write", "discard", "bury", "release"):
        real = getattr(Entry, name)

        def note(*arguments: object, real: Callable[..., None] = real) -> None:
            seen.append(threading.current_thread().name)
            real(*arguments)

        monkeypatch.setattr(Entry, name, note)
    for end in (Ending.DELIVERED, Ending.GONE, None):
        keeper = Keeper(await asyncio.to_thread(Spool(directory).open, "r-1"), a_record(), clock)
        await keeper.keep(a_report())
        await (keeper.release() if end is None else keeper.settle(a_result(), end))
    assert seen == [
        *("spool-write", "spool-discard"),
        *("spool-write", "spool-write", "spool-bury"),
        *("spool-write", "spool-release"),
    ]


async def test_no_more_records_are_written_at_once_than_the_process_may(
    directory: Path, clock: FakeClock
) -> None:
    writes = asyncio.Semaphore(1)
    entry = await asyncio.to_thread(Spool(directory).open, "r-1")
    keeper = Keeper(entry, a_record(), clock, writes)
    async with writes:
        keeping = asyncio.create_task(keeper.keep(a_report()))
        await asyncio.sleep(0.02)
        assert not (directory / "r-1.json").exists()
    await keeping
    assert on_disk(directory).report == a_report()
    await keeper.release()


async def test_a_record_says_whom_it_belongs_to_and_who_reports_it(
    directory: Path, entry: Entry, clock: FakeClock
) -> None:
    record = a_record(client=Client(1000), engine=ProcessIdentity(7, 5, "boot"), undelivered_since=START)
    keeper = Keeper(entry, record, clock)
    await keeper.keep(a_report())
    assert on_disk(directory) == record
    assert keeper.client == Client(1000)


async def test_what_the_control_plane_took_is_kept_with_the_next_progress(
    keeper: Keeper, directory: Path, clock: FakeClock
) -> None:
    await keeper.keep(a_report())
    keeper.exchange = Exchange(acknowledged=Acknowledged(revision=1))
    await keeper.keep(a_report())
    assert on_disk(directory).exchange.acknowledged is None
    clock.pass_by(PROGRESS_INTERVAL)
    await keeper.keep(a_report())
    assert on_disk(directory).exchange.acknowledged == Acknowledged(revision=1)


async def test_an_end_of_the_delivery_is_kept_at_once(keeper: Keeper, directory: Path) -> None:
    await keeper.keep(a_report())
    keeper.exchange = Exchange(ending=Ending.GONE)
    await keeper.keep(a_report())
    assert on_disk(directory).exchange.ending is Ending.GONE


async def test_what_was_acknowledged_up_to_the_last_revision_waits_for_nothing(
    keeper: Keeper, clock: FakeClock
) -> None:
    await keeper.keep(a_report(revision=3))
    waits_since = clock.now()
    for acknowledged, since in ((2, waits_since), (3, None), (4, None)):
        clock.pass_by(1)
        keeper.exchange = Exchange(acknowledged=Acknowledged(revision=acknowledged))
        await keeper.keep(a_report(revision=3))
        assert keeper.undelivered_since == since


async def test_a_record_that_is_released_stays_for_whoever_comes_next(
    keeper: Keeper, directory: Path
) -> None:
    await keeper.keep(a_report())
    await keeper.release()
    assert names(directory) == ["aside", "dead", "r-1.json"]
    (orphan,) = await asyncio.to_thread(lambda: list(Spool(directory).orphans()))
    assert orphan.record is not None
    again = Keeper(orphan, orphan.record, FakeClock())
    assert again.exchange == orphan.record.exchange
    await asyncio.to_thread(orphan.release)
