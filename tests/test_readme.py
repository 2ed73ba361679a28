"""That what README.md says is so: its examples run, and what it names is there."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shlex
import shutil
import tempfile
import time
from dataclasses import MISSING
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter import RestoreState, Settings
from agent_reporter.cli.demo import SCENES
from agent_reporter.cli.main import COMMANDS
from agent_reporter.clock import SystemClock
from agent_reporter.daemon.notify import Notifier
from agent_reporter.daemon.service import Service
from agent_reporter.engines.catalogue import choose, to_start
from agent_reporter.engines.command_line import taken_apart
from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.server import PROJECT
from agent_reporter.settings import described, kinds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FIRST = "python3 -m venv .venv && .venv/bin/pip install . && .venv/bin/agent-reporter demo"
SECOND = ".venv/bin/pip install -e '.[dev]' && .venv/bin/python -m tests"

(SCRIPT,) = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
CODE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
INDENTED = re.findall(r"^ {4}(\S.*)", README, re.MULTILINE)
QUOTED = re.findall(r"(?<!`)`([^`\n]+)`(?!`)", README)
SETTINGS_TABLE = dict(re.findall(r"^\| `([a-z_]+)` \| (\S*) ?\|", README, re.MULTILINE))
NOT_SETTINGS = {
    "engine_lost",
    "restore_stop_request",
    "prometheus_client",
    "raise_if_stop_requested",
    "reporter_lost",
    "stop_incomplete",
    *RestoreState,
}
"""What else is written in the README as names of settings are."""
OPTIONS_OF_ENGINES = {"--log-file", "--syslog"}

METRICS = set(re.findall(r"`(agent_reporter_\w+)", README))

FILES, FILE_BYTES = 20, 1_000

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ReferenceServer]:
    """A control plane, and settings in the environment that lead there."""
    for name in os.environ:
        if name.startswith("AGENT_REPORTER_"):
            monkeypatch.delenv(name)
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text("secret")
    monkeypatch.setattr("agent_reporter.settings.SYSTEM_FILE", tmp_path / "none.toml")
    async with ReferenceServer(tmp_path / "control-plane", token="secret") as server:
        for name, value in {
            "ENDPOINT": server.url,
            "PROJECT_ID": PROJECT,
            "TOKEN_FILE": str(token),
            "SPOOL_DIR": str(tmp_path / "spool"),
            "REPORT_INTERVAL": "0.05",
            "STOP_POLL_INTERVAL": "0.05",
        }.items():
            monkeypatch.setenv(f"AGENT_REPORTER_{name}", value)
        yield server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory of files."""
    directory = tmp_path / "source"
    directory.mkdir()
    for number in range(FILES):
        (directory / f"file-{number:02}").write_bytes(os.urandom(FILE_BYTES))
    (tmp_path / "target").mkdir()
    return directory


def example(number: int) -> Any:
    """The function `restore` of an example."""
    namespace: dict[str, Any] = {}
    exec(compile(CODE[number], f"README.md, example {number}", "exec"), namespace)
    return namespace["restore"]


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def told(server: ReferenceServer, restore_id: str) -> tuple[str, int, int, int]:
    document = server.document(restore_id)
    counted = document["files_restored"], document["bytes_restored"]
    return document["state"], *counted, document["errors"]["count"]


async def stop_once_it_runs(server: ReferenceServer, restore_id: str) -> None:
    await server.wait_until(lambda: server.document(restore_id)["state"] == "in_progress")
    server.request_stop(restore_id)


def test_there_is_an_example_with_an_event_loop_and_one_without() -> None:
    assert [code.count("async def restore") for code in CODE] == [1, 0]
    assert all(len(code.rstrip().splitlines()) <= 22 for code in CODE)


async def test_the_example_with_an_event_loop_restores(
    server: ReferenceServer, source: Path, tmp_path: Path
) -> None:
    restore_id = server.start_restore()
    await example(0)(restore_id, source, tmp_path / "target")
    assert told(server, restore_id) == ("completed", FILES, FILES * FILE_BYTES, 0)
    assert contents(tmp_path / "target") == contents(source)


async def test_the_example_with_an_event_loop_tells_of_errors(
    server: ReferenceServer, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "target" / "file-07").mkdir()
    restore_id = server.start_restore()
    await example(0)(restore_id, source, tmp_path / "target")
    assert told(server, restore_id) == ("completed_with_errors", FILES - 1, (FILES - 1) * FILE_BYTES, 1)
    assert server.errors(restore_id)["list"][0]["path"] == str(source / "file-07")


async def test_the_example_with_an_event_loop_stops(
    server: ReferenceServer, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile = shutil.copyfile

    def copy_slowly(source: Path, target: Path) -> Path:
        time.sleep(0.2)
        return copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", copy_slowly)
    restore_id = server.start_restore()
    async with asyncio.TaskGroup() as together:
        together.create_task(stop_once_it_runs(server, restore_id))
        await example(0)(restore_id, source, tmp_path / "target")
    state, files, _, errors = told(server, restore_id)
    assert (state, errors) == ("stopped", 0)
    assert files < FILES


async def test_the_example_without_an_event_loop_restores(server: ReferenceServer, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(3_000_000))
    restore_id = server.start_restore()
    await asyncio.to_thread(example(1), restore_id, source, target)
    assert told(server, restore_id) == ("completed", 1, 3_000_000, 0)
    assert target.read_bytes() == source.read_bytes()


async def test_the_example_without_an_event_loop_stops(server: ReferenceServer, tmp_path: Path) -> None:
    restore_id = server.start_restore()
    async with asyncio.TaskGroup() as together:
        together.create_task(stop_once_it_runs(server, restore_id))
        await asyncio.to_thread(example(1), restore_id, Path("/dev/zero"), Path(os.devnull))
    assert told(server, restore_id)[0] == "stopped"


async def test_the_example_without_an_event_loop_tells_of_a_failure(
    server: ReferenceServer, tmp_path: Path
) -> None:
    restore_id = server.start_restore()
    with pytest.raises(FileNotFoundError):
        await asyncio.to_thread(example(1), restore_id, tmp_path / "none", tmp_path / "target")
    assert told(server, restore_id)[0] == "failed"


@pytest.fixture
async def daemon(server: ReferenceServer) -> AsyncIterator[Path]:
    """The script, with a daemon to report to in place of that of this machine, and an archive of data."""
    with tempfile.TemporaryDirectory(prefix="ar-") as name:  # the path of a Unix socket is short
        directory = Path(name)
        socket, script = directory / "api.sock", directory / "restore-tar"
        assert SCRIPT.count("/run/agent-reporter/api.sock") == SCRIPT.count(f"/v2/{PROJECT}/") == 1
        script.write_text(SCRIPT.replace("/run/agent-reporter/api.sock", str(socket)))
        script.chmod(0o755)
        (directory / "target").mkdir()
        service = Service(
            Settings.load(socket=socket),
            lambda: Settings.load(socket=socket),
            SystemClock(),
            Notifier(None),
            [],
        )
        task = asyncio.create_task(service.run())
        await service.ready.wait()
        yield directory
        service.end()
        await task


@needs_curl
async def test_the_script_restores(server: ReferenceServer, daemon: Path, source: Path) -> None:
    archive = shutil.make_archive(str(daemon / "data"), "tar", source)
    restore_id = server.start_restore()
    script = await asyncio.create_subprocess_exec(
        daemon / "restore-tar", restore_id, archive, daemon / "target"
    )
    assert await script.wait() == 0
    await server.wait_until(lambda: server.document(restore_id)["state"] == "completed")
    assert contents(daemon / "target") == contents(source)
    assert server.document(restore_id)["bytes_restored"] >= FILES * FILE_BYTES


@needs_curl
async def test_the_script_stops(server: ReferenceServer, daemon: Path) -> None:
    archive = daemon / "data.tar"
    os.mkfifo(archive)  # an archive that never ends
    restore_id = server.start_restore()
    script = await asyncio.create_subprocess_exec(
        daemon / "restore-tar", restore_id, archive, daemon / "target"
    )
    await stop_once_it_runs(server, restore_id)
    assert await script.wait() == 0
    await server.wait_until(lambda: server.document(restore_id)["state"] == "stopped")


@needs_curl
async def test_the_script_says_that_the_archive_is_broken(server: ReferenceServer, daemon: Path) -> None:
    restore_id = server.start_restore()
    script = await asyncio.create_subprocess_exec(
        daemon / "restore-tar",
        restore_id,
        daemon / "none.tar",
        daemon / "target",
        stderr=asyncio.subprocess.DEVNULL,
    )
    await script.wait()
    await server.wait_until(lambda: server.document(restore_id)["state"] == "failed")


def test_the_metrics_named_are_there() -> None:
    source = (ROOT / "agent_reporter" / "daemon" / "metrics.py").read_text()
    named = {name.removesuffix("_total").removesuffix("_info") for name in METRICS}
    assert named == {name for name in named if f'"{name}"' in source}


def test_the_first_two_commands_are_the_demo_and_all_checks() -> None:
    assert INDENTED[:2] == [FIRST, SECOND]


def test_the_second_command_is_the_one_that_ci_runs() -> None:
    script = ROOT / ".ci" / "run"
    if not script.is_file():
        pytest.skip("this is not a checkout with .ci")
    lines = script.read_text().splitlines()
    # A line for each part: in a list, the shell goes on after a part that failed.
    install, test = SECOND.split(" && ")
    assert lines.index(install) + 1 == lines.index(test)


def test_the_demo_prints_what_is_shown_of_it() -> None:
    for number, scene in enumerate(SCENES, start=1):
        assert f"{number}. {scene.title}" in README.splitlines()
        assert re.search(rf"^│ {number} │ {scene.expected_state} +│", README, re.MULTILINE)


def test_the_commands_named_are_those_there_are() -> None:
    named = {
        words[1]
        for line in [*INDENTED, *QUOTED]
        for words in [re.split(r"\s+", line[line.find("agent-reporter ") :])]
        if words[0] == "agent-reporter" and len(words) > 1
    }
    assert named - {"COMMAND"} == set(COMMANDS)


@pytest.mark.parametrize("line", [line for line in INDENTED if line.startswith("agent-reporter ")])
def test_a_command_line_can_be_parsed(line: str) -> None:
    _, command, *words = shlex.split(line)
    parser = argparse.ArgumentParser(exit_on_error=False)
    import_module(f"agent_reporter.cli.{command}").add_arguments(parser)
    parser.parse_args(words)


def test_the_options_named_are_options_of_a_command() -> None:
    options: set[str] = set()
    for command in COMMANDS:
        place = "reference.command" if command == "reference" else f"cli.{command.replace('-', '_')}"
        parser = argparse.ArgumentParser()
        import_module(f"agent_reporter.{place}").add_arguments(parser)
        options |= set(parser._option_string_actions)
    named = {option for words in QUOTED for option in re.findall(r"(?<!\S)--[a-z][a-z-]*", words)}
    assert named  # the pattern finds some
    assert named <= options | OPTIONS_OF_ENGINES | _asked_for()


def _asked_for() -> set[str]:
    """What engines are asked with."""
    restores = ("restic restore", "borg extract r::a", "rsync a b", "rclone copy a b", "pgbackrest restore")
    return {
        word.partition("=")[0]
        for restore in restores
        for command in [taken_apart(restore.split())]
        for word in to_start(choose("auto", command), command, {})[0]
    }


def test_the_settings_named_are_settings() -> None:
    named = {words for words in QUOTED if re.fullmatch(r"[a-z]+(_[a-z]+)+", words)} | SETTINGS_TABLE.keys()
    assert named - NOT_SETTINGS - METRICS <= kinds().keys()
    variables = set(re.findall(r"AGENT_REPORTER_([A-Z_]+)", README))
    assert {name.lower() for name in variables} <= kinds().keys()


def test_the_defaults_in_the_table_are_the_defaults() -> None:
    fields = {setting.name: setting for setting in described()}
    for name, default in SETTINGS_TABLE.items():
        field = fields[name]
        is_shown = field.default is not MISSING and field.default not in (None, "")
        assert default == (str(field.default) if is_shown else "")


def test_the_files_named_are_there() -> None:
    named = set(re.findall(r"^ {4}(agent_reporter/\S+)", README, re.MULTILINE))
    named |= set(re.findall(r"\]\((?!#)([^)]+)\)", README))
    assert len(named) > 8
    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 380
