"""The reporter for engines without an event loop."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_reporter import (
    ConfigurationError,
    InvalidRestoreIdError,
    Reporter,
    RestoreBusyError,
    StopRequested,
)

if TYPE_CHECKING:
    from agent_reporter import BackgroundReporter, Job
    from tests.delivery.conftest import Log, Rig


async def test_an_engine_in_a_thread_reports_as_one_in_a_loop_does(rig: Rig, log: Log) -> None:
    restore_id = rig.server.start_restore()

    def engine() -> Job:
        with Reporter.in_background(rig.settings(), clock=rig.clock) as reporter:
            with reporter.restore(restore_id) as job:
                job.queued()
                job.start(total_bytes=1_000)
                for _ in range(100):
                    job.advance(bytes=10, files=1)
                job.error(path="/etc/passwd", type="no_access", code=13)
            assert job.wait_delivered(10)
        return job

    job = await asyncio.to_thread(engine)
    document = rig.server.document(restore_id)
    assert document["state"] == job.state.value == "completed_with_errors"
    assert (document["bytes_restored"], document["files_restored"]) == (1_000, 100)
    rig.assert_truthful(restore_id)
    log.assert_no_bug_of_ours()
    assert "agent-reporter" not in [thread.name for thread in threading.enumerate()]


async def test_what_is_wrong_with_the_settings_reaches_the_caller(rig: Rig) -> None:
    def start(**changes: object) -> None:
        with Reporter.in_background(rig.settings(**changes), clock=rig.clock):
            pytest.fail("it started")

    with pytest.raises(ConfigurationError, match="endpoint is not set"):
        await asyncio.to_thread(start, endpoint="")
    with pytest.raises(ConfigurationError, match="nothing to sign in with"):
        await asyncio.to_thread(start, token_file=None)
    with pytest.raises(ConfigurationError, match="ca_file"):
        await asyncio.to_thread(start, ca_file=Path("/nowhere/ca.pem"))


async def test_what_is_wrong_with_a_restore_reaches_the_caller(rig: Rig) -> None:
    restore_id = rig.server.start_restore()

    def engine() -> None:
        with Reporter.in_background(rig.settings(), clock=rig.clock) as reporter:
            with pytest.raises(InvalidRestoreIdError), reporter.restore("../etc"):
                pytest.fail("it was opened")
            with (
                reporter.restore(restore_id),
                pytest.raises(RestoreBusyError, match=restore_id),
                reporter.restore(restore_id),
            ):
                pytest.fail("it was opened twice")
            with pytest.raises(ZeroDivisionError), reporter.restore(broken):
                raise ZeroDivisionError

    broken = rig.server.start_restore()
    await asyncio.to_thread(engine)
    assert rig.server.document(restore_id)["state"] == "completed"
    assert rig.server.document(broken)["state"] == "failed"


async def test_an_exception_of_the_engine_ends_the_reporter_after_its_drain(rig: Rig) -> None:
    restore_id = rig.server.start_restore()

    def engine() -> None:
        with (
            Reporter.in_background(rig.settings(), clock=rig.clock) as reporter,
            reporter.restore(restore_id),
        ):
            raise RuntimeError("the engine broke")

    with pytest.raises(RuntimeError, match="the engine broke"):
        await asyncio.to_thread(engine)
    assert rig.server.document(restore_id)["state"] == "failed"


async def test_several_restores_at_once_from_several_threads(rig: Rig) -> None:
    restore_ids = [rig.server.start_restore() for _ in range(6)]

    def restore_one(reporter: BackgroundReporter, restore_id: str, count: int) -> None:
        with reporter.restore(restore_id) as job:
            job.start()
            for number in range(1, count + 1):
                job.progress(bytes_restored=number)
        assert job.wait_delivered(10)

    def host() -> None:
        with Reporter.in_background(rig.settings(), clock=rig.clock) as reporter:
            engines = [
                threading.Thread(target=restore_one, args=(reporter, restore_id, 1_000 * (number + 1)))
                for number, restore_id in enumerate(restore_ids)
            ]
            for engine in engines:
                engine.start()
            for engine in engines:
                engine.join()

    await asyncio.to_thread(host)
    documents = [rig.server.document(restore_id) for restore_id in restore_ids]
    assert {document["state"] for document in documents} == {"completed"}
    assert [document["bytes_restored"] for document in documents] == [1_000 * n for n in range(1, 7)]


async def test_a_stop_is_seen_by_an_engine_in_a_thread(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    stopped, called = threading.Event(), threading.Event()

    def engine() -> None:
        with (
            Reporter.in_background(rig.settings(), clock=rig.clock) as reporter,
            reporter.restore(restore_id) as job,
        ):
            job.on_stop(called.set)
            job.start()
            assert called.wait(10)
            with pytest.raises(StopRequested):
                job.raise_if_stop_requested()
            stopped.set()
            job.raise_if_stop_requested()

    running = asyncio.create_task(asyncio.to_thread(engine))
    await rig.until_state(restore_id, "in_progress")
    rig.server.request_stop(restore_id)
    await running
    assert stopped.is_set()
    assert rig.server.document(restore_id)["state"] == "stopped"
    assert rig.server.erased_stops(restore_id) == 0


async def test_the_drain_of_a_background_reporter_leaves_what_it_cannot_deliver(rig: Rig) -> None:
    restore_id = rig.server.start_restore()
    rig.server.add_fault({"status": 503}, times=99_999)

    def engine() -> None:
        settings = rig.settings(drain_timeout=10.0)
        with Reporter.in_background(settings, clock=rig.clock) as reporter:
            with reporter.restore(restore_id) as job:
                job.start()
            assert not job.wait_delivered(0.01)

    await asyncio.to_thread(engine)
    (left,) = await rig.waiting()
    assert left.report.state.value == "completed"
