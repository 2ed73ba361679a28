"""Everything that the model's values can be."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.dialect import Dialect, Progress
from agent_reporter.model.documents import MAX_COUNT
from agent_reporter.model.error_log import ErrorRecord, Errors
from agent_reporter.model.exchange import Ending, Exchange
from agent_reporter.model.patch import Spelling
from agent_reporter.model.report import Report
from agent_reporter.model.state import RestoreState

unhurried = settings(deadline=None)
"""For every property: a busy machine makes none of them fail."""

counts = st.integers(0, 10) | st.integers(0, MAX_COUNT)
times = st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
states = st.sampled_from(RestoreState)
spellings = st.sampled_from(Spelling)
error_records = st.builds(
    ErrorRecord, st.text(max_size=5), st.text(max_size=5), st.integers(-5, 200), st.text(max_size=5)
)


@st.composite
def all_errors(draw: st.DrawFn) -> Errors:
    """Errors whose count is no less than their records."""
    records = draw(st.lists(error_records, max_size=4))
    more = draw(st.integers(0, 3))
    return Errors(len(records) + more, draw(st.text(max_size=5)), draw(st.text(max_size=5)), tuple(records))


@st.composite
def reports(draw: st.DrawFn, among: st.SearchStrategy[RestoreState] = states) -> Report:
    """A report in any state; an end has both times."""
    state = draw(among)
    maybe: st.SearchStrategy[Any] = times if state.is_final else st.none() | times
    return Report(
        restore_id="r-1",
        revision=draw(counts),
        state=state,
        started_time=draw(maybe),
        ended_time=draw(times) if state.is_final else None,
        files_restored=draw(counts),
        bytes_restored=draw(counts),
        total_files=draw(st.none() | counts),
        total_bytes=draw(st.none() | counts),
        errors=draw(all_errors()),
    )


acknowledgements = st.builds(
    Acknowledged,
    revision=counts,
    state=states,
    started_time=st.none() | times,
    ended_time=st.none() | times,
    files_restored=counts,
    bytes_restored=counts,
    error_count=counts,
    records=st.none() | counts,
    reason=st.text(max_size=5),
    diagnostics=st.text(max_size=5),
)

dialects = st.builds(Dialect, spellings, settled=st.booleans(), progress=st.sampled_from(Progress))

exchanges = st.builds(
    Exchange,
    acknowledged=st.none() | acknowledgements,
    dialect=dialects,
    uncertain=st.booleans(),
    attempt=st.integers(0, 100),
    not_before=st.none() | times,
    failure=st.text(max_size=5),
    ending=st.none() | st.sampled_from(Ending),
)
"""What of an exchange survives a restart."""
