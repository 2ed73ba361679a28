"""What holds for every reader, whatever it is fed: for hypothesis, with lines like those of the engine."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Progress
from tests.engines.captures import errors_of, progress_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent_reporter.engines.adapter import Adapter, StopCause, Stream


def check_hostile_run(
    adapter: Adapter, lines: Sequence[tuple[Stream, str]], returncode: int, stop: StopCause | None
) -> None:
    reader = adapter.reader()
    observations = [observation for stream, line in lines for observation in reader.read_line(stream, line)]
    outcome = reader.outcome(returncode, stop)
    assert outcome.state.is_final
    assert len(outcome.diagnostics.encode()) <= 4096
    for error in [*errors_of(observations), *outcome.errors]:
        (error.path + error.description + error.details).encode()
    for before, after in pairwise(progress_of(observations)):
        for field in Progress._fields:
            assert (getattr(after, field) or 0) >= (getattr(before, field) or 0)
