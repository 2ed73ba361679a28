"""The man pages and the shell completion, made from the parser of the program."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent_reporter.cli.main import COMMANDS
from agent_reporter.settings import described

pytest.importorskip("shtab", reason="shtab is not installed")
GENERATOR = Path(__file__).parents[2] / "packaging" / "documents.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("share")
    subprocess.run([sys.executable, GENERATOR, folder], check=True)
    return folder


def page(made: Path, name: str) -> str:
    return (made / "man" / "man1" / f"{name}.1").read_text().replace(r"\-", "-").replace(r"\(aq", "'")


def options_in_help(command: str) -> set[str]:
    words = [sys.executable, "-m", "agent_reporter.cli.main", command, "--help"]
    out = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", out))


def test_there_is_a_page_for_the_program_and_for_each_command(made: Path) -> None:
    pages = {file.stem for file in (made / "man" / "man1").iterdir()}

    assert pages == {"agent-reporter"} | {f"agent-reporter-{command}" for command in COMMANDS}
    assert all(f"agent-reporter-{command}" in page(made, "agent-reporter") for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_page_has_each_option_of_its_command(made: Path, command: str) -> None:
    described = set(re.findall(r"\\fB(--[a-z-]+)\\fR", page(made, f"agent-reporter-{command}")))

    assert options_in_help(command) == described


def test_what_a_setting_means_is_on_the_page(made: Path) -> None:
    for setting in described():
        option = setting.name.replace("_", "-")
        assert f"--{option}" in page(made, "agent-reporter-run")
        assert setting.metadata["description"][:20] in page(made, "agent-reporter-run")


@pytest.mark.skipif(shutil.which("man") is None, reason="there is no man")
def test_man_has_nothing_to_say_about_the_pages(made: Path) -> None:
    for file in (made / "man" / "man1").iterdir():
        command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(file)]
        said = subprocess.run(command, capture_output=True, text=True, check=False)
        assert said.stderr == ""


def test_shells_complete_commands_and_options(made: Path) -> None:
    bash = (made / "bash-completion" / "completions" / "agent-reporter").read_text()
    zsh = (made / "zsh" / "vendor-completions" / "_agent-reporter").read_text()

    for completion in (bash, zsh):
        assert all(command in completion for command in COMMANDS)
        assert "--restore-id" in completion
    subprocess.run(["bash", "-n"], input=bash, text=True, check=True)


def test_two_runs_make_the_same(made: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, GENERATOR, tmp_path], check=True)

    assert contents(tmp_path) == contents(made)


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def test_a_command_starts_without_the_weight_of_the_others() -> None:
    look = "import sys; from agent_reporter.cli.main import main\ntry: main(['demo', '--help'])\n"
    look += "finally: sys.exit('agent_reporter.cli.run' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", look], capture_output=True, check=False).returncode == 0
