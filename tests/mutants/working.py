"""Runs mutmut in a copy of the tree, and reads what it found.

mutmut keeps each verdict as soon as it has it, so a run that was interrupted goes on where it was. It mutates
the bodies of functions and methods, but for those under a decorator that is neither `classmethod` nor
`staticmethod`, and no code of a module or class itself.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tests.mutants import profile
from tests.mutants.equivalents import EQUIVALENTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.mutants.rooms import Room

ROOT = Path(__file__).parents[2]
COPIED = ("agent_reporter", "tests", "config", "README.md", "pyproject.toml")
KILLED, LIVES_ON, NO_TEST, TOO_LONG, NOT_TRIED = "killed", "survived", "no test", "too long", "not tried"
_BY_TESTS: dict[int | None, str] = {
    None: NOT_TRIED,
    0: LIVES_ON,
    **dict.fromkeys((5, 33), NO_TEST),
    **dict.fromkeys((36, 24, -24, 152, 255, -9), TOO_LONG),
}
"""By mutmut's exit codes. All others are kills: tests that fail, or an interpreter that crashes."""
SEEDS = "20"
PROCESSOR_SECONDS = 120
"""For all tests that a mutant is tried with again: what takes more is a loop without an end."""


@dataclass
class Mutant:
    """One small mistake."""

    name: str
    module: str
    function: str
    was: str
    becomes: str
    verdict: str
    reason: str = ""
    """Why it is equivalent, if it is said to be."""


def prepare(room: Room, directory: Path) -> None:
    """Make or renew the copy that the room's mutants live in."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        source, target = ROOT / name, directory / name
        if source.is_file():
            shutil.copy2(source, target)
        else:
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    lines = {
        "source_paths": ["agent_reporter"],
        "only_mutate": room.modules,
        "also_copy": ["config", "README.md"],
        "pytest_add_cli_args_test_selection": room.tests,
        "pytest_add_cli_args": [*_options(), *(f"--deselect={test}" for test in room.left_out)],
        "timeout_multiplier": ["5.0"],
        "timeout_constant": ["5.0"],
        "use_git_change_detection": ["false"],
        "track_dependencies": ["false"],
    }
    settings = [
        f"{name} = {values[0]}" if len(values) == 1 else "\n    ".join([f"{name} =", *values])
        for name, values in lines.items()
    ]
    (directory / "setup.cfg").write_text("\n".join(["[mutmut]", *settings, ""]))


def _options() -> list[str]:
    plugins = [profile.__name__, "no:cacheprovider", "no:xdist", "no:cov"]
    return [*(word for plugin in plugins for word in ("-p", plugin)), f"--hypothesis-profile={profile.NAME}"]


def try_all(directory: Path, jobs: int) -> None:
    """Try each mutant that was not tried yet, with the tests of the first rank."""
    mutmut = str(Path(sys.executable).with_name("mutmut"))
    command = ["nice", "-n", "15", mutmut, "run", "--max-children", str(jobs)]
    subprocess.run(command, cwd=directory, check=True)


def try_again(room: Room, directory: Path) -> None:
    """Try what lives on, and is not equivalent, with the tests of the second rank.

    What took too long is tried with all tests, alone: on a busy machine that alone says nothing.
    """
    for mutant in mutants(directory):
        if mutant.verdict in {LIVES_ON, NO_TEST, TOO_LONG} and not mutant.reason:
            tests = room.tests if mutant.verdict == TOO_LONG else ()
            found = _is_found(mutant, (*tests, *room.more), directory)
            kept = _second(directory) | {mutant.name: KILLED if found else LIVES_ON}
            (directory / "second.json").write_text(json.dumps(kept, indent=1))


def _is_found(mutant: Mutant, tests: tuple[str, ...], directory: Path) -> bool:
    if not tests:
        return False
    bounds = ["nice", "-n", "15", "prlimit", f"--cpu={PROCESSOR_SECONDS}"]
    command = [*bounds, sys.executable, "-m", "pytest", "-x", "-q", *_options(), *tests]
    ran = subprocess.run(
        command,
        cwd=directory / "mutants",
        env=os.environ | {"MUTANT_UNDER_TEST": mutant.name, "AGENT_REPORTER_TEST_SEEDS": SEEDS},
        capture_output=True,
        check=False,
    )
    return ran.returncode != 0


def mutants(directory: Path) -> Iterator[Mutant]:
    """Every mutant of a room, with its verdict so far."""
    second = _second(directory)
    for meta in sorted(directory.glob("mutants/agent_reporter/**/*.meta")):
        path = meta.with_suffix("").relative_to(directory / "mutants")
        changes = _changes((directory / "mutants" / path).read_text())
        for name, code in json.loads(meta.read_text())["exit_code_by_key"].items():
            function, was, becomes = changes[name.rpartition(".")[2]]
            mutant = Mutant(name, str(path), function, was, becomes, _BY_TESTS.get(code, KILLED))
            if mutant.verdict in {LIVES_ON, NO_TEST, TOO_LONG}:
                mutant.verdict = second.get(name) or mutant.verdict
                mutant.reason = "" if mutant.verdict == KILLED else _reason(mutant)
            yield mutant


def _reason(mutant: Mutant) -> str:
    is_it = (mutant.function, mutant.was, mutant.becomes)
    return next((each.reason for each in EQUIVALENTS if (each.function, each.was, each.becomes) == is_it), "")


def _second(directory: Path) -> dict[str, str]:
    path = directory / "second.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _changes(source: str) -> dict[str, tuple[str, str, str]]:
    """By a mutant's own name: the function, what changed in it, and into what."""
    functions = {
        node.name: ast.get_source_segment(source, node) or ""
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and "__mutmut_" in node.name
    }
    return {
        name: (_plain(name), *_difference(functions[f"{name.partition('__mutmut_')[0]}__mutmut_orig"], text))
        for name, text in functions.items()
        if not name.endswith("_orig")
    }


def _plain(name: str) -> str:
    """`Class.method` or `function`, of mutmut's `xǁClassǁmethod__mutmut_7` or `x_function__mutmut_7`."""
    return name.partition("__mutmut_")[0].removeprefix("x_").removeprefix("xǁ").replace("ǁ", ".")


def _difference(original: str, mutated: str) -> tuple[str, str]:
    """The lines in which the two differ, but for the first, which names them."""
    before, after = original.splitlines()[1:], mutated.splitlines()[1:]
    while before and after and before[0] == after[0]:
        before, after = before[1:], after[1:]
    while before and after and before[-1] == after[-1]:
        before, after = before[:-1], after[:-1]
    was, becomes = (" ".join(line.strip() for line in lines) for lines in (before, after))
    return was, becomes
