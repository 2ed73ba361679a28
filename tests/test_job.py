from __future__ import annotations

import asyncio
import json
import math
import sys
import threading
import tracemalloc
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter.errors import StopRequested
from agent_reporter.job import Job
from agent_reporter.model.error_log import (
    DEFAULT_MAX_RECORDS,
    MAX_DESCRIPTION,
    MAX_PATH,
    PARTIAL,
    ErrorRecord,
    Errors,
)
from agent_reporter.model.exchange import Ending
from agent_reporter.model.report import Report
from agent_reporter.model.state import TRANSITIONS, RestoreState, may_follow
from tests.blocking import no_blocking_calls
from tests.builders import START, FakeClock, Heard, a_report, listening, python

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ID = "restore-4711"
MEGABYTE = 1_000_000


@pytest.fixture(autouse=True)
def _no_blocking_call_in_a_loop() -> Iterator[None]:
    with no_blocking_calls():
        yield


@pytest.fixture
def heard() -> Iterator[Heard]:
    with listening() as ears:
        yield ears


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def job(clock: FakeClock) -> Job:
    return Job(Report(ID), clock.now)


class Ear:
    """A listener that remembers."""

    def __init__(self, *, durable: bool = True) -> None:
        self.wakes: list[bool] = []
        self.results: list[Report] = []
        self.calls: list[str] = []
        self.durable = durable

    def wake(self, *, urgent: bool) -> None:
        self.wakes.append(urgent)
        self.calls.append("wake")

    def keep_result(self, report: Report) -> bool:
        self.results.append(report)
        self.calls.append("keep_result")
        return self.durable


class Nasty:
    """An object that cannot even be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("not to be shown")


def in_threads(count: int, work: Callable[[int], object]) -> None:
    barrier = threading.Barrier(count)
    problems: list[BaseException] = []

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as problem:  # noqa: BLE001 - whatever it is, the test is to fail of it
            problems.append(problem)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []


def assert_misuse(heard: Heard) -> None:
    """A call was logged as an error that names the restore."""
    (event,) = heard.events
    assert (event["event"], event["level"], event["restore_id"]) == ("job.misuse", "error", ID)
    assert f"restore {ID}" in event["problem"]
    assert "changed nothing" in event["problem"]


# --- counters ---------------------------------------------------------------------------------------------


def test_a_job_that_nothing_was_stated_of_has_nothing_to_report(job: Job) -> None:
    report = job.take_report()
    assert report == Report(ID)
    assert job.take_report() is report
    assert (job.state, job.is_live, job.awaits_stop, job.ending) == ("start_requested", True, True, None)


def test_progress_states_how_much_there_is_in_all(job: Job) -> None:
    job.progress(bytes_restored=100, files_restored=2)
    job.progress(bytes_restored=300)
    job.progress(files_restored=5)
    report = job.take_report()
    assert (report.bytes_restored, report.files_restored) == (300, 5)


def test_progress_that_is_less_than_before_is_ignored(job: Job, heard: Heard) -> None:
    job.progress(bytes_restored=300, files_restored=5)
    before = job.take_report()
    job.progress(bytes_restored=299, files_restored=4)
    assert job.take_report() is before
    assert heard.events == []


def test_advance_adds_to_what_was_there(job: Job) -> None:
    job.advance(bytes=10)
    job.advance(bytes=5, files=1)
    job.advance()
    report = job.take_report()
    assert (report.bytes_restored, report.files_restored) == (15, 1)


def test_advance_goes_on_from_where_progress_says_that_it_starts(job: Job) -> None:
    job.progress(bytes_restored=1000)
    job.advance(bytes=10)
    assert job.take_report().bytes_restored == 1010


def test_a_job_goes_on_from_the_report_of_an_earlier_process(clock: FakeClock) -> None:
    earlier = a_report(
        ID,
        revision=7,
        bytes_restored=500,
        files_restored=3,
        errors=Errors(9, "", "", (ErrorRecord("/a", "type"),)),
    )
    job = Job(earlier, clock.now)
    assert job.take_report() is earlier
    job.progress(bytes_restored=400)
    assert job.take_report() is earlier
    job.advance(bytes=1, files=1)
    job.error(path="/a", type="type")
    report = job.take_report()
    assert (report.bytes_restored, report.files_restored) == (501, 4)
    assert (report.errors.count, len(report.errors.records)) == (10, 1)
    assert report.revision > 7
    assert report.started_time == START


def test_increments_from_eight_threads_are_exact(job: Job) -> None:
    def work(_number: int) -> None:
        for _ in range(20_000):
            job.advance(bytes=3, files=1)

    in_threads(8, work)
    report = job.take_report()
    assert (report.bytes_restored, report.files_restored) == (8 * 20_000 * 3, 8 * 20_000)


def test_increments_are_exact_while_reports_are_taken_all_the_time(job: Job) -> None:
    seen: list[int] = []

    def work(number: int) -> None:
        for _ in range(4000):
            if number == 0:
                seen.append(job.take_report().bytes_restored)
            else:
                job.advance(bytes=1)

    in_threads(8, work)
    assert job.take_report().bytes_restored == 7 * 4000
    assert seen == sorted(seen)


def test_increments_of_threads_that_come_and_go_are_exact_and_take_no_memory(job: Job) -> None:
    for _ in range(200):
        thread = threading.Thread(target=job.advance, kwargs={"bytes": 2})
        thread.start()
        thread.join()
    assert job.take_report().bytes_restored == 400
    assert len(job._cells) < 200


@pytest.fixture
def _threads_that_take_turns_all_the_time() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("_threads_that_take_turns_all_the_time")
def test_the_greatest_of_the_absolute_values_of_all_threads_is_what_counts(clock: FakeClock) -> None:
    for _ in range(100):
        job = Job(Report(ID), clock.now)

        def work(number: int, job: Job = job) -> None:
            for value in range(number, 2000, 4):
                job.progress(bytes_restored=value, files_restored=value)

        in_threads(4, work)
        report = job.take_report()
        assert (report.bytes_restored, report.files_restored) == (1999, 1999)


def test_revisions_grow_with_every_report_that_differs_and_with_no_other(job: Job) -> None:
    revisions = []
    for value in (1, 1, 2, 2, 2, 3):
        job.progress(bytes_restored=value)
        revisions.append(job.take_report().revision)
    assert revisions == sorted(revisions)
    assert len(set(revisions)) == 3


def test_counters_after_the_end_change_nothing(job: Job) -> None:
    job.progress(bytes_restored=5)
    job.finish()
    before = job.take_report()
    job.progress(bytes_restored=50)
    job.advance(bytes=50)
    assert job.take_report() is before


# --- arguments that cannot be true ------------------------------------------------------------------------

BAD_COUNTS: list[Any] = [-1, -(2**70), "12", "x", None, 2.5, 7.0, math.nan, math.inf, -math.inf, b"1", [], 1j]
BAD_IDS = [repr(value)[:20] for value in BAD_COUNTS]


@pytest.mark.parametrize("counter", ["bytes_restored", "files_restored"])
@pytest.mark.parametrize("value", BAD_COUNTS, ids=BAD_IDS)
def test_progress_with_no_count_is_logged_and_changes_nothing(
    job: Job, heard: Heard, counter: str, value: Any
) -> None:
    job.progress(bytes_restored=100, files_restored=10)
    job.progress(**{counter: value})
    report = job.take_report()
    assert (report.bytes_restored, report.files_restored) == (100, 10), "the good value before survives"
    assert_misuse(heard)
    job.progress(bytes_restored=101, files_restored=11)
    report = job.take_report()
    assert (report.bytes_restored, report.files_restored) == (101, 11), "the good value after counts"


@pytest.mark.parametrize("value", BAD_COUNTS, ids=BAD_IDS)
def test_progress_with_one_count_that_is_none_does_not_take_the_other_either(
    job: Job, heard: Heard, value: Any
) -> None:
    job.progress(bytes_restored=100, files_restored=value)
    job.progress(bytes_restored=value, files_restored=10)
    report = job.take_report()
    assert (report.bytes_restored, report.files_restored) == (0, 0), "the log says that nothing was changed"
    assert len(heard.named("job.misuse")) == 2


@pytest.mark.parametrize("counter", ["bytes", "files"])
@pytest.mark.parametrize("value", BAD_COUNTS, ids=BAD_IDS)
def test_advance_with_no_count_is_logged_and_changes_nothing(
    job: Job, heard: Heard, counter: str, value: Any
) -> None:
    job.advance(bytes=100, files=10)
    job.advance(**({"bytes": 1, "files": 1} | {counter: value}))
    report = job.take_report()
    assert (report.bytes_restored, report.files_restored) == (100, 10)
    assert_misuse(heard)


@pytest.mark.parametrize("counter", ["total_bytes", "total_files"])
@pytest.mark.parametrize("value", [bad for bad in BAD_COUNTS if bad is not None], ids=str)
def test_start_with_a_total_that_is_none_is_logged_and_changes_nothing(
    job: Job, heard: Heard, counter: str, value: Any
) -> None:
    job.start(**{counter: value})
    assert job.take_report() == Report(ID)
    assert_misuse(heard)


def test_numbers_of_other_types_that_are_whole_are_counts(job: Job, heard: Heard) -> None:
    class Whole(IntEnum):
        SEVEN = 7

    number = Whole.SEVEN
    job.advance(bytes=number)
    job.progress(files_restored=True)
    job.start(total_bytes=number)
    report = job.take_report()
    assert (report.bytes_restored, report.files_restored, report.total_bytes) == (7, 1, 7)
    assert heard.events == []


BEYOND = 10**5000
"""More digits than Python turns into text."""


@pytest.mark.parametrize(
    "call",
    [
        lambda job: job.progress(bytes_restored=Nasty()),
        lambda job: job.advance(bytes=Nasty()),
        lambda job: job.start(total_bytes=Nasty()),
        lambda job: job.start(total_bytes=-BEYOND),
        lambda job: job.progress(bytes_restored=-BEYOND),
        lambda job: job.advance(bytes=-BEYOND),
        lambda job: job.error(path=Nasty()),
        lambda job: job.error(path="/a", code=Nasty()),
        lambda job: job.error(path="/a", code=BEYOND),
        lambda job: job.error(path="/a", code=-(2**70)),
        lambda job: job.error(path="/a", code="ENOENT"),
        lambda job: job.error(path="/a", code=1.5),
        lambda job: job.error(path=None),
        lambda job: job.error(path="/a", description=Nasty()),
        lambda job: job.error(path="/a", details=Nasty()),
        lambda job: job.error(path="/a", type=Nasty()),
    ],
)
def test_not_even_an_argument_that_cannot_be_shown_raises_into_the_engine(
    job: Job, heard: Heard, call: Callable[[Job], None]
) -> None:
    call(job)
    assert job.take_report() == Report(ID)
    assert_misuse(heard)


@pytest.mark.parametrize("value", [BEYOND, 2**63], ids=["5001 digits", "64 bits"])
def test_a_counter_that_no_control_plane_can_hold_does_not_keep_the_result_from_being_kept(
    job: Job, value: int
) -> None:
    job.progress(bytes_restored=value)
    job.advance(files=value)
    job.finish()
    assert json.dumps(job.take_report().to_document())


# --- states -----------------------------------------------------------------------------------------------

STATING: dict[RestoreState, Callable[[Job], None]] = {
    RestoreState.QUEUED: Job.queued,
    RestoreState.PREPARING: Job.preparing,
    RestoreState.IN_PROGRESS: Job.start,
}
ENGINE_STATES = [RestoreState.START_REQUESTED, *STATING]


@pytest.mark.parametrize("following", STATING)
@pytest.mark.parametrize("current", ENGINE_STATES)
def test_states_follow_the_table_and_all_else_is_logged_and_changes_nothing(
    clock: FakeClock, heard: Heard, current: RestoreState, following: RestoreState
) -> None:
    job = Job(a_report(ID, state=current, started_time=None), clock.now)
    before = job.take_report()
    STATING[following](job)
    if may_follow(current, following):
        assert job.state is following
        assert heard.events == []
    elif current is following:
        assert job.take_report() is before
        assert heard.events == []
    else:
        assert job.take_report() is before
        assert_misuse(heard)


@pytest.mark.parametrize("final", [state for state in RestoreState if state.is_final])
@pytest.mark.parametrize("current", ENGINE_STATES)
def test_every_end_may_follow_every_state_of_an_engine(
    clock: FakeClock, current: RestoreState, final: RestoreState
) -> None:
    assert final in TRANSITIONS[current]
    job = Job(a_report(ID, state=current), clock.now)
    assert job.finish(final) is True
    assert job.state is final


@pytest.mark.parametrize("stated", STATING)
def test_no_state_follows_the_end(job: Job, heard: Heard, stated: RestoreState) -> None:
    job.finish()
    before = job.take_report()
    STATING[stated](job)
    assert job.take_report() is before
    assert_misuse(heard)


def test_start_notes_the_time_and_the_totals_and_may_be_called_again(job: Job, clock: FakeClock) -> None:
    job.start(total_bytes=100)
    clock.pass_by(5)
    job.start(total_files=7)
    job.start()
    job.start(total_bytes=200)
    report = job.take_report()
    assert (report.total_bytes, report.total_files, report.started_time) == (200, 7, START)
    assert report.state is RestoreState.IN_PROGRESS


@pytest.mark.parametrize("current", ["start_requested", "queued", "preparing"])
def test_an_engine_that_restores_has_started_without_saying_so(clock: FakeClock, current: str) -> None:
    job = Job(Report(ID, state=RestoreState(current)), clock.now)
    clock.pass_by(1)
    job.progress(bytes_restored=1)
    assert job.take_report().state is RestoreState.IN_PROGRESS
    assert job.take_report().started_time == START + timedelta(seconds=1)


def test_an_engine_that_has_restored_nothing_has_not_started(job: Job) -> None:
    job.progress(bytes_restored=0, files_restored=0)
    job.advance(bytes=0)
    assert job.take_report() == Report(ID)


# --- errors -----------------------------------------------------------------------------------------------


def test_an_error_is_recorded_with_all_that_is_known(job: Job) -> None:
    job.error(path="/a", type="file_or_folder_missing", code=2, description="No such file", details="stat")
    job.error(path=Path("/b"), description=FileNotFoundError("gone"))
    job.error(path=b"/caf\xe9")  # type: ignore[arg-type]  # bytes are paths too
    errors = job.take_report().errors
    assert errors.records == (
        ErrorRecord("/a", "file_or_folder_missing", 2, "No such file", "stat"),
        ErrorRecord("/b", "restore_error", 0, "gone", ""),
        ErrorRecord("/caf?", "restore_error"),
    )


def test_the_same_error_of_a_path_is_recorded_once_and_counted_each_time(job: Job) -> None:
    for description in ("first", "second", "third"):
        job.error(path="/a", code=5, description=description)
    job.error(path="/a", code=6)
    job.error(path="/b", code=5)
    errors = job.take_report().errors
    assert errors.count == 5
    assert [(record.path, record.code, record.description) for record in errors.records] == [
        ("/a", 5, "first"),
        ("/a", 6, ""),
        ("/b", 5, ""),
    ]


def test_errors_of_eight_threads_are_counted_exactly(job: Job) -> None:
    def work(number: int) -> None:
        for turn in range(500):
            job.error(path=f"/{number}/{turn % 10}")

    in_threads(8, work)
    errors = job.take_report().errors
    assert (errors.count, len(errors.records)) == (4000, 80)


def test_an_error_after_the_end_is_logged_and_changes_nothing(job: Job, heard: Heard) -> None:
    job.finish()
    before = job.take_report()
    job.error(path="/a")
    assert job.take_report() is before
    assert_misuse(heard)


def test_texts_are_cut_with_a_mark_and_hold_no_surrogates(job: Job) -> None:
    job.error(path="p" * 10_000, description="\udcff" * 10_000)
    (record,) = job.take_report().errors.records
    assert record.path == "p" * (MAX_PATH - 1) + "…"
    assert record.description == "?" * (MAX_DESCRIPTION - 1) + "…"


def test_memory_stays_bounded_under_any_number_of_errors(job: Job) -> None:
    for number in range(DEFAULT_MAX_RECORDS):
        job.error(path=f"/{number}", details="d" * 200)
    job.take_report()
    tracemalloc.start()
    try:
        for number in range(50_000):
            job.error(path=f"/path/of/file/{number}", type="read_error", code=5, description="broken")
        job.take_report()
        growth, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert growth < 100_000
    errors = job.take_report().errors
    assert (errors.count, len(errors.records)) == (50_000 + DEFAULT_MAX_RECORDS, DEFAULT_MAX_RECORDS)


def test_memory_stays_bounded_under_errors_of_long_texts(job: Job) -> None:
    for number in range(3000):
        job.error(path=f"/{number}", details="d" * 9000)
    errors = job.take_report().errors
    assert errors.count == 3000
    assert 50 < len(errors.records) < 110


@pytest.mark.parametrize("letter", ["x", '"', "\\", "\n", "\x00", "\x7f", "ä", "語", "😀", "\udcff"])
@pytest.mark.parametrize("max_errors", [500, 10_000])
def test_the_errors_document_stays_under_the_limit_whatever_the_texts_are(
    clock: FakeClock, letter: str, max_errors: int
) -> None:
    job = Job(Report(ID), clock.now, max_errors=max_errors)
    long = letter * 20_000
    for number in range(60):
        job.error(path=f"{number}{long}", type=long, code=2**63 - 1, description=long, details=long)
    for number in range(3000):
        job.error(path=f"/{number}", type=letter * (number % 128))
    job.finish(reason=long, diagnostics=long)
    document = job.take_report().errors.to_document()
    assert document["count"] == 3060
    assert len(json.dumps(document)) < MEGABYTE
    assert len(json.dumps(document, separators=(",", ":"))) < MEGABYTE - 1000, "the rest of the patch"


def test_no_records_are_kept_where_none_are_wanted(clock: FakeClock) -> None:
    job = Job(Report(ID), clock.now, max_errors=0)
    job.error(path="/a")
    assert (job.take_report().errors.count, job.take_report().errors.records) == (1, ())


# --- the end ----------------------------------------------------------------------------------------------


def test_a_restore_without_errors_is_completed(job: Job, clock: FakeClock) -> None:
    job.start()
    clock.pass_by(60)
    assert job.finish() is True
    report = job.take_report()
    assert (report.state, report.started_time, report.ended_time) == (
        RestoreState.COMPLETED,
        START,
        START + timedelta(seconds=60),
    )
    assert report.errors == Errors()
    assert not job.is_live


def test_a_restore_with_errors_is_completed_with_errors_and_says_why(job: Job) -> None:
    job.error(path="/a")
    job.finish()
    report = job.take_report()
    assert report.state is RestoreState.COMPLETED_WITH_ERRORS
    assert (report.errors.count, report.errors.reason, len(report.errors.records)) == (1, PARTIAL, 1)


def test_the_reason_and_the_diagnostics_of_the_engine_are_in_the_result(job: Job) -> None:
    job.finish("failed", reason="repository_locked", diagnostics="another host\udcff has it")
    errors = job.take_report().errors
    assert (errors.count, errors.reason, errors.diagnostics) == (
        0,
        "repository_locked",
        "another host? has it",
    )


@pytest.mark.parametrize("state", [state for state in RestoreState if state.is_final])
@pytest.mark.parametrize("as_text", [False, True])
def test_an_end_is_stated_as_a_state_or_as_its_name(job: Job, state: RestoreState, as_text: bool) -> None:  # noqa: FBT001 - a parameter
    assert job.finish(state.value if as_text else state) is True
    assert job.state is state


@pytest.mark.parametrize(
    "state",
    ["", "done", "COMPLETED", "queued", RestoreState.IN_PROGRESS, "stop_requested", 5, 0, False, [], {}],
)
def test_what_is_no_end_is_logged_and_the_restore_goes_on(job: Job, heard: Heard, state: Any) -> None:
    assert job.finish(state) is False
    assert job.take_report() == Report(ID)
    assert_misuse(heard)
    assert job.finish("failed") is True


def test_a_second_end_is_refused_and_the_first_one_stays(job: Job, heard: Heard) -> None:
    ear = Ear()
    job.listen(ear)
    assert job.finish("failed", reason="broken") is True
    first = job.take_report()
    assert job.finish("completed") is False
    assert job.take_report() is first
    assert ear.results == [first]
    assert_misuse(heard)


def test_of_eight_threads_that_state_an_end_one_does(job: Job, heard: Heard) -> None:
    ear = Ear()
    job.listen(ear)
    ends: list[bool] = []
    in_threads(8, lambda number: ends.append(job.finish("failed" if number % 2 else "completed")))
    assert sorted(ends) == [False] * 7 + [True]
    assert len(ear.results) == 1
    assert len(heard.named("job.misuse")) == 7


def test_finish_returns_once_the_result_is_durable_and_wakes_the_delivery_after_that(job: Job) -> None:
    ear = Ear()
    job.listen(ear)
    job.progress(bytes_restored=7)
    assert job.finish() is True
    assert ear.calls == ["keep_result", "wake"]
    assert ear.results == [job.take_report()]
    assert ear.results[0].bytes_restored == 7, "what was stated just before the end is in the result"


def test_finish_says_when_the_result_could_not_be_made_durable(job: Job) -> None:
    ear = Ear(durable=False)
    job.listen(ear)
    assert job.finish() is False
    assert not job.is_live
    assert ear.wakes == [True]


def test_a_mistake_of_ours_while_the_result_is_kept_is_not_raised_into_the_engine(
    job: Job, heard: Heard
) -> None:
    class Broken(Ear):
        def keep_result(self, report: Report) -> bool:
            raise RuntimeError(f"a bug of ours with {report.restore_id}")

    ear = Broken()
    job.listen(ear)
    assert job.finish() is False
    assert ear.wakes == [True], "the delivery is told all the same: it may still bring the result there"
    assert "a bug of ours" in str(heard)


def test_a_restore_that_ended_before_it_started_has_both_times(job: Job, clock: FakeClock) -> None:
    job.queued()
    clock.pass_by(3)
    job.finish("failed")
    report = job.take_report()
    assert (report.started_time, report.ended_time) == (START, START + timedelta(seconds=3))


# --- leaving the block ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem", "state", "reason", "settled"),
    [
        (None, RestoreState.COMPLETED, "", False),
        (ValueError("no disk"), RestoreState.FAILED, "engine_error", False),
        (StopRequested(ID), RestoreState.STOPPED, "stop_requested", True),
        (asyncio.CancelledError(), RestoreState.FAILED, "interrupted", False),
        (KeyboardInterrupt(), RestoreState.FAILED, "interrupted", False),
        (SystemExit(1), RestoreState.FAILED, "interrupted", False),
        (GeneratorExit(), RestoreState.FAILED, "interrupted", False),
    ],
)
def test_leaving_the_block_states_the_result_it_implies(
    job: Job,
    problem: BaseException | None,
    state: RestoreState,
    reason: str,
    settled: bool,  # noqa: FBT001 - a parameter
) -> None:
    assert job.leave(problem) is settled
    report = job.take_report()
    assert (report.state, report.errors.reason) == (state, reason)
    if state is RestoreState.FAILED:
        assert report.errors.diagnostics.rstrip(": ") == f"{type(problem).__name__}: {problem}".rstrip(": ")


@pytest.mark.parametrize("problem", [None, asyncio.CancelledError(), StopRequested(ID)], ids=repr)
def test_leaving_the_block_after_a_stop_was_seen_is_a_stop(job: Job, problem: BaseException | None) -> None:
    job.request_stop()
    assert job.stop_requested
    job.leave(problem)
    assert job.state is RestoreState.STOPPED


@pytest.mark.parametrize("problem", [ValueError("no disk"), KeyboardInterrupt()], ids=repr)
def test_leaving_the_block_by_a_failure_is_a_failure_also_after_a_stop_was_seen(
    job: Job, problem: BaseException
) -> None:
    job.request_stop()
    assert job.stop_requested
    job.leave(problem)
    assert job.state is RestoreState.FAILED


def test_a_stop_that_the_engine_never_saw_does_not_turn_its_success_into_a_stop(job: Job) -> None:
    job.request_stop()
    job.leave(None)
    assert job.state is RestoreState.COMPLETED


def test_leaving_the_block_with_errors_is_completed_with_errors(job: Job) -> None:
    job.error(path="/a")
    job.leave(None)
    assert job.state is RestoreState.COMPLETED_WITH_ERRORS


@pytest.mark.parametrize("problem", [None, ValueError(), StopRequested(ID)], ids=repr)
def test_leaving_the_block_after_the_end_was_stated_changes_nothing(
    job: Job, heard: Heard, problem: BaseException | None
) -> None:
    job.finish("completed")
    before = job.take_report()
    assert job.leave(problem) is isinstance(problem, StopRequested)
    assert job.take_report() is before
    assert heard.events == []


def test_leaving_the_block_by_an_exception_that_cannot_be_shown_is_a_failure_like_others(job: Job) -> None:
    class Unshown(Exception):  # noqa: N818 - named by what it is
        def __str__(self) -> str:
            raise RuntimeError("not to be shown")

    job.leave(Unshown())
    assert job.state is RestoreState.FAILED
    assert job.take_report().errors.diagnostics.startswith("Unshown")


# --- stopping ---------------------------------------------------------------------------------------------


def test_the_stop_flag_is_up_once_a_stop_was_requested(job: Job, heard: Heard) -> None:
    flags = [job.stop_requested]
    job.raise_if_stop_requested()
    job.request_stop()
    job.request_stop()
    flags.append(job.stop_requested)
    assert flags == [False, True]
    assert not job.awaits_stop
    assert job.is_live
    with pytest.raises(StopRequested, match=ID):
        job.raise_if_stop_requested()
    assert len(heard.named("job.stop_requested")) == 1


def test_a_stop_request_after_the_end_is_no_news(job: Job) -> None:
    called = threading.Event()
    job.on_stop(called.set)
    job.finish()
    job.request_stop()
    assert not job.stop_requested
    assert not called.is_set()


async def test_a_coroutine_that_waits_for_a_stop_goes_on_when_it_comes_from_another_thread(job: Job) -> None:
    waiter = asyncio.create_task(job.wait_for_stop())
    await asyncio.sleep(0)
    assert not waiter.done()
    await asyncio.to_thread(job.request_stop)
    await waiter
    await job.wait_for_stop()
    job.leave(None)
    assert job.state is RestoreState.STOPPED, "a stop that was waited for was seen"


def test_coroutines_of_other_loops_can_wait_for_the_stop(job: Job) -> None:
    waiting, done = threading.Barrier(4), threading.Barrier(4)

    async def wait() -> None:
        task = asyncio.create_task(job.wait_for_stop())
        await asyncio.sleep(0)
        await asyncio.to_thread(waiting.wait)
        async with asyncio.timeout(10):
            await task
        await asyncio.to_thread(done.wait)

    threads = [threading.Thread(target=asyncio.run, args=(wait(),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    waiting.wait()
    job.request_stop()
    done.wait(timeout=10)
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("early", [True, False])
def test_a_callback_is_called_in_a_thread_of_its_own_whenever_it_was_given(job: Job, early: bool) -> None:  # noqa: FBT001 - a parameter
    called = threading.Event()
    threads: list[int] = []

    def callback() -> None:
        threads.append(threading.get_ident())
        called.set()

    if early:
        job.on_stop(callback)
        assert not called.is_set()
        job.request_stop()
    else:
        job.request_stop()
        job.on_stop(callback)
    assert called.wait(10)
    job.request_stop()
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()


def test_a_callback_that_raises_is_logged_and_keeps_no_other_from_being_called(
    job: Job, heard: Heard
) -> None:
    called = threading.Event()

    def fail() -> None:
        raise ValueError("the callback is broken")

    job.on_stop(fail)
    job.on_stop(called.set)
    job.request_stop()
    assert called.wait(10)
    for thread in threading.enumerate():
        if thread.name == "agent-reporter-stop":
            thread.join()
    (event,) = heard.named("job.stop_callback_failed")
    assert event["restore_id"] == ID
    assert "the callback is broken" in event["exception"]


def test_a_system_without_threads_left_raises_into_neither_the_engine_nor_the_watcher(
    job: Job, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    job.on_stop(lambda: None)
    job.on_stop(lambda: None)
    job.request_stop()
    job.on_stop(lambda: None)
    assert job.stop_requested
    assert str(heard).count("can't start new thread") == 3


def test_a_callback_that_never_returns_keeps_nobody_waiting(job: Job) -> None:
    end, called = threading.Event(), threading.Event()
    job.on_stop(end.wait)
    job.on_stop(called.set)
    job.request_stop()
    assert called.wait(10)
    job.leave(None)
    end.set()
    assert job.state is RestoreState.STOPPED


# --- what comes back --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "acknowledged"),
    [(Ending.DELIVERED, True), (Ending.DELIVERED_BARE, True)]
    + [
        (ending, False)
        for ending in (Ending.GONE, Ending.REJECTED, Ending.ENDED_ELSEWHERE, Ending.EXPIRED, None)
    ],
)
async def test_a_delivery_that_is_over_tells_those_who_wait_how_it_ended(
    job: Job,
    ending: Ending | None,
    acknowledged: bool,  # noqa: FBT001 - a parameter
) -> None:
    waiter = asyncio.create_task(job.delivered())
    await asyncio.sleep(0)
    job.settle(ending)
    assert await waiter is acknowledged
    assert await asyncio.to_thread(job.wait_delivered) is acknowledged
    assert job.ending is ending


async def test_waiting_for_a_delivery_has_an_end(job: Job) -> None:
    assert await job.delivered(timeout=0) is False
    assert job.wait_delivered(timeout=0) is False


# --- the hot path -----------------------------------------------------------------------------------------


def test_states_wake_the_delivery_and_the_first_error_urgently_other_errors_gently_and_counters_not_at_all(
    job: Job,
) -> None:
    ear = Ear()
    job.listen(ear)
    job.progress(bytes_restored=1)
    job.advance(bytes=1)
    assert ear.wakes == []
    job.error(path="/a")
    job.error(path="/b")
    job.error(path="/b")
    assert ear.wakes == [True, False, False], "the first error is news"
    ear.wakes.clear()
    job.queued()
    job.preparing()
    job.start()
    assert ear.wakes == [True] * 3
    job.start()
    job.progress(bytes_restored=-1)
    assert ear.wakes == [True] * 3
    job.finish()
    assert ear.wakes == [True] * 4


async def test_no_callback_makes_a_task_or_blocks_the_loop_it_is_called_in(job: Job) -> None:
    tasks = asyncio.all_tasks()
    job.queued()
    job.preparing()
    job.start(total_bytes=5)
    job.progress(bytes_restored=1, files_restored=1)
    job.advance(bytes=1, files=1)
    job.error(path="/a")
    job.progress(bytes_restored=-1)
    job.request_stop()
    assert job.stop_requested
    job.take_report()
    job.finish()
    assert asyncio.all_tasks() == tasks


def test_no_callback_touches_file_socket_process_or_thread() -> None:
    script = """
import sys
from datetime import datetime, UTC
from agent_reporter.job import Job
from agent_reporter.errors import StopRequested
from agent_reporter.model.report import Report

seen, watching = [], False
def hook(event, arguments):
    if watching and event.split(".")[0] not in {"sys", "object"}:  # by which logging finds who called it
        seen.append((event, arguments))

def callbacks():
    job = Job(Report("r-1"), lambda: datetime.now(UTC))
    job.queued(); job.preparing(); job.start(5, 6); job.start(7)
    job.progress(bytes_restored=1, files_restored=1); job.progress(bytes_restored=-1)
    job.advance(bytes=1, files=1); job.advance(bytes="x")
    job.error(path="/a", code=2, description="d"); job.error(path=None)
    job.stop_requested; job.raise_if_stop_requested()
    job.request_stop(); job.take_report(); job.state
    try:
        job.raise_if_stop_requested()
    except StopRequested:
        pass
    job.settle(None); job.finish(); job.finish()

callbacks()  # what is imported or cached at first use is not of a callback
sys.addaudithook(hook)
watching = True
callbacks()
watching = False
print(seen)
"""
    watched = python(script)
    assert (watched.returncode, watched.stdout) == (0, "[]\n"), watched.stderr


def test_callbacks_of_every_kind_from_many_threads_leave_a_report_that_adds_up(
    job: Job, heard: Heard
) -> None:
    ear = Ear()
    job.listen(ear)

    def work(number: int) -> None:
        for turn in range(300):
            match (number + turn) % 6:
                case 0:
                    job.start(total_bytes=10_000)
                case 1:
                    job.error(path=f"/{number}/{turn}")
                case 2:
                    job.take_report()
                case 3:
                    assert job.stop_requested in {True, False}
                case 4:
                    job.request_stop()
                case _:
                    job.advance(files=1)
            job.advance(bytes=1)

    in_threads(12, work)
    job.finish()
    report = job.take_report()
    assert (report.bytes_restored, report.files_restored) == (12 * 300, 12 * 50)
    assert (report.errors.count, len(report.errors.records)) == (600, DEFAULT_MAX_RECORDS)
    assert heard.named("job.misuse") == []
    assert len(ear.results) == 1


def test_the_stop_of_another_restore_goes_on_to_that_one(job: Job, clock: FakeClock) -> None:
    """As where one restore is nested in another: the inner one was stopped by nobody."""
    assert job.leave(StopRequested("the-outer-one")) is False
    assert job.state is RestoreState.FAILED
    outer = Job(Report("the-outer-one"), clock.now)
    assert outer.leave(StopRequested("the-outer-one")) is True
    assert outer.state is RestoreState.STOPPED
