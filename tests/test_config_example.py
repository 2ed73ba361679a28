"""That config/agent-reporter.toml shows every setting once, with its real default, and can be used."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import MISSING
from pathlib import Path

import pytest

from agent_reporter import Settings
from agent_reporter.settings import described

EXAMPLE = Path(__file__).parent.parent / "config" / "agent-reporter.toml"
SETTING = re.compile(r"#([a-z_]+) = \S.*")

DESCRIBED = {setting.name: setting for setting in described()}
LINES = EXAMPLE.read_text().splitlines()
SHOWN = {line: match[1] for line in LINES if (match := SETTING.fullmatch(line))}


@pytest.fixture(autouse=True)
def no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("AGENT_REPORTER_"):
            monkeypatch.delenv(name)


def values() -> dict[str, object]:
    return tomllib.loads("\n".join(line[1:] for line in SHOWN))


def comment_above(name: str) -> str:
    """The comment directly above a setting, as one line."""
    at = next(number for number, line in enumerate(LINES) if SHOWN.get(line) == name)
    comment: list[str] = []
    while LINES[at - 1].startswith("#") and LINES[at - 1] not in SHOWN:
        at -= 1
        comment.insert(0, LINES[at].removeprefix("#").strip())
    return " ".join(comment)


def test_every_setting_is_shown_exactly_once() -> None:
    assert sorted(SHOWN.values()) == sorted(DESCRIBED)


def test_nothing_is_set_in_it() -> None:
    assert tomllib.loads("\n".join(LINES)) == {}


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_setting_is_explained_and_shown_with_its_default(name: str) -> None:
    comment = comment_above(name)
    assert comment.endswith(".")
    field = DESCRIBED[name]
    if field.default in (MISSING, None, ""):
        assert "No default" in comment
    else:
        assert "No default" not in comment
        default = field.default
        assert values()[name] == (str(default) if isinstance(default, Path) else default)


def test_all_of_it_can_be_set_at_once(tmp_path: Path) -> None:
    file = tmp_path / "all.toml"
    file.write_text("\n".join(line[1:] if line in SHOWN else line for line in LINES))
    settings = Settings.load(file)
    assert settings.given == DESCRIBED.keys()
    assert settings.destination.project_id == "110011"
