"""All checks of an adapter, one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from agent_reporter.testing.case import Case, Tally
from agent_reporter.testing.commands import (
    it_leaves_other_commands,
    it_prepares_commands,
    it_recognises_its_commands,
    it_states_its_facts,
)
from agent_reporter.testing.judging import (
    any_exit_status_is_judged,
    no_password_is_told,
    recordings_end_as_they_did,
)
from agent_reporter.testing.memory import memory_is_bounded
from agent_reporter.testing.reading import (
    a_recording_may_end_anywhere,
    any_chunks_are_read_alike,
    any_order_of_streams_tells_the_same,
    bytes_that_are_not_text_do_no_harm,
    hostile_lines_do_no_harm,
    long_lines_are_cheap,
    readers_are_independent,
    the_same_error_is_one_record,
)
from agent_reporter.testing.rules import Breach, ConformanceError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent_reporter.engines.adapter import Adapter
    from agent_reporter.testing.recordings import Recording

CHECKS = (
    it_states_its_facts,
    it_recognises_its_commands,
    it_prepares_commands,
    it_leaves_other_commands,
    readers_are_independent,
    recordings_end_as_they_did,
    any_exit_status_is_judged,
    any_chunks_are_read_alike,
    any_order_of_streams_tells_the_same,
    a_recording_may_end_anywhere,
    the_same_error_is_one_record,
    long_lines_are_cheap,
    hostile_lines_do_no_harm,
    bytes_that_are_not_text_do_no_harm,
    no_password_is_told,
    memory_is_bounded,
)


@dataclass(frozen=True, slots=True)
class Conformance:
    """What an adapter was put to, and stood."""

    engine: str
    recordings: int
    tally: Tally

    def __str__(self) -> str:
        tally = self.tally
        return (
            f"{self.engine} conforms: {self.recordings} recordings, {tally.lines:,} lines, "
            f"{tally.chunkings:,} chunkings, {tally.orders:,} orders of streams, {tally.endings:,} endings, "
            f"{tally.commands:,} commands; "
            f"its reader held at most {tally.held_bytes / 1024:,.0f} KiB."
        )


def check_adapter(
    adapter: Adapter,
    *,
    recordings: Sequence[Recording],
    commands: Sequence[Sequence[str]],
    other_commands: Sequence[Sequence[str]] = (),
    seed: int = 0,
    thoroughness: int = 1,
) -> Conformance:
    """Check `adapter` against all `rules`. Raises ConformanceError for the first that it breaks.

    `commands` restore with the engine; `other_commands` start it for something else. Record runs of all
    kinds: well, with errors, stopped, broken. `thoroughness` multiplies what is made by chance: 1 takes some
    seconds. The same seed and thoroughness make the same input again.
    """
    if not recordings or not commands:
        raise ValueError("An adapter is checked with at least one recording and one command.")
    named = [
        each if each.name else replace(each, name=f"recording {number}")
        for number, each in enumerate(recordings, start=1)
    ]
    case = Case(adapter, named, commands, other_commands, seed, thoroughness)
    for check in CHECKS:
        try:
            check(case)
        except Breach as breach:
            repeat = (
                f"Found by {check.__name__}. To repeat it: check_adapter(..., {seed=}, {thoroughness=}), "
                "with the same recordings and commands."
            )
            raise ConformanceError(adapter, breach, repeat) from breach.__context__
    return Conformance(adapter.name, len(named), case.tally)
