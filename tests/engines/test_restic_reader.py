from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.engines.adapter import Begun, EngineError, Progress, StopCause, Stream
from agent_reporter.engines.restic import Restic
from agent_reporter.model.state import RestoreState
from tests.engines.captures import errors_of, last_progress, names, replay
from tests.engines.hostile_run import check_hostile_run

COMPLETED, FAILED = RestoreState.COMPLETED, RestoreState.FAILED
PARTIAL, STOPPED = RestoreState.COMPLETED_WITH_ERRORS, RestoreState.STOPPED
SOME = "unable_to_process_some_files"
NOTHING = Progress()
ALL = Progress(220528765, 2082, 220528765, 2082)

# capture and version, exit status, state, reason, errors, counters, whether the restore had begun
RUNS = [
    ("badpw-v14", 1, FAILED, "wrong_password", 0, NOTHING, False),
    ("badpw-v18", 12, FAILED, "wrong_password", 0, NOTHING, False),
    ("badpw-v19", 12, FAILED, "wrong_password", 0, NOTHING, False),
    ("badtarget-v14", 1, PARTIAL, SOME, 62, NOTHING, True),
    ("badtarget-v18", 1, FAILED, "target_unusable", 0, NOTHING, False),
    ("badtarget-v19", 1, FAILED, "target_unusable", 0, NOTHING, False),
    ("conflict-json-v14", 1, PARTIAL, SOME, 202, NOTHING, True),
    ("conflict-json-v19", 1, PARTIAL, SOME, 1, ALL, True),
    ("corrupt-v14", 1, PARTIAL, SOME, 1, NOTHING, True),
    ("corrupt-v18", 1, PARTIAL, SOME, 1, Progress(219021107, 2081, 220528765, 2082), True),
    ("corrupt-v19", 1, PARTIAL, SOME, 1, Progress(219021107, 2081, 220528765, 2082), True),
    ("full-v14", 1, PARTIAL, SOME, 20, NOTHING, True),
    ("full-v18", 1, PARTIAL, SOME, 20, Progress(3000000, 31, 3000000, 31), True),
    ("full-v19", 1, PARTIAL, SOME, 20, Progress(3000000, 31, 3000000, 31), True),
    ("locked-v14", 1, FAILED, "repository_locked", 0, NOTHING, False),
    ("locked-v18", 11, FAILED, "repository_locked", 0, NOTHING, False),
    ("locked-v19", 11, FAILED, "repository_locked", 0, NOTHING, False),
    ("missingpack-v19", 1, PARTIAL, SOME, 64, Progress(203524410, 2054, 220528765, 2082), True),
    ("nolockperm-v19", 1, FAILED, "engine_failed", 0, NOTHING, False),
    ("nomatch-v14", 0, COMPLETED, "", 0, NOTHING, True),
    ("nomatch-v18", 0, COMPLETED, "", 0, NOTHING, True),
    ("nomatch-v19", 0, COMPLETED, "", 0, NOTHING, True),
    ("norepo-v14", 1, FAILED, "repository_missing", 0, NOTHING, False),
    ("norepo-v18", 10, FAILED, "repository_missing", 0, NOTHING, False),
    ("norepo-v19", 10, FAILED, "repository_missing", 0, NOTHING, False),
    ("nosnap-v14", 1, FAILED, "snapshot_missing", 0, NOTHING, False),
    ("nosnap-v18", 1, FAILED, "snapshot_missing", 0, NOTHING, False),
    ("nosnap-v19", 1, FAILED, "snapshot_missing", 0, NOTHING, False),
    ("notarget-v14", 1, FAILED, "usage_error", 0, NOTHING, False),
    ("notarget-v18", 1, FAILED, "usage_error", 0, NOTHING, False),
    ("notarget-v19", 1, FAILED, "usage_error", 0, NOTHING, False),
    ("ok-json-fps2-v19", 0, COMPLETED, "", 0, ALL, True),
    ("ok-json-quiet-v19", 0, COMPLETED, "", 0, ALL, True),
    ("ok-json-v14", 0, COMPLETED, "", 0, NOTHING, True),
    ("ok-json-v18", 0, COMPLETED, "", 0, ALL, True),
    ("ok-json-v19", 0, COMPLETED, "", 0, ALL, True),
    ("rerun-json-vv-v19", 0, COMPLETED, "", 0, Progress(0, 61, 220528765, 2082), True),
    ("sigINT-v14", 130, FAILED, "interrupted", 0, NOTHING, True),
    ("sigINT-v18", 130, FAILED, "interrupted", 0, Progress(53022480, 1, 220528765, 2082), True),
    ("sigINT-v19", 130, FAILED, "interrupted", 0, Progress(53022480, 1, 220528765, 2082), True),
    ("sigKILL-v19", -9, FAILED, "engine_killed", 0, Progress(53022480, 1, 220528765, 2082), True),
    ("sigTERM-v14", -15, FAILED, "engine_killed", 0, NOTHING, True),
    ("uid-perm-json-v19", 1, PARTIAL, SOME, 102, Progress(215670752, 1981, 215670752, 1982), True),
    ("unwritable-v14", 1, PARTIAL, SOME, 62, NOTHING, True),
    ("unwritable-v18", 1, FAILED, SOME, 32, Progress(0, 0, None, 1), True),
    ("unwritable-v19", 1, FAILED, SOME, 32, Progress(0, 0, None, 1), True),
    ("usage-v14", 1, FAILED, "usage_error", 0, NOTHING, False),
    ("usage-v18", 1, FAILED, "usage_error", 0, NOTHING, False),
    ("usage-v19", 1, FAILED, "usage_error", 0, NOTHING, False),
    ("verify-v19", 0, COMPLETED, "", 0, ALL, True),
    ("verify-sigINT-v14", 130, FAILED, "interrupted", 0, NOTHING, True),
    ("verify-sigINT-v18", 130, FAILED, "interrupted", 0, Progress(600000000, 2, 600000000, 2), True),
    ("verify-sigINT-v19", 130, FAILED, "interrupted", 0, Progress(600000000, 2, 600000000, 2), True),
]


def test_every_capture_is_in_the_table() -> None:
    assert {run[0] for run in RUNS} == set(names("restic"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run[0])
def test_a_recorded_run_is_judged_by_status_summary_and_errors_together(
    run: tuple[str, int, RestoreState, str, int, Progress, bool],
) -> None:
    name, returncode, state, reason, errors, progress, begun = run
    reader = Restic().reader()
    observations = replay(reader, "restic", name)
    outcome = reader.outcome(returncode, None)
    assert (outcome.state, outcome.reason) == (state, reason)
    assert len(errors_of(observations)) == errors
    assert last_progress(observations) == progress
    assert sum(isinstance(observation, Begun) for observation in observations) == begun
    assert len(outcome.diagnostics.encode()) <= 4096
    if returncode:
        assert "restic" in outcome.diagnostics
    if errors:
        assert f"There were {errors} errors" in outcome.diagnostics


@pytest.mark.parametrize(
    ("name", "returncode", "state"),
    [
        ("sigINT-v14", 130, STOPPED),
        ("sigINT-v18", 130, STOPPED),
        ("sigINT-v19", 130, STOPPED),
        ("sigTERM-v14", -15, STOPPED),
        ("sigKILL-v19", -9, STOPPED),
        ("verify-sigINT-v19", 130, STOPPED),
        ("ok-json-v14", 0, COMPLETED),
        ("ok-json-v19", 0, COMPLETED),
        ("full-v14", 1, PARTIAL),
        ("full-v19", 1, PARTIAL),
        ("badpw-v14", 1, FAILED),
        ("badpw-v19", 12, FAILED),
        ("norepo-v18", 10, FAILED),
    ],
)
@pytest.mark.parametrize("cause", StopCause)
def test_a_run_is_stopped_only_if_the_stop_ended_it(
    name: str, returncode: int, state: RestoreState, cause: StopCause
) -> None:
    reader = Restic().reader()
    replay(reader, "restic", name)
    outcome = reader.outcome(returncode, cause)
    assert outcome.state is state
    if state is STOPPED:
        assert outcome.reason == {"control_plane": "stop_requested", "host": "stopped_on_host"}[cause]
    else:
        assert outcome.diagnostics.startswith("A stop had been asked for")


def test_a_run_that_says_nothing_is_judged_by_its_exit_status() -> None:
    def judged(returncode: int, stop: StopCause | None = None) -> tuple[RestoreState, str]:
        outcome = Restic().reader().outcome(returncode, stop)
        return outcome.state, outcome.reason

    assert judged(0) == (COMPLETED, "")
    assert judged(1) == (FAILED, "engine_failed")
    assert judged(-9) == judged(137) == (FAILED, "engine_killed")
    assert judged(130) == (FAILED, "interrupted")
    assert judged(255) == (FAILED, "engine_failed")
    assert judged(1, StopCause.HOST) == (STOPPED, "stopped_on_host")


def test_errors_with_exit_status_0_are_not_completed() -> None:
    reader = Restic().reader()
    reader.read_line(Stream.ERR, '{"message_type":"error","error":{"message":"x"},"item":"/a"}')
    reader.read_line(Stream.OUT, '{"message_type":"summary","files_restored":1}')
    assert reader.outcome(0, None).state is PARTIAL


def test_a_run_that_ends_with_0_but_no_summary_is_not_completed() -> None:
    reader = Restic().reader()
    reader.read_line(Stream.OUT, '{"message_type":"status","percent_done":0.5}')
    outcome = reader.outcome(0, None)
    assert (outcome.state, outcome.reason) == (FAILED, "ended_early")


def test_an_interrupted_run_that_ends_with_0_but_no_summary_was_stopped() -> None:
    reader = Restic().reader()
    reader.read_line(Stream.OUT, '{"message_type":"status","percent_done":0.5}')
    assert reader.outcome(0, StopCause.HOST).state is STOPPED


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            '{"message_type":"error","error":{"message":"write /t/a: no space left on device"},"during":"restore","item":"/a"}',
            EngineError("/a", "no_space_left", "write /t/a: no space left on device", 28, "restore"),
        ),
        (
            '{"message_type":"error","error":{"message":"mkdir /t/no space left on device: permission denied"},"item":"/b"}',
            EngineError("/b", "permission_denied", "mkdir /t/no space left on device: permission denied", 13),
        ),
        (
            "ignoring error for /data/d: UtimesNano: no such file or directory",
            EngineError(
                "/data/d", "file_or_folder_missing", "UtimesNano: no such file or directory", 2, "restore"
            ),
        ),
        (
            "ignoring error for /big: ciphertext verification failed",
            EngineError("/big", "data_corrupted", "ciphertext verification failed", 0, "restore"),
        ),
        (
            '{"message_type":"error","error":{"message":"mkdir /t/x: read-only file system"}}',
            EngineError("", "read_only_file_system", "mkdir /t/x: read-only file system", 30),
        ),
        (
            '{"message_type":"error","error":{"message":"what is \\ud800 this"},"item":7}',
            EngineError("", "restore_error", "what is ? this"),
        ),
    ],
)
def test_an_error_line_names_its_path_its_type_and_its_errno(line: str, error: EngineError) -> None:
    assert errors_of(list(Restic().reader().read_line(Stream.ERR, line))) == [error]


def test_passwords_in_urls_do_not_get_into_the_diagnostics() -> None:
    reader = Restic().reader()
    reader.read_line(Stream.ERR, "Fatal: cannot reach rest:https://me:secret@host/repo")
    outcome = reader.outcome(1, None)
    assert "secret" not in outcome.diagnostics
    reader.read_line(Stream.ERR, "Fatal: https://u:p@ss@host/x https://h/y?a=1&X-Amz-Signature=abc&b=2")
    assert "u:***@host/x https://h/y?a=1&X-Amz-Signature=***&b=2" in reader.outcome(1, None).diagnostics
    assert "me:***@host" in outcome.diagnostics


@pytest.mark.parametrize("length", range(2000, 2080, 3))
def test_a_password_that_a_cut_goes_through_is_not_left_in_half(length: int) -> None:
    reader = Restic().reader()
    reader.read_line(Stream.ERR, "x" * length + "rest:https://me:secret@host/repo")
    assert "sec" not in reader.outcome(1, None).diagnostics


def test_a_version_that_tells_no_counts_is_known_whichever_stream_comes_first() -> None:
    reader = Restic().reader()
    lines = [
        (Stream.ERR, "ignoring error for /a: open: permission denied"),
        (Stream.OUT, "restoring <Snapshot 1> to /t"),
    ]
    observations = [observation for stream, line in lines for observation in reader.read_line(stream, line)]
    assert [each for each in observations if isinstance(each, Begun)] == [Begun(tells_counts=False)]


def test_the_end_of_a_very_talkative_run_is_still_bounded() -> None:
    reader = Restic().reader()
    for number in range(10_000):
        reader.read_line(Stream.ERR, f"{number} " + "é" * 5000)
    assert len(reader.outcome(1, None).diagnostics.encode()) <= 4096


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(
    (
        "total_files",
        "files_restored",
        "files_skipped",
        "total_bytes",
        "bytes_restored",
        "error",
        "item",
        "message",
    )
)
hostile_messages = st.builds(
    lambda kind, rest: json.dumps({"message_type": kind, **rest}),
    st.sampled_from(["status", "verbose_status", "summary", "error", "exit_error", "other"]) | json_values,
    st.dictionaries(fields, json_values | st.integers(0, 2**70), max_size=6),
)
hostile_lines = st.one_of(
    st.text(max_size=50),
    hostile_messages,
    st.sampled_from(
        [
            "{" * 200_000,
            '{"a":' * 200_000,
            '{"message_type":"status","total_files":' + "9" * 10_000 + "}",
            '{"message_type":"status","total_files":1e999,"files_restored":NaN}',
            '{"message_type":"error","error":{"message":"\\ud800"},"item":"\\udfff"}',
            "ignoring error for : : ",
            "ignoring error for ",
            "Fatal: ",
            "signal ",
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
    check_hostile_run(Restic(), lines, returncode, stop)
