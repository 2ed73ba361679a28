"""A hostile control plane harms neither an engine nor the daemon: a few bombs of `python -m tests.bombs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.bombs.bombs import BOMBS, Call
from tests.bombs.play import Kind, open_scene

if TYPE_CHECKING:
    from pathlib import Path

PLAYS = {
    Kind.LIBRARY: [
        ("10 GB body", Call.READ),
        ("endless small headers", Call.PATCH),
        ("10 GB of zeros as gzip", Call.READ),
        ("100,000 arrays deep", Call.EVENTS),
        ("numbers of 4,000 digits", Call.READ),
        ("endless 100 Continue", Call.PATCH),
        ("302 to another origin", Call.SIGN_IN),
        ("307 to another origin", Call.PATCH),
        ("one byte a second of the body", Call.READ),
        ("answer to what was not asked yet", Call.PATCH),
    ],
    Kind.DAEMON: [
        ("endless chunks", Call.PATCH),
        ("308 to another origin", Call.READ),
        ("arrays that are never closed", Call.SIGN_IN),
    ],
}


@pytest.mark.parametrize("kind", list(Kind))
async def test_what_a_hostile_control_plane_answers_is_bounded_given_up_and_healed(
    tmp_path: Path, kind: Kind
) -> None:
    bombs = {bomb.name: bomb for bomb in BOMBS}
    async with open_scene(tmp_path, kind) as scene:
        for name, call in PLAYS[kind]:
            result = await scene.play(bombs[name], call)
            assert not result.problems, f"{name}, {call}: {result.problems}"


async def test_an_event_with_an_absurd_id_makes_no_agent_deaf(tmp_path: Path) -> None:
    bomb = next(bomb for bomb in BOMBS if bomb.name == "texts of 65 KB")
    async with open_scene(tmp_path, Kind.LIBRARY) as scene:
        result = await scene.play(bomb, Call.EVENTS)
    assert not result.problems


def test_each_bomb_has_a_name_of_its_own() -> None:
    names = [bomb.name for bomb in BOMBS]
    assert len(names) == len(set(names))
