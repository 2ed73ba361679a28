from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

import pytest

from agent_reporter.engines.command_line import taken_apart
from agent_reporter.engines.running.scripts import MAX_SCRIPT_BYTES, read_script

if TYPE_CHECKING:
    from pathlib import Path

SCRIPTS = {
    "/usr/local/bin/restore": '#!/bin/sh\nset -eu\n. /etc/secret\nexec restic -r /repo "$@"\n',
    "nested": '#!/usr/bin/env bash\nexec sudo /usr/local/bin/restore --no-lock restore "$@"',
    "dangling": '#!/bin/sh\nexec restic restore latest --target "$@"\n',
    "one-word": '#!/bin/sh\nexec restic restore "$*"\n',
    "shifted": '#!/bin/sh\nTARGET=$1; shift\nexec restic restore --target "$TARGET" latest "$@"\n',
    "counted": '#!/bin/sh\n[ $# -gt 0 ] || exit 2\nexec restic "$@"\n',
    "twice": '#!/bin/sh\necho "$@"\nexec restic "$@"\n',
    "substituted": '#!/bin/sh\nexec restic -r "$(cat /etc/repository)" "$@"\n',
    "conditional": '#!/bin/bash\nif true; then\n  exec borg extract "$@"\nfi\n',
    "no-arguments": "#!/bin/sh\nexec restic restore latest\n",
    "not-last": '#!/bin/sh\nexec restic "$@" || echo failed\n',
    "python": '#!/usr/bin/python3\nexec restic "$@"\n',
    "itself": '#!/bin/sh\nexec itself "$@"\n',
    "unbalanced": "#!/bin/sh\nexec restic '$@\n",
    "into-first": '#!/bin/sh\nexec restic restore --target "/srv/$1" "$@"\n',
    "ours.sh": 'exec "/opt/my restic/restic" "$@"\n',
}


@pytest.mark.parametrize(
    ("command", "program", "fixed", "arguments"),
    [
        ("restic restore x", "restic", "", "restore x"),
        ("sudo -u me A=b nice -n 5 /opt/restic-0.19 restore x", "restic-0.19", "", "restore x"),
        ("sh -c 'exec restic restore x'", "restic", "", "restore x"),
        (
            "sudo bash -euc 'cd /; A=1 B=2; exec nice restic -r $R restore x'",
            "restic",
            "",
            "-r '$R' restore x",
        ),
        ("sh -c 'restic restore x'", "sh", "", "-c 'restic restore x'"),
        ("sh -c 'exec restic restore x | cat'", "sh", "", "-c 'exec restic restore x | cat'"),
        ("sh -c", "sh", "", "-c"),
        ("sh", "sh", "", ""),
        ("/usr/local/bin/restore restore x", "restic", "-r /repo", "restore x"),
        ("nested x", "restic", "-r /repo --no-lock restore", "x"),
        *((f"{name} x", name, "", "x") for name in ("dangling", "one-word", "shifted", "counted")),
        *((f"{name} x", name, "", "x") for name in ("twice", "substituted", "into-first")),
        ("sudo nested x", "nested", "", "x"),
        ("sudo /usr/local/bin/restore x", "restic", "-r /repo", "x"),
        ("sh -c 'exec nested x'", "restic", "-r /repo --no-lock restore", "x"),
        ("sh -c 'cd /srv && exec nested x'", "nested", "", "x"),
        ("sh -c 'cd /srv && exec /usr/local/bin/restore x'", "restic", "-r /repo", "x"),
        ("sh -c 'exec restic restore x # to here'", "sh", "", "-c 'exec restic restore x # to here'"),
        ("sh -c 'dd if=a # or; exec restic restore'", "sh", "", "-c 'dd if=a # or; exec restic restore'"),
        ("env -S 'restic restore x'", "restic restore x", "", ""),
        ("bash -eo pipefail -c 'exec restic restore x'", "restic", "", "restore x"),
        ("bash -s ours.sh x", "bash", "", "-s ours.sh x"),
        (
            """sh -c 'exec restic restore x --include "/a (b); c"'""",
            "restic",
            "",
            "restore x --include '/a (b); c'",
        ),
        ("""sh -c 'echo "a; exec restic restore x"'""", "sh", "", """-c 'echo "a; exec restic restore x"'"""),
        ("conditional r::a", "conditional", "", "r::a"),
        ("sh ours.sh restore x", "sh", "", "ours.sh restore x"),
        ("sh -x missing.sh restore x", "sh", "", "-x missing.sh restore x"),
        ("no-arguments x", "no-arguments", "", "x"),
        ("not-last x", "not-last", "", "x"),
        ("python x", "python", "", "x"),
        ("itself x", "itself", "", "x"),
        ("unbalanced x", "unbalanced", "", "x"),
        ("sh -c 'exec /usr/local/bin/restore restore x'", "restic", "-r /repo", "restore x"),
        ("sudo", "", "", ""),
        ("", "", "", ""),
    ],
)
def test_the_engine_is_found_behind_what_starts_it(
    command: str, program: str, fixed: str, arguments: str
) -> None:
    invocation = taken_apart(shlex.split(command), SCRIPTS.get)
    assert invocation.program == program
    assert invocation.fixed == tuple(shlex.split(fixed))
    assert invocation.arguments == tuple(shlex.split(arguments))
    assert shlex.join(invocation.with_arguments(invocation.arguments)) == shlex.join(shlex.split(command))


@pytest.mark.parametrize(
    ("program", "name"),
    [
        *((f"restic{suffix}", "restic") for suffix in ("", "-0.19.1", "14", "_0.19.1_linux_amd64", "-v0.18")),
        *((f"borg{suffix}", "borg") for suffix in ("-linux64", "-linux-glibc231", "1", "-1.4")),
    ],
)
def test_an_engine_is_known_by_its_name_with_a_version_or_a_system(program: str, name: str) -> None:
    assert taken_apart([f"/opt/{program}"]).starts(name)


@pytest.mark.parametrize(
    "program",
    ["restic-restore.sh", "restic.sh", "restic-1.sh", "restic_restore.py", "resticprofile", "restic-x"],
)
def test_a_program_of_somebodys_own_is_not_an_engine_that_it_is_called_after(program: str) -> None:
    assert not taken_apart([program]).starts("restic")


@pytest.mark.parametrize(
    "text", ["exec restic" + " " * 20_000 + "|", "exec " + "a " * 20_000 + "|", "exec " + '"a' * 9_999]
)
def test_a_long_script_is_looked_through_in_no_time(text: str) -> None:
    assert taken_apart(["sh", "-c", text]).program == "sh"


@pytest.mark.parametrize(
    ("script", "changed"),
    [
        ("exec restic restore x", "exec restic --json restore x -v"),
        (
            "cd /t && exec env A='b c' restic -r \"$R x\" restore",
            "cd /t && exec env A='b c' restic --json -r \"$R x\" restore -v",
        ),
        ("exec restic;", "exec restic --json -v;"),
    ],
)
def test_words_are_put_into_a_shells_script_without_touching_the_rest(script: str, changed: str) -> None:
    invocation = taken_apart(["sh", "-c", script, "name"])
    arguments = ["--json", *invocation.arguments, "-v"]
    assert invocation.with_arguments(arguments) == ["sh", "-c", changed, "name"]


def test_a_script_is_read_where_the_shell_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name, content in {
        "script": b"#!/bin/sh\nexec a \xff",
        "endless": b"#!" + b" " * MAX_SCRIPT_BYTES,
    }.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o755)
    os.mkfifo(tmp_path / "pipe", 0o755)
    assert read_script("script") == "#!/bin/sh\nexec a �"
    assert read_script(f"{tmp_path}/script") == "#!/bin/sh\nexec a �"
    unread = ("endless", "missing", "./script", "pipe", f"{tmp_path}/pipe", str(tmp_path), "a/\0")
    assert [read_script(name) for name in unread] == [None] * len(unread)
