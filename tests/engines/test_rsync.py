from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.engines.adapter import Begun, EngineError, Progress, StopCause, Stream
from agent_reporter.engines.command_line import taken_apart
from agent_reporter.engines.rsync import Rsync
from agent_reporter.model.state import RestoreState
from tests.engines.captures import errors_of, last_progress, names, replay
from tests.engines.hostile_run import check_hostile_run

COMPLETED, FAILED = RestoreState.COMPLETED, RestoreState.FAILED
PARTIAL, STOPPED = RestoreState.COMPLETED_WITH_ERRORS, RestoreState.STOPPED
SOME = "unable_to_process_some_files"
NOTHING = Progress()
ALL = Progress(220528765, 2021, None, 2082)
SMALL = Progress(660001, 7, None, 12)

# capture and version, exit status, state, reason, errors, counters, whether the restore had begun
RUNS = [
    ("conflict-v35", 23, PARTIAL, SOME, 1, Progress(220511054, 2020, None, 2082), True),
    ("connection-v35", 12, FAILED, "connection_lost", 0, NOTHING, False),
    ("directories-v35", 0, COMPLETED, "", 0, Progress(0, 0), True),
    ("each-v35", 0, COMPLETED, "", 0, SMALL, True),
    ("full-v35", 11, FAILED, "target_full", 1, Progress(32768), True),
    ("german-v35", 0, COMPLETED, "", 0, SMALL, True),
    ("maxdelete-v35", 25, PARTIAL, SOME, 0, Progress(6000000, 2, None, 3), True),
    ("mkstemp-v35", 23, PARTIAL, SOME, 5, SMALL, True),
    ("nofolder-v35", 3, FAILED, "target_unusable", 1, NOTHING, False),
    ("nosource-v35", 23, FAILED, "source_missing", 1, Progress(0, 0), True),
    ("notarget-v35", 11, FAILED, "target_unusable", 1, NOTHING, False),
    ("ok-listing-v35", 0, COMPLETED, "", 0, ALL, True),
    ("ok-v35", 0, COMPLETED, "", 0, ALL, True),
    ("rerun-v35", 0, COMPLETED, "", 0, Progress(0, 0, None, 2082), True),
    ("sigINT-v35", 20, FAILED, "interrupted", 0, Progress(21069824), True),
    ("sigTERM-v35", 20, FAILED, "interrupted", 0, Progress(50000000, 1), True),
    ("skipped-v35", 0, COMPLETED, "", 0, SMALL, True),
    ("uid-perm-v35", 23, PARTIAL, SOME, 3, Progress(215670752, 1921, None, 2082), True),
    ("units-v35", 0, COMPLETED, "", 0, Progress(None, 7, None, 12), True),
    ("unwritable-v35", 23, PARTIAL, SOME, 25, Progress(100000000, 2, None, 2082), True),
    ("usage-v35", 1, FAILED, "usage_error", 0, NOTHING, False),
    ("vanished-v35", 24, PARTIAL, SOME, 1, Progress(9000000, 3, None, 4), True),
]


def test_every_capture_is_in_the_table() -> None:
    assert {run[0] for run in RUNS} == set(names("rsync"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run[0])
def test_a_recorded_run_is_judged_by_status_statistics_and_errors_together(
    run: tuple[str, int, RestoreState, str, int, Progress, bool],
) -> None:
    name, returncode, state, reason, errors, progress, begun = run
    reader = Rsync().reader()
    observations = replay(reader, "rsync", name)
    outcome = reader.outcome(returncode, None)
    assert (outcome.state, outcome.reason) == (state, reason)
    assert len(errors_of(observations)) == errors
    assert last_progress(observations) == progress
    assert sum(isinstance(observation, Begun) for observation in observations) == begun
    assert len(outcome.diagnostics.encode()) <= 4096
    if returncode:
        assert "rsync" in outcome.diagnostics
    if state is PARTIAL:
        assert "may include files that could not be written" in outcome.diagnostics


@pytest.mark.parametrize(
    ("name", "returncode", "state"),
    [
        ("sigINT-v35", 20, STOPPED),
        ("sigTERM-v35", 20, STOPPED),
        ("sigTERM-v35", -9, STOPPED),
        ("ok-v35", 0, COMPLETED),
        ("conflict-v35", 23, PARTIAL),
        ("vanished-v35", 24, PARTIAL),
        ("full-v35", 11, FAILED),
        ("nosource-v35", 23, FAILED),
        ("connection-v35", 12, STOPPED),
    ],
)
@pytest.mark.parametrize("cause", StopCause)
def test_a_run_is_stopped_only_if_the_stop_ended_it(
    name: str, returncode: int, state: RestoreState, cause: StopCause
) -> None:
    reader = Rsync().reader()
    replay(reader, "rsync", name)
    outcome = reader.outcome(returncode, cause)
    assert outcome.state is state
    if state is STOPPED:
        assert outcome.reason == cause.reason
    else:
        assert outcome.diagnostics.startswith("A stop had been asked for")


def test_a_run_that_says_nothing_is_judged_by_its_exit_status() -> None:
    def judged(returncode: int, stop: StopCause | None = None) -> tuple[RestoreState, str]:
        outcome = Rsync().reader().outcome(returncode, stop)
        return outcome.state, outcome.reason

    assert judged(0) == (COMPLETED, "")
    assert judged(1) == (FAILED, "usage_error")
    assert judged(12) == (FAILED, "engine_failed")
    assert judged(20) == (FAILED, "interrupted")
    assert judged(23) == judged(24) == judged(25) == (PARTIAL, SOME)
    assert judged(-9) == judged(137) == (FAILED, "engine_killed")
    assert judged(20, StopCause.HOST) == (STOPPED, "stopped_on_host")


def test_what_was_skipped_is_no_error_and_is_told() -> None:
    reader = Rsync().reader()
    replay(reader, "rsync", "skipped-v35")
    assert "2 files and folders were skipped" in reader.outcome(0, None).diagnostics


def test_a_run_that_had_nothing_to_do_says_so() -> None:
    reader = Rsync().reader()
    replay(reader, "rsync", "rerun-v35")
    assert "Nothing was transferred" in reader.outcome(0, None).diagnostics


@pytest.mark.parametrize(("listed", "state"), [(21, PARTIAL), (2, FAILED)])
def test_with_all_but_one_file_there_already_it_is_not_nothing_that_is_restored(
    listed: int, state: RestoreState
) -> None:
    reader = Rsync().reader()
    reader.read_line(Stream.ERR, "could not make way for new regular file: f3")
    for line in (
        f"Number of files: {listed} (reg: {listed - 1}, dir: 1)",
        "Number of regular files transferred: 0",
    ):
        reader.read_line(Stream.OUT, line)
    assert reader.outcome(23, None).state is state


def test_a_disk_that_is_full_at_the_other_end_is_not_a_lost_connection() -> None:
    reader = Rsync().reader()
    for line in (
        'rsync: [receiver] write failed on "/t/a": No space left on device (28)',
        "rsync error: error in file IO (code 11) at receiver.c(380) [receiver=3.2.7]",
        "rsync: connection unexpectedly closed (31 bytes received so far) [sender]",
        "rsync error: error in rsync protocol data stream (code 12) at io.c(228) [sender=3.2.7]",
    ):
        reader.read_line(Stream.ERR, line)
    assert reader.outcome(12, None).reason == "target_full"


@pytest.mark.parametrize(
    ("lines", "returncode", "reason"),
    [
        (
            ["@ERROR: auth failed on module backup", "rsync error: error (code 5) at main.c"],
            5,
            "wrong_password",
        ),
        (["@ERROR: Unknown module 'x'", "rsync error: error (code 5) at main.c"], 5, "source_missing"),
        (["rsync error: unexplained error (code 255) at io.c(231)"], 255, "connection_lost"),
        (["rsync error: timeout in data send/receive (code 30) at io.c"], 30, "connection_lost"),
        (
            [
                'rsync: [Receiver] mkdir "/ro/x" failed: Read-only file system (30)',
                "rsync error: x (code 11)",
            ],
            11,
            "target_read_only",
        ),
        (["ERROR: destination must be a directory when copying more than 1 file"], 3, "target_unusable"),
    ],
)
def test_the_last_words_of_a_failure_tell_its_reason(lines: list[str], returncode: int, reason: str) -> None:
    reader = Rsync().reader()
    for line in lines:
        reader.read_line(Stream.ERR, line)
    outcome = reader.outcome(returncode, None)
    assert (outcome.state, outcome.reason) == (FAILED, reason)


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            'rsync: [receiver] write failed on "/t/a": No space left on device (28)',
            EngineError(
                "/t/a", "no_space_left", '[receiver] write failed on "/t/a": No space left on device', 28
            ),
        ),
        (
            'rsync: [receiver] mkstemp "/t/.n\\#303\\#251\\#351.txt.Kgmeq2" failed: Permission denied (13)',
            EngineError(
                "/t/né\\xe9.txt",
                "permission_denied",
                '[receiver] mkstemp "/t/.n\\#303\\#251\\#351.txt.Kgmeq2" failed: Permission denied',
                13,
            ),
        ),
        (
            'rsync: [generator] symlink "/t/a "b" -> "c" failed: File exists (17)',
            EngineError(
                '/t/a "b', "file_exists", '[generator] symlink "/t/a "b" -> "c" failed: File exists', 17
            ),
        ),
        (
            'rsync: rsync_xal_set: lsetxattr("/t/a","user.x") failed: Operation not supported (95)',
            EngineError(
                "/t/a",
                "not_supported",
                'rsync_xal_set: lsetxattr("/t/a","user.x") failed: Operation not supported',
                95,
            ),
        ),
        (
            'file has vanished: "/s/a: b"',
            EngineError("/s/a: b", "file_or_folder_missing", "file has vanished", 2),
        ),
        (
            "could not make way for new regular file: dir/a",
            EngineError("dir/a", "restore_error", "could not make way for new regular file"),
        ),
        (
            "ERROR: a failed verification -- update discarded.",
            EngineError("a", "data_corrupted", "It failed verification and was discarded."),
        ),
    ],
)
def test_an_error_line_names_its_path_its_type_and_its_errno(line: str, error: EngineError) -> None:
    assert errors_of(list(Rsync().reader().read_line(Stream.ERR, line))) == [error]


@pytest.mark.parametrize(
    "line",
    [
        "rsync: [sender] write error: Broken pipe (32)",
        "rsync: connection unexpectedly closed (0 bytes received so far) [Receiver]",
        "*** Skipping any contents from this failed directory ***",
        "WARNING: a failed verification -- update discarded (will try again).",
        "IO error encountered -- skipping file deletion",
    ],
)
def test_a_line_that_is_no_error_of_a_file_is_not_listed(line: str) -> None:
    assert list(Rsync().reader().read_line(Stream.ERR, line)) == []


def test_the_same_error_is_the_same_record_in_each_attempt() -> None:
    def told(suffix: str) -> EngineError:
        line = f'rsync: [receiver] mkstemp "/t/.a.{suffix}" failed: Permission denied (13)'
        return errors_of(list(Rsync().reader().read_line(Stream.ERR, line)))[0]

    first, second = told("Kgmeq2"), told("oZm1b1")
    assert (first.path, first.type, first.code) == (second.path, second.type, second.code)


@pytest.mark.parametrize(
    ("command", "added"),
    [
        ("rsync -a src/ dst/", ["--info=progress2,stats2", "--no-h"]),
        ("/usr/bin/rsync-3.4.1 -avhP src/ dst/", ["--info=progress2,stats2", "--no-h"]),
        ("sudo -u me nice -n 5 rsync -a host:/src/ dst/", ["--info=progress2,stats2", "--no-h"]),
        ("rsync -a -f '- *.nfs' --no-h src/ dst/", ["--info=progress2,stats2"]),
        ("rsync --info=progress2,stats2 --no-h -a src/ dst/", []),
        ("rsync -avn src/ dst/", []),
        ("rsync -a --dry-run src/ dst/", []),
        ("rsync --list-only -r src/ dst/", []),
        ("rsync host::", []),
        ("rsync --daemon --config x y", []),
        ("rsync --version", []),
    ],
)
def test_a_restore_is_asked_for_progress_in_front_of_its_own_options(command: str, added: list[str]) -> None:
    invocation = taken_apart(shlex.split(command))
    assert Rsync().recognises(invocation)
    words, variables = Rsync().prepare(invocation, {"A": "b"})
    assert words == [*added, *invocation.arguments]
    assert variables == {"A": "b"}


def test_a_wrapper_may_hold_a_part_of_the_command() -> None:
    script = '#!/bin/sh\nexec rsync -a --no-h host:/backup/ "$@"\n'
    invocation = taken_apart(["/opt/get", "/srv"], {"/opt/get": script}.get)
    assert Rsync().prepare(invocation, {})[0] == ["--info=progress2,stats2", "/srv"]


@pytest.mark.parametrize("command", ["rsyncd", "rrsync", "rsync-ssl", "restic"])
def test_other_programs_are_not_recognised(command: str) -> None:
    assert not Rsync().recognises(taken_apart([command, "a", "b"]))


hostile_lines = st.one_of(
    st.text(max_size=50),
    st.builds(
        lambda size, files, kind, total: (
            f"  {size}  1%  1.0kB/s  0:00:00 (xfr#{files}, {kind}-chk=1/{total})"
        ),
        st.integers(0, 2**70),
        st.integers(0, 2**70),
        st.sampled_from(["to", "ir"]),
        st.integers(0, 2**70),
    ),
    st.builds(
        lambda name, number: f"{name}: {number} bytes",
        st.sampled_from(
            [
                "Number of files",
                "Number of created files",
                "Number of regular files transferred",
                "Total transferred file size",
            ]
        ),
        st.integers(-5, 2**70) | st.text(max_size=5),
    ),
    st.builds(
        lambda what, why: f'rsync: {what}"{why}: {what} (28)', st.text(max_size=9), st.text(max_size=9)
    ),
    st.sampled_from(
        [
            " " * 200_000,
            "rsync: " + ": " * 200_000,
            'rsync: "' + '"' * 200_000 + '": x (5)',
            'rsync: [receiver] mkstemp "/.' + "/." * 100_000 + '" failed: x (5)',
            "could not make way for new " + "a " * 200_000,
            "ERROR: " + " failed verification -- update" * 20_000,
            'rsync: "\udfff\\#777\\#351" failed: \ud800 (5)',
            'rsync: ": x (5)',
            "rsync error: ",
            "file has vanished: ",
            "  9" + "9" * 10_000 + "  1% 1B/s 0:00:00",
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
    check_hostile_run(Rsync(), lines, returncode, stop)
