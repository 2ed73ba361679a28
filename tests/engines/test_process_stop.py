from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agent_reporter import processes
from agent_reporter.engines.adapter import Stream
from tests.blocking import no_blocking_calls

if TYPE_CHECKING:
    from tests.engines.watcher import Watcher


async def test_a_first_signal_that_is_obeyed_ends_the_engine_in_its_grace(watcher: Watcher) -> None:
    engine = await watcher.python("print('up')\nimport signal; signal.pause()")
    await watcher.says("up")
    result = await engine.stop(signal.SIGTERM, 10)
    assert await engine.wait() == -signal.SIGTERM
    assert not result.killed
    assert result.everything_is_gone


async def test_an_engine_that_ignores_the_first_signal_is_killed_after_its_grace(watcher: Watcher) -> None:
    engine = await watcher.python(
        "import signal; signal.signal(15, signal.SIG_IGN)\nprint('up')\nwhile 1: signal.pause()"
    )
    await watcher.says("up")
    started = time.monotonic()
    result = await engine.stop(signal.SIGTERM, 0.3)
    assert 0.3 <= time.monotonic() - started < 3
    assert await engine.wait() == -signal.SIGKILL
    assert result.killed
    assert result.everything_is_gone
    assert "killed" in watcher.warnings[0]


async def test_a_suspended_engine_acts_on_the_first_signal(watcher: Watcher) -> None:
    engine = await watcher.python("import os; print('up'); os.kill(os.getpid(), 19); print('on')")
    await watcher.says("up")
    assert not (await engine.stop(signal.SIGTERM, 10)).killed
    assert await engine.wait() == -signal.SIGTERM


async def test_a_user_who_does_not_want_to_wait_can_end_the_grace(watcher: Watcher) -> None:
    engine = await watcher.python(
        "import signal; signal.signal(15, signal.SIG_IGN)\nprint('up')\nwhile 1: signal.pause()"
    )
    await watcher.says("up")
    stop = asyncio.create_task(engine.stop(signal.SIGTERM, 3600))
    await asyncio.sleep(0.1)
    engine.hasten()
    engine.hasten()
    assert (await stop).killed


GRANDCHILD = """
import os, signal, sys
ready, is_ready = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(15, {handler})
        print(f"grandchild {{os.getpid()}}")
        os.write(is_ready, b"!")
        while True:
            signal.pause()
    os._exit(0)
os.wait()
os.read(ready, 1)
print("up")
{then}
"""


def grandchild_of(watcher: Watcher) -> int:
    return next(int(line.split()[1]) for _, line in watcher.lines if line.startswith("grandchild"))


@pytest.mark.parametrize(("handler", "killed"), [("signal.SIG_IGN", True), ("signal.SIG_DFL", False)])
async def test_a_stop_ends_only_after_a_grandchild_in_a_session_of_its_own_is_gone(
    watcher: Watcher, handler: str, *, killed: bool
) -> None:
    engine = await watcher.python(GRANDCHILD.format(handler=handler, then="signal.pause()"))
    await watcher.says("up")
    grandchild = processes.identity(grandchild_of(watcher))
    assert grandchild is not None
    result = await engine.stop(signal.SIGTERM, 10)
    assert not processes.is_alive(grandchild)
    assert processes.identity(grandchild.pid) is None, "it is not even a zombie"
    assert result.killed is killed
    assert result.everything_is_gone
    async with asyncio.timeout(5):
        assert await engine.wait() == -signal.SIGTERM


async def test_a_grandchild_that_holds_the_pipe_does_not_hold_up_the_end_of_the_engine(
    watcher: Watcher,
) -> None:
    engine = await watcher.python(GRANDCHILD.format(handler="signal.SIG_DFL", then="sys.exit(7)"))
    started = time.monotonic()
    assert await engine.wait() == 7
    assert time.monotonic() - started < 5
    grandchild = processes.identity(grandchild_of(watcher))
    assert grandchild is not None
    assert processes.is_alive(grandchild), (
        "what an engine leaves behind is not killed unless a stop is asked for"
    )
    assert (await engine.stop(signal.SIGTERM, 10)).everything_is_gone
    assert not processes.is_alive(grandchild)


async def test_a_tree_that_grows_while_it_is_killed_is_killed_all_the_same(watcher: Watcher) -> None:
    code = """
import os, signal, time
signal.signal(15, signal.SIG_IGN)
print('up')
while True:
    if os.fork() == 0:
        os.setsid()
    time.sleep(0.05)
    if os.getpid() % 2: time.sleep(1)
"""
    engine = await watcher.python(code)
    await watcher.says("up")
    result = await engine.stop(signal.SIGTERM, 0.2)
    assert result.everything_is_gone
    assert result.killed
    assert engine._tree.living() == frozenset()


async def test_stopping_and_waiting_at_the_same_time_work_together(watcher: Watcher) -> None:
    engine = await watcher.start("sleep", "60")
    results = await asyncio.gather(
        engine.wait(), engine.wait(), engine.stop(signal.SIGTERM, 5), engine.stop(signal.SIGINT, 0)
    )
    assert results[0] == results[1] == -signal.SIGTERM
    assert results[2] is results[3]


async def test_a_cancelled_caller_interrupts_neither_the_stop_nor_the_wait(watcher: Watcher) -> None:
    engine = await watcher.start("sleep", "60")
    callers = [asyncio.create_task(engine.wait()), asyncio.create_task(engine.stop(signal.SIGTERM, 5))]
    await asyncio.sleep(0)
    for caller in callers:
        caller.cancel()
    await asyncio.gather(*callers, return_exceptions=True)
    async with asyncio.timeout(5):
        assert await engine.wait() == -signal.SIGTERM


async def test_a_blocked_consumer_does_not_keep_an_engine_from_being_stopped(watcher: Watcher) -> None:
    blocked = threading.Event()
    code = """
import signal, sys
def end(*_):
    for _ in range(30):
        sys.stdout.write('y' * 1_000_000)
    sys.stdout.flush()
    sys.exit(130)
signal.signal(2, end)
print('up', file=sys.stderr)
while True:
    sys.stdout.write('x' * 1_000_000)
"""
    engine = await watcher.python(code, sinks={Stream.OUT: lambda _: blocked.wait(60) and None})
    await watcher.says("up")
    await asyncio.sleep(0.5)
    result = await engine.stop(signal.SIGINT, 20)
    assert not result.killed
    assert result.everything_is_gone
    async with asyncio.timeout(5):
        assert await engine.wait() == 130
    assert "could not be passed on" in watcher.warnings[-1]
    blocked.set()


async def test_a_signal_is_passed_on_to_the_process_group(watcher: Watcher) -> None:
    engine = await watcher.start(
        "sh", "-c", "trap 'echo got it; exit 4' USR1; echo up; while :; do sleep 0.05; done"
    )
    await watcher.says("up")
    assert engine.send_signal(signal.SIGUSR1)
    assert await engine.wait() == 4
    assert (Stream.OUT, "got it") in watcher.lines


async def test_an_engine_of_another_user_is_warned_of_and_reported_as_a_survivor(
    watcher: Watcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await watcher.start("sleep", "60")

    def refuse(*_: object) -> None:
        raise PermissionError

    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", refuse)
        patch.setattr("agent_reporter.engines.running.process_tree.send_signal", refuse)
        result = await engine.stop(signal.SIGTERM, 0.05)
    assert result.survivors == (engine.identity,)
    assert not result.everything_is_gone
    assert any("as another user" in warning for warning in watcher.warnings)
    engine.send_signal(signal.SIGKILL)
    assert await engine.wait() == -signal.SIGKILL


async def test_the_event_loop_is_never_blocked(watcher: Watcher) -> None:
    with no_blocking_calls():
        engine = await watcher.python(
            "import signal; signal.signal(15, signal.SIG_IGN)\nprint('up')\nwhile 1: signal.pause()",
            sinks={Stream.OUT: lambda _: None},
        )
        await watcher.says("up")
        assert (await engine.stop(signal.SIGTERM, 0.05)).killed
        assert await engine.wait() == -signal.SIGKILL


@pytest.mark.parametrize("alone", [True, False])
async def test_an_engine_that_ends_its_helpers_itself_gets_the_signal_alone(
    watcher: Watcher, *, alone: bool
) -> None:
    helper = "(trap 'echo helper; exit' TERM; echo ready; while :; do sleep 0.02; done)"
    script = f"{helper} & trap 'sleep 0.5; echo engine; exit 7' TERM; wait"
    engine = await watcher.start("sh", "-c", script, alone=alone)
    await watcher.says("ready")
    assert (await engine.stop(signal.SIGTERM, 10)).everything_is_gone
    assert await engine.wait() == 7
    ended = [line for _, line in watcher.lines if line in {"engine", "helper"}]
    assert ended == (["engine", "helper"] if alone else ["helper", "engine"])
