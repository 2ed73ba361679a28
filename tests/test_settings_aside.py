"""Settings that another process reads are those that this one would have read, and its end is said."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_reporter.cli import settings_aside as module
from agent_reporter.cli.settings_aside import Reading
from agent_reporter.errors import ConfigurationError
from agent_reporter.settings import Settings
from tests.endtoend.agent import Agent, make_agent

if TYPE_CHECKING:
    from collections.abc import Mapping


def load_aside(file: Path | None, overrides: Mapping[str, object]) -> Settings:
    return Reading(file, overrides).result()


def test_they_are_those_of_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_REPORTER_PROGRESS", "counters")
    file = tmp_path / "sëttings.toml"
    file.write_text(f'spool_dir = "{tmp_path}/spöol"\nmax_errors = 2\n')
    overrides = {"allow_http": True, "retry_cap": "90", "token_file": os.fsdecode(b"/run/\xff")}
    here, aside = Settings.load(file, **overrides), load_aside(file, overrides)
    assert (aside, aside.given) == (here, here.given)
    assert aside.given >= {"progress", "spool_dir", "max_errors", "allow_http", "retry_cap", "token_file"}


def test_what_is_wrong_is_said_as_by_this_process(tmp_path: Path) -> None:
    file = tmp_path / "sëttings.toml"
    file.write_text('nonsense = 1\nlog_level = "loud"\n')
    for wrong in (
        (file, {"concurrency": "many"}),
        (tmp_path / "nowhere.toml", {}),
        (None, {"retry_cap": "1"}),
    ):
        with pytest.raises(ConfigurationError) as here:
            Settings.load(wrong[0], **wrong[1])
        with pytest.raises(ConfigurationError) as aside:
            load_aside(*wrong)
        assert str(aside.value) == str(here.value)


def test_a_process_that_cannot_be_started_or_dies_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_PROGRAM", "raise SystemExit('no memory') # {}")
    with pytest.raises(ConfigurationError, match="the process to read them ended with 1: no memory"):
        load_aside(None, {})
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    with pytest.raises(ConfigurationError, match=r"cannot be started: .*no-python"):
        load_aside(None, {})


@pytest.mark.parametrize(
    "answer",
    [
        r"\xff",
        "[]",
        "5",
        "{}",
        '{"settings": "{}"}',
        '{"settings": "[]"}',
        '{"settings": "{\\\\"given\\\\": [], \\\\"new\\\\": 1}"}',
    ],
)
def test_an_answer_that_is_none_of_this_version_is_an_error_in_words(
    monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    program = f"import sys; sys.stdout.buffer.write(b'{answer}') # {{}}"
    monkeypatch.setattr(module, "_PROGRAM", program.replace("{", "{{").replace("}", "}}"))
    with pytest.raises(ConfigurationError, match=r"the process to read them ended with 0: .*another version"):
        load_aside(None, {})


def test_what_else_is_printed_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PROGRAM", "print('a greeting of this host'); " + module._PROGRAM)
    assert load_aside(None, {"agent_id": "h"}).agent_id == "h"


def test_nothing_is_imported_from_the_directory_in_which_the_daemon_is_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("pydantic", "pydantic_settings", "json", "agent_reporter"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a stranger was here')")
    monkeypatch.chdir(tmp_path)
    assert load_aside(None, {"agent_id": "h"}).agent_id == "h"


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    return make_agent(tmp_path / "host", "http://127.0.0.1:9")


async def test_the_daemon_holds_nothing_that_checks_settings(agent: Agent, tmp_path: Path) -> None:
    agent.environment["AGENT_REPORTER_SOCKET"] = str(tmp_path / "s")
    process = await agent.start("daemon")
    try:
        assert process.stderr is not None
        while b"daemon.ready" not in await process.stderr.readline():
            assert process.returncode is None
        mapped = await asyncio.to_thread(Path(f"/proc/{process.pid}/maps").read_text)
        assert "aiohttp" in mapped
        assert "pydantic" not in mapped
    finally:
        process.terminate()
        await process.communicate()
