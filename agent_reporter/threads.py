"""Blocking calls in threads of their own, so that the event loop never waits for them.

Not the loop's default executor: an engine in the same loop, or name resolution, can fill that for minutes,
and a stop has to go through all the same. Daemon threads, so that a call that hangs does not keep the
program from ending.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def start_daemon(name: str, target: Callable[[], None]) -> threading.Thread:
    """Run `target` in a daemon thread called `name`."""
    thread = threading.Thread(name=name, target=target, daemon=True)
    thread.start()
    return thread


def aside(warn: Callable[[str], None]) -> Callable[[str], None]:
    """`warn`, called in a thread of its own: it may block, and raise, and the caller goes on."""

    def warn_aside(sentence: str) -> None:
        def run() -> None:
            with suppress(Exception):
                warn(sentence)

        with suppress(RuntimeError):  # the system has no thread left
            start_daemon("warn", run)

    return warn_aside


def call_in_loop(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> bool:
    """Have `callback` called in `loop`, from any thread; False if the loop is closed."""
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        return False
    return True


async def in_thread(
    name: str, function: Callable[[], T], *, abandoned: Callable[[T], None] | None = None
) -> T:
    """The result of `function`, called in a thread of its own.

    When the caller is cancelled meanwhile, the call goes on, and `abandoned` gets its result, in a thread.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def deliver(result: T) -> None:
        if not future.cancelled():
            future.set_result(result)
        elif abandoned is not None:
            start_daemon(name, lambda: abandoned(result))

    def fail(error: Exception) -> None:
        if not future.cancelled():
            future.set_exception(error)

    def run() -> None:
        try:
            result = function()
        except Exception as error:  # noqa: BLE001 - it is raised again where the result is awaited
            failure = error  # the name of an exception is gone when its clause ends
            call_in_loop(loop, lambda: fail(failure))
            return
        if not call_in_loop(loop, lambda: deliver(result)) and abandoned is not None:
            abandoned(result)

    start_daemon(name, run)
    return await future
