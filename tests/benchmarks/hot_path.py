"""The hot path: what an engine pays for saying how far it is, beside what it would pay elsewhere."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_reporter import Job, Reporter, Settings
from agent_reporter.model.report import Report
from tests.benchmarks.control_plane import PROJECT, control_plane
from tests.benchmarks.goals import Goal, UntrueError
from tests.benchmarks.rounds import Contestant, measure, print_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.benchmarks.control_plane import ControlPlane
    from tests.benchmarks.rounds import Effort, Row

    Run = Callable[[int], float]

BARE = "a bare method that stores two attributes"
EMPTY = "a method with the same names that does nothing"
PROGRESS = "job.progress"
REPORTED = "job.progress, with a Reporter beside it"
ADVANCE = "job.advance, one thread"
ADVANCE_THREADS = "job.advance, eight threads"
TQDM = "tqdm.update"
PROMETHEUS = "prometheus_client Counter.inc"
OPENTELEMETRY = "OpenTelemetry Counter.add"
CALL_SOON = "loop.call_soon_threadsafe"

THREADS = 8
REPORT_INTERVAL = 0.1
"""Ten times as often as the default, so that deliveries meet many rounds."""
BLOCK = 4_096


def run(effort: Effort) -> list[Goal]:
    """Measure and print; raises UntrueError if anything that was counted was not counted exactly."""
    progress, advance, threads = Progress(_lone_job()), Advance(_lone_job()), Advance(_lone_job())
    with ExitStack() as stack, control_plane() as server:
        with _reported_job(server) as job:
            reported = Progress(job)
            rows = measure(
                [
                    Contestant(BARE, Progress(Bare()).run),
                    Contestant(EMPTY, Progress(Empty()).run),
                    Contestant(PROGRESS, progress.run),
                    Contestant(REPORTED, reported.run),
                    Contestant(ADVANCE, advance.run),
                    Contestant(ADVANCE_THREADS, threads.run_threads),
                    Contestant(TQDM, _tqdm(stack)),
                    Contestant(PROMETHEUS, _prometheus()),
                    Contestant(OPENTELEMETRY, _opentelemetry(stack)),
                    Contestant(CALL_SOON, _call_soon(stack)),
                ],
                effort,
            )
        known, patches = server.document(), server.patches()
    print_rows("The hot path: cost of one call, from one thread unless said otherwise", rows)
    print(f"patches the control plane took beside {REPORTED!r}: {patches}")
    is_reported = (known["state"], known["bytes_restored"]) == ("completed", reported.stated)
    for name, is_exact in (
        (ADVANCE, advance.is_exact),
        (ADVANCE_THREADS, threads.is_exact),
        (PROGRESS, progress.is_exact),
        (REPORTED, is_reported),
    ):
        if not is_exact:
            raise UntrueError(f"{name} is not exact")
        print(f"{name}: exact")
    return _goals({row.name: row for row in rows})


def _goals(rows: dict[str, Row]) -> list[Goal]:
    ours = (PROGRESS, ADVANCE_THREADS)
    return [
        *(Goal(name, BARE, rows[name].ratio_to(rows[BARE]), 2.0) for name in ours),
        Goal(TQDM, PROGRESS, rows[TQDM].ratio_to(rows[PROGRESS]), 3.0, is_floor=True),
        Goal(OPENTELEMETRY, PROGRESS, rows[OPENTELEMETRY].ratio_to(rows[PROGRESS]), 20.0, is_floor=True),
    ]


def _lone_job() -> Job:
    return Job(Report("benchmark"), lambda: datetime.now(UTC))


class Bare:
    """The least that a method which is told two numbers can do."""

    def __init__(self) -> None:
        self._bytes = 0
        self._files = 0

    def progress(self, *, bytes_restored: int = 0, files_restored: int = 0) -> None:
        self._bytes = bytes_restored
        self._files = files_restored


class Empty:
    """What a call costs in itself: no method of Python's can be cheaper."""

    def progress(self, *, bytes_restored: int = 0, files_restored: int = 0) -> None:
        pass


class Progress:
    """States totals that rise, so that every call has something to store."""

    def __init__(self, job: Job | Bare | Empty) -> None:
        self._job = job
        self.stated = 0

    def run(self, calls: int) -> float:
        progress = self._job.progress
        numbers = range(self.stated + 1, self.stated + calls + 1)
        begun = time.perf_counter()
        for number in numbers:
            progress(bytes_restored=number, files_restored=number)
        took = time.perf_counter() - begun
        self.stated += calls
        return took

    @property
    def is_exact(self) -> bool:
        assert isinstance(self._job, Job)
        report = self._job.take_report()
        return report.bytes_restored == report.files_restored == self.stated


class Advance:
    """States increments, and knows what they have to add up to."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._calls = 0

    def run(self, calls: int) -> float:
        begun = time.perf_counter()
        self._advance(calls)
        took = time.perf_counter() - begun
        self._calls += calls
        return took

    def run_threads(self, calls: int) -> float:
        """Share the calls among threads; the time is that from the start of all to the end of the last."""
        share = -(-calls // THREADS)
        together = threading.Barrier(THREADS + 1)

        def work() -> None:
            together.wait()
            self._advance(share)

        threads = [threading.Thread(target=work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        begun = time.perf_counter()  # before the barrier: whoever it lets go first may well be another
        together.wait()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - begun
        self._calls += share * THREADS
        return took

    @property
    def is_exact(self) -> bool:
        report = self._job.take_report()
        return (report.bytes_restored, report.files_restored) == (self._calls * BLOCK, self._calls)

    def _advance(self, calls: int) -> None:
        advance = self._job.advance
        for _ in range(calls):
            advance(bytes=BLOCK, files=1)


# --- peers --------------------------------------------------------------------------------------------------


def _peer(module: str) -> Any:
    """A module of the extra `bench`; None where it is not installed."""
    try:
        return import_module(module)
    except ImportError:
        return None


def _repeat(call: Callable[[int], object]) -> Run:
    def run(calls: int) -> float:
        begun = time.perf_counter()
        for _ in range(calls):
            call(1)
        return time.perf_counter() - begun

    return run


def _tqdm(stack: ExitStack) -> Run | None:
    tqdm = _peer("tqdm")
    if tqdm is None:
        return None
    nowhere = stack.enter_context(Path(os.devnull).open("w"))  # noqa: SIM115 - the stack closes it
    return _repeat(stack.enter_context(tqdm.tqdm(file=nowhere)).update)


def _prometheus() -> Run | None:
    prometheus = _peer("prometheus_client")
    if prometheus is None:
        return None
    registry = prometheus.CollectorRegistry()
    return _repeat(prometheus.Counter("restored_bytes", "Bytes restored.", registry=registry).inc)


def _opentelemetry(stack: ExitStack) -> Run | None:
    metrics, export = _peer("opentelemetry.sdk.metrics"), _peer("opentelemetry.sdk.metrics.export")
    if metrics is None or export is None:
        return None
    provider = metrics.MeterProvider(metric_readers=[export.InMemoryMetricReader()], shutdown_on_exit=False)
    stack.callback(provider.shutdown)
    return _repeat(provider.get_meter("benchmark").create_counter("restored_bytes").add)


def _call_soon(stack: ExitStack) -> Run:
    """Tell a loop in another thread. What it still has to do after a round is waited for, untimed."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="benchmark-loop")
    thread.start()

    def end() -> None:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    stack.callback(end)
    told = Bare()

    def tell(number: int) -> None:
        told.progress(bytes_restored=number, files_restored=number)

    def run(calls: int) -> float:
        call_soon_threadsafe = loop.call_soon_threadsafe
        drained = threading.Event()
        begun = time.perf_counter()
        for number in range(calls):
            call_soon_threadsafe(tell, number)
        took = time.perf_counter() - begun
        call_soon_threadsafe(drained.set)
        drained.wait()
        return took

    return run


# --- a reporter that really reports -------------------------------------------------------------------------


@contextmanager
def _reported_job(server: ControlPlane) -> Iterator[Job]:
    settings = Settings(
        endpoint=server.url,
        project_id=PROJECT,
        token_file=server.token_file,
        spool_dir=server.directory / "spool",
        report_interval=REPORT_INTERVAL,
    )
    with Reporter.in_background(settings) as reporter, reporter.restore(server.restore_id) as job:
        job.start()
        yield job
