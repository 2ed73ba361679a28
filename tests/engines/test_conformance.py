"""The conformance kit: every adapter of ours keeps its rules, and it finds what is wrong with a broken one."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter.engines.catalogue import own, own_names
from agent_reporter.engines.observe import Observe
from agent_reporter.testing import (
    Conformance,
    ConformanceError,
    Recording,
    Rule,
    check_adapter,
    read_recordings,
    rules,
)
from tests.engines import (
    broken_adapters,
    test_borg,
    test_pgbackrest,
    test_rclone,
    test_restic_reader,
    test_rsync,
    test_tar,
)
from tests.engines.broken_adapters import BROKEN, COMMANDS, OTHER_COMMANDS, RECORDINGS, Broken, Sound
from tests.engines.captures import DIRECTORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from agent_reporter.engines.adapter import Adapter

RULES = [value for value in vars(rules).values() if isinstance(value, Rule)]

RUNS: dict[str, Sequence[tuple[Any, ...]]] = {
    "borg": test_borg.RUNS,
    "pgbackrest": test_pgbackrest.RUNS,
    "rclone": test_rclone.RUNS,
    "restic": test_restic_reader.RUNS,
    "rsync": test_rsync.RUNS,
    "tar": test_tar.RUNS,
}
"""Name, exit status and right state of each recording, and more."""

RESTORES = {
    "borg": ["borg extract --list ::a srv", "borg14 --repo /r extract ::a"],
    "observe": ["dd if=/backup of=/dev/sdb bs=1M", "cp -a /backup /srv"],
    "pgbackrest": ["pgbackrest --stanza=main restore", "pgbackrest --stanza=main --delta restore --set=a"],
    "rclone": ["rclone copy remote:a /srv", "rclone -v sync remote:a /srv --stats 5s"],
    "restic": ["restic -r /r restore latest --target /srv", "restic-0.19.1 --json -q restore x"],
    "rsync": ["rsync -a host:/backup/ /srv", "rsync -av --delete --progress /backup/ /srv"],
    "tar": ["tar -C /srv -xf a.tar", "tar xzvf a.tar.gz", "tar --extract --file=a.tar --totals"],
}
NO_RESTORES = {
    "borg": ["borg list /r", "borg create /r::a extract"],
    "pgbackrest": ["pgbackrest --stanza=main backup", "pgbackrest info"],
    "rclone": ["rclone ls remote:a", "rclone version"],
    "restic": ["restic backup /home", "restic snapshots"],
    "tar": ["tar -cf a.tar /srv", "tar tf a.tar"],
}


def split(commands: Sequence[str]) -> list[list[str]]:
    return [shlex.split(command) for command in commands]


@pytest.mark.parametrize("adapter", [own(name) for name in own_names()], ids=lambda adapter: adapter.name)
def test_every_adapter_of_ours_conforms(adapter: Adapter) -> None:
    runs = RUNS.get(adapter.name, ())
    recorded = adapter.name if runs else "restic"
    recordings = read_recordings(DIRECTORY / recorded, {run[0]: (run[1], run[2]) for run in runs})
    print(
        check_adapter(
            adapter,
            recordings=recordings,
            commands=split(RESTORES[adapter.name]),
            other_commands=split(NO_RESTORES.get(adapter.name, ())),
        )
    )


def test_a_sound_adapter_conforms_and_the_report_says_what_was_tried() -> None:
    report = check(Sound())
    assert str(report).startswith("sound conforms: 4 recordings, ")
    assert report.tally.lines > 10_000
    assert report.tally.held_bytes < 1 << 20


@pytest.fixture(scope="module")
def table() -> Iterator[list[tuple[str, str]]]:
    """Which adapter broke which rule, for a person to read."""
    rows: list[tuple[str, str]] = []
    yield rows
    print()
    for adapter, rule in rows:
        print(f"{adapter:<26} {rule}")


@pytest.mark.parametrize("adapter", BROKEN, ids=lambda adapter: adapter.__name__)
def test_a_broken_adapter_is_found_by_the_rule_that_it_breaks(
    adapter: type[Broken], table: list[tuple[str, str]]
) -> None:
    with pytest.raises(ConformanceError) as found:
        check(adapter())
    table.append((adapter.__name__, found.value.rule.name))
    assert found.value.rule is adapter.breaks
    message = str(found.value)
    assert message.startswith(f"{adapter.__name__} breaks the rule: {adapter.breaks.name}.\n")
    assert adapter.breaks.why in message
    assert "seed=0" in message
    assert len(message) < 2_000


def test_every_rule_is_broken_by_one_of_them() -> None:
    assert {adapter.breaks for adapter in BROKEN} == set(RULES)


def test_the_same_seed_finds_the_same_and_another_may_find_other_input() -> None:
    def finding(seed: int) -> str:
        with pytest.raises(AssertionError) as found:
            check(broken_adapters.PassesSurrogatesOn(), seed=seed)
        return str(found.value)

    assert finding(7) == finding(7)
    assert "seed=7" in finding(7)
    assert len({finding(seed) for seed in range(5)}) > 1


def test_what_is_no_adapter_at_all_is_said_to_be_none() -> None:
    class Nothing:
        name = "nothing"

    with pytest.raises(ConformanceError, match="is no agent_reporter"):
        check(Nothing())  # type: ignore[arg-type]


def test_a_check_needs_a_recording_and_a_command() -> None:
    with pytest.raises(ValueError, match="at least one recording and one command"):
        check_adapter(Observe(), recordings=[], commands=[["dd"]])
    with pytest.raises(ValueError, match="at least one recording and one command"):
        check_adapter(Observe(), recordings=[Recording()], commands=[])


def test_recordings_are_read_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "ok.out").write_bytes(b"fine\n")
    (tmp_path / "bad.err").write_bytes(b"oh\n")
    (tmp_path / "silent.out").touch()
    (tmp_path / "README").write_text("not a recording")
    assert read_recordings(tmp_path, {"bad": (1, "failed"), "silent": (-9, "failed")}) == [
        Recording(err=b"oh\n", returncode=1, state="failed", name="bad"),
        Recording(out=b"fine\n", name="ok"),
        Recording(returncode=-9, state="failed", name="silent"),
    ]


def test_the_ending_of_a_recording_that_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ok.out").write_bytes(b"fine\n")
    with pytest.raises(ValueError, match=r"no recording bad, okay in .*empty bad\.out"):
        read_recordings(tmp_path, {"ok": (0, "completed"), "okay": (0, "completed"), "bad": (1, "failed")})


def check(adapter: Adapter, seed: int = 0) -> Conformance:
    return check_adapter(
        adapter, recordings=RECORDINGS, commands=COMMANDS, other_commands=OTHER_COMMANDS, seed=seed
    )
