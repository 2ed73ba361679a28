"""An event loop without a world: time jumps to the next timer, and a process that was killed never runs again.

Everything that runs belongs to a `Process`, by its context, or to the world around. Tasks and futures are
numbered, and hash by their number, so that a set of them has the same order in every run of a seed.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

MAX_STEPS = 400_000
"""No seed takes as many: a loop that spins takes more."""


class Killed(BaseException):
    """The process that runs this was killed: nothing of it goes on."""


class SpinningError(Exception):
    """Something runs again and again without an end."""


class StuckError(Exception):
    """Everybody waits, and nothing is left that could wake anybody."""


class Process:
    """What a killed process loses: everything that runs under it."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.is_alive = True
        self.tasks: dict[SimTask, None] = {}
        """All that are not done, in the order in which they began."""


PROCESS: contextvars.ContextVar[Process | None] = contextvars.ContextVar("process", default=None)
_numbers = count()


class SimFuture(asyncio.Future[Any]):
    """A future that hashes by its number."""

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._number = next(_numbers)

    def __hash__(self) -> int:
        return self._number


class SimTask(asyncio.Task[Any]):
    """A task that hashes by its number, and knows its process."""

    def __init__(
        self,
        coro: Coroutine[Any, Any, Any],
        *,
        loop: asyncio.AbstractEventLoop,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> None:
        self._number = next(_numbers)
        self.process = (context or contextvars.copy_context()).get(PROCESS)
        super().__init__(coro, loop=loop, name=name or "task", context=context)
        if self.process is not None:
            self.process.tasks[self] = None
            self.add_done_callback(_forget)

    def __hash__(self) -> int:
        return self._number


def _forget(task: Any) -> None:
    task.process.tasks.pop(task, None)


class VirtualLoop(asyncio.AbstractEventLoop):
    """Runs what is ready; when nothing is, time jumps to the next timer. It has no files, and needs none."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        """What asyncio itself had to say: exceptions that nobody took, and the like."""
        self.steps = 0
        self._time = 0.0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._order = count()

    # What asyncio asks of a loop.

    def time(self) -> float:
        return self._time

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(  # type: ignore[override]  # looser
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # looser
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]  # looser
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time + max(0.0, delay), callback, *args, context=context)

    def call_at(  # type: ignore[override]  # looser
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer is passed over when its time comes."""

    def create_future(self) -> SimFuture:
        return SimFuture(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any],  # type: ignore[override]  # no generators here
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> SimTask:
        return SimTask(coro, loop=self, name=name, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        task = context.get("task") or context.get("future")
        process = getattr(task, "process", None)
        problem = context.get("exception")
        if isinstance(problem, Killed) or (process is not None and not process.is_alive):
            return
        self.complaints.append(f"{context.get('message')}: {problem!r}")

    # What the simulation asks of it.

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run until `main` is done; raises StuckError or SpinningError if that never happens."""
        asyncio._set_running_loop(self)
        try:
            task = self.create_task(main, name="world")
            while not task.done():
                self._run_once()
            return task.result()  # type: ignore[no-any-return]  # what `main` returns
        finally:
            asyncio._set_running_loop(None)

    def _run_once(self) -> None:
        timers, ready = self._timers, self._ready
        while not ready:
            if not timers:
                raise StuckError("nothing is left that could wake anybody")
            when, _, timer = heapq.heappop(timers)
            if not timer.cancelled():
                self._time = max(self._time, when)
                ready.append(timer)
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise SpinningError(f"more than {MAX_STEPS} steps")
        handle: Any = ready.popleft()
        if handle.cancelled():
            return
        process = handle._context.get(PROCESS)
        if process is not None and not process.is_alive:
            return
        try:
            handle._context.run(handle._callback, *handle._args)
        except Killed:
            pass
        except Exception as problem:  # noqa: BLE001 - asyncio goes on after a callback that fails, loudly
            self.call_exception_handler({"message": "a callback failed", "exception": problem})


def bury(process: Process, loop: VirtualLoop) -> None:
    """Close what a killed process left suspended, so that nothing of it runs when it is collected."""
    context = contextvars.copy_context()
    context.run(PROCESS.set, process)
    asyncio._set_running_loop(loop)
    try:
        while process.tasks:
            task, _ = process.tasks.popitem()
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # it is pending, and that is the point
            _close(task.get_coro(), context)
    finally:
        asyncio._set_running_loop(None)


def _close(coroutine: Any, context: contextvars.Context) -> None:
    for _ in range(50):
        try:
            context.run(coroutine.close)
        except RuntimeError:
            continue  # it awaits on its way out, and waits there
        except BaseException:  # noqa: BLE001 - the dead may say what they like
            pass
        break
