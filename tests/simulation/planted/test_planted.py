"""The harness proved in CI: every bug can be planted, and some that are found fast are."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.simulation.planted.__main__ import INVARIANTS, main
from tests.simulation.planted.hunt import ROOT, copied, hunt
from tests.simulation.planted.patches import Bug, DoesNotApplyError, bugs, read

if TYPE_CHECKING:
    from pathlib import Path

BUGS = {bug.name: bug for bug in bugs()}
FOUND_FAST = {
    "dead-letter-not-synced": "settled_for_good",
    "looks-without-pause": "polls_bounded",
    "state-without-read": "state_after_read",
}
"""Some that are found in a few seeds, and by which check."""
FEW = 5


@pytest.mark.parametrize("bug", BUGS.values(), ids=BUGS.keys())
def test_a_bug_can_be_planted(bug: Bug) -> None:
    planted = bug.plant(ROOT)
    for path, text in planted.items():
        assert text != path.read_text(encoding="utf-8")
        compile(text, path, "exec")


def test_each_invariant_has_two_bugs_that_break_it() -> None:
    broken = Counter(bug.invariant for bug in BUGS.values())
    assert broken.keys() == INVARIANTS.keys()
    assert min(broken.values()) >= 2
    assert broken.total() >= 25


@pytest.mark.parametrize(("name", "check"), FOUND_FAST.items())
def test_a_bug_is_found_in_a_few_seeds(name: str, check: str, tmp_path: Path) -> None:
    found = hunt(copied(tmp_path, BUGS[name]), 0, FEW)
    assert found.check == check


def test_the_command_says_what_was_found_in_how_many_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "progress-carries-state", "--seeds", str(FEW), "--jobs", "1"]) == 0
    told = capsys.readouterr().out
    assert "1 of 1 bugs found" in told
    assert "find nothing" in told


def test_the_command_fails_if_a_bug_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "retry-after-unlimited", "--seeds", "1", "--jobs", "1"]) == 1
    told = capsys.readouterr().out
    assert "NOT FOUND" in told
    assert "0 of 1 bugs found" in told


DIFF = """Swaps two words.
Breaks invariant 1.

--- a/greeting.txt
+++ b/greeting.txt
@@ -1,2 +1,2 @@
 Said:
-hello, world
+world, hello
"""


def test_a_patch_applies_where_its_lines_are_found_once(tmp_path: Path) -> None:
    greeting, bug = tmp_path / "greeting.txt", read("swap", DIFF)
    for text in ("Said:\nhello, moon\n", "Said:\nhello, world\n" * 2, "Not Said:\nhello, world\n"):
        greeting.write_text(text, encoding="utf-8")
        with pytest.raises(DoesNotApplyError):
            bug.plant(tmp_path)
    greeting.write_text("More was before.\nSaid:\nhello, world\nAnd after.\n", encoding="utf-8")
    assert bug.plant(tmp_path) == {greeting: "More was before.\nSaid:\nworld, hello\nAnd after.\n"}


def test_a_patch_says_what_it_does_and_breaks() -> None:
    with pytest.raises(ValueError, match="come first"):
        read("silent", DIFF.replace("Breaks invariant 1.\n", ""))
