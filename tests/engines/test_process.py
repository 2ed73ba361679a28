from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from blockbuster import blockbuster_ctx

from agent_reporter import processes
from agent_reporter.engines.adapter import Stream
from agent_reporter.engines.process import LOST_STATUS, EngineProcess, Patience
from agent_reporter.engines.spawn import EngineNotStartedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_reporter.engines.pump import Sink

QUICK = Patience(eof_seconds=0.3, drain_seconds=0.5, leftovers_seconds=0.3, kill_seconds=5)


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.01)


class Watcher:
    """What a test sees of an engine."""

    def __init__(self) -> None:
        self.lines: list[tuple[Stream, str]] = []
        self.warnings: list[str] = []

    async def start(
        self,
        *command: str,
        sinks: dict[Stream, Sink | None] | None = None,
        on_line: Callable[[Stream, str], None] | None = None,
        **options: Any,
    ) -> EngineProcess:
        return await EngineProcess.start(
            command,
            dict(os.environ),
            on_line=on_line or (lambda stream, line: self.lines.append((stream, line))),
            sinks=sinks or {},
            patience=options.pop("patience", QUICK),
            warn=self.warnings.append,
            **options,
        )

    async def python(self, code: str, *arguments: str, **options: Any) -> EngineProcess:
        return await self.start(sys.executable, "-u", "-c", code, *arguments, **options)

    async def says(self, text: str) -> None:
        await until(lambda: text in [line for _, line in self.lines])


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


async def test_output_is_passed_on_byte_for_byte_and_shown_line_by_line(
    watcher: Watcher, tmp_path: Path
) -> None:
    content = os.urandom(5_000_000) + b"\ncaf\xe9\r\nlast"
    source = tmp_path / "content"
    source.write_bytes(content)
    received = bytearray()
    target = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    engine = await watcher.start(
        "sh",
        "-c",
        'cat "$0"; cat "$0" >&2',
        str(source),
        sinks={Stream.OUT: target, Stream.ERR: received.extend},
    )
    assert await engine.wait() == 0
    os.close(target)
    assert (tmp_path / "out").read_bytes() == content
    assert received == content
    for stream in Stream:
        assert [line for of, line in watcher.lines if of is stream][-2:] == ["caf\ufffd", "last"]
    assert watcher.warnings == []


async def test_output_without_a_sink_is_only_shown(watcher: Watcher) -> None:
    engine = await watcher.start("echo", "hello")
    assert await engine.wait() == 0
    assert watcher.lines == [(Stream.OUT, "hello")]


async def test_the_engine_gets_the_environment_and_a_session_of_its_own(watcher: Watcher) -> None:
    engine = await watcher.python("import os; print(os.getsid(0) == os.getpid() == os.getpgrp())")
    assert engine.identity.pid == engine.pid
    await engine.wait()
    assert watcher.lines == [(Stream.OUT, "True")]


@pytest.mark.parametrize(
    ("code", "returncode"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", -9), ("exit 130", 130)]
)
async def test_the_exit_status_is_told_as_it_is(watcher: Watcher, code: str, returncode: int) -> None:
    engine = await watcher.start("sh", "-c", code)
    assert await engine.wait() == returncode
    assert await engine.wait() == returncode
    assert not engine.send_signal(signal.SIGTERM)
    assert (await engine.stop(signal.SIGTERM, 5)).everything_is_gone


@pytest.mark.parametrize(
    ("command", "returncode", "hint"),
    [
        (["no-such-engine"], 127, "install it"),
        (["/no/such/engine"], 127, "full path"),
        ([], 127, "name the engine"),
        (["/etc/passwd"], 126, "file mode"),
        (["/"], 126, "file mode"),
        (["sh", "nul\0"], 126, "cannot be executed"),
    ],
)
async def test_an_engine_that_cannot_be_started_is_a_clear_error(
    watcher: Watcher, command: list[str], returncode: int, hint: str
) -> None:
    before = open_descriptors()
    with pytest.raises(EngineNotStartedError, match=hint) as raised:
        await watcher.start(*command)
    assert raised.value.returncode == returncode
    assert open_descriptors() == before


async def test_no_descriptor_and_no_zombie_is_left_after_an_engine(watcher: Watcher) -> None:
    before = open_descriptors()
    for _ in range(5):
        engine = await watcher.start(
            "sh", "-c", "(setsid sleep 0.05 &) ; echo x", sinks={Stream.OUT: lambda _: None}
        )
        await engine.wait()
        await asyncio.sleep(0.1)
    await (await watcher.start("true")).wait()
    assert open_descriptors() == before
    assert [s for s in processes.all_stats().values() if s.parent == os.getpid() and s.has_ended] == []


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


async def test_a_slow_consumer_holds_the_engine_back_as_a_pipe_would_and_loses_nothing(
    watcher: Watcher,
) -> None:
    go_on = threading.Event()
    received = bytearray()

    def sink(chunk: bytes) -> None:
        go_on.wait(20)
        received.extend(chunk)

    code = "import sys\nfor n in range(20): sys.stdout.write('x' * 1_000_000); sys.stdout.flush(); print(n, file=sys.stderr)"
    engine = await watcher.python(code, sinks={Stream.OUT: sink}, patience=Patience())
    await asyncio.sleep(1)
    assert (Stream.ERR, "19") not in watcher.lines
    go_on.set()
    assert await engine.wait() == 0
    assert received == b"x" * 20_000_000


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


async def test_a_consumer_that_goes_away_does_not_harm_the_engine(watcher: Watcher) -> None:
    source, target = os.pipe()
    os.close(source)
    code = "import sys\nfor _ in range(20): print('x' * 1_000_000)\nprint('done', file=sys.stderr)"
    engine = await watcher.python(code, sinks={Stream.OUT: target})
    assert await engine.wait() == 0
    os.close(target)
    assert (Stream.ERR, "done") in watcher.lines
    assert "Broken pipe" in watcher.warnings[0]


async def test_a_consumer_that_was_made_non_blocking_still_gets_everything(watcher: Watcher) -> None:
    source, target = os.pipe()
    os.set_blocking(target, False)
    received = bytearray()

    def consume() -> None:
        while chunk := os.read(source, 10_000):
            received.extend(chunk)

    consumer = threading.Thread(target=consume)
    consumer.start()
    engine = await watcher.python("print('x' * 3_000_000)", sinks={Stream.OUT: target}, patience=Patience())
    assert await engine.wait() == 0
    os.close(target)
    consumer.join()
    os.close(source)
    assert received == b"x" * 3_000_000 + b"\n"


async def test_a_reader_of_lines_that_raises_is_warned_of_once_and_does_not_stop_the_reading(
    watcher: Watcher,
) -> None:
    received = bytearray()

    def fail(stream: Stream, line: str) -> None:
        raise RuntimeError(line)

    engine = await watcher.start("seq", "1000", on_line=fail, sinks={Stream.OUT: received.extend})
    assert await engine.wait() == 0
    assert received.endswith(b"\n1000\n")
    assert watcher.warnings == ["A line of the engine's output could not be understood: RuntimeError('1')."]


async def test_lines_are_never_shown_two_at_a_time(watcher: Watcher) -> None:
    busy = threading.Lock()
    overlaps = []

    def look(stream: Stream, line: str) -> None:
        if not busy.acquire(blocking=False):
            overlaps.append(line)
            return
        time.sleep(0.0001)
        busy.release()

    engine = await watcher.start("sh", "-c", "seq 2000 & seq 2000 >&2; wait", on_line=look)
    await engine.wait()
    assert overlaps == []


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
        patch.setattr("agent_reporter.engines.process_tree.send_signal", refuse)
        result = await engine.stop(signal.SIGTERM, 0.05)
    assert result.survivors == (engine.identity,)
    assert not result.everything_is_gone
    assert any("as another user" in warning for warning in watcher.warnings)
    engine.send_signal(signal.SIGKILL)
    assert await engine.wait() == -signal.SIGKILL


async def test_an_exit_status_that_somebody_else_took_counts_as_a_failure(watcher: Watcher) -> None:
    engine = await watcher.start("sleep", "0.3")
    os.waitpid(engine.pid, 0)  # here, so that the loop cannot be the first
    assert await engine.wait() == LOST_STATUS


async def test_a_start_that_is_cancelled_leaves_no_engine_behind(watcher: Watcher, tmp_path: Path) -> None:
    start = asyncio.create_task(watcher.start("sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"))
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await until(lambda: all(stat.parent != os.getpid() for stat in processes.all_stats().values()))


async def test_the_event_loop_is_never_blocked(watcher: Watcher) -> None:
    with blockbuster_ctx("agent_reporter"):
        engine = await watcher.python(
            "import signal; signal.signal(15, signal.SIG_IGN)\nprint('up')\nwhile 1: signal.pause()",
            sinks={Stream.OUT: lambda _: None},
        )
        await watcher.says("up")
        assert (await engine.stop(signal.SIGTERM, 0.05)).killed
        assert await engine.wait() == -signal.SIGKILL
