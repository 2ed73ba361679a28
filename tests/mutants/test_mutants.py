"""The short form: what is said of mutants is true of the product as it is, and a run is read as it was."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING

import pytest

from tests.mutants import __main__ as command
from tests.mutants.equivalents import EQUIVALENTS
from tests.mutants.rooms import ROOMS
from tests.mutants.working import KILLED, LIVES_ON, NOT_TRIED, ROOT, TOO_LONG, mutants, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from tests.mutants.equivalents import Equivalent

FILE = """
def x_half__mutmut_orig(count):
    whole = count // 2
    return whole

def x_half__mutmut_1(count):
    whole = None
    return whole

def x_half__mutmut_2(count):
    whole = count // 3
    return whole

class Part:
    async def xǁPartǁask__mutmut_orig(self):
        return True

    async def xǁPartǁask__mutmut_1(self):
        return False
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """What a run leaves: each mutant's exit code beside the file that holds them all."""
    where = tmp_path / "mutants" / "agent_reporter"
    where.mkdir(parents=True)
    (where / "part.py").write_text(FILE)
    codes = {"x_half__mutmut_1": 1, "x_half__mutmut_2": 0, "xǁPartǁask__mutmut_1": None}
    names = {f"agent_reporter.part.{name}": code for name, code in codes.items()}
    (where / "part.py.meta").write_text(json.dumps({"exit_code_by_key": names}))
    return tmp_path


def functions(source: str) -> dict[str, str]:
    """The lines of each function and method, without what indents and parts them."""
    tree = ast.parse(source)
    found = {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    found |= {
        f"{owner.name}.{node.name}": node
        for owner in tree.body
        if isinstance(owner, ast.ClassDef)
        for node in owner.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    return {
        name: " ".join((ast.get_source_segment(source, node) or "").split()) for name, node in found.items()
    }


@pytest.mark.parametrize("equivalent", EQUIVALENTS, ids=lambda each: f"{each.function}: {each.becomes}")
def test_what_is_said_to_be_equivalent_is_a_change_of_a_line_that_is_there(equivalent: Equivalent) -> None:
    paths = [path for room in ROOMS for pattern in room.modules for path in ROOT.glob(pattern)]
    texts = [
        functions(path.read_text()).get(equivalent.function, "") for path in paths if path.suffix == ".py"
    ]
    assert any(" ".join(equivalent.was.split()) in text for text in texts)
    assert equivalent.becomes != equivalent.was
    assert equivalent.reason


def test_every_module_and_test_that_a_room_names_is_there() -> None:
    for room in ROOMS:
        for name in (*room.tests, *room.more, *room.left_out):
            path, _, test = name.partition("::")
            assert (ROOT / path).exists()
            assert not test or f"def {test}(" in (ROOT / path).read_text()
        assert all(list(ROOT.glob(pattern)) for pattern in room.modules)


def test_each_mutant_is_told_with_its_change_and_what_became_of_it(directory: Path) -> None:
    told = [(each.function, each.was, each.becomes, each.verdict) for each in mutants(directory)]
    assert told == [
        ("half", "whole = count // 2", "whole = None", KILLED),
        ("half", "whole = count // 2", "whole = count // 3", LIVES_ON),
        ("Part.ask", "return True", "return False", NOT_TRIED),
    ]


@pytest.mark.parametrize("code", [24, -24, 36, 152, -9])
def test_what_took_too_long_is_not_taken_for_found(directory: Path, code: int) -> None:
    meta = directory / "mutants" / "agent_reporter" / "part.py.meta"
    meta.write_text(meta.read_text().replace(": 1,", f": {code},"))
    assert next(mutants(directory)).verdict == TOO_LONG


def test_what_the_second_rank_found_counts(directory: Path) -> None:
    (directory / "second.json").write_text(json.dumps({"agent_reporter.part.x_half__mutmut_2": KILLED}))
    assert [each.verdict for each in mutants(directory)] == [KILLED, KILLED, NOT_TRIED]


def test_a_room_under_its_target_or_not_tried_to_the_end_is_said_and_fails(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half, survivor, untried = mutants(directory)
    assert not command.show({"room": [half, survivor]})
    assert "whole = count // 3" in capsys.readouterr().out
    assert not command.show({"room": [half, untried]})
    assert command.show({"room": [half]})
    assert "100.0%" in capsys.readouterr().out
    assert not command.show({"room": [half], "another": [survivor]})
    assert command.show({"room": [half] * 19 + [survivor]})
    survivor.reason = "it is the same"
    assert command.show({"room": [half, survivor]})
    assert not command.show({"room": [half], "another": []})
    assert not command.show({})


def test_the_copy_has_the_tree_and_how_to_mutate_it(tmp_path: Path) -> None:
    prepare(ROOMS[0], tmp_path / "room")
    assert (tmp_path / "room" / "agent_reporter" / "model" / "steps.py").exists()
    settings = (tmp_path / "room" / "setup.cfg").read_text()
    assert "only_mutate = agent_reporter/model/*" in settings
    assert "tests.mutants.profile" in settings
