from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agent_reporter import processes
from agent_reporter.engines.adapter import Stream
from agent_reporter.engines.running.process import LOST_STATUS, Patience
from agent_reporter.engines.running.spawn import EngineNotStartedError
from tests.engines.watcher import Watcher, open_descriptors, until

if TYPE_CHECKING:
    from pathlib import Path


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
        patience=Patience(),
    )
    assert await engine.wait() == 0
    os.close(target)
    digest = hashlib.sha256(content).digest()
    assert hashlib.sha256((tmp_path / "out").read_bytes()).digest() == digest
    assert hashlib.sha256(received).digest() == digest
    for stream in Stream:
        assert [line for of, line in watcher.lines if of is stream][-2:] == ["caf\ufffd", "last"]
    assert watcher.warnings == []


async def test_what_an_engine_printed_before_its_end_is_shown_however_late_it_can_be_read(
    watcher: Watcher, tmp_path: Path
) -> None:
    shown, waits = threading.Event(), 0

    def on_line(stream: Stream, line: str) -> None:
        watcher.lines.append((stream, line))
        if line == "first":
            (tmp_path / "go").touch()
            shown.wait(20)

    async def sleep(seconds: float) -> None:
        nonlocal waits
        waits += 1
        if waits > 1:  # the time to read in was over at once
            shown.set()
            await asyncio.sleep(20)

    engine = await watcher.start(
        "sh",
        "-c",
        'echo first; until [ -e "$0" ]; do sleep 0.01; done; echo second; echo last',
        str(tmp_path / "go"),
        on_line=on_line,
        sleep=sleep,
    )
    assert await engine.wait() == 0
    assert [line for _, line in watcher.lines] == ["first", "second", "last"]


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
    assert (len(received), received.count(b"x")) == (20_000_000, 20_000_000)


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


async def test_an_exit_status_that_somebody_else_took_counts_as_a_failure(watcher: Watcher) -> None:
    engine = await watcher.start("sleep", "0.3")
    os.waitpid(engine.pid, 0)  # noqa: ASYNC222 - the loop must not be the first
    assert await engine.wait() == LOST_STATUS


async def test_a_start_that_is_cancelled_leaves_no_engine_behind(watcher: Watcher, tmp_path: Path) -> None:
    start = asyncio.create_task(watcher.start("sh", "-c", f"echo $$ > {tmp_path}/pid; exec sleep 60"))
    await asyncio.sleep(0)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await until(lambda: all(stat.parent != os.getpid() for stat in processes.all_stats().values()))
