from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.engines.adapter import EngineError, Progress, StopCause, Stream
from agent_reporter.engines.command_line import taken_apart
from agent_reporter.engines.rclone import MAX_ERRORS, MAX_UNKEPT, Rclone
from agent_reporter.model.state import RestoreState
from tests.engines.captures import last_progress, names, replay
from tests.engines.hostile_run import check_hostile_run

if TYPE_CHECKING:
    from agent_reporter.engines.adapter import Outcome
    from agent_reporter.engines.rclone import RcloneReader

COMPLETED, FAILED = RestoreState.COMPLETED, RestoreState.FAILED
PARTIAL, STOPPED = RestoreState.COMPLETED_WITH_ERRORS, RestoreState.STOPPED
SOME = "unable_to_process_some_files"
NOTHING = Progress()
ALL = Progress(1200000, 12, 1200000, 12)

# capture and version, exit status, state, reason, errors, counters
RUNS = [
    ("allcorrupt-v160", 1, FAILED, SOME, 12, NOTHING),
    ("allcorrupt-v175", 1, FAILED, SOME, 15, NOTHING),
    ("args-v175", 2, FAILED, "usage_error", 0, NOTHING),
    ("badpw-v160", 1, FAILED, "wrong_password", 12, NOTHING),
    ("badpw-v175", 0, FAILED, "wrong_password", 3, NOTHING),
    ("conflict-v160", 1, PARTIAL, SOME, 2, Progress(1000000, 10, 1000000, 10)),
    ("conflict-v175", 1, PARTIAL, SOME, 2, Progress(1600000, 10, 1600000, 10)),
    ("corrupt-v160", 5, PARTIAL, SOME, 3, Progress(1031072, 9, 1031072, 9)),
    ("corrupt-v175", 1, PARTIAL, SOME, 3, Progress(1031072, 9, 1031072, 9)),
    ("dryrun-v160", 0, FAILED, "dry_run", 0, NOTHING),
    ("dryrun-v175", 0, FAILED, "dry_run", 0, NOTHING),
    ("empty-v160", 0, COMPLETED, "", 0, NOTHING),
    ("full-v160", 1, PARTIAL, SOME, 6, Progress(600000, 6, 600000, 6)),
    ("full-v175", 1, PARTIAL, SOME, 6, Progress(600000, 6, 600000, 6)),
    ("maxduration-v160", 7, FAILED, "time_limit", 5, Progress(531072, 4, 1200000, 12)),
    ("maxduration-v175", 10, FAILED, "time_limit", 5, Progress(531072, 4, 1200000, 12)),
    ("maxtransfer-v160", 8, FAILED, "transfer_limit", 1, Progress(432768, 4, 1132768, 11)),
    ("maxtransfer-v175", 8, FAILED, "transfer_limit", 1, Progress(432768, 4, 1132768, 11)),
    ("mended-v160", 0, COMPLETED, "", 0, ALL),
    ("mended-v175", 0, COMPLETED, "", 0, Progress(1300000, 12, 1300000, 12)),
    ("noremote-v160", 1, FAILED, "repository_missing", 0, NOTHING),
    ("noremote-v175", 1, FAILED, "repository_missing", 0, NOTHING),
    ("nosrc-v160", 3, FAILED, "source_missing", 1, NOTHING),
    ("nosrc-v175", 3, FAILED, "source_missing", 1, NOTHING),
    ("notransfer-v160", 9, FAILED, "nothing_transferred", 0, NOTHING),
    ("notransfer-v175", 9, FAILED, "nothing_transferred", 0, NOTHING),
    ("ok-v160", 0, COMPLETED, "", 0, ALL),
    ("ok-v175", 0, COMPLETED, "", 0, ALL),
    ("progress-v160", 0, COMPLETED, "", 0, NOTHING),
    ("progress-v175", 0, COMPLETED, "", 0, NOTHING),
    ("quit-v160", 0, FAILED, "ended_early", 0, Progress(563840, 4, 1200000, 12)),
    ("quit-v175", 0, FAILED, "ended_early", 0, Progress(563840, 4, 1200000, 12)),
    ("rerun-v160", 0, COMPLETED, "", 0, NOTHING),
    ("rerun-v175", 0, COMPLETED, "", 0, NOTHING),
    ("rotarget-v160", 1, FAILED, SOME, 12, NOTHING),
    ("rotarget-v175", 1, FAILED, SOME, 15, NOTHING),
    ("sigINT-v160", -2, FAILED, "engine_killed", 0, Progress(360448, 0, 1200000, 12)),
    ("sigINT-v175", 130, FAILED, "interrupted", 0, Progress(360448, 0, 1200000, 12)),
    ("sigTERM-v160", -15, FAILED, "engine_killed", 0, Progress(329376, 0, 1200000, 12)),
    ("sigTERM-v175", 143, FAILED, "engine_killed", 0, Progress(327680, 0, 1200000, 12)),
    ("special-v160", 0, COMPLETED, "", 0, Progress(3, 1, 3, 1)),
    ("special-v175", 0, COMPLETED, "", 0, Progress(3, 1, 3, 1)),
    ("targetfile-v175", 1, FAILED, "target_unusable", 0, NOTHING),
    ("usage-v160", 1, FAILED, "usage_error", 0, NOTHING),
    ("usage-v175", 2, FAILED, "usage_error", 0, NOTHING),
]


def test_every_capture_is_in_the_table() -> None:
    assert {run[0] for run in RUNS} == set(names("rclone"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run[0])
def test_a_recorded_run_is_judged_by_status_counters_and_errors_together(
    run: tuple[str, int, RestoreState, str, int, Progress],
) -> None:
    name, returncode, state, reason, errors, progress = run
    reader = Rclone().reader()
    observations = replay(reader, "rclone", name)
    outcome = reader.outcome(returncode, None)
    assert (outcome.state, outcome.reason, len(outcome.errors)) == (state, reason, errors)
    assert last_progress(observations) == progress
    assert all(isinstance(observation, Progress) for observation in observations)
    assert len(outcome.diagnostics.encode()) <= 4096


@pytest.mark.parametrize(
    ("name", "returncode", "state"),
    [
        ("sigINT-v160", -2, STOPPED),
        ("sigINT-v175", 130, STOPPED),
        ("sigTERM-v160", -15, STOPPED),
        ("sigTERM-v175", 143, STOPPED),
        ("quit-v175", 0, STOPPED),
        ("ok-v160", 0, COMPLETED),
        ("ok-v175", 0, COMPLETED),
        ("conflict-v160", 1, PARTIAL),
        ("conflict-v175", 1, PARTIAL),
        ("badpw-v160", 1, FAILED),
        ("badpw-v175", 0, FAILED),
        ("nosrc-v175", 3, FAILED),
    ],
)
@pytest.mark.parametrize("cause", StopCause)
def test_a_run_is_stopped_only_if_the_stop_ended_it(
    name: str, returncode: int, state: RestoreState, cause: StopCause
) -> None:
    reader = Rclone().reader()
    replay(reader, "rclone", name)
    outcome = reader.outcome(returncode, cause)
    assert outcome.state is state
    if state is STOPPED:
        assert outcome.reason == cause.reason
    else:
        assert "A stop had been asked for" in outcome.diagnostics


@pytest.mark.parametrize("version", ["v160", "v175"])
def test_a_file_that_failed_in_three_attempts_is_one_error_of_its_own_path(version: str) -> None:
    reader = Rclone().reader()
    replay(reader, "rclone", f"conflict-{version}")
    assert {error.path for error in reader.outcome(1, None).errors} == {"dir1/f2", "dir2/f3"}


@pytest.mark.parametrize(
    ("name", "kind", "code"),
    [
        ("full-v160", "no_space_left", 28),
        ("full-v175", "no_space_left", 28),
        ("corrupt-v160", "data_corrupted", 0),
        ("corrupt-v175", "data_corrupted", 0),
        ("allcorrupt-v160", "data_corrupted", 0),
        ("rotarget-v160", "permission_denied", 13),
        ("nosrc-v160", "file_or_folder_missing", 0),
        ("badpw-v175", "name_undecryptable", 0),
    ],
)
def test_errors_have_a_type_and_the_errno_that_rclone_means(name: str, kind: str, code: int) -> None:
    reader = Rclone().reader()
    replay(reader, "rclone", name)
    assert {(error.type, error.code) for error in reader.outcome(1, None).errors} == {(kind, code)}


def log(level: str, message: str, **fields: Any) -> str:
    return json.dumps({"level": level, "msg": message, **fields}, separators=(",", ":"))


def failed(name: str, message: str = "Failed to copy: mkdir /t/a: not a directory") -> str:
    return log("error", message, object=name, objectType="*local.Object")


def ended(attempt: int, attempts: int = 3) -> str:
    return log("error", f"Attempt {attempt}/{attempts} failed with 1 errors and: not a directory")


def stats(**counters: Any) -> str:
    return log("notice", "\nTransferred: ...", stats=counters)


DONE = stats(bytes=9, totalBytes=9, transfers=3, totalTransfers=3, checks=0, totalChecks=0)


def after(*lines: str) -> RcloneReader:
    reader = Rclone().reader()
    for line in lines:
        list(reader.read_line(Stream.ERR, line))
    return reader


def paths(outcome: Outcome) -> list[str]:
    return [error.path for error in outcome.errors]


def test_errors_that_a_later_attempt_mended_are_none_of_the_restore() -> None:
    mended = log("error", "Attempt 2/3 succeeded")
    outcome = after(failed("a"), failed("b"), ended(1), mended, DONE).outcome(0, None)
    assert (outcome.state, outcome.errors) == (COMPLETED, ())
    assert outcome.diagnostics.startswith("Attempt 2/3 succeeded.")


def test_only_what_the_last_attempt_told_again_is_an_error_of_the_restore() -> None:
    lines = (failed("a"), failed("b"), ended(1), failed("b"), ended(2), failed("b"), ended(3), DONE)
    outcome = after(*lines).outcome(1, None)
    assert (outcome.state, paths(outcome)) == (PARTIAL, ["b"])


def test_lines_that_come_twice_tell_nothing_new() -> None:
    lines = (failed("a"), ended(1), failed("b"), ended(2), failed("b"), ended(3), DONE)
    outcome = after(*(line for line in lines for _ in range(2))).outcome(1, None)
    assert (outcome.state, paths(outcome)) == (PARTIAL, ["b"])


def test_an_attempt_whose_errors_cannot_be_retried_is_the_last() -> None:
    last = log("error", "Can't retry any of the errors - not attempting retries")
    outcome = after(failed("a"), failed("b"), ended(1), failed("b"), last, DONE).outcome(6, None)
    assert (outcome.state, paths(outcome)) == (PARTIAL, ["b"])


def test_nothing_says_that_an_attempt_that_was_cut_short_mended_what_failed_before() -> None:
    reader = after(failed("a"), failed("b"), ended(1), failed("b"), failed("c"))
    assert sorted(paths(reader.outcome(143, StopCause.HOST))) == ["a", "b", "c"]
    assert reader.outcome(143, None).state is FAILED
    assert reader.outcome(1, None).state is FAILED


def test_a_fatal_error_ends_the_restore_whatever_was_restored_before() -> None:
    last = log("error", "Fatal error received - not attempting retries")
    outcome = after(failed("a"), last, DONE).outcome(7, None)
    assert (outcome.state, paths(outcome)) == (FAILED, ["a"])


def test_errors_with_exit_status_0_are_not_completed() -> None:
    assert after(failed("a", "Failed to read metadata"), DONE).outcome(0, None).state is PARTIAL


def test_the_same_error_of_a_path_is_told_once_whatever_its_words() -> None:
    again = failed("a", "Not deleting source as copy failed: mkdir /t/a: not a directory")
    assert paths(after(failed("a"), again).outcome(1, None)) == ["a"]


def test_the_name_under_which_a_file_is_written_first_is_not_its_path() -> None:
    line = failed("d/a.0123abcd.partial", "partial file rename failed: is a directory")
    assert paths(after(line).outcome(1, None)) == ["d/a"]


def test_errors_beyond_the_bound_are_counted_without_a_path() -> None:
    lines = [failed(f"f{number}") for number in range(MAX_ERRORS + 7)]
    outcome = after(*lines, ended(3), DONE).outcome(1, None)
    assert (len(outcome.errors), paths(outcome).count("")) == (MAX_ERRORS + 7, 7)


def test_even_the_count_of_errors_without_a_path_has_a_bound() -> None:
    reader = after(*(failed(f"f{number}") for number in range(MAX_ERRORS)))
    for _ in range(MAX_UNKEPT + 7):
        reader.read_line(Stream.ERR, failed("x"))
    assert len(reader.outcome(1, None).errors) == MAX_ERRORS + MAX_UNKEPT


def test_an_error_of_a_whole_remote_is_no_error_of_a_file() -> None:
    line = log(
        "error",
        "error reading source root directory: directory not found",
        object="Local file system at /x",
        objectType="*local.Fs",
    )
    outcome = after(line, ended(3)).outcome(3, None)
    assert (outcome.state, outcome.reason) == (FAILED, "source_missing")
    assert outcome.errors == (
        EngineError(
            "",
            "file_or_folder_missing",
            "error reading source root directory: directory not found",
            0,
            "Local file system at /x",
        ),
    )


def test_totals_do_not_fall_with_the_files_that_fail() -> None:
    reader = Rclone().reader()
    lines = [
        stats(bytes=10, totalBytes=100, transfers=1, totalTransfers=9),
        stats(bytes=5, totalBytes=50, transfers=1, totalTransfers=9),
        stats(bytes=20, totalBytes=60, transfers=2, totalTransfers=8),
    ]
    told = [observation for line in lines for observation in reader.read_line(Stream.ERR, line)]
    assert told == [Progress(10, 1, 100, 9), Progress(20, 2, 100, 9)]


def test_counters_are_read_on_every_level() -> None:
    for level in ("info", "error", "debug"):
        line = log(level, "\nTransferred: ...", stats={"bytes": 1, "transfers": 1})
        assert list(Rclone().reader().read_line(Stream.ERR, line)) == [Progress(1, 1, None, None)]


@pytest.mark.parametrize(
    "left",
    [
        {"transfers": 1, "totalTransfers": 2},
        {"checks": 1, "totalChecks": 2},
        {"transferring": [{"name": "a"}]},
        {"checking": ["a"]},
    ],
)
def test_a_run_that_ends_with_0_while_there_is_something_left_to_do_is_not_completed(
    left: dict[str, Any],
) -> None:
    outcome = after(stats(**left)).outcome(0, None)
    assert (outcome.state, outcome.reason) == (FAILED, "ended_early")


def test_a_run_that_says_nothing_is_judged_by_its_exit_status() -> None:
    def judged(returncode: int, stop: StopCause | None = None) -> tuple[RestoreState, str]:
        outcome = after().outcome(returncode, stop)
        return outcome.state, outcome.reason

    assert judged(0) == (COMPLETED, "")
    assert judged(1) == (FAILED, "engine_failed")
    assert judged(3) == judged(4) == (FAILED, "source_missing")
    assert judged(-9) == judged(143) == (FAILED, "engine_killed")
    assert judged(130) == (FAILED, "interrupted")
    assert judged(143, StopCause.HOST) == (STOPPED, "stopped_on_host")


def test_a_crash_is_not_wrong_usage() -> None:
    outcome = after("panic: runtime error", "", "goroutine 1 [running]:").outcome(2, None)
    assert (outcome.state, outcome.reason) == (FAILED, "engine_failed")
    assert "panic: runtime error" in outcome.diagnostics


UNDECRYPTABLE = log("notice", "Skipping undecryptable file name: not a multiple of blocksize", object="x")


def test_a_name_that_cannot_be_decrypted_is_an_error_and_with_nothing_else_a_wrong_password() -> None:
    beside_others = after(UNDECRYPTABLE, DONE).outcome(0, None)
    assert (beside_others.state, paths(beside_others)) == (PARTIAL, ["x"])
    alone = after(UNDECRYPTABLE, stats(transfers=0)).outcome(0, None)
    assert (alone.state, alone.reason, paths(alone)) == (FAILED, "wrong_password", ["x"])
    there_already = after(UNDECRYPTABLE, stats(checks=3, totalChecks=3)).outcome(0, None)
    assert there_already.state is PARTIAL


def test_a_dry_run_restores_nothing_whatever_its_counters_say() -> None:
    dry = log("notice", "Skipped copy as --dry-run is set (size 1)", object="a", skipped="copy", size=1)
    reader = after(dry)
    assert list(reader.read_line(Stream.ERR, DONE)) == []
    assert reader.outcome(0, None).reason == "dry_run"


def test_skipped_pipes_and_links_are_a_remark_with_their_number_in_one_attempt() -> None:
    pipe = log("notice", "Can't transfer non file/directory", object="p")
    link = log("warning", "Can't follow symlink without -L/--copy-links", object="l")
    outcome = after(pipe, link, failed("a"), ended(1), pipe, link, DONE).outcome(0, None)
    assert "2 pipes, links or other special files were skipped." in outcome.diagnostics


def test_passwords_in_urls_do_not_get_into_the_diagnostics() -> None:
    outcome = after("2024/01/01 12:00:00 Failed to reach https://me:secret@host/").outcome(1, None)
    assert "secret" not in outcome.diagnostics
    assert "me:***@host" in outcome.diagnostics


def test_the_text_of_a_progress_for_a_terminal_is_not_taken_for_last_words() -> None:
    reader = after()
    reader.read_line(Stream.OUT, "Transferred: 1 / 2")
    assert "Transferred" not in reader.outcome(1, None).diagnostics


WORDS = "--use-json-log --stats 1s --stats-log-level NOTICE"


@pytest.mark.parametrize(
    ("command", "prepared"),
    [
        ("rclone copy r: /t", f"rclone {WORDS} copy r: /t"),
        ("/opt/rclone-1.75 --config c sync r: /t", f"/opt/rclone-1.75 {WORDS} --config c sync r: /t"),
        ("sudo -u me rclone -v copyto r:a /t/a", f"sudo -u me rclone {WORDS} -v copyto r:a /t/a"),
        ("sh -c 'exec rclone copy r: /t'", f"sh -c 'exec rclone {WORDS} copy r: /t'"),
        (
            "rclone copy r: /t --stats=5s",
            "rclone --use-json-log --stats-log-level NOTICE copy r: /t --stats=5s",
        ),
        (
            "rclone --use-json-log --stats 2s moveto r: /t",
            "rclone --stats-log-level NOTICE --use-json-log --stats 2s moveto r: /t",
        ),
        (f"rclone {WORDS} copyurl u /t", f"rclone {WORDS} copyurl u /t"),
        ("rclone copy r: /t --stats-one-line", f"rclone {WORDS} copy r: /t --stats-one-line"),
        ("rclone move -P r: /t", f"rclone move -P {WORDS} --progress=false r: /t"),
        ("rclone move r: /t -vP", f"rclone move r: /t -vP {WORDS} --progress=false"),
        ("rclone copy --progress -- r: -P", f"rclone copy --progress {WORDS} --progress=false -- r: -P"),
        ("rclone copy -P --progress=false r: /t", f"rclone copy -P {WORDS} --progress=false r: /t"),
        ("rclone copy -q r: /t", f"rclone {WORDS.replace('NOTICE', 'ERROR')} copy -q r: /t"),
        (
            "rclone --log-level ERROR copy r: /t",
            f"rclone {WORDS.replace('NOTICE', 'ERROR')} --log-level ERROR copy r: /t",
        ),
        ("rclone copy r: /t --log-file l", "rclone copy r: /t --log-file l"),
        ("rclone copy r: /t --log-file=l", "rclone copy r: /t --log-file=l"),
        ("rclone --syslog copy r: /t", "rclone --syslog copy r: /t"),
        ("rclone ls copy", "rclone ls copy"),
        ("rclone serve http copy", "rclone serve http copy"),
        ("rclone -- copy", "rclone -- copy"),
        ("rclone", "rclone"),
    ],
)
def test_a_restore_is_asked_for_json_and_counters_and_nothing_else_is_touched(
    command: str, prepared: str
) -> None:
    invocation = taken_apart(shlex.split(command))
    arguments, environment = Rclone().prepare(invocation, {"A": "b"})
    assert shlex.join(invocation.with_arguments(arguments)) == shlex.join(shlex.split(prepared))
    assert environment == {"A": "b"}


@pytest.mark.parametrize(
    ("variable", "value", "prepared"),
    [
        ("RCLONE_USE_JSON_LOG", "true", "--stats 1s --stats-log-level NOTICE copy r: /t"),
        ("RCLONE_STATS", "9s", "--use-json-log --stats-log-level NOTICE copy r: /t"),
        ("RCLONE_STATS_LOG_LEVEL", "ERROR", "--use-json-log --stats 1s copy r: /t"),
        ("RCLONE_LOG_LEVEL", "ERROR", f"{WORDS.replace('NOTICE', 'ERROR')} copy r: /t"),
        ("RCLONE_QUIET", "true", f"{WORDS.replace('NOTICE', 'ERROR')} copy r: /t"),
        ("RCLONE_PROGRESS", "true", f"{WORDS} --progress=false copy r: /t"),
        ("RCLONE_LOG_FILE", "l", "copy r: /t"),
    ],
)
def test_variables_of_the_user_count_as_words(variable: str, value: str, prepared: str) -> None:
    environment = {variable: value}
    assert Rclone().prepare(taken_apart(shlex.split("rclone copy r: /t")), environment) == (
        prepared.split(),
        environment,
    )


@pytest.mark.parametrize(
    ("script", "words", "prepared"),
    [
        ('exec rclone -P copy "$@"', "r: /t", f"{WORDS} --progress=false r: /t"),
        ('exec rclone --stats 5s "$@"', "copy r: /t", "--use-json-log --stats-log-level NOTICE copy r: /t"),
        ('exec rclone copy --log-file l "$@"', "r: /t", "r: /t"),
        ('exec rclone copy -- "$@"', "r: /t", "r: /t"),
        ('exec rclone ls "$@"', "copy r:", "copy r:"),
    ],
)
def test_what_a_wrapper_says_already_counts(script: str, words: str, prepared: str) -> None:
    invocation = taken_apart(["./wrapper", *words.split()], {"./wrapper": f"#!/bin/sh\n{script}\n"}.get)
    assert Rclone().recognises(invocation)
    assert Rclone().prepare(invocation, {})[0] == prepared.split()


@pytest.mark.parametrize("program", ["rclonefs", "myrclone", ""])
def test_other_programs_are_not_rclone(program: str) -> None:
    assert not Rclone().recognises(taken_apart([program, "copy"]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
counters = st.dictionaries(
    st.sampled_from(
        (
            "bytes",
            "totalBytes",
            "transfers",
            "totalTransfers",
            "checks",
            "totalChecks",
            "transferring",
            "renames",
        )
    ),
    json_values | st.integers(0, 2**70),
)
messages = st.sampled_from(
    (
        "Attempt 1/3 failed with 1 errors",
        "Attempt 3/3 failed",
        "Attempt 2/3 succeeded",
        "Attempt ",
        "Can't retry any of the errors",
        "Failed to copy: x",
        "Skipping undecryptable dir name",
        "Can't follow symlink",
        "Skipped copy as --dry-run is set",
        "\ud800",
    )
)
hostile_messages = st.builds(
    lambda fields: json.dumps(fields, separators=(",", ":")),
    st.fixed_dictionaries(
        {"level": st.sampled_from(("error", "notice", "warning", "info", "critical")) | json_values},
        optional={
            "msg": messages | json_values,
            "object": st.text(max_size=5) | json_values,
            "objectType": st.just("*local.Fs") | json_values,
            "stats": counters | json_values,
        },
    ),
)
hostile_lines = st.one_of(
    st.text(max_size=50),
    hostile_messages,
    st.sampled_from(
        [
            "{" * 200_000,
            '{"stats":{' + '"a":{' * 100_000,
            '{"level":"error","object":"' + "x" * 1_000_000 + '"}',
            '{"stats":{"bytes":' + "9" * 10_000 + "}}",
            '{"stats":{"bytes":1e999,"transfers":NaN}}',
            '{"level":"error","msg":"\\ud800","object":"\\udfff"}',
            "2024/01/01 12:00:00 ",
            "panic: ",
            "{",
            "",
        ]
    ),
)


@given(
    lines=st.lists(st.tuples(st.sampled_from(Stream), hostile_lines), max_size=20),
    returncode=st.integers(-70, 300),
    stop=st.none() | st.sampled_from(StopCause),
)
def test_no_output_makes_the_reader_raise_or_its_counters_go_down(
    lines: list[tuple[Stream, str]], returncode: int, stop: StopCause | None
) -> None:
    check_hostile_run(Rclone(), lines, returncode, stop)
