"""pgBackRest, with a small PostgreSQL cluster whose backup is encrypted. All of it is the user postgres's."""

from __future__ import annotations

import filecmp
import os
import pwd
import re
import shutil
import subprocess
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.matrix.play import SMALL_BYTES
from tests.matrix.scene import Case, Record, Scene
from tests.matrix.truth import (
    counts_are,
    counts_are_between,
    diagnostics_say,
    differences,
    errors_are_of,
    it_is_full,
    nothing_is_there,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

USER = "postgres"
STANZA = "main"
TABLES = 12
LARGEST_BYTES = 2_000_000
"""Of a table, about."""
SECONDS_FOR_WORKERS = 30
UNTOLD = 2
"""Files that may be restored already when it ends before it tells."""
WRITTEN_BY_ITSELF = ("postgresql.auto.conf", "recovery.signal")
"""Files whose content depends on the run: when it was, and of what."""
NOT_IN_A_BACKUP = "pg_internal.init"

# Stands in for ssh: runs the last word on this host, and passes on so many bytes of its output a second.
SLOW_SSH = """#!/usr/bin/python3
import os, subprocess, sys, time
remote = subprocess.Popen(sys.argv[-1], shell=True, stdout=subprocess.PIPE)
while data := os.read(remote.stdout.fileno(), 16384):
    os.write(1, data)
    time.sleep(len(data) / 1_000_000)
sys.exit(remote.wait())
"""

CONFIGURATION = """[global]
repo1-path={directory}/repository
repo1-cipher-type=aes-256-cbc
repo1-cipher-pass=right
repo1-bundle=y
repo1-bundle-limit=64KiB
repo1-retention-full=1
compress-level=1
lock-path={directory}/lock
log-path={directory}/log
start-fast=y
[{stanza}]
pg1-path={directory}/cluster
pg1-database=template1
pg1-socket-path={directory}/socket
"""

SERVER = """
listen_addresses = ''
unix_socket_directories = '{directory}/socket'
shared_buffers = 1MB
fsync = off
autovacuum = off
max_wal_senders = 2
archive_mode = on
archive_command = 'pgbackrest --config={directory}/pgbackrest.conf --stanza={stanza} archive-push %p'
"""


def found() -> Sequence[PgBackRest]:
    """The one on PATH, if there is a server, too."""
    program = shutil.which("pgbackrest")
    servers = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return [PgBackRest(program, servers[-1].parent)] if program and servers else []


class PgBackRest:
    name = "pgbackrest"
    cases = frozenset(Case)

    def __init__(self, program: str, server: Path) -> None:
        self._program, self._server = program, server
        said = subprocess.run([program, "version"], check=True, capture_output=True, text=True).stdout
        self.version = said.split()[-1]

    def build(self, directory: Path) -> None:
        """A cluster of some 35 MB in about 670 files, its backup, and what pgBackRest alone restores of it."""
        self._directory = directory / "postgres"
        self._cluster, self._reference = self._directory / "cluster", self._directory / "reference"
        self._directory.mkdir()
        for name in ("repository", "lock", "log", "socket", "reference"):
            (self._directory / name).mkdir()
        where = {"directory": self._directory, "stanza": STANZA}
        (self._directory / "pgbackrest.conf").write_text(CONFIGURATION.format(**where))
        (self._directory / "slow-ssh").write_text(SLOW_SSH)
        (self._directory / "slow-ssh").chmod(0o755)
        _give(self._directory)
        self._do(self._server / "initdb", "-D", self._cluster, "-A", "trust", "-N")
        with (self._cluster / "postgresql.conf").open("a") as settings:
            settings.write(SERVER.format(**where))
        control: list[str | Path] = [
            self._server / "pg_ctl",
            "-D",
            self._cluster,
            "-w",
            "-l",
            self._directory / "server.log",
        ]
        self._do(*control, "start")
        try:
            self._do(*self._sql())
            self._do(*self._pgbackrest(), "stanza-create")
            self._do(*self._pgbackrest(), "backup", "--type=full")
        finally:
            self._do(*control, "stop")
        self._do(*self._restore(self._reference))

    def scene(self, case: Case, target: Path) -> Scene:  # noqa: PLR0911 - one for each case
        _give(target)
        scene = partial(Scene, user=USER)
        command = self._restore(target)
        at_once = [*command, "--job-retry=0"]  # else what fails is tried again after 15 seconds
        slow = [
            *at_once,
            *("--repo1-host=localhost", f"--repo1-host-user={USER}"),
            f"--repo1-host-config={self._directory}/pgbackrest.conf",
            f"--cmd-ssh={self._directory}/slow-ssh",
        ]
        match case:
            case Case.WELL:
                return scene(command, ("completed", ""), partial(self._all_is_there, target))
            case Case.SOME_FAIL:
                repository, missing = self._repository_without_a_file()
                return scene(
                    [*at_once, f"--repo1-path={repository}"],
                    ("failed", "repository_damaged"),
                    partial(self._one_failed, target, missing),
                )
            case Case.FULL:
                return scene(at_once, ("failed", "target_full"), partial(self._no_room, target))
            case Case.BROKEN:
                broken = f"--repo1-path={self._broken_repository()}"
                return scene(
                    [*command, broken],
                    ("failed", "repository_unreadable"),
                    partial(nothing_is_there, target),
                )
            case Case.PASSWORD:
                wrong = {"PGBACKREST_REPO1_CIPHER_PASS": "wrong"}
                return scene(command, ("failed", "wrong_password"), partial(nothing_is_there, target), wrong)
            case Case.STOPPED:
                return scene(slow, ("stopped", "stop_requested"), partial(self._it_can_go_on, target))
            case Case.KILLED:
                return scene(slow, ("failed", "engine_killed"), partial(self._workers_run_on, target))

    def _pgbackrest(self) -> list[str]:
        return [self._program, f"--config={self._directory}/pgbackrest.conf", f"--stanza={STANZA}"]

    def _restore(self, target: Path) -> list[str]:
        return [*self._pgbackrest(), f"--pg1-path={target}", "restore"]

    def _sql(self) -> list[str | Path]:
        """Tables of nearly two megabytes, each smaller than the one before: it tells of whole files only."""
        statements = [
            f"create table t{number} as select md5('a{number}.' || i) || md5('b{number}.' || i) as x"
            f" from generate_series(1, {20_000 - 200 * number}) as i"
            for number in range(TABLES)
        ]
        words = [word for each in ("drop database postgres", *statements) for word in ("-c", each)]
        return [self._server / "psql", "-h", self._directory / "socket", "-d", "template1", "-q", *words]

    def _do(self, *words: str | Path) -> None:
        who = pwd.getpwnam(USER)
        environment = {**os.environ, "HOME": str(self._directory)}
        subprocess.run(
            words,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=who.pw_uid,
            group=who.pw_gid,
            extra_groups=[],
            cwd=self._directory,
            env=environment,
        )

    def _copy_of_repository(self, name: str) -> Path:
        copy = self._directory / name
        self._do("cp", "-r", self._directory / "repository", copy)
        return copy

    def _repository_without_a_file(self) -> tuple[Path, Path]:
        """A copy without the smallest of the tables, so that the others are restored before."""
        copy = self._copy_of_repository("without-a-file")
        tables = [path for path in copy.glob(f"backup/{STANZA}/*F/pg_data/base/*/*.gz") if _is_table(path)]
        smallest = min(tables, key=lambda path: path.stat().st_size)
        smallest.unlink()
        return copy, smallest

    def _broken_repository(self) -> Path:
        copy = self._copy_of_repository("broken")
        for name in ("backup.info", "backup.info.copy"):
            (copy / "backup" / STANZA / name).write_bytes(b"broken" * 1000)
        return copy

    def _all_is_there(self, target: Path, record: Record) -> list[str]:
        unsaved = [
            str(path.relative_to(self._cluster / "base"))
            for path in (self._cluster / "base").rglob(NOT_IN_A_BACKUP)
        ]
        # Beside what it restores, it writes recovery.signal, and lines into postgresql.auto.conf.
        settings = self._cluster / "postgresql.auto.conf"
        sizes = [*_sizes_as_in(self._reference, target, but_for=WRITTEN_BY_ITSELF), settings.stat().st_size]
        return [
            *errors_are_of(record, []),
            *differences(self._reference, target, but_for=WRITTEN_BY_ITSELF),
            *differences(self._cluster / "base", target / "base", but_for=unsaved),
            *counts_are(record, files=len(sizes)),
            *counts_are_between(record, bytes=_rounded(sizes)),
            *diagnostics_say(record, "rounds"),
        ]

    def _one_failed(self, target: Path, missing: Path, record: Record) -> list[str]:
        return [*_one_error(record, "file_or_folder_missing", 55, missing), *self._part(target, record)]

    def _no_room(self, target: Path, record: Record) -> list[str]:
        return [
            *it_is_full(target, LARGEST_BYTES),
            *_one_error(record, "no_space_left", 64, target),
            *self._part(target, record),
        ]

    def _workers_run_on(self, target: Path, record: Record) -> list[str]:
        _wait_for_workers(target)
        return [*self._it_can_go_on(target, record), *diagnostics_say(record, "wait until none of its own")]

    def _it_can_go_on(self, target: Path, record: Record) -> list[str]:
        found = [*self._part(target, record), *diagnostics_say(record, "--delta goes on")]
        if (target / "global" / "pg_control").exists():
            found.append("PostgreSQL would start from what was left")
        self._do(*self._restore(target), "--delta")
        return [*found, *differences(self._reference, target, but_for=WRITTEN_BY_ITSELF)]

    def _part(self, target: Path, record: Record) -> list[str]:
        """The largest are restored first: the smallest that are there may not have been told of."""
        sizes = sorted(_sizes_as_in(self._reference, target), reverse=True)
        if not sizes:
            return ["no file is on the disk as it was"]
        told = sizes[: max(len(sizes) - UNTOLD, 1)]
        found = counts_are_between(record, bytes=(_rounded(told)[0], _rounded(sizes)[1]))
        if not len(told) <= record["files_restored"] <= len(sizes):
            found.append(f"files_restored is {record['files_restored']}, on the disk are {len(sizes)}")
        return found


def _sizes_as_in(reference: Path, target: Path, *, but_for: Sequence[str] = ()) -> list[int]:
    """The bytes of each file in `target` that is the same in `reference`."""
    names = [str(path.relative_to(reference)) for path in reference.rglob("*") if path.is_file()]
    same, _, _ = filecmp.cmpfiles(reference, target, [n for n in names if n not in but_for], shallow=False)
    return [(target / name).stat().st_size for name in same]


def _rounded(sizes: Sequence[int]) -> tuple[int, int]:
    """The least and the most bytes that are told of files of these sizes: each to a tenth of its unit."""
    off = sum(0 if size < 1 << 10 else (1 << 10 if size < 1 << 20 else 1 << 20) // 10 + 1 for size in sizes)
    return sum(sizes) - off, sum(sizes) + off


def _one_error(record: Record, kind: str, code: int, below: Path) -> list[str]:
    """Whether it is told of anything else than one error, of a path at or below `below`."""
    told = [(error["type"], error["exception"]["code"], error["path"]) for error in record["errors"]["list"]]
    if len(told) == 1 and told[0][:2] == (kind, code) and Path(told[0][2]).is_relative_to(below):
        return []
    return [f"there should be one error {kind} {code} of {below}, and there are {told}"]


def _wait_for_workers(target: Path) -> None:
    """Processes of a pgBackRest that was killed go on with the files they are at."""
    deadline = time.monotonic() + SECONDS_FOR_WORKERS
    while any(f"--pg1-path={target}" in words for words in _commands()):
        assert time.monotonic() < deadline, "a worker of pgBackRest does not end"
        time.sleep(0.05)


def _commands() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            yield path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")


def _is_table(path: Path) -> bool:
    return re.fullmatch(r"\d{5}\.gz", path.name) is not None and path.stat().st_size > SMALL_BYTES // 16


def _give(directory: Path) -> None:
    """Make the user of the server its owner."""
    who = pwd.getpwnam(USER)
    for path in (directory, *directory.rglob("*")):
        os.chown(path, who.pw_uid, who.pw_gid)
