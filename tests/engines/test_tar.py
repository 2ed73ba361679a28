from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.engines.adapter import EngineError, Progress, StopCause, Stream
from agent_reporter.engines.command_line import taken_apart
from agent_reporter.engines.tar import Tar
from agent_reporter.model.state import RestoreState
from tests.engines.captures import errors_of, last_progress, names, replay
from tests.engines.hostile_run import check_hostile_run

COMPLETED, FAILED = RestoreState.COMPLETED, RestoreState.FAILED
PARTIAL, STOPPED = RestoreState.COMPLETED_WITH_ERRORS, RestoreState.STOPPED
SOME = "unable_to_process_some_files"
NOTHING = Progress()
ALL = Progress(31057920)

# capture and version, exit status, state, reason, errors, counters
RUNS = [
    ("badheader-v134", 2, PARTIAL, SOME, 1, ALL),
    ("conflict-v134", 2, PARTIAL, SOME, 1, NOTHING),
    ("corrupt-v134", 2, FAILED, "archive_damaged", 0, NOTHING),
    ("cut-v134", 2, FAILED, "archive_damaged", 0, NOTHING),
    ("cutbz-v134", 2, FAILED, "archive_damaged", 0, NOTHING),
    ("cutgz-v134", 2, FAILED, "archive_damaged", 0, Progress(18411520)),
    ("cutxz-v134", 2, FAILED, "archive_damaged", 0, NOTHING),
    ("full-v134", 2, PARTIAL, SOME, 51, ALL),
    ("garbage-v134", 2, FAILED, "archive_damaged", 1, Progress(317440)),
    ("listed-long-v134", 0, COMPLETED, "", 0, Progress(31057920, 55)),
    ("listed-v134", 0, COMPLETED, "", 0, Progress(31057920, 55)),
    ("names-v134", 2, PARTIAL, SOME, 55, ALL),
    ("newer-v134", 0, COMPLETED, "", 0, ALL),
    ("noarchive-v134", 2, FAILED, "file_or_folder_missing", 1, NOTHING),
    ("noprogram-v134", 2, FAILED, "file_or_folder_missing", 1, NOTHING),
    ("notfound-v134", 2, PARTIAL, SOME, 1, ALL),
    ("notgz-v134", 2, FAILED, "archive_damaged", 0, NOTHING),
    ("ok-v134", 0, COMPLETED, "", 0, ALL),
    ("readonly-v134", 2, PARTIAL, SOME, 110, ALL),
    ("skipped-v134", 0, COMPLETED, "", 0, ALL),
    ("unwritable-v134", 2, PARTIAL, SOME, 39, NOTHING),
    ("usage-v134", 64, FAILED, "usage_error", 0, NOTHING),
    ("warnings-v134", 0, COMPLETED, "", 0, Progress(1054720)),
]


def test_every_capture_is_in_the_table() -> None:
    assert {run[0] for run in RUNS} == set(names("tar"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run[0])
def test_a_recorded_run_is_judged_by_its_status_its_last_words_and_its_errors_together(
    run: tuple[str, int, RestoreState, str, int, Progress],
) -> None:
    name, returncode, state, reason, errors, progress = run
    reader = Tar().reader()
    observations = replay(reader, "tar", name)
    outcome = reader.outcome(returncode, None)
    assert (outcome.state, outcome.reason) == (state, reason)
    assert len(errors_of(observations)) == errors
    assert last_progress(observations) == progress
    assert len(outcome.diagnostics.encode()) <= 4096
    if returncode:
        assert "tar" in outcome.diagnostics
    if progress.bytes_restored and state is not FAILED:
        assert "those that tar read of the archive" in outcome.diagnostics


@pytest.mark.parametrize(
    ("name", "returncode", "state"),
    [
        ("ok-v134", -15, STOPPED),
        ("ok-v134", -9, STOPPED),
        ("ok-v134", 0, COMPLETED),
        ("full-v134", 2, PARTIAL),
        ("cut-v134", 2, FAILED),
        ("noarchive-v134", 2, FAILED),
    ],
)
@pytest.mark.parametrize("cause", StopCause)
def test_a_run_is_stopped_only_if_the_stop_ended_it(
    name: str, returncode: int, state: RestoreState, cause: StopCause
) -> None:
    reader = Tar().reader()
    replay(reader, "tar", name)
    outcome = reader.outcome(returncode, cause)
    assert outcome.state is state
    if state is STOPPED:
        assert outcome.reason == cause.reason
        assert "left incomplete" in outcome.diagnostics
    else:
        assert outcome.diagnostics.startswith("A stop had been asked for")


def test_a_run_that_says_nothing_is_judged_by_its_exit_status() -> None:
    def judged(returncode: int, stop: StopCause | None = None) -> tuple[RestoreState, str]:
        outcome = Tar().reader().outcome(returncode, stop)
        return outcome.state, outcome.reason

    assert judged(0) == (COMPLETED, "")
    assert judged(2) == (FAILED, "engine_failed")
    assert judged(64) == (FAILED, "usage_error")
    assert judged(-15) == judged(-9) == judged(137) == (FAILED, "engine_killed")
    assert judged(-15, StopCause.HOST) == (STOPPED, "stopped_on_host")


def test_files_that_were_there_are_no_errors_and_are_told() -> None:
    reader = Tar().reader()
    replay(reader, "tar", "newer-v134")
    assert reader.outcome(0, None).diagnostics.startswith("55 files were there already")


def test_files_are_counted_only_where_a_checkpoint_says_that_stdout_lists_them() -> None:
    lines = ["a file", "folder/", "another"]

    def told(checkpoint: str) -> Progress:
        reader = Tar().reader()
        for line in lines:
            assert not list(reader.read_line(Stream.OUT, line))
        list(reader.read_line(Stream.ERR, checkpoint))
        after = list(reader.read_line(Stream.OUT, "one more")) or [Progress()]
        return last_progress(after)

    assert told("tar: listed\tR: 10240 (10KiB, 1MiB/s)") == Progress(10240, 3)
    assert told("tar: read\tR: 10240 (10KiB, 1MiB/s)") == Progress()


def test_the_name_of_a_file_is_not_taken_for_a_checkpoint() -> None:
    line = r"tar: read\tR\: 10240 (10KiB, 1MiB/s): Cannot open: File exists"
    told = list(Tar().reader().read_line(Stream.ERR, line))
    assert told == [
        EngineError("read\tR: 10240 (10KiB, 1MiB/s)", "file_exists", "Cannot open: File exists", 17)
    ]


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            "tar: data/a: Cannot write: No space left on device",
            EngineError("data/a", "no_space_left", "Cannot write: No space left on device", 28),
        ),
        (
            "/usr/bin/tar: d/na\\303\\251\\351m\\:e: Cannot open: Permission denied",
            EngineError("d/naé\\xe9m:e", "permission_denied", "Cannot open: Permission denied", 13),
        ),
        (
            r"gtar: tab\there\\n: Cannot open: Is a directory",
            EngineError("tab\there\\n", "is_a_directory", "Cannot open: Is a directory", 21),
        ),
        (
            "tar: d/sym: Cannot create symlink to 'f2': File exists",
            EngineError("d/sym", "file_exists", "Cannot create symlink to 'f2': File exists", 17),
        ),
        (
            "tar: big: Wrote only 4608 of 10240 bytes",
            EngineError("big", "restore_error", "Wrote only 4608 of 10240 bytes"),
        ),
        (
            "tar: nope: Not found in archive",
            EngineError("nope", "file_or_folder_missing", "Not found in archive"),
        ),
        (
            "tar: Skipping to next header",
            EngineError("", "data_corrupted", "Skipping to next header"),
        ),
    ],
)
def test_an_error_line_names_its_path_its_type_and_its_errno(line: str, error: EngineError) -> None:
    assert errors_of(list(Tar().reader().read_line(Stream.ERR, line))) == [error]


@pytest.mark.parametrize(
    "line",
    [
        "tar: Removing leading `/' from member names",
        "tar: d/f1: time stamp 2026-11-25 12:59:16 is 86399.0 s in the future",
        "tar: Ignoring unknown extended header keyword 'LIBARCHIVE.xattr'",
        "tar: A lone zero block at 12",
        "tar: Child returned status 1",
        "gzip: stdin: unexpected end of file",
        "somebody: a: Cannot open: File exists",
    ],
)
def test_a_line_that_is_no_error_of_a_file_is_not_listed(line: str) -> None:
    assert list(Tar().reader().read_line(Stream.ERR, line)) == []


READ = ["--checkpoint=200", r"--checkpoint-action=echo=read\t%T", "--totals"]
LISTED = ["--checkpoint=200", r"--checkpoint-action=echo=listed\t%T", "--totals"]


def in_environment(words: list[str]) -> str:
    return " ".join(words).replace("\\", "\\\\")


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        ("tar xf a.tar", READ),
        ("/bin/tar -C /srv -xzf a.tgz", READ),
        ("gtar --extract --file a.tar", READ),
        ("tar --get -f a.tar", READ),
        ("tar xvf a.tar", LISTED),
        ("tar -xf a.tar --verbose", LISTED),
        ("tar xvOf a.tar member", READ),
        ("nice -n 5 tar -b 20 -xf a.tar", READ),
        ("sh -c 'exec tar xf a.tar'", READ),
    ],
)
def test_an_extraction_is_asked_for_checkpoints_in_the_environment(command: str, wanted: list[str]) -> None:
    invocation = taken_apart(shlex.split(command))
    assert Tar().recognises(invocation)
    words, variables = Tar().prepare(invocation, {"LC_ALL": "de_DE.UTF-8", "LANGUAGE": "de"})
    assert words == list(invocation.arguments)
    assert variables == {"LC_ALL": "de_DE.UTF-8", "LANGUAGE": "C", "TAR_OPTIONS": in_environment(wanted)}
    assert Tar().prepare(invocation, variables) == (words, variables)


def test_options_that_are_in_the_environment_stay_there() -> None:
    _, variables = Tar().prepare(taken_apart(["tar", "xf", "a"]), {"TAR_OPTIONS": "--keep-old-files"})
    assert variables["TAR_OPTIONS"] == f"--keep-old-files {in_environment(READ)}"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sudo tar -xf a.tar -C /srv", [*READ, "-xf", "a.tar", "-C", "/srv"]),
        ("sudo -u me tar xzf a.tgz -C /srv", ["xzf", "a.tgz", *READ, "-C", "/srv"]),
        ("doas tar xvbf 20 a.tar member", ["xvbf", "20", "a.tar", *LISTED, "member"]),
        ("sudo tar --totals -xf a.tar", [*READ[:2], "--totals", "-xf", "a.tar"]),
    ],
)
def test_behind_sudo_the_options_become_arguments(command: str, words: list[str]) -> None:
    invocation = taken_apart(shlex.split(command))
    prepared, variables = Tar().prepare(invocation, {})
    assert prepared == words
    assert "TAR_OPTIONS" not in variables


def test_a_wrapper_may_hold_a_part_of_the_command() -> None:
    script = '#!/bin/sh\nexec tar xzvf "$@"\n'
    invocation = taken_apart(["/opt/get", "a.tgz"], {"/opt/get": script}.get)
    words, variables = Tar().prepare(invocation, {})
    assert words == ["a.tgz"]
    assert variables["TAR_OPTIONS"] == in_environment(LISTED)
    behind_sudo = taken_apart(["sudo", "/opt/get", "a.tgz"], {"/opt/get": script}.get)
    assert Tar().prepare(behind_sudo, {})[0] == ["a.tgz"]


@pytest.mark.parametrize(
    "command",
    [
        "tar tf a.tar",
        "tar cf x.tar x",
        "tar -tvf x",
        "tar -cf -x y",
        "tar --version",
        "tar",
        "tar -tf a -- -x",
    ],
)
def test_what_extracts_nothing_is_left_as_it_is(command: str) -> None:
    invocation = taken_apart(shlex.split(command))
    assert Tar().prepare(invocation, {"A": "b"}) == (list(invocation.arguments), {"A": "b"})


@pytest.mark.parametrize("command", ["bsdtar", "star", "tarsnap", "restic"])
def test_other_programs_are_not_recognised(command: str) -> None:
    assert not Tar().recognises(taken_apart([command, "xf", "a"]))


hostile_lines = st.one_of(
    st.text(max_size=50),
    st.builds(
        lambda what, size: f"tar: {what}\tR: {size} (1MiB, 1MiB/s)",
        st.sampled_from(["read", "listed", "other"]),
        st.integers(0, 2**70),
    ),
    st.builds(lambda size: f"Total bytes read: {size} (1MiB, 1MiB/s)", st.integers(0, 2**70)),
    st.builds(
        lambda name, why: f"tar: {name}: Cannot {why}: {name}", st.text(max_size=9), st.text(max_size=9)
    ),
    st.sampled_from(
        [
            "tar: " + ": " * 200_000,
            "tar" * 200_000 + ": x",
            "tar: " + "\\:" * 200_000 + ": Cannot",
            "tar: " + "\\" * 200_000 + ": Cannot x",
            "tar: \\777\\351\\\ud800\udfff: Cannot x",
            "tar: " + "\\351" * 8000 + ": Cannot x",
            "tar: : Cannot ",
            "tar: \\: Cannot ",
            "tar: read\tR: ",
            "tar: Exiting with failure status due to previous errors",
            "tar: Error is not recoverable: exiting now",
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
    check_hostile_run(Tar(), lines, returncode, stop)
