from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.engines.adapter import Begun, EngineError, Progress, StopCause, Stream
from agent_reporter.engines.borg import Borg
from agent_reporter.engines.command_line import taken_apart
from agent_reporter.model.state import RestoreState
from tests.engines.captures import errors_of, last_progress, names, replay
from tests.engines.hostile_run import check_hostile_run

if TYPE_CHECKING:
    from agent_reporter.engines.adapter import Observation
    from agent_reporter.engines.borg import BorgReader

COMPLETED, FAILED = RestoreState.COMPLETED, RestoreState.FAILED
PARTIAL, STOPPED = RestoreState.COMPLETED_WITH_ERRORS, RestoreState.STOPPED
SOME = "unable_to_process_some_files"
NOTHING = Progress()
ALL = Progress(1503019, 15, 1503019)

# capture and version, exit status, state, reason, errors, counters, whether the restore had begun
RUNS = [
    ("badpw-modern-v14", 52, FAILED, "wrong_password", 0, NOTHING, False),
    ("badpw-plain-v12", 2, FAILED, "wrong_password", 0, NOTHING, False),
    ("badpw-plain-v14", 2, FAILED, "wrong_password", 0, NOTHING, False),
    ("badpw-v12", 2, FAILED, "wrong_password", 0, NOTHING, False),
    ("badpw-v14", 2, FAILED, "wrong_password", 0, NOTHING, False),
    ("conflict-long-modern-v14", 104, PARTIAL, SOME, 1, Progress(220511054, 0, 220528777), True),
    ("conflict-modern-v14", 104, PARTIAL, SOME, 2, Progress(1502010, 13, 1503019), True),
    ("conflict-plain-v12", 1, PARTIAL, SOME, 0, NOTHING, False),
    ("conflict-plain-v14", 1, PARTIAL, SOME, 0, NOTHING, False),
    ("conflict-stripped-v12", 1, PARTIAL, SOME, 1, Progress(1253010, 9, 1503010), True),
    ("conflict-stripped-v14", 1, PARTIAL, SOME, 1, Progress(1253010, 9, 1503010), True),
    ("conflict-v12", 1, PARTIAL, SOME, 2, Progress(1502010, 13, 1503019), True),
    ("conflict-v14", 1, PARTIAL, SOME, 2, Progress(1502010, 13, 1503019), True),
    ("corrupt-v12", 2, FAILED, "data_corrupted", 0, Progress(1003010, 12, 1503019), True),
    ("corrupt-v14", 2, FAILED, "data_corrupted", 0, Progress(1003010, 12, 1503019), True),
    ("crash-full-v12", 2, FAILED, "target_full", 5, Progress(9989906, 0, 220528777), True),
    ("crash-full-v14", 2, FAILED, "target_full", 5, Progress(9989906, 0, 220528777), True),
    ("damaged-v12", 1, PARTIAL, SOME, 2, Progress(1503010, 13, 1503019), True),
    ("damaged-v14", 1, PARTIAL, SOME, 2, Progress(1503010, 13, 1503019), True),
    ("full-v12", 1, PARTIAL, SOME, 2, Progress(1503010, 13, 1503019), True),
    ("full-v14", 1, PARTIAL, SOME, 2, Progress(1503010, 13, 1503019), True),
    ("locked-v12", 2, FAILED, "repository_locked", 0, NOTHING, False),
    ("locked-v14", 2, FAILED, "repository_locked", 0, NOTHING, False),
    ("lost-v12", 2, FAILED, "connection_lost", 0, Progress(250000, 2, 1500000), True),
    ("lost-v14", 2, FAILED, "connection_lost", 0, Progress(250000, 2, 1500000), True),
    ("noarchive-v12", 2, FAILED, "snapshot_missing", 0, NOTHING, False),
    ("noarchive-v14", 2, FAILED, "snapshot_missing", 0, NOTHING, False),
    ("nomatch-plain-v12", 1, PARTIAL, SOME, 0, NOTHING, False),
    ("nomatch-plain-v14", 1, PARTIAL, SOME, 0, NOTHING, False),
    ("nomatch-some-v12", 1, PARTIAL, SOME, 1, Progress(3010, 5, 3010), True),
    ("nomatch-some-v14", 1, PARTIAL, SOME, 1, Progress(3010, 5, 3010), True),
    ("nomatch-v12", 1, FAILED, SOME, 1, NOTHING, True),
    ("nomatch-v14", 1, FAILED, SOME, 1, NOTHING, True),
    ("norepo-plain-v12", 2, FAILED, "repository_missing", 0, NOTHING, False),
    ("norepo-plain-v14", 2, FAILED, "repository_missing", 0, NOTHING, False),
    ("norepo-v12", 2, FAILED, "repository_missing", 0, NOTHING, False),
    ("norepo-v14", 2, FAILED, "repository_missing", 0, NOTHING, False),
    ("ok-v12", 0, COMPLETED, "", 0, ALL, True),
    ("ok-v14", 0, COMPLETED, "", 0, ALL, True),
    ("relocated-v12", 2, FAILED, "access_not_confirmed", 0, NOTHING, False),
    ("relocated-v14", 2, FAILED, "access_not_confirmed", 0, NOTHING, False),
    ("sigHUP-v12", 129, FAILED, "interrupted", 0, Progress(753010, 11, 1503019), True),
    ("sigHUP-v14", 129, FAILED, "interrupted", 0, Progress(753010, 11, 1503019), True),
    ("sigINT-v12", 0, COMPLETED, "", 0, ALL, True),
    ("sigINT-v14", 0, COMPLETED, "", 0, ALL, True),
    ("sigINTx2-v12", 130, FAILED, "interrupted", 0, Progress(753010, 11, 1503019), True),
    ("sigINTx2-v14", 130, FAILED, "interrupted", 0, Progress(753010, 11, 1503019), True),
    ("sigKILL-v12", -9, FAILED, "engine_killed", 0, Progress(503010, 10, 1503019), True),
    ("sigKILL-v14", -9, FAILED, "engine_killed", 0, Progress(753010, 11, 1503019), True),
    ("sigTERM-v12", 143, FAILED, "interrupted", 0, Progress(753010, 11, 1503019), True),
    ("sigTERM-v14", 143, FAILED, "interrupted", 0, Progress(0, 2, None), True),
    ("stale-lock-v14", 0, COMPLETED, "", 0, Progress(220528777, 0, 220528777), True),
    ("unknown-v12", 2, FAILED, "access_not_confirmed", 0, NOTHING, False),
    ("unknown-v14", 2, FAILED, "access_not_confirmed", 0, NOTHING, False),
    ("usage-v12", 2, FAILED, "usage_error", 0, NOTHING, False),
    ("usage-v14", 2, FAILED, "usage_error", 0, NOTHING, False),
    ("xattr-v12", 1, PARTIAL, SOME, 2, Progress(1500000, 7, 1500000), True),
    ("xattr-v14", 1, PARTIAL, SOME, 2, Progress(1500000, 7, 1500000), True),
]


def log(message: str, level: str = "WARNING", name: str = "borg.archiver", **more: str) -> str:
    line = {"type": "log_message", "time": 1.5, "message": message, "levelname": level, "name": name}
    return json.dumps(line | more)


def listed(path: str) -> str:
    return log(path, "INFO", "borg.output.list")


def progress(current: int, total: int) -> str:
    numbers = {"message": "", "current": current, "total": total, "info": None, "operation": 1}
    return json.dumps(numbers | {"msgid": "extract", "type": "progress_percent", "finished": False})


FINISHED = '{"operation": 1, "msgid": "extract", "type": "progress_percent", "finished": true, "time": 1.5}'


def read(*lines: str) -> tuple[BorgReader, list[Observation]]:
    reader = Borg().reader()
    return reader, [observation for line in lines for observation in reader.read_line(Stream.ERR, line)]


def test_every_capture_is_in_the_table() -> None:
    assert {run[0] for run in RUNS} == set(names("borg"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run[0])
def test_a_recorded_run_is_judged_by_status_progress_and_warnings_together(
    run: tuple[str, int, RestoreState, str, int, Progress, bool],
) -> None:
    name, returncode, state, reason, errors, progress, begun = run
    reader = Borg().reader()
    observations = replay(reader, "borg", name)
    outcome = reader.outcome(returncode, None)
    assert (outcome.state, outcome.reason) == (state, reason)
    assert len(errors_of(observations)) == errors
    assert last_progress(observations) == progress
    assert sum(isinstance(observation, Begun) for observation in observations) == begun
    assert len(outcome.diagnostics.encode()) <= 4096
    if returncode:
        assert "borg" in outcome.diagnostics


@pytest.mark.parametrize(
    ("name", "returncode", "state"),
    [
        ("sigTERM-v12", 143, STOPPED),
        ("sigTERM-v14", 143, STOPPED),
        ("sigHUP-v12", 129, STOPPED),
        ("sigINTx2-v14", 130, STOPPED),
        ("sigKILL-v14", -9, STOPPED),
        ("lost-v12", 2, STOPPED),
        ("lost-v14", 2, STOPPED),
        ("sigINT-v12", 0, COMPLETED),
        ("sigINT-v14", 0, COMPLETED),
        ("conflict-v12", 1, PARTIAL),
        ("conflict-modern-v14", 104, PARTIAL),
        ("crash-full-v14", 2, FAILED),
        ("corrupt-v12", 2, FAILED),
        ("badpw-v14", 2, FAILED),
    ],
)
@pytest.mark.parametrize("cause", StopCause)
def test_a_run_is_stopped_only_if_the_stop_ended_it(
    name: str, returncode: int, state: RestoreState, cause: StopCause
) -> None:
    reader = Borg().reader()
    replay(reader, "borg", name)
    outcome = reader.outcome(returncode, cause)
    assert outcome.state is state
    if state is STOPPED:
        assert outcome.reason == {"control_plane": "stop_requested", "host": "stopped_on_host"}[cause]
    else:
        assert outcome.diagnostics.startswith("A stop had been asked for")


def test_a_run_that_says_nothing_is_judged_by_its_exit_status() -> None:
    def judged(returncode: int, stop: StopCause | None = None) -> tuple[RestoreState, str]:
        outcome = Borg().reader().outcome(returncode, stop)
        return outcome.state, outcome.reason

    assert judged(0) == (COMPLETED, "")
    assert judged(2) == (FAILED, "engine_failed")
    assert judged(13) == (FAILED, "repository_missing")
    assert judged(-9) == judged(137) == judged(143) == (FAILED, "engine_killed")
    assert judged(130) == (FAILED, "interrupted")
    assert judged(2, StopCause.HOST) == (STOPPED, "stopped_on_host")


@pytest.mark.parametrize("returncode", [1, 124, 126, 127])
def test_a_status_of_what_stands_before_borg_is_not_one_of_warnings(returncode: int) -> None:
    reader, _ = read("bash: line 1: cd: /nowhere: No such file or directory")
    assert reader.outcome(returncode, None).state is FAILED


def test_a_timeout_in_front_of_borg_leaves_it_interrupted() -> None:
    reader, _ = read(progress(1, 2), log("Received SIGTERM", "ERROR", msgid="Signal.SIGTERM"))
    outcome = reader.outcome(124, None)
    assert (outcome.state, outcome.reason) == (FAILED, "interrupted")


def test_a_run_that_ends_with_0_but_did_not_finish_is_not_completed() -> None:
    reader, _ = read(progress(1, 2))
    outcome = reader.outcome(0, None)
    assert (outcome.state, outcome.reason) == (FAILED, "ended_early")


def test_a_run_that_is_cut_off_in_its_last_step_says_what_may_be_missing() -> None:
    reader, _ = read(progress(2, 2), FINISHED, log("Received SIGTERM", "ERROR", msgid="Signal.SIGTERM"))
    outcome = reader.outcome(143, StopCause.HOST)
    assert outcome.state is STOPPED
    assert "gone through all files" in outcome.diagnostics


def test_the_total_is_stated_at_the_end_only_if_nothing_failed() -> None:
    lines = [listed("a"), progress(9990, 10000), FINISHED]
    assert last_progress(read(*lines)[1]) == Progress(10000, 1, 10000)
    lines.insert(1, log("a: write: [Errno 28] No space left on device"))
    assert last_progress(read(*lines)[1]) == Progress(9990, 0, 10000)


def test_an_item_is_counted_once_it_is_done() -> None:
    lines = [
        listed("a"),
        listed("a/b"),
        log("a/b: open: [Errno 13] Permission denied: '/t/a/b'"),
        listed("a/c"),
    ]
    _, observations = read(*lines)
    assert last_progress(observations).files_restored == 1
    _, observations = read(*lines, log("a: attrs: [Errno 1] Operation not permitted: '/t/a'"), FINISHED)
    assert last_progress(observations).files_restored == 2


def test_a_list_in_another_spelling_of_json_is_read() -> None:
    compact = json.dumps(json.loads(listed("a")), separators=(",", ":"), sort_keys=True)
    lines = [compact, log("a: open: [Errno 13] Permission denied: '/t/a'"), compact, FINISHED]
    _, observations = read(*lines)
    assert [error.path for error in errors_of(observations)] == ["a"]
    assert last_progress(observations).files_restored == 1


def test_progress_of_other_work_is_not_that_of_the_restore() -> None:
    other = (
        '{"message":"x","current":5,"total":9,"msgid":"repository.replay_segments","type":"progress_percent"}'
    )
    assert read(other, other.replace("repository.replay_segments", "extract.permissions"))[1] == []


def test_what_is_restored_to_stdout_is_not_read() -> None:
    reader = Borg().reader()
    assert list(reader.read_line(Stream.OUT, listed("a"))) == []
    assert list(reader.read_line(Stream.OUT, log("a: open: [Errno 2] No such file or directory"))) == []


@pytest.mark.parametrize(
    ("before", "warning", "error"),
    [
        (
            "",
            log("d/f: write: [Errno 28] No space left on device"),
            EngineError("d/f", "no_space_left", "write: [Errno 28] No space left on device", 28),
        ),
        (
            "d/a: open: [Errno 5] b",
            log("d/a: open: [Errno 5] b: open: [Errno 21] Is a directory: '/t/d/a: open: [Errno 5] b'"),
            EngineError(
                "d/a: open: [Errno 5] b",
                "is_a_directory",
                "open: [Errno 21] Is a directory: '/t/d/a: open: [Errno 5] b'",
                21,
            ),
        ),
        (
            "f",
            log("d/e/f: link: [Errno 17] File exists: '/t/g' -> '/t/f'"),
            EngineError("d/e/f", "file_exists", "link: [Errno 17] File exists: '/t/g' -> '/t/f'", 17),
        ),
        (
            "",
            log("d: e: [Errno 13] Permission denied: '/t/d: e'"),
            EngineError("d", "permission_denied", "e: [Errno 13] Permission denied: '/t/d: e'", 13),
        ),
        (
            "",
            log("D: E: [Errno 13] Permission denied: '/t/D: E'"),
            EngineError("D: E", "permission_denied", "[Errno 13] Permission denied: '/t/D: E'", 13),
        ),
        ("", log("f: backup error", msgid="BackupError"), EngineError("f", "data_corrupted", "backup error")),
        ("f", log("f: something new"), EngineError("f", "restore_error", "something new")),
        (
            "",
            log("f: Size inconsistency detected: size 5, chunks size 4"),
            EngineError("f", "data_corrupted", "Size inconsistency detected: size 5, chunks size 4"),
        ),
        (
            "",
            log("f: not extracted, a parent directory is a symlink (malicious or corrupted archive)"),
            EngineError(
                "f",
                "restore_error",
                "not extracted, a parent directory is a symlink (malicious or corrupted archive)",
            ),
        ),
        (
            "",
            log("Include pattern 'it's' never matched."),
            EngineError("it's", "file_or_folder_missing", "Include pattern 'it's' never matched."),
        ),
        (
            "d/f",
            log(
                "when setting extended attribute a: [Errno 95] Operation not supported: '<FD 6>'",
                name="borg.xattr",
            ),
            EngineError(
                "d/f",
                "not_supported",
                "when setting extended attribute a: [Errno 95] Operation not supported: '<FD 6>'",
                95,
            ),
        ),
    ],
)
def test_a_warning_names_its_path_its_type_and_its_errno(
    before: str, warning: str, error: EngineError
) -> None:
    lines = [listed(before), warning] if before else [warning]
    assert errors_of(read(*lines)[1]) == [error]


def test_a_warning_that_is_repeated_is_the_same_error() -> None:
    warning = log(
        "a: open: [Errno 5] b: open: [Errno 2] No such file or directory: '/t/a: open: [Errno 5] b'"
    )
    first, second = errors_of(read(listed("a: open: [Errno 5] b"), warning, warning)[1])
    assert first == second
    assert first.path == "a: open: [Errno 5] b"


@pytest.mark.parametrize(
    "warning",
    [
        log("Could not read previous location file: [Errno 13] Permission denied: '/x'", name="borg.cache"),
        log("Removed stale shared roster lock for host a@1 pid 2 thread 0.", name="borg.locking"),
        log("Remote: /x: open: [Errno 5] Input/output error", name="borg.repository"),
        log(
            'Warning: File system encoding is "ascii", extracting non-ascii filenames will not be supported.'
        ),
        log("Hint: You likely need to fix your locale setup."),
        log("terminating with warning status, rc 1", name="borg.output.show-rc"),
    ],
)
def test_a_warning_on_borg_itself_is_not_an_error_of_a_file(warning: str) -> None:
    assert read(warning)[1] == []


def test_warnings_before_a_failure_are_told_with_it() -> None:
    reader, _ = read(log("The cache is odd.", name="borg.cache"), log("Broken", "ERROR", msgid="Error"))
    assert "Broken The cache is odd." in reader.outcome(2, None).diagnostics


def test_of_a_traceback_the_last_line_is_told() -> None:
    trace = "Traceback (most recent call last):\n  File x\nOSError: [Errno 30] Read-only file system: '/x'\n"
    information = "\nPlatform: Linux host 6.1\nBorg: 1.2.4\nsys.argv: ['borg']\n"
    reader, _ = read(log("Local Exception", "ERROR"), log(trace + information, "ERROR"))
    outcome = reader.outcome(2, None)
    assert outcome.reason == "target_read_only"
    assert outcome.diagnostics.endswith("Local Exception OSError: [Errno 30] Read-only file system: '/x'")


def test_a_question_is_told_with_how_to_answer_it() -> None:
    reader = Borg().reader()
    replay(reader, "borg", "relocated-v14")
    outcome = reader.outcome(2, None)
    assert "was previously located at" in outcome.diagnostics
    assert "BORG_RELOCATED_REPO_ACCESS_IS_OK=yes" in outcome.diagnostics


@pytest.mark.parametrize(
    ("command", "started"),
    [
        ("borg extract r::a", "borg extract --log-json --progress --list r::a"),
        ("/opt/borg-linux64 extract r::a p", "/opt/borg-linux64 extract --log-json --progress --list r::a p"),
        ("sudo -u me borg extract r::a", "sudo -u me borg extract --log-json --progress --list r::a"),
        (
            "borg --lock-wait 5 --rsh=ssh extract r::a",
            "borg --lock-wait 5 --rsh=ssh extract --log-json --progress --list r::a",
        ),
        (
            "borg --lock-w 5 --debug extract r::a",
            "borg --lock-w 5 --debug extract --log-json --progress --list r::a",
        ),
        ("borg --log-json -p extract --list r::a", "borg --log-json -p extract --list r::a"),
        ("borg extract --list r::a -p", "borg extract --log-json --list r::a -p"),
        ("borg extract -- r::a --list", "borg extract --log-json --progress --list -- r::a --list"),
        ("borg extract --error r::a", "borg extract --log-json --progress --list --error --warning r::a"),
        (
            "borg --critical extract r::a",
            "borg --critical --warning extract --log-json --progress --list r::a",
        ),
        (
            "borg --critical --warning extract --error --warning r::a",
            "borg --critical --warning extract --log-json --progress --list --error --warning r::a",
        ),
        ("borg extract -- r::a --error", "borg extract --log-json --progress --list -- r::a --error"),
        ("borg create r::a extract", "borg create r::a extract"),
        ("borg mount r::a /mnt", "borg mount r::a /mnt"),
        ("borg extract -n r::a", "borg extract -n r::a"),
        ("borg extract -pn r::a", "borg extract -pn r::a"),
        ("borg extract --dry r::a", "borg extract --dry r::a"),
        ("borg --cr extract r::a", "borg --cr --warning extract --log-json --progress --list r::a"),
        ("borg --umask extract", "borg --umask extract"),
        ("borg", "borg"),
        (
            "sh -c 'cd /srv && exec borg extract r::a \"$P\"'",
            "sh -c 'cd /srv && exec borg extract --log-json --progress --list r::a \"$P\"'",
        ),
        ("with-repository r::a", "with-repository --log-json --progress --list r::a"),
        ("with-options extract r::a", "with-options extract --log-json --progress --list --warning r::a"),
        ("with-end r::a", "with-end r::a"),
    ],
)
def test_an_extract_is_asked_for_json_progress_and_a_list(command: str, started: str) -> None:
    scripts = {
        "with-repository": '#!/bin/sh\nexec borg --lock-wait 5 extract "$@"\n',
        "with-options": '#!/bin/sh\nexec borg --critical --lock-wait=5 "$@"\n',
        "with-end": '#!/bin/sh\nexec borg extract -- "$@"\n',
    }
    invocation = taken_apart(shlex.split(command), scripts.get)
    assert Borg().recognises(invocation)
    arguments, _ = Borg().prepare(invocation, {})
    assert shlex.join(invocation.with_arguments(arguments)) == shlex.join(shlex.split(started))


def test_a_question_that_nobody_would_see_is_answered_with_no_unless_it_is_answered_already() -> None:
    invocation = taken_apart(["borg", "extract", "r::a"])
    _, environment = Borg().prepare(invocation, {"BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"})
    assert environment == {
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "no",
    }
    assert Borg().prepare(taken_apart(["borg", "list", "r"]), {})[1] == {}


@pytest.mark.parametrize("program", ["borgmatic", "borgfs", "cyborg", "restic"])
def test_other_programs_are_not_borg(program: str) -> None:
    assert not Borg().recognises(taken_apart([program, "extract", "r::a"]))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
telling_texts = st.sampled_from(
    (
        *(
            "extract",
            "WARNING",
            "ERROR",
            "INFO",
            "borg.archiver",
            "borg.xattr",
            "borg.output.list",
            "Signal.",
        ),
        *(
            "a",
            "a: open: [Errno 2] No",
            ": : [Errno 99999999999999] ",
            "/a: ",
            "[Errno 1] ",
            "\ud800: backup error",
        ),
        *(
            "Include pattern '' never matched.",
            "when setting : b'",
            "Traceback (most recent call last)\nPlatform: ",
        ),
    )
)
fields = st.sampled_from(("message", "current", "total", "msgid", "levelname", "name", "finished", "info"))
hostile_messages = st.builds(
    lambda kind, rest: json.dumps({"type": kind, **rest}),
    st.sampled_from(["progress_percent", "log_message", "question_prompt", "file_status"]) | json_values,
    st.dictionaries(fields, telling_texts | json_values | st.integers(0, 2**70), max_size=8),
)
hostile_lines = st.one_of(
    st.text(max_size=50),
    hostile_messages,
    st.builds(listed, st.text(max_size=5)),
    st.sampled_from(
        [
            "{" * 200_000,
            '{"a":' * 200_000,
            '{"type":"progress_percent","msgid":"extract","current":' + "9" * 10_000 + "}",
            '{"type":"progress_percent","msgid":"extract","current":1e999,"total":NaN,"finished":1}',
            '{"type": "log_message"' + "x" * 200_000 + '"name": "borg.output.list"}',
            log("a: " * 100_000),
            log("[Errno 5] " * 50_000 + ": [Errno 5] "),
            log("b'" * 200_000, name="borg.xattr"),
            FINISHED,
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
    check_hostile_run(Borg(), lines, returncode, stop)
