"""What comes next in the conversation about one restore: decided by plain functions; `delivery` acts.

The rules are decisions 2 to 5 of `protocol.md`:

- A patch with a non-final `/state` goes out only straight after a read that showed neither a stop request
  nor a final state, so that it cannot erase a stop request. A result goes out at once; but after an
  uncertain outcome it too is preceded by a read.
- A 409 is answered by a read, then by what the read showed.
- Counters alone may go out any time while the restore is in progress.
- A 400 moves on to the next way of saying the same thing; when no way is left, progress is no longer told,
  a state is skipped, a result becomes a dead letter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from agent_reporter.model import patch
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.dialect import Progress, Way
from agent_reporter.model.patch import Content, Operations
from agent_reporter.model.state import RestoreState, may_follow

if TYPE_CHECKING:
    from agent_reporter.model.exchange import Exchange
    from agent_reporter.model.report import Report


@dataclass(frozen=True, slots=True)
class Read:
    """Read the restore."""


@dataclass(frozen=True, slots=True)
class Send:
    """Send this patch, which tells `report` in this `way`."""

    report: Report
    way: Way
    operations: Operations


Step = Read | Send


def next_step(exchange: Exchange, newest: Report) -> Step | None:
    """What is to be done now; None if there is nothing to tell, or nobody to tell it to."""
    if exchange.ending is not None:
        return None
    if exchange.acknowledged is None:
        return Read()
    if newest.is_final:
        return _tell(exchange, Content.RESULT, newest, read_first=exchange.uncertain or exchange.contradicted)
    if exchange.contradicted:
        return Read() if exchange.readable else None
    if exchange.stop_wanted:
        stop = _tell(exchange, Content.STOP, newest, read_first=exchange.uncertain)
        if stop is not None:
            return stop
    return _tell_unfinished(exchange, exchange.acknowledged, newest)


def _tell_unfinished(exchange: Exchange, known: Acknowledged, newest: Report) -> Step | None:
    is_taken = not exchange.stop_requested and newest.state not in exchange.refused_states
    # Where nothing can be read, a stop may have come since a doubt: then only the result has a state.
    is_safe = exchange.readable or not exchange.uncertain
    if is_taken and may_follow(known.state, newest.state):
        return _tell(exchange, Content.STATE, newest, read_first=True) if is_safe else None
    if newest.state is not RestoreState.IN_PROGRESS:
        return None
    match exchange.dialect.progress:
        case Progress.AUTO | Progress.COUNTERS:
            return _tell(exchange, Content.PROGRESS, newest, read_first=exchange.uncertain)
        case Progress.WITH_STATE:
            is_news = patch.operations(Content.PROGRESS, known, newest, exchange.dialect.spelling)
            if is_taken and is_safe and is_news:
                return _tell(exchange, Content.PROGRESS_BESIDE_STATE, newest, read_first=True)
            return None
        case Progress.FINAL_ONLY:
            return None
        case _:
            assert_never(exchange.dialect.progress)


def _tell(exchange: Exchange, content: Content, newest: Report, *, read_first: bool) -> Step | None:
    if read_first and exchange.readable and not exchange.fresh:
        return Read()
    ways = exchange.dialect.ways(content)
    tried = exchange.refused[1] if exchange.refused and exchange.refused[0] is content else 0
    way = ways[min(tried, len(ways) - 1)]
    known = exchange.acknowledged or Acknowledged()
    operations = patch.operations(way.content, known, newest, way.spelling)
    return Send(newest, way, operations) if operations else None


def is_urgent(exchange: Exchange, step: Step | None, newest: Report) -> bool:
    """Whether a step waits for no tick: states, results and the first error do not, progress does."""
    if step is None:
        return False
    known = exchange.acknowledged
    if known is None or (known.error_count == 0 and newest.errors.count > 0):
        return True
    if isinstance(step, Send):
        return not step.way.content.is_progress
    return known.state is not newest.state
