"""What an engine holds for one restore, and reports to, from any thread.

Nothing here does IO, blocks, creates a task or raises into the engine, with two exceptions that the engine
asks for: `finish` returns once the result is durable, and `raise_if_stop_requested` raises. A call with
arguments that cannot be true is logged as an error that names the restore, and changes nothing.

`progress` and `advance`, of `counters`, are the hot path: they store, and the delivery loop looks at its next
tick. All else is rare, takes a lock for an instant, and wakes the loop.
"""

from __future__ import annotations

import asyncio
import os
import threading
from contextlib import suppress
from dataclasses import replace
from operator import index
from typing import TYPE_CHECKING, Protocol

from agent_reporter.counters import Counters
from agent_reporter.errors import MisuseError, StopRequested
from agent_reporter.logs import get_logger
from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.model.error_log import (
    DEFAULT_MAX_RECORDS,
    MAX_DIAGNOSTICS,
    MAX_TOKEN,
    PARTIAL,
    ErrorLog,
    clean_record,
    clean_text,
)
from agent_reporter.model.exchange import Ending
from agent_reporter.model.showing import described, shown
from agent_reporter.model.state import RestoreState, may_follow
from agent_reporter.moment import Moment

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from agent_reporter.model.report import Report

MAX_CODE = 2**64
"""No larger an error code is taken, with either sign."""


class Listener(Protocol):
    """Who is told of what an engine states: the delivery of that restore."""

    def wake(self, *, urgent: bool) -> None:
        """There is something new to take; `urgent` for a state or a first error. Never blocks its thread."""
        ...

    def keep_result(self, report: Report) -> bool:
        """Return once the final `report` is durable; False if it could not be made so."""
        ...


class Job(Counters):
    """One restore, as its engine states it."""

    def __init__(
        self,
        report: Report,
        now: Callable[[], datetime],
        *,
        max_errors: int = DEFAULT_MAX_RECORDS,
    ) -> None:
        """Go on from `report`, which is a new one for a restore that nothing was ever said of."""
        super().__init__(report.bytes_restored, report.files_restored)
        self.restore_id = report.restore_id
        self._lock = threading.RLock()
        self._now = now
        self._report = report
        self._changed = False
        self._errors = ErrorLog(max_errors)
        self._errors.extend(report.errors)
        self._first_stated: datetime | None = None
        self._listener: Listener | None = None
        self._stop_requested = False
        self._stop_seen = False
        self._stop = Moment()
        self._stop_callbacks: list[Callable[[], object]] = []
        self._settled = Moment()
        self._ending: Ending | None = None
        self._log = get_logger(restore_id=report.restore_id)

    # --- what the engine states -------------------------------------------------------------------------

    def queued(self) -> None:
        """State that the restore waits for its turn."""
        self._state(RestoreState.QUEUED)

    def preparing(self) -> None:
        """State that the restore gets ready: opens its repository, makes its plan."""
        self._state(RestoreState.PREPARING)

    def start(self, total_bytes: int | None = None, total_files: int | None = None) -> None:
        """State that data is being restored, and how much there is, in all, where that is known.

        May be called again when more is known of the totals.
        """
        try:
            totals = _total(total_bytes), _total(total_files)
        except Exception as problem:  # noqa: BLE001 - nothing is raised into the engine
            self.misused(f"start of {shown(total_bytes)} bytes and {shown(total_files)} files: {problem}")
            return
        with self._lock:
            if self._report.state is not RestoreState.IN_PROGRESS:
                self._state(RestoreState.IN_PROGRESS)
            if not self._report.is_final:
                known = self._report
                self._amend(
                    total_bytes=known.total_bytes if totals[0] is None else totals[0],
                    total_files=known.total_files if totals[1] is None else totals[1],
                )

    def error(
        self,
        *,
        path: str | os.PathLike[str] = "",
        type: str = "restore_error",  # noqa: A002 - the protocol's word
        code: int = 0,
        description: object = "",
        details: object = "",
    ) -> None:
        """State an error of one path. Each is counted; a path's same error is recorded once.

        `type` is a token such as `file_or_folder_missing`, `code` an errno or the engine's own number.
        Texts are cut to the bounds of `model.error_log`.
        """
        try:
            record = clean_record(os.fsdecode(path), str(type), _code(code), str(description), str(details))
        except Exception as problem:  # noqa: BLE001 - nothing is raised into the engine
            self.misused(f"error of {shown(path)} with code {shown(code)}: {described(problem)}")
            return
        with self._lock:
            if self._report.is_final:
                self.misused(f"error of {shown(path)} came after the end")
                return
            is_first = self._errors.count == 0
            self._errors.add(record)
            self._changed = True
        self._wake(urgent=is_first)

    def finish(
        self, state: RestoreState | str | None = None, *, reason: str = "", diagnostics: str = ""
    ) -> bool:
        """State how the restore ended, and return once that is durable: it blocks for the disk.

        With no state it is `completed`, or `completed_with_errors` if there were errors. Returns False,
        with the reason in the log, if the result could not be made durable, or if it had ended before.
        In a coroutine, leave the restore's block instead, or await `asyncio.to_thread(job.finish)`.
        """
        report = self._end(state, reason, diagnostics)
        if report is None:
            return False
        is_durable = True
        try:
            if self._listener is not None:
                is_durable = self._listener.keep_result(report)
        except Exception:  # noqa: BLE001 - a mistake of ours is not raised into the engine
            self._log.exception("job.result_not_kept")
            is_durable = False
        self._wake(urgent=True)
        return is_durable

    # --- what the engine asks -------------------------------------------------------------------------

    @property
    def state(self) -> RestoreState:
        """The newest state that was stated."""
        return self._report.state

    @property
    def stop_requested(self) -> bool:
        """Whether the restore is to stop. Cheap enough to ask for every block."""
        if self._stop_requested:
            self._stop_seen = True
        return self._stop_requested

    def raise_if_stop_requested(self) -> None:
        """Raise StopRequested if the restore is to stop; leaving its block by that reports `stopped`."""
        if self._stop_requested:
            self._stop_seen = True
            raise StopRequested(self.restore_id)

    async def wait_for_stop(self) -> None:
        """Return once the restore is to stop."""
        await self._stop.wait()
        self._stop_seen = True

    def on_stop(self, callback: Callable[[], object]) -> None:
        """Have `callback` called, in a thread of its own, once the restore is to stop."""
        with self._lock:
            if not self._stop_requested:
                self._stop_callbacks.append(callback)
                return
        self._call_back(callback)

    async def delivered(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - part of the promise
        """Whether the control plane has acknowledged the result, after waiting up to `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._settled.wait()
        except TimeoutError:
            return False
        return self._is_acknowledged

    def wait_delivered(self, timeout: float | None = None) -> bool:
        """Like `delivered`, for engines without an event loop: it blocks this thread."""
        return self._settled.wait_blocking(timeout) and self._is_acknowledged

    @property
    def ending(self) -> Ending | None:
        """How the delivery of this restore ended; None while it goes on."""
        return self._ending

    @property
    def _is_acknowledged(self) -> bool:
        return self._ending in {Ending.DELIVERED, Ending.DELIVERED_BARE}

    # --- what the reporter asks and says ----------------------------------------------------------------

    @property
    def is_live(self) -> bool:
        """Whether the engine may say more."""
        return not self._report.is_final

    @property
    def awaits_stop(self) -> bool:
        """Whether a stop request would still be news to the engine."""
        return self.is_live and not self._stop_requested

    def listen(self, listener: Listener) -> None:
        """From now on tell `listener` of what is stated."""
        self._listener = listener

    def take_report(self) -> Report:
        """The newest truth: the same object as before if nothing was stated since."""
        with self._lock:
            if not self._report.is_final:
                self._collect()
            return self._report

    def request_stop(self) -> None:
        """Tell the engine that the restore is to stop; only the first call does."""
        with self._lock:
            if self._stop_requested or self._report.is_final:
                return
            self._stop_requested = True
            callbacks, self._stop_callbacks = self._stop_callbacks, []
        self._stop.happen()
        for callback in callbacks:
            self._call_back(callback)
        self._log.info("job.stop_requested")

    def settle(self, ending: Ending | None) -> None:
        """The delivery is over."""
        self._ending = ending
        self._settled.happen()

    def leave(self, problem: BaseException | None) -> bool:
        """The engine left the restore's block, by `problem` if there is one: state the result it implies.

        Blocks for the disk as `finish` does. Returns whether `problem` is settled by that.
        """
        settled = isinstance(problem, StopRequested) and problem.restore_id == self.restore_id
        if self._report.is_final:
            return settled
        if settled or (self._stop_seen and (problem is None or isinstance(problem, asyncio.CancelledError))):
            self.finish(RestoreState.STOPPED, reason="stop_requested")
        elif problem is None:
            self.finish()
        else:
            self.finish(
                RestoreState.FAILED,
                reason="engine_error" if isinstance(problem, Exception) else "interrupted",
                diagnostics=described(problem),
            )
        return settled

    # --- inside -------------------------------------------------------------------------------------------

    def _state(self, following: RestoreState) -> None:
        with self._lock:
            current = self._report.state
            if following is current:
                return
            if not may_follow(current, following):
                self.misused(f"{following.value} cannot follow {current.value}")
                return
            self._enter(following)
        self._wake(urgent=True)

    def _enter(self, state: RestoreState) -> None:
        now = self._now()
        self._first_stated = self._first_stated or now
        begins = state is RestoreState.IN_PROGRESS and self._report.started_time is None
        self._amend(state=state, started_time=now if begins else self._report.started_time)

    def _end(self, state: RestoreState | str | None, reason: str, diagnostics: str) -> Report | None:
        with self._lock:
            if self._report.is_final:
                self.misused(f"finish as {shown(state)} came after the end as {self._report.state.value}")
                return None
            self._collect()
            failed = self._errors.count > 0
            try:
                final = _end_without_word(failed=failed) if state is None else RestoreState(state)
                reason, diagnostics = str(reason), str(diagnostics)
            except Exception:  # noqa: BLE001 - nothing is raised into the engine
                self.misused(f"finish as {shown(state)}: that is no state of a restore")
                return None
            if not final.is_final:
                self.misused(f"finish as {final.value}: that is no end of a restore")
                return None
            now = self._now()
            self._amend(
                state=final,
                started_time=self._report.started_time or self._first_stated or now,
                ended_time=now,
                errors=self._errors.freeze(
                    clean_text(reason, MAX_TOKEN) or (PARTIAL if failed else ""),
                    clean_text(diagnostics, MAX_DIAGNOSTICS),
                ),
            )
            return self._report

    def _collect(self) -> None:
        """Bring what the hot path stored into the report."""
        known = self._report
        total_bytes, total_files = self.count()
        if total_bytes > known.bytes_restored or total_files > known.files_restored:
            if may_follow(known.state, RestoreState.IN_PROGRESS):
                self._enter(RestoreState.IN_PROGRESS)  # an engine that restores has started
            self._report = self._report.counted(total_files, total_bytes)
        if self._changed:
            self._changed = False
            self._amend(errors=self._errors.freeze())

    def _amend(self, **changes: object) -> None:
        known = self._report
        if any(getattr(known, name) != value for name, value in changes.items()):
            revision = known.revision + 1
            self._report = replace(known, revision=revision, **changes)  # type: ignore[arg-type]  # callers name fields

    def _wake(self, *, urgent: bool) -> None:
        if self._listener is not None:
            self._listener.wake(urgent=urgent)

    def _call_back(self, callback: Callable[[], object]) -> None:
        thread = threading.Thread(
            target=self._call, args=(callback,), name="agent-reporter-stop", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as problem:  # the system has no thread left
            self._log.error("job.stop_callback_failed", problem=str(problem))

    def _call(self, callback: Callable[[], object]) -> None:
        self._stop_seen = True
        try:
            callback()
        except Exception:  # noqa: BLE001 - a callback is the engine's own code
            self._log.exception("job.stop_callback_failed")

    def misused(self, problem: str) -> None:
        """Say loudly what cannot be true; a mistake in reporting is no reason to fail a restore."""
        with suppress(Exception):  # a handler of the host's own may raise
            self._log.error("job.misuse", problem=str(MisuseError(self.restore_id, problem)))


def _total(value: int | None) -> int | None:
    if value is None:
        return None
    total = index(value)
    if not 0 <= total <= MAX_COUNT:
        raise ValueError("a total has to be from 0 to 2**63 - 1")
    return total


def _code(value: int) -> int:
    code = index(value)
    if abs(code) > MAX_CODE:
        raise ValueError("a code has to be an integer of at most 64 bits")
    return code


def _end_without_word(*, failed: bool) -> RestoreState:
    return RestoreState.COMPLETED_WITH_ERRORS if failed else RestoreState.COMPLETED
