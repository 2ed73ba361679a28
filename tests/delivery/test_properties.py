"""Whatever goes wrong on the way, what the control plane has at the end is what the engine stated."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agent_reporter import Ending, PathSpelling, Progress, RestoreState
from tests.delivery.conftest import Request, Rig, eventually, open_rig
from tests.delivery.test_stop import is_in_the_window

if TYPE_CHECKING:
    from agent_reporter import Job, Reporter

UNREADABLE = {400, 403, 404, 405, 501}
"""Answers to a read after which the reporter goes on without reading."""
STATUSES = [200, 202, 301, 400, 401, 403, 404, 405, 408, 409, 429, 500, 501, 503]

_canned = st.builds(
    lambda status, retry_after: {
        "status": status,
        "headers": {} if retry_after is None else {"Retry-After": retry_after},
    },
    st.sampled_from(STATUSES),
    st.sampled_from([None, "2", "30", "99999", "rubbish"]),
)
_answers = st.one_of(
    st.sampled_from(["drop", "apply_then_drop", "truncate", {"slow": 20.0}, {"slow": 200.0}]),
    _canned,
    st.builds(lambda canned: {"apply_then_status": canned}, _canned),
)
_matches: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.builds(lambda method: {"method": method}, st.sampled_from(["GET", "PATCH"])),
    st.builds(
        lambda path: {"carries": path},
        st.sampled_from(["/state", "/bytes-restored", "/errors", "/ended-time"]),
    ),
    st.just({"path_regex": "/events$"}),
)


@dataclass(frozen=True)
class Script:
    """One restore: what goes wrong, what the engine does, and when a stop is asked for, if at all."""

    faults: list[tuple[dict[str, Any], Any, int]]
    """Which requests meet it, what happens, and how often."""
    steps: list[str]
    stop_after: int | None
    """How many requests are answered before a stop is asked for."""
    with_agent: bool
    strict: bool
    spelling: str
    progress: Progress


_scripts = st.builds(
    Script,
    faults=st.lists(st.tuples(_matches, _answers, st.integers(1, 3)), max_size=5),
    steps=st.lists(
        st.sampled_from(["queued", "preparing", "start", "progress", "error", "pause"]),
        min_size=2,
        max_size=8,
    ),
    stop_after=st.none() | st.integers(0, 12),
    with_agent=st.booleans(),
    strict=st.booleans(),
    spelling=st.sampled_from(["both", "authority", "document"]),
    progress=st.sampled_from(list(Progress)),
)


def do(job: Any, step: str) -> None:
    match step:
        case "progress":
            job.advance(bytes=1_000, files=1)
        case "error":
            job.error(path="/etc/passwd", type="no_access", code=13)
        case "pause":
            pass
        case _:
            getattr(job, step)()


async def play(script: Script, directory: Path) -> None:
    async with open_rig(directory, factor=200, strict=script.strict, spelling=script.spelling) as rig:
        restore_id = rig.server.start_restore()
        for match, answer, times in script.faults:
            rig.server.add_fault(answer, times=times, **match)
        changes: dict[str, Any] = {} if script.with_agent else {"agent_id": None}
        reporter = rig.reporter(
            progress=script.progress,
            path_spelling=PathSpelling.AUTO,
            request_timeout=0.5,
            retry_after_cap=40.0,
            retry_cap=20.0,
            idle_poll_interval=10.0,
            **changes,
        )
        stop_asked_after: list[int] = []
        async with reporter:
            asking = asyncio.create_task(ask(rig, restore_id, script.stop_after, stop_asked_after))
            async with reporter.restore(restore_id) as job:
                for step in script.steps:
                    do(job, step)
                    await rig.clock.sleep(1.5)
                    job.raise_if_stop_requested()
                # A stop that was accepted reaches the engine, also while all the rest fails.
                if stop_asked_after and reporter.exchange(job) is not None:
                    await eventually(
                        lambda: (
                            is_unguarded(rig.requests(restore_id), stop_asked_after[0])
                            or job.stop_requested
                            or has_ended(reporter, job)
                        )
                    )
                    job.raise_if_stop_requested()
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await eventually(lambda: job.ending is not None)
        rig.assert_truthful(restore_id)
        assert_at_most_one_end(rig.patches(restore_id))
        for moment in stop_asked_after:
            assert rig.server.erased_stops(restore_id) <= is_unguarded(rig.requests(restore_id), moment)
        assert job.ending is not None
        await assert_end(rig, restore_id, job.ending, job.take_report())


def is_unguarded(requests: list[Request], stop: int) -> bool:
    """Whether a stop, made after so many requests, came where no read could guard it against a state."""
    return was_unreadable(requests) or is_in_the_window(requests, stop, reads_of_others=1)


def was_unreadable(requests: list[Request]) -> bool:
    return any(request.is_read and request.answer in UNREADABLE for request in requests)


def has_ended(reporter: Reporter, job: Job) -> bool:
    """Whether the control plane hears no more of this restore, and is asked no more about it."""
    exchange = reporter.exchange(job)
    return exchange is None or exchange.ending is not None


async def ask(rig: Rig, restore_id: str, after: int | None, asked: list[int]) -> None:
    """Ask for a stop after so many requests, unless the restore has ended before."""
    if after is None:
        return
    await rig.until(lambda: len(rig.requests(restore_id)) >= after)
    if RestoreState(rig.server.document(restore_id)["state"]).is_final:
        return
    rig.server.request_stop(restore_id)
    asked.append(len(rig.requests(restore_id)))


def assert_at_most_one_end(patches: list[Request]) -> None:
    ends = {
        patch.values["state"]
        for patch in patches
        if "state" in patch.values and RestoreState(patch.values["state"]).is_final
    }
    assert len(ends) <= 1, f"different ends were told: {ends}"


async def assert_end(rig: Rig, restore_id: str, ending: Ending, truth: Any) -> None:
    document = rig.server.document(restore_id)
    letters = await rig.dead_letters()
    assert await rig.waiting() == []
    assert bool(letters) == (ending is not Ending.DELIVERED)
    if letters:
        (letter,) = letters
        assert letter.report == truth, "the dead letter is not what the engine stated"
        assert letter.exchange.failure, "it does not say why"
    if was_unreadable(rig.requests(restore_id)):
        return  # what was answered to the result had to be believed
    if ending in {Ending.DELIVERED, Ending.DELIVERED_BARE}:
        assert document["state"] == truth.state.value
    if ending is Ending.DELIVERED:
        assert document["bytes_restored"] == truth.bytes_restored
        assert document["files_restored"] == truth.files_restored
        assert document["errors"]["count"] == truth.errors.count
        assert document["errors"]["reason"] == truth.errors.reason
        assert document["ended_time"] is not None
        assert len(rig.server.errors(restore_id)["list"]) == len(truth.errors.records)


def script_of(*faults: tuple[dict[str, Any], Any, int]) -> Script:
    return Script(
        list(faults),
        ["queued", "start", "progress", "error", "progress"],
        stop_after=None,
        with_agent=True,
        strict=False,
        spelling="both",
        progress=Progress.AUTO,
    )


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,  # a surprise of chance belongs to who looks for it, not to who runs all tests
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@example(script_of(({"carries": "/errors"}, {"status": 400}, 3), ({"carries": "/ended-time"}, "truncate", 1)))
@example(script_of(({"carries": "/ended-time"}, "apply_then_drop", 1), ({}, {"status": 503}, 3)))
@example(script_of(({"carries": "/state"}, {"apply_then_status": {"status": 401}}, 2)))
@given(_scripts)
def test_the_document_is_the_truth_or_the_ending_says_why_not(script: Script) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(play(script, Path(directory)))
