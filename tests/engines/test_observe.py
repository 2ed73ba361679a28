from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.engines.adapter import EngineError, StopCause, Stream
from agent_reporter.engines.error_lines import MAX_SEARCHED_CHARACTERS, error_pattern
from agent_reporter.engines.observe import Observe, ObserveReader
from agent_reporter.errors import AgentReporterError, ConfigurationError
from agent_reporter.model.state import RestoreState

OF_CP = r"^cp: .*'(?P<path>[^']*)'"


def reader(pattern: str) -> ObserveReader:
    return Observe(error_pattern(pattern)).reader()


def test_without_a_pattern_no_line_is_an_error() -> None:
    assert list(Observe().reader().read_line(Stream.ERR, "ERROR: everything is lost")) == []


def test_a_line_on_stderr_that_the_pattern_is_found_in_is_an_error_of_the_path_in_it() -> None:
    line = "cp: cannot create regular file '/t/one file': No space left on device"
    assert list(reader(OF_CP).read_line(Stream.ERR, line)) == [
        EngineError("/t/one file", "no_space_left", line, 28)
    ]


@pytest.mark.parametrize("pattern", ["ERROR", "(?P<path>/t/.*)|ERROR", "(ERROR)"])
def test_an_error_without_a_path_is_one_of_the_whole_restore(pattern: str) -> None:
    (error,) = reader(pattern).read_line(Stream.ERR, "ERROR: it did not work")
    assert error == EngineError("", "restore_error", "ERROR: it did not work")


def test_other_lines_and_those_on_stdout_are_no_errors() -> None:
    assert list(reader("^ERROR").read_line(Stream.ERR, "no ERROR")) == []
    assert list(reader("^ERROR").read_line(Stream.OUT, "ERROR")) == []


@pytest.mark.parametrize(
    ("returncode", "stop", "state", "reason"),
    [
        (0, None, RestoreState.COMPLETED_WITH_ERRORS, "unable_to_process_some_files"),
        (0, StopCause.CONTROL_PLANE, RestoreState.COMPLETED_WITH_ERRORS, "unable_to_process_some_files"),
        (1, None, RestoreState.FAILED, "target_full"),
        (-15, StopCause.CONTROL_PLANE, RestoreState.STOPPED, "stop_requested"),
        (-9, None, RestoreState.FAILED, "engine_killed"),
    ],
)
def test_with_errors_a_restore_is_never_completed(
    returncode: int, stop: StopCause | None, state: RestoreState, reason: str
) -> None:
    with_errors = reader("^ERROR: ")
    with_errors.read_line(Stream.ERR, "ERROR: /t/a: No space left on device")
    outcome = with_errors.outcome(returncode, stop)
    assert (outcome.state, outcome.reason) == (state, reason)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "no regular expression: missing \\)"),
        ("(?P<path", "no regular expression"),
        ("a{4294967296}", "no regular expression"),
        (f"a{{{'9' * 5_000}}}", "no regular expression"),
        ("(" * 10_000, "no regular expression"),
        ("(?P<x>)" * 2, "no regular expression"),
        (f"(?P<{'x' * 10_000} >)", "no regular expression"),
        ("", "found in every line"),
        ("ERROR|", "found in every line"),
    ],
)
def test_a_pattern_that_can_be_none_is_refused_with_what_to_do(pattern: str, why: str) -> None:
    with pytest.raises(AgentReporterError, match=why) as raised:
        error_pattern(pattern)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "pattern",
    [
        r"^((\w+ ?))+: failed",
        r"^(\w+\s?)*: failed",
        r"^(.|\s)*: failed",
        r"(a+)+$",
        r"(?:x*)*",
        r"(?:x*?)*?y",
        r"(\w\w?)+: failed",
        r"(foo|fo)+",
        r"(\w{1,99}){1,99}: failed",
        r"((\w*){3}){3}: failed",
        r"x(?=(a+)+$)",
        r"(a)?(?(1)(b|bc)+|d)",
    ],
)
def test_a_pattern_that_may_take_for_ever_is_refused_with_what_to_write_instead(pattern: str) -> None:
    with pytest.raises(AgentReporterError, match=r"for ever on a long line. Write .* such as '\[a-z \]\+'"):
        error_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "^(.*): (.*): (.*): (.*)!",
        ".*: .*: .+failed",
        "x.*?(.*)(.*)x",
        "^q|.*x.*y.*z",
        r"\w*x\w*y\w*z",
        "[^:]*x[^:]*y[^:]*: ",
        r"\S+x\S+y\S+!",
        r"[\s\S]*x[\s\S]*y[\s\S]*z",
        "(.)*: (.)*: (.)*: failed",
    ],
)
def test_a_pattern_that_tries_every_place_for_many_things_is_refused(pattern: str) -> None:
    with pytest.raises(AgentReporterError, match=r"too many of '\.\*'.*'\[\^:\]\*: '"):
        error_pattern(pattern)


def test_what_python_thinks_of_a_pattern_is_not_shown_to_who_wrote_it() -> None:
    assert error_pattern("[[a]").search("a")


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        (r"^ERROR: (?P<path>.*): .+", "ERROR: /t/a: gone"),
        (r"^(.*): (.*): (.*): failed", "one: two: three: failed"),
        (r"^(\w+) \d+: [^:]*: ([^,]*), (.*) failed", "one 2: three: four, five failed"),
        (r"(\w+) \d+: [a-z]+: (.*) failed", "one 2: three: four failed"),
        (r".*: .*failed", "one: two failed"),
        (r"^\[[0-9T:-]+\] \S+ (?:ERROR|FATAL) (?P<path>/.*): \D+\(\d+\)$", "[1T2] a ERROR /t: gone (5)"),
        (r"^(foo|bar): ", "bar: gone"),
        (r"[a-z ]+: failed", "one two: failed"),
        (r"(ab)+c", "ababc"),
        (r"(a|b)+c", "abac"),
        (r"(foo|fob)+", "fobfoo"),
        (r"^(\d{1,3}\.){3}\d+: ", "127.0.0.1: refused"),
        (r"(?:a++b)+c", "aabc"),
        (r"^(\[[^]]*\] )?(ERROR|FATAL)", "[now] FATAL"),
    ],
)
def test_a_pattern_that_is_quick_is_taken(pattern: str, line: str) -> None:
    assert error_pattern(pattern).search(line)


@pytest.mark.parametrize("depth", [100, 200, 300, 400, 500, 600])
def test_however_deep_a_pattern_is_it_is_taken_or_refused(depth: int) -> None:
    try:
        assert error_pattern("(" * depth + "a" + ")" * depth).search("a")
    except ConfigurationError as refused:
        assert "no regular expression" in str(refused)  # noqa: PT017 - either will do


def test_a_line_without_end_is_searched_at_its_beginning_only() -> None:
    assert list(reader("ERROR").read_line(Stream.ERR, " " * MAX_SEARCHED_CHARACTERS + "ERROR")) == []
    (error,) = reader("ERROR(?P<path>.*)").read_line(Stream.ERR, "ERROR" + "x" * 5_000_000)
    assert isinstance(error, EngineError)
    assert len(error.path) <= MAX_SEARCHED_CHARACTERS
    assert len(error.description) <= 2048


@given(st.lists(st.text(st.characters()), max_size=20))
def test_whatever_is_printed_reading_it_never_fails_and_what_it_tells_can_be_encoded(
    lines: list[str],
) -> None:
    read = reader("(?P<path>.+)")
    for line in lines:
        for error in read.read_line(Stream.ERR, line):
            assert isinstance(error, EngineError)
            (error.path + error.description).encode()
    read.outcome(0, None).diagnostics.encode()
