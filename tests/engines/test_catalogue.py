from __future__ import annotations

import shlex
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.engines.adapter import StopCause, Stream
from agent_reporter.engines.catalogue import OWN, choose, own, to_start
from agent_reporter.engines.command_line import taken_apart
from agent_reporter.engines.observe import Observe
from agent_reporter.engines.restic import STATUS_LINES_PER_SECOND, Restic
from agent_reporter.errors import ConfigurationError
from agent_reporter.model.state import RestoreState


@pytest.mark.parametrize(
    ("command", "prepared"),
    [
        ("restic restore latest", "restic --json restore latest"),
        (
            "/opt/restic-0.19.1 -r /r restore latest --target /t",
            "/opt/restic-0.19.1 --json -r /r restore latest --target /t",
        ),
        (
            "restic14 --limit-download 100 --no-lock -v restore x",
            "restic14 --json --limit-download 100 --no-lock -v restore x",
        ),
        ("restic -o a=b -vv --repo=/r restore x", "restic --json -o a=b -vv --repo=/r restore x"),
        ("sudo -u me -E A=b restic restore x", "sudo -u me -E A=b restic --json restore x"),
        ("sudo -nu me -- /usr/bin/restic restore x", "sudo -nu me -- /usr/bin/restic --json restore x"),
        (
            "env -i - A=b nice -n 10 ionice -c2 -n 7 restic restore x",
            "env -i - A=b nice -n 10 ionice -c2 -n 7 restic --json restore x",
        ),
        (
            "timeout -k 5 --signal INT 10m nice -10 restic restore x",
            "timeout -k 5 --signal INT 10m nice -10 restic --json restore x",
        ),
        ("restic --json restore x", "restic --json restore x"),
        ("restic restore x --json", "restic restore x --json"),
        ("restic restore x --json=false", "restic restore x --json=false"),
        ("restic backup /home", "restic backup /home"),
        ("restic -r restore snapshots", "restic -r restore snapshots"),
        ("restic", "restic"),
        ("restic -", "restic -"),
        ("restic -- restore", "restic -- restore"),
        ("resticprofile restore", "resticprofile restore"),
        ("sudo", "sudo"),
        ("timeout", "timeout"),
        ("", ""),
    ],
)
def test_a_restic_restore_is_asked_for_json_and_nothing_else_is_touched(command: str, prepared: str) -> None:
    invocation = taken_apart(shlex.split(command))
    words, environment = to_start(Restic(), invocation, {"A": "b"})
    assert shlex.join(words) == prepared
    is_restore = words.count("restore") == 1 and words[-1] != "restore" and "snapshots" not in words
    assert environment.get("RESTIC_PROGRESS_FPS") == (STATUS_LINES_PER_SECOND if is_restore else None)


def test_a_frame_rate_that_the_user_has_set_is_kept() -> None:
    assert Restic().prepare(taken_apart(["restic", "restore"]), {"RESTIC_PROGRESS_FPS": "9"})[1] == {
        "RESTIC_PROGRESS_FPS": "9"
    }


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("restic restore x", "restic"),
        ("sudo restic-0.19.1 restore x", "restic"),
        ("resticprofile restore", "observe"),
        ("./restore.sh restic", "observe"),
        ("sudo -u restic ./restore.sh", "observe"),
        ("", "observe"),
    ],
)
def test_auto_chooses_the_adapter_by_the_command(command: str, name: str) -> None:
    assert choose("auto", taken_apart(shlex.split(command))).name == name


@given(
    st.sampled_from(OWN),
    st.text("abcglnorstx.-_0123456789", max_size=4),
    st.sampled_from(["", ".sh", "-2.45", "64"]),
)
def test_only_a_program_with_an_engines_name_in_its_own_is_recognised_so_no_other_adapter_is_loaded(
    engine: str, before: str, behind: str
) -> None:
    for program in (before + engine + behind, before + behind):
        if own(engine).recognises(taken_apart([program])):
            assert engine in program


def test_an_adapter_can_be_chosen_by_name_whatever_the_command() -> None:
    assert choose("restic", taken_apart(["./my-wrapper"])).name == "restic"
    assert choose("observe", taken_apart(["restic", "restore"])).name == "observe"


def test_an_unknown_engine_is_refused_with_the_names_of_the_known_ones() -> None:
    with pytest.raises(
        ConfigurationError,
        match=r"no engine called 'tape'.*auto, restic, borg, rsync, rclone, tar, pgbackrest, observe",
    ):
        choose("tape", taken_apart([]))


def test_a_command_that_is_only_prefixes_has_no_engine() -> None:
    assert taken_apart(["sudo", "-u"]).program == ""
    assert taken_apart([]).program == ""


def test_each_engine_gets_the_signal_it_cleans_up_after() -> None:
    assert Restic().stop_signal is signal.SIGINT
    assert Observe().stop_signal is signal.SIGTERM


@pytest.mark.parametrize(
    ("command", "is_so"),
    [
        ("restic restore latest --target /t --dry-run", True),
        ("restic restore latest --target /t", False),
        ("restic -r --dry-run restore latest", True),
        ("restic backup --dry-run /t", False),
        ("borg extract -n r::a", True),
        ("borg extract --dry-run r::a", True),
        ("borg extract r::a -- -n", False),
        ("borg create -n r::a", False),
        ("rsync -avn a b", True),
        ("rsync --list-only a", True),
        ("rsync -e 'ssh -n' -a a b", False),
        ("rclone copy a b -n", True),
        ("rclone copy a b --dry-run", True),
        ("rclone copy a b", False),
        ("rclone copy a b --exclude -nightly", False),
        ("rclone copy a b --dry-run --dry-run=false", False),
        ("restic restore latest --dry-run=true", True),
        ("rsync -a --exclude -new* a b", False),
        ("rsync --filter -n a b", False),
        ("borg extract -e -n r::a", False),
        ("borg extract -pn r::a", True),
        ("tar tf a", True),
        ("tar -czf a b", True),
        ("tar -C /t -xpzf a", False),
        ("tar --extract --file=a", False),
        ("tar", False),
        ("pgbackrest --stanza=main restore", False),
        ("cp --dry-run a b", False),
    ],
)
def test_a_command_that_surely_restores_nothing_is_known(command: str, *, is_so: bool) -> None:
    invocation = taken_apart(shlex.split(command))
    assert choose("auto", invocation).restores_nothing(invocation) is is_so


@pytest.mark.parametrize(
    ("returncode", "stop", "state", "reason"),
    [
        (0, None, RestoreState.COMPLETED, ""),
        (0, StopCause.HOST, RestoreState.COMPLETED, ""),
        (3, None, RestoreState.FAILED, "engine_failed"),
        (-9, None, RestoreState.FAILED, "engine_killed"),
        (-15, StopCause.CONTROL_PLANE, RestoreState.STOPPED, "stop_requested"),
        (1, StopCause.HOST, RestoreState.STOPPED, "stopped_on_host"),
    ],
)
def test_an_unknown_engine_is_judged_by_its_exit_status(
    returncode: int, stop: StopCause | None, state: RestoreState, reason: str
) -> None:
    outcome = Observe().reader().outcome(returncode, stop)
    assert (outcome.state, outcome.reason) == (state, reason)


def test_a_failure_of_an_unknown_engine_tells_its_last_lines_on_stderr() -> None:
    reader = Observe().reader()
    for number in range(100):
        assert list(reader.read_line(Stream.ERR, f"line {number} {'x' * 3000}")) == []
        reader.read_line(Stream.OUT, "not this")
    reader.read_line(Stream.ERR, "the cause")
    diagnostics = reader.outcome(3, None).diagnostics
    assert diagnostics.startswith("The engine ended with exit status 3.")
    assert diagnostics.endswith("the cause")
    assert "not this" not in diagnostics
    assert len(diagnostics.encode()) <= 4096
