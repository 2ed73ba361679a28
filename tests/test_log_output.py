from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
from collections import Counter
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter import log_output
from agent_reporter.log_folding import Folder
from agent_reporter.log_journal import encode_fields, journal_fields
from agent_reporter.log_output import Output, configure
from agent_reporter.logs import CONCEALED, conceal, get_logger
from tests.blocking import no_blocking_calls
from tests.builders import FakeClock, python

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from structlog.typing import EventDict


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    loggers = [logging.getLogger("agent_reporter"), logging.getLogger()]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def output() -> Output:
    (handler,) = logging.getLogger("agent_reporter").handlers
    assert isinstance(handler, Output)
    return handler


def lines(capfd: pytest.CaptureFixture[str]) -> list[str]:
    output().flush(60)
    return capfd.readouterr().err.splitlines()


@pytest.mark.parametrize("form", ["json", "auto"])
def test_where_nobody_reads_along_events_are_json_a_line(
    capfd: pytest.CaptureFixture[str], form: str
) -> None:
    conceal("s3cret")
    configure("info", form)
    get_logger(restore_id="r-1").info("sign_in.done", source="s3cret\nand a line")
    logging.getLogger("agent_reporter").debug("too.fine")
    (line,) = lines(capfd)
    event = json.loads(line)
    assert event.pop("timestamp")
    assert event == {
        "event": "sign_in.done",
        "level": "info",
        "restore_id": "r-1",
        "source": f"{CONCEALED}\nand a line",
    }


SAY = """
import sys
from agent_reporter.log_output import configure
from agent_reporter.logs import get_logger
configure('warning', sys.argv[1])
"""


def test_on_a_terminal_events_are_keys_and_values_a_line() -> None:
    ours, theirs = os.openpty()
    script = f"{SAY}get_logger(restore_id='r-1').warning('delivery.failed', why='two\\nlines')"
    subprocess.run([sys.executable, "-c", script, "auto"], stderr=theirs, timeout=60, check=True)
    os.close(theirs)
    (line,) = os.read(ours, 4096).decode().splitlines()
    os.close(ours)
    assert line.startswith("timestamp=")
    assert "level=warning event=delivery.failed" in line
    assert "restore_id=r-1" in line
    assert r"why=two\nlines" in line


@pytest.mark.parametrize("form", ["json", "text"])
def test_an_event_that_no_terminal_can_show_is_shown_all_the_same(form: str) -> None:
    said = python(f"{SAY}get_logger().warning('delivery.failed', why='a lone \\udcff surrogate')", form)
    assert said.returncode == 0
    assert "delivery.failed" in said.stderr
    assert "\\udcff surrogate" in said.stderr


def test_configuring_again_changes_level_and_form_and_says_everything_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure("warning", "json")
    first = output()
    configure("info", "text")
    get_logger().info("an.event")
    (line,) = lines(capfd)
    assert line.endswith("level=info event=an.event")
    assert output() is first


def test_what_a_library_logs_goes_the_same_way_without_secrets(capfd: pytest.CaptureFixture[str]) -> None:
    conceal("s3cret")
    configure("error", "json")
    logging.getLogger("asyncio").warning("too fine")
    try:
        raise ValueError("s3cret")  # noqa: TRY301 - what is caught is what is logged
    except ValueError:
        logging.getLogger("aiohttp.server").exception("Error handling %s", "s3cret")
    (line,) = lines(capfd)
    event = json.loads(line)
    assert event["event"] == f"Error handling {CONCEALED}"
    assert (event["level"], event["logger"]) == ("error", "aiohttp.server")
    assert event["exception"].endswith(f"ValueError: {CONCEALED}")


def test_an_event_that_cannot_be_rendered_is_left_out_and_the_next_one_is_written(
    capfd: pytest.CaptureFixture[str],
) -> None:
    configure("warning", "json")
    output().handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",), "levelno": logging.ERROR}))
    get_logger().warning("an.event")
    (line,) = lines(capfd)
    assert json.loads(line)["event"] == "an.event"


def test_an_error_logged_just_before_the_end_is_still_written() -> None:
    said = python(f"{SAY}get_logger().error('an.event')\nsys.exit(3)", "text")
    assert said.returncode == 3
    assert said.stderr.endswith("event=an.event\n")


def test_a_stderr_that_is_non_blocking_gets_everything() -> None:
    script = (
        f"{SAY}import logging, os\nos.set_blocking(2, False)\n"
        "for number in range(2000): get_logger().error('an.event', number=number)\n"
        "logging.getLogger('agent_reporter').handlers[0].flush(60)"
    )
    said = python(script, "json")
    assert [json.loads(line)["number"] for line in said.stderr.splitlines()] == list(range(2000))


@contextmanager
def full_pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, bytes(4096))
    os.set_blocking(writing, True)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_full_stderr_that_nobody_reads_neither_holds_up_a_caller_nor_the_end(form: str) -> None:
    script = f"{SAY}for number in range(10000): get_logger().error('an.event', number=number)\nprint('said')"
    with full_pipe() as (_, writing):
        said = subprocess.run(
            [sys.executable, "-c", script, form],
            stdout=subprocess.PIPE,
            stderr=writing,
            timeout=60,
            check=False,
        )
    assert (said.returncode, said.stdout) == (0, b"said\n")


@pytest.mark.parametrize("closes", ["os.close(2)", "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)"])
def test_a_stderr_that_cannot_be_written_is_no_reason_to_fail(closes: str) -> None:
    said = python(f"import os\n{SAY}{closes}\nget_logger().error('an.event')\nprint('said')", "json")
    assert (said.returncode, said.stdout) == (0, "said\n")


async def test_logging_does_not_block_the_event_loop(capfd: pytest.CaptureFixture[str]) -> None:
    with no_blocking_calls():
        configure("warning", "auto")
        for _ in range(100):
            get_logger().warning("an.event")
            await asyncio.sleep(0)
    assert len(lines(capfd)) == 100


class Gate:
    """A place to write to that takes nothing until it is opened."""

    def __init__(self) -> None:
        self.is_reached, self._is_open = threading.Event(), threading.Event()
        self.written: list[EventDict] = []

    def write(self, event: EventDict) -> None:
        self.is_reached.set()
        self._is_open.wait(60)
        self.written.append(event)

    def open(self) -> None:
        self._is_open.set()


def record(event: str, **keys: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": {"event": event, "level": "warning", "timestamp": "then", **keys}})


def test_what_there_was_no_room_for_is_counted_and_the_count_is_told_once() -> None:
    gate = Gate()
    slow = Output(gate.write, room=2)
    slow.handle(record("first"))
    assert gate.is_reached.wait(60)
    for number in range(5):
        slow.handle(record(f"event.{number}"))
    gate.open()
    slow.flush(60)
    slow.handle(record("last"))
    slow.flush(60)
    names = [event["event"] for event in gate.written]
    assert sorted(names) == ["event.0", "event.1", "first", "last", "log.dropped"]
    (told,) = (event for event in gate.written if event["event"] == "log.dropped")
    assert told.pop("timestamp").endswith("Z")
    assert told == {"event": "log.dropped", "level": "warning", "times": 3}


def test_flush_returns_though_nothing_can_be_written() -> None:
    gate = Gate()
    stuck = Output(gate.write)
    stuck.handle(record("first"))
    assert gate.is_reached.wait(60)
    stuck.flush(0)
    assert gate.written == []
    gate.open()


def test_a_thousand_restores_that_fail_alike_take_two_lines() -> None:
    script = (
        f"{SAY}"
        "for number in range(1000):\n"
        "    get_logger(restore_id=f'r-{number}').warning(\n"
        "        'delivery.failed', why=f'no answer for r-{number}', attempt=number)\n"
    )
    said = python(script, "json")
    first, folded = map(json.loads, said.stderr.splitlines())
    assert (first["event"], first["restore_id"], first["why"]) == (
        "delivery.failed",
        "r-0",
        "no answer for r-0",
    )
    assert folded.pop("timestamp")
    assert folded == {
        "event": "log.folded",
        "level": "warning",
        "folded": "delivery.failed",
        "why": "no answer for *",
        "times": 999,
    }


def test_the_count_is_written_when_the_time_is_over_though_nothing_more_is_logged() -> None:
    clock = FakeClock()
    written: list[str] = []
    heard = {"a.moment_later": threading.Event(), "log.folded": threading.Event()}

    def write(event: EventDict) -> None:
        written.append(event["event"])
        if event["event"] in heard:
            heard[event["event"]].set()

    handler = Output(write, Folder(seconds=0.01), now=clock.monotonic)
    handler.handle(record("delivery.failed", why="no answer"))
    handler.handle(record("delivery.failed", why="no answer"))
    handler.handle(record("a.moment_later"))
    assert heard["a.moment_later"].wait(60)
    clock.pass_by(0.01)
    assert heard["log.folded"].wait(60)
    assert written == ["delivery.failed", "a.moment_later", "log.folded"]


def failure(why: str = "no answer", **keys: object) -> EventDict:
    return {"event": "delivery.failed", "level": "warning", "why": why, **keys}


def test_a_failure_is_written_again_when_its_time_is_over() -> None:
    folder = Folder()
    assert folder.take(failure(attempt=1), 0.0) == [failure(attempt=1)]
    assert folder.take(failure(attempt=2), 59.9) == []
    assert folder.seconds_left(59.0) == 1.0
    assert folder.take(failure(attempt=3), 60.0) == [
        {
            "event": "log.folded",
            "level": "warning",
            "folded": "delivery.failed",
            "why": "no answer",
            "times": 1,
        },
        failure(attempt=3),
    ]


@pytest.mark.parametrize(
    "other",
    [
        failure("another"),
        {**failure(), "event": "stop.poll_failed"},
        {**failure(), "level": "error"},
        {**failure(), "problem": "no answer"},
    ],
)
def test_what_differs_in_name_level_or_reason_is_another_failure(other: EventDict) -> None:
    folder = Folder()
    folder.take(failure(), 0.0)
    assert folder.take(other, 1.0) == [other]


@pytest.mark.parametrize("other", [{**failure(), "level": "info"}, {"event": "x", "level": "error"}])
def test_what_is_no_failure_or_names_no_reason_is_always_written(other: EventDict) -> None:
    folder = Folder()
    assert [folder.take(other, 0.0) for _ in range(3)] == [[other]] * 3


def test_two_restores_with_short_ids_are_not_taken_for_one_reason() -> None:
    folder = Folder()
    folder.take(failure("answered 401", restore_id="1"), 0.0)
    other = failure("answered 402", restore_id="2")
    assert folder.take(other, 0.0) == [other]


def test_of_a_traceback_the_count_says_the_last_line() -> None:
    folder = Folder()
    for _ in range(2):
        folder.take(
            {"event": "loop.failed", "level": "error", "exception": "Traceback\n  ...\nValueError: x"}, 0.0
        )
    (folded,) = folder.end_all()
    assert folded["exception"] == "ValueError: x"


happenings = st.lists(
    st.tuples(
        st.sampled_from(["a.failed", "b.failed"]),
        st.sampled_from(["info", "warning", "error"]),
        st.sampled_from(["no answer", "refused", "full"]),
        st.sampled_from(["r-1", "r-2"]),
        st.integers(0, 40),
    ),
    max_size=60,
)


@given(happenings, st.integers(1, 20))
def test_every_failure_is_written_or_counted_in_bounded_memory(
    happened: list[tuple[str, str, str, str, int]], room: int
) -> None:
    folder, now = Folder(60.0, room), 0.0
    offered: Counter[tuple[str, str, str]] = Counter()
    told: Counter[tuple[str, str, str]] = Counter()
    last_written: dict[tuple[str, str, str], float] = {}
    for name, level, why, restore_id, gap in happened:
        now += gap
        event = {"event": name, "level": level, "why": why, "restore_id": restore_id}
        offered[name, level, why] += 1
        written = folder.take(event, now)
        _count(told, written)
        assert len(folder._windows) <= room
        if event not in written:
            assert level != "info"
            assert now - last_written[name, level, why] < 60.0
        elif level != "info" and room >= 12:
            assert now - last_written.get((name, level, why), -60.0) >= 60.0
        if event in written:
            last_written[name, level, why] = now
        left = folder.seconds_left(now)
        assert left is None or 0.0 < left <= 60.0
    _count(told, folder.end_all())
    assert told == offered
    assert folder.end_all() == []


def _count(told: Counter[tuple[str, str, str]], written: list[EventDict]) -> None:
    for event in written:
        times = event.get("times", 1)
        assert times > 0
        told[event.get("folded", event["event"]), event["level"], event["why"]] += times


def decoded(entry: bytes) -> dict[str, bytes]:
    """What the journal reads in a datagram, as its documentation has it."""
    fields = {}
    while entry:
        line, _, entry = entry.partition(b"\n")
        name, is_on_the_line, value = line.partition(b"=")
        if not is_on_the_line:
            length = int.from_bytes(entry[:8], "little")
            value, end, entry = entry[8 : 8 + length], entry[8 + length : 9 + length], entry[9 + length :]
            assert end == b"\n"
        fields[name.decode()] = value
    return fields


any_text = st.text(st.characters(exclude_categories=()))


@given(st.dictionaries(st.from_regex("[A-Z][A-Z0-9_]{0,62}", fullmatch=True), any_text))
def test_the_journal_reads_every_field_as_it_was_meant(fields: dict[str, str]) -> None:
    meant = {name: value.encode(errors="backslashreplace") for name, value in fields.items()}
    assert decoded(encode_fields(fields)) == meant


@given(st.dictionaries(any_text, any_text | st.integers() | st.none()), any_text)
def test_every_field_has_a_name_that_the_journal_takes(keys: dict[str, object], name: str) -> None:
    fields = journal_fields({**keys, "event": name, "level": "error"})
    assert all(re.fullmatch("[A-Z][A-Z0-9_]{0,63}", field) for field in fields)
    assert (fields["EVENT"], fields["PRIORITY"]) == (name, "3")


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    path = tmp_path / "journal"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(60)
        monkeypatch.setattr(log_output, "JOURNAL_SOCKET", str(path))
        yield receiver


@pytest.mark.parametrize("form", ["journal", "auto"])
def test_a_service_writes_fields_to_the_journal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, journal: socket.socket, form: str
) -> None:
    if form == "auto":
        stderr = os.fstat(2)
        monkeypatch.setenv("JOURNAL_STREAM", f"{stderr.st_dev}:{stderr.st_ino}")
    configure("warning", form)
    get_logger(restore_id="r-1").warning(
        "delivery.failed", why="two\nlines", attempt=3, **{"größe-x": "\x1b"}
    )
    fields = decoded(journal.recv(65536))
    assert fields.pop("AR_TIMESTAMP")
    assert fields == {
        "MESSAGE": r"delivery.failed restore_id=r-1 why=two\nlines attempt=3 größe-x=\x1b".encode(),
        "PRIORITY": b"4",
        "SYSLOG_IDENTIFIER": b"agent-reporter",
        "EVENT": b"delivery.failed",
        "RESTORE_ID": b"r-1",
        "AR_WHY": b"two\nlines",
        "AR_ATTEMPT": b"3",
        "AR_GR_SSE_X": b"\x1b",
    }
    assert lines(capfd) == []


def test_a_traceback_follows_the_message_as_it_is(journal: socket.socket) -> None:
    configure("warning", "journal")
    get_logger().error("loop.failed", exception="Traceback\n  a line\nValueError: x")
    fields = decoded(journal.recv(65536))
    assert fields["MESSAGE"] == b"loop.failed\nTraceback\n  a line\nValueError: x"


def test_an_entry_that_is_too_large_arrives_with_its_long_values_cut(journal: socket.socket) -> None:
    configure("warning", "journal")
    get_logger(restore_id="r-1").warning("an.event", problem="x" * 3_000_000, short="y")
    fields = decoded(journal.recv(1 << 20))
    assert (fields["RESTORE_ID"], fields["AR_SHORT"]) == (b"r-1", b"y")
    assert fields["AR_PROBLEM"] == b"x" * 16384 + "…".encode()


def test_a_journal_that_is_gone_is_no_reason_to_fail(journal: socket.socket) -> None:
    configure("warning", "journal")
    journal.close()
    get_logger().warning("an.event")
    output().flush(60)


@pytest.mark.parametrize("stream", [None, "", "1:2", "nonsense"])
def test_where_stderr_is_not_the_journal_auto_writes_to_stderr(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    journal: socket.socket,
    stream: str | None,
) -> None:
    if stream is None:
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    else:
        monkeypatch.setenv("JOURNAL_STREAM", stream)
    configure("warning", "auto")
    get_logger().warning("an.event")
    assert len(lines(capfd)) == 1


def test_where_there_is_no_journal_its_form_is_json_on_stderr(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(log_output, "JOURNAL_SOCKET", str(tmp_path / "none"))
    configure("warning", "journal")
    get_logger().warning("an.event")
    event: dict[str, Any] = json.loads(*lines(capfd))
    assert event["event"] == "an.event"
