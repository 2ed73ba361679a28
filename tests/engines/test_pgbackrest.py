from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.engines.adapter import Begun, EngineError, Progress, StopCause, Stream
from agent_reporter.engines.command_line import Invocation, taken_apart
from agent_reporter.engines.pgbackrest import PgBackRest
from agent_reporter.model.state import RestoreState
from tests.engines.captures import errors_of, last_progress, names, progress_of, replay
from tests.engines.hostile_run import check_hostile_run

COMPLETED, FAILED, STOPPED = RestoreState.COMPLETED, RestoreState.FAILED, RestoreState.STOPPED
NOTHING = Progress()
ALL = Progress(156470436, 1275, 156470436, 1275)
FORTY_FILES = Progress(30741299, 40, 156299821, None)
TOLD, SILENTLY = [Begun()], [Begun(tells_counts=False)]

# capture, exit status, state, reason, errors, counters, how the restore had begun
RUNS = [
    ("badinfo", 75, FAILED, "repository_unreadable", 0, NOTHING, []),
    ("badmap", 76, FAILED, "usage_error", 0, NOTHING, []),
    ("badpw", 75, FAILED, "wrong_password", 0, NOTHING, []),
    ("badpw-padding", 75, FAILED, "wrong_password", 0, NOTHING, []),
    ("bundle", 0, COMPLETED, "", 0, Progress(20638042, 40, 43124413, 967), TOLD),
    ("childKILL", 39, FAILED, "engine_failed", 1, NOTHING, TOLD),
    ("corruptfile", 29, FAILED, "repository_damaged", 1, NOTHING, TOLD),
    ("corruptinfo", 75, FAILED, "repository_unreadable", 0, NOTHING, []),
    ("delta", 0, COMPLETED, "", 0, Progress(20237517, 1, 43124413, 967), TOLD),
    ("enospc", 64, FAILED, "target_full", 1, NOTHING, SILENTLY),
    ("full", 64, FAILED, "target_full", 1, Progress(6897664, 14, 43213972, None), TOLD),
    ("missingfile", 55, FAILED, "repository_damaged", 1, NOTHING, TOLD),
    ("nobackup", 75, FAILED, "snapshot_missing", 0, NOTHING, []),
    ("nonempty", 40, FAILED, "target_not_empty", 1, NOTHING, SILENTLY),
    ("noright", 41, FAILED, "permission_denied", 1, NOTHING, []),
    ("nostanza", 75, FAILED, "repository_missing", 0, NOTHING, []),
    ("notdir", 41, FAILED, "target_unusable", 1, NOTHING, []),
    ("ok-detail", 0, COMPLETED, "", 0, ALL, TOLD),
    ("ok-info", 0, COMPLETED, "", 0, Progress(None, None, 156342682, 1275), SILENTLY),
    ("ok-stderr", 0, COMPLETED, "", 0, Progress(30741299, 40, 156299821, 1275), TOLD),
    ("readonly", 83, FAILED, "target_read_only", 1, NOTHING, TOLD),
    ("rotarget", 53, FAILED, "permission_denied", 1, NOTHING, SILENTLY),
    ("running", 38, FAILED, "target_in_use", 0, NOTHING, []),
    ("selective", 0, COMPLETED, "", 0, Progress(6832128, 25, 43158385, 967), TOLD),
    ("shortfile", 95, FAILED, "repository_damaged", 1, NOTHING, TOLD),
    ("sigHUP", 63, FAILED, "interrupted", 0, FORTY_FILES, TOLD),
    ("sigINT", 63, FAILED, "interrupted", 0, FORTY_FILES, TOLD),
    ("sigKILL", -9, FAILED, "engine_killed", 0, NOTHING, TOLD),
    ("sigTERM", 63, FAILED, "interrupted", 0, FORTY_FILES, TOLD),
    ("unreachable", 125, FAILED, "repository_unreachable", 0, NOTHING, []),
    ("usage", 31, FAILED, "usage_error", 0, NOTHING, []),
]


def test_every_capture_is_in_the_table() -> None:
    assert {run[0] for run in RUNS} == set(names("pgbackrest"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run[0])
def test_a_recorded_run_is_judged_by_status_and_words_together(
    run: tuple[str, int, RestoreState, str, int, Progress, list[Begun]],
) -> None:
    name, returncode, state, reason, errors, progress, begun = run
    reader = PgBackRest().reader()
    observations = replay(reader, "pgbackrest", name)
    outcome = reader.outcome(returncode, None)
    assert (outcome.state, outcome.reason) == (state, reason)
    assert len([*errors_of(observations), *outcome.errors]) == errors
    assert last_progress(observations) == progress
    assert [observation for observation in observations if isinstance(observation, Begun)] == begun
    assert len(outcome.diagnostics.encode()) <= 4096
    assert outcome.diagnostics.isprintable() or "\n" in outcome.diagnostics
    if returncode:
        assert "pgBackRest" in outcome.diagnostics


@pytest.mark.parametrize("name", ["ok-detail", "bundle", "delta", "selective", "full", "sigTERM"])
def test_counters_never_go_down_and_the_total_is_never_less_than_what_is_restored(name: str) -> None:
    before = Progress(0, 0, 0, 0)
    for progress in progress_of(replay(PgBackRest().reader(), "pgbackrest", name)):
        for counter in ("bytes_restored", "files_restored", "total_bytes", "total_files"):
            assert (getattr(progress, counter) or 0) >= (getattr(before, counter) or 0)
        assert (progress.bytes_restored or 0) <= (progress.total_bytes or 0)
        before = progress


def test_the_first_percentage_proves_a_total_that_is_nearly_all() -> None:
    first, *_ = progress_of(replay(PgBackRest().reader(), "pgbackrest", "ok-detail"))
    told_at_the_end = 149.1 * (1 << 20)
    assert told_at_the_end * 0.99 < (first.total_bytes or 0) < told_at_the_end


@pytest.mark.parametrize(
    ("name", "returncode", "state"),
    [
        ("sigHUP", 63, STOPPED),
        ("sigINT", 63, STOPPED),
        ("sigTERM", 63, STOPPED),
        ("sigKILL", -9, STOPPED),
        ("ok-detail", 0, COMPLETED),
        ("ok-info", 0, COMPLETED),
        ("full", 64, FAILED),
        ("badpw", 75, FAILED),
        ("nostanza", 75, FAILED),
        ("usage", 31, FAILED),
    ],
)
@pytest.mark.parametrize("cause", StopCause)
def test_a_run_is_stopped_only_if_the_stop_ended_it(
    name: str, returncode: int, state: RestoreState, cause: StopCause
) -> None:
    reader = PgBackRest().reader()
    replay(reader, "pgbackrest", name)
    outcome = reader.outcome(returncode, cause)
    assert outcome.state is state
    if state is STOPPED:
        assert outcome.reason == cause.reason
        assert outcome.diagnostics.endswith("--delta goes on from there.")
    else:
        assert outcome.diagnostics.startswith("A stop had been asked for")


@pytest.mark.parametrize(("name", "returncode"), [("sigKILL", -9), ("sigTERM", 63)])
def test_a_run_that_somebody_else_ended_may_have_left_processes(name: str, returncode: int) -> None:
    reader = PgBackRest().reader()
    replay(reader, "pgbackrest", name)
    assert "wait until none of its own processes is left" in reader.outcome(returncode, None).diagnostics


def test_a_run_that_says_nothing_is_judged_by_its_exit_status() -> None:
    def judged(returncode: int, stop: StopCause | None = None) -> tuple[RestoreState, str]:
        outcome = PgBackRest().reader().outcome(returncode, stop)
        return outcome.state, outcome.reason

    assert judged(0) == (COMPLETED, "")
    assert judged(64) == (FAILED, "engine_failed")
    assert judged(40) == (FAILED, "target_not_empty")
    assert judged(-9) == judged(137) == (FAILED, "engine_killed")
    assert judged(63) == (FAILED, "interrupted")
    assert judged(63, StopCause.HOST) == (STOPPED, "stopped_on_host")


def test_an_error_without_a_path_is_one_of_the_restore_if_that_had_begun_whatever_comes_first() -> None:
    error = "ERROR: [029]: raised from local-1 protocol: zlib threw error: [-3] data error"
    told = EngineError("", "data_corrupted", error.removeprefix("ERROR: [029]: "), 29)
    for lines in ((BACKUP, error), (error, BACKUP)):
        reader = PgBackRest().reader()
        observations = [observation for line in lines for observation in reader.read_line(Stream.OUT, line)]
        assert observations == [Begun(tells_counts=False)]
        assert reader.outcome(29, None).errors == (told,)
    reader = PgBackRest().reader()
    reader.read_line(Stream.ERR, error)
    assert reader.outcome(29, None).errors == ()


def test_a_run_that_ends_with_0_before_it_said_so_is_not_completed() -> None:
    reader = PgBackRest().reader()
    reader.read_line(Stream.ERR, "INFO: restore command begin 2.45: --log-level-stderr=detail")
    outcome = reader.outcome(0, None)
    assert (outcome.state, outcome.reason) == (FAILED, "ended_early")


@pytest.mark.parametrize("error", ["unable to write '/pg/a'", "unable to flush"])
def test_errors_with_exit_status_0_are_not_completed(error: str) -> None:
    reader = PgBackRest().reader()
    reader.read_line(Stream.OUT, BACKUP)
    reader.read_line(Stream.ERR, f"ERROR: [064]: {error}")
    outcome = reader.outcome(0, None)
    assert outcome.state is RestoreState.COMPLETED_WITH_ERRORS
    assert "pgBackRest listed 1 errors." in outcome.diagnostics


def test_what_was_there_already_left_out_or_warned_of_is_told() -> None:
    def told(name: str) -> str:
        reader = PgBackRest().reader()
        replay(reader, "pgbackrest", name)
        return reader.outcome(0, None).diagnostics

    assert "sizes that pgBackRest rounds" in told("ok-detail")
    assert "It warned: unknown group 'postgres' in backup manifest mapped" in told("ok-detail")
    assert "39 files were there already and were not restored again" in told("delta")
    assert "15 files of databases that were left out hold zeros, and are not counted" in told("selective")


def test_a_few_warnings_are_told_and_the_rest_is_counted() -> None:
    reader = PgBackRest().reader()
    for number in range(10):
        reader.read_line(Stream.ERR, f"WARN: number {number}")
    told = reader.outcome(0, None).diagnostics
    assert told.endswith("It warned: number 2. It gave 7 more warnings.")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            "ERROR: [064]: raised from local-1 protocol: unable to write '/pg/base/1'",
            EngineError(
                "/pg/base/1",
                "no_space_left",
                "raised from local-1 protocol: unable to write '/pg/base/1'",
                64,
            ),
        ),
        (
            "2026-11-24 12:50:18.280 P00  ERROR: [083]: unable to set mode for '/pg': [30] Read-only file system",
            EngineError(
                "/pg",
                "read_only_file_system",
                "unable to set mode for '/pg': [30] Read-only file system",
                83,
            ),
        ),
        (
            "P000  ERROR: [074]: unable to move '/pg/it's' to '/pg/b': [13] Permission denied",
            EngineError(
                "/pg/it's",
                "permission_denied",
                "unable to move '/pg/it's' to '/pg/b': [13] Permission denied",
                74,
            ),
        ),
        (
            "ERROR: [055]: unable to open missing file '/repo/a: [28] No space left on device' for read",
            EngineError(
                "/repo/a: [28] No space left on device",
                "file_or_folder_missing",
                "unable to open missing file '/repo/a: [28] No space left on device' for read",
                55,
            ),
        ),
        (
            "ASSERT: [025]: '/a' is not as it should be",
            EngineError("/a", "restore_error", "'/a' is not as it should be", 25),
        ),
    ],
)
def test_an_error_names_its_path_its_type_and_the_number_that_pgbackrest_gives_it(
    line: str, error: EngineError
) -> None:
    assert errors_of(list(PgBackRest().reader().read_line(Stream.ERR, line))) == [error]


BEGIN = "P00   INFO: restore command begin 2.58: --log-level-console=detail --stanza=main"
BACKUP = "P00   INFO: repo1: restore backup set 20261124-020425F"


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        ("P01 DETAIL: restore file /pg/a (8KB, 50.00%) checksum 0f", Progress(8192, 1, 16278)),
        ("P01 DETAIL: restore file /pg/a (b) (8KB, 100.00%) checksum 0f", Progress(8192, 1, 8192)),
        ("P001 DETAIL: restore file /pg/a (bundle 1/128, 100B, 100.00%)", Progress(100, 1, 100)),
        ("P01 DETAIL: restore file /pg/a (bundle 2026F/1/0, 1GB, 100.00%)", Progress(1 << 30, 1, 1 << 30)),
        ("P01 DETAIL: restore file /pg/a (bi 16KB/1GB, 100.00%) checksum 0f", Progress(16384, 1, 1 << 30)),
        ("P01 DETAIL: restore file /pg/a (bi 1GB, 100.00%) checksum 0f", Progress(1 << 30, 1, 1 << 30)),
        ("P01 DETAIL: restore file /pg/a (0B, -nan%)", Progress(0, 1)),
        ("P01 DETAIL: restore zeroed file /pg/a (1GB, 100.00%)", Progress(0, 0, 1 << 30)),
        (
            "P01 DETAIL: restore file /pg/a - exists and matches size 10 and modification time 9 (10B, 100.00%)",
            Progress(0, 0, 10),
        ),
        ("P01 DETAIL: restore file /pg/a - exists and is zero size (0B, 0.00%)", NOTHING),
        ("P00   INFO: restore size = 1GB, file total = 3", Progress(None, None, 1 << 30, 3)),
    ],
)
def test_a_line_tells_how_much_was_restored(line: str, progress: Progress) -> None:
    reader = PgBackRest().reader()
    assert list(reader.read_line(Stream.OUT, BEGIN)) == []
    assert list(reader.read_line(Stream.OUT, BACKUP)) == [Begun()]
    assert list(reader.read_line(Stream.OUT, line)) == [progress]


@pytest.mark.parametrize(
    "line",
    [
        "P01 DETAIL: restore file /pg/a",
        "P01 DETAIL: restore file /pg/a (1.5B, 50.00%)",
        "P01 DETAIL: restore file /pg/a (8KB, 50%)",
        "INFO: restore size = much",
    ],
)
def test_a_line_that_is_cut_or_of_another_form_tells_nothing(line: str) -> None:
    reader = PgBackRest().reader()
    reader.read_line(Stream.OUT, BACKUP)
    assert list(reader.read_line(Stream.OUT, line)) == []


def test_a_repository_that_is_quoted_in_an_error_is_not_told() -> None:
    reader = PgBackRest().reader()
    for line in (
        "WARN: repo1: [FormatError] unable to load info file '/r/backup.info' or '/r/backup.info.copy':",
        '      FormatError: invalid JSON value at line 3 \'cipher-pass="secret": x',
        '\ufffd\ufffdmore of that"secret"',
        "      HINT: has a stanza-create been performed?",
        "ERROR: [075]: no backup set found to restore",
    ):
        reader.read_line(Stream.ERR, line)
    told = reader.outcome(75, None).diagnostics
    assert "secret" not in told
    assert "\ufffd" not in told
    assert "HINT" in told


@pytest.mark.parametrize(
    ("begin", "copies", "reason"),
    [
        (f"{BEGIN} --repo1-cipher-type=aes-256-cbc", 2, "wrong_password"),
        (f"{BEGIN} --repo1-cipher-type=aes-256-cbc", 1, "repository_unreadable"),
        (BEGIN, 2, "repository_unreadable"),
    ],
)
def test_a_password_is_blamed_only_where_a_cipher_is_used_and_both_copies_are_noise(
    begin: str, copies: int, reason: str
) -> None:
    reader = PgBackRest().reader()
    reader.read_line(Stream.OUT, begin)
    for line in (
        "WARN: repo1: [FormatError] unable to load info file '/r/backup.info' or '/r/backup.info.copy':",
        *copies * ["      FormatError: key/value found outside of section at line 1: x"],
        "ERROR: [075]: no backup set found to restore",
    ):
        reader.read_line(Stream.ERR, line)
    assert reader.outcome(75, None).reason == reason


def test_the_end_of_a_very_talkative_run_is_still_bounded() -> None:
    reader = PgBackRest().reader()
    for number in range(10_000):
        reader.read_line(Stream.ERR, f"WARN: {number} " + "é" * 5000)
    for returncode in (0, 64):
        assert len(reader.outcome(returncode, None).diagnostics.encode()) <= 4096


sizes = st.builds(
    "{}{}".format, st.integers(0, 2**70) | st.floats(), st.sampled_from(["B", "KB", "MB", "GB", "TB", ""])
)
hostile_files = st.builds(
    "{}DETAIL: restore {}file {} ({}{}, {}%){}".format,
    st.sampled_from(["", "P00 ", "2026-11-24 02:04:29.132 P02 "]),
    st.sampled_from(["", "zeroed "]),
    st.sampled_from(["/pg/a", "/pg/a - exists and matches backup", " (", "\udcff"]) | st.text(max_size=8),
    st.sampled_from(["", "bundle 1/2, ", "bi ", "bi 8KB/", "bi 999999999999GB/", "bundle ,"]),
    sizes | st.sampled_from(["999999999999GB", "8KB", "0B", "17.2MB", "1.B"]),
    st.sampled_from(["0.00", "0.01", "11.50", "99.99", "100.00", "999.99", "nan", "-nan", "inf", "1e9"]),
    st.sampled_from(["", " checksum 00", " checksum "]),
)
hostile_lines = st.one_of(
    st.text(max_size=50),
    hostile_files,
    st.builds(
        "{}{}: {}".format,
        st.sampled_from(["", "P00   "]),
        st.sampled_from(["ERROR", "WARN", "INFO", "ASSERT", "DETAIL", "TRACE"]),
        st.text(max_size=30)
        | st.sampled_from(
            [
                "[064]: unable to write '/a'",
                "[999]: '/\ud800': [28] No space left on device",
                "[٣]: x",
                "[75]: " + "'/" * 100_000,
                "repo1: [FormatError] unable to load info file",
                "restore size = 999999999999GB, file total = 999999999999999999",
                "restore size = , file total = ",
                "restore command begin " + " --log-level-console=" * 50_000,
                "restore command end: completed successfully",
                "restore command end: terminated on signal [SIGTERM]",
                "repo1: restore backup set ",
                "bundle " * 100_000,
            ]
        ),
    ),
    st.sampled_from(
        [
            "      FormatError: key/value found outside of section at line 1: \x00\x1b[2J",
            "DETAIL: restore file " + " (" * 200_000,
            "DETAIL: restore file (bundle " + "1/" * 200_000,
            "P" + "0" * 200_000,
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
    check_hostile_run(PgBackRest(), lines, returncode, stop)


DETAIL, ON_STDERR = "--log-level-console=detail", "--log-level-stderr=detail"


@pytest.mark.parametrize(
    ("command", "added"),
    [
        ("pgbackrest --stanza=main restore", DETAIL),
        ("pgbackrest restore --stanza main --delta", DETAIL),
        ("/usr/bin/pgbackrest --delta --stanza main restore", DETAIL),
        ("pgbackrest --no-delta --reset-repo1-host --repo1-storage-verify-tls --stanza=x restore", DETAIL),
        ("sudo -u postgres pgbackrest --stanza=main restore", DETAIL),
        ("nice pgbackrest-2.45 restore --set=20261124-020425F", DETAIL),
        ("pgbackrest restore --log-level-console=detail", ""),
        ("pgbackrest restore --log-level-console debug", ""),
        ("pgbackrest restore --log-level-con=trace", ""),
        ("pgbackrest restore --log-level-stderr=detail --log-level-console=off", ""),
        ("pgbackrest restore --log-level-console=info", ON_STDERR),
        ("pgbackrest restore --log-level-c off", ON_STDERR),
        ("pgbackrest restore --reset-log-level-console", ON_STDERR),
        ("pgbackrest restore --log-level-stderr=error", DETAIL),
        ("pgbackrest restore --log-level-console=warn --log-level-stderr=warn", ""),
        ("pgbackrest --stanza=main restore -v", DETAIL),
        ("pgbackrest restore --stanza", ""),
        ("pgbackrest --stanza restore backup", ""),
        ("pgbackrest --set restore info", ""),
        ("pgbackrest help restore", ""),
        ("pgbackrest backup", ""),
        ("pgbackrest", ""),
        ("pgbackrest --stanza", ""),
    ],
)
def test_a_line_for_each_file_is_asked_for_when_it_restores_and_no_option_comes_twice(
    command: str, added: str
) -> None:
    words = command.split()
    invocation = taken_apart(words)
    assert PgBackRest().recognises(invocation)
    arguments, environment = PgBackRest().prepare(invocation, {"A": "1"})
    assert invocation.with_arguments(arguments) == [*words, *added.split()]
    assert environment == {"A": "1"}


@pytest.mark.parametrize(
    ("script", "command", "expected"),
    [
        ('exec pgbackrest --stanza=main restore "$@"', ["x", "--delta"], ["x", "--delta", DETAIL]),
        ('exec pgbackrest --stanza=main "$@"', ["x", "restore"], ["x", "restore", DETAIL]),
        ('exec pgbackrest --stanza=main "$@"', ["x", "backup"], ["x", "backup"]),
        ('exec pgbackrest --log-level-console=debug "$@"', ["x", "restore"], ["x", "restore"]),
    ],
)
def test_what_a_wrapper_puts_in_front_counts_too(
    script: str, command: list[str], expected: list[str]
) -> None:
    invocation = taken_apart(command, lambda _: f"#!/bin/sh\n{script}\n")
    arguments, _ = PgBackRest().prepare(invocation, {})
    assert invocation.with_arguments(arguments) == expected


def test_a_shell_that_becomes_it_is_given_the_word_in_its_script() -> None:
    invocation = taken_apart(["sh", "-c", "cd /; exec pgbackrest restore --stanza='a b'"])
    arguments, _ = PgBackRest().prepare(invocation, {})
    assert invocation.with_arguments(arguments) == [
        *("sh", "-c"),
        f"cd /; exec pgbackrest restore --stanza='a b' {DETAIL}",
    ]


@pytest.mark.parametrize("program", ["pgbackrester", "restic", "", "my-pgbackrest"])
def test_other_programs_are_not_taken_for_it(program: str) -> None:
    assert not PgBackRest().recognises(Invocation((program,), program, ()))


def test_it_is_stopped_with_the_signal_that_it_cleans_up_after() -> None:
    assert PgBackRest().stop_signal is signal.SIGTERM
