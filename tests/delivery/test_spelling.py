"""How the reporter finds out in which words a control plane wants to be told (decisions 1 and 5)."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter import Ending, PathSpelling, Progress
from tests.delivery.conftest import Rig, RigMaker, eventually

if TYPE_CHECKING:
    from agent_reporter import Job, Reporter

AUTHORITY = {"/started-time", "/ended-time", "/files_restores", "/bytes-restored"}
DOCUMENT = {"/started_time", "/ended_time", "/files_restored", "/bytes_restored"}


async def restore_a_little(rig: Rig, reporter: Reporter) -> tuple[str, Job]:
    """One restore with states, progress that arrives if it can, and a result; and how it ended."""
    restore_id = rig.server.start_restore()
    async with reporter.restore(restore_id) as job:
        job.queued()
        await rig.until_state(restore_id, "queued")
        job.start()
        await rig.until_state(restore_id, "in_progress")
        job.progress(bytes_restored=10, files_restored=1)
        told = len(rig.patches(restore_id))
        if reporter.settings.progress is not Progress.FINAL_ONLY:
            await rig.until(lambda: len(rig.patches(restore_id)) > told)
        job.progress(bytes_restored=20, files_restored=2)
    await eventually(lambda: job.ending is not None)
    rig.assert_truthful(restore_id)
    assert rig.server.erased_stops(restore_id) == 0
    return restore_id, job


def spellings(rig: Rig, restore_id: str, *, answers: set[int | str]) -> list[str]:
    """The spelling of each patch that has one, in order."""
    found = []
    for patch in rig.patches(restore_id):
        if patch.answer in answers and patch.paths & (AUTHORITY | DOCUMENT):
            assert not (patch.paths & AUTHORITY and patch.paths & DOCUMENT), "mixed"
            found.append("authority" if patch.paths & AUTHORITY else "document")
    return found


def assert_complete(rig: Rig, restore_id: str) -> None:
    document = rig.server.document(restore_id)
    assert document["state"] == "completed"
    assert document["started_time"] is not None
    assert document["ended_time"] is not None
    assert (document["bytes_restored"], document["files_restored"]) == (20, 2)


@pytest.mark.parametrize(
    ("says", "takes"),
    [
        ("authority", "authority"),
        ("authority", "both"),
        ("document", "document"),
        ("document", "both"),
        ("auto", "authority"),
        ("auto", "document"),
        ("auto", "both"),
    ],
)
async def test_all_arrives_where_the_spelling_fits(says: str, takes: str, make_rig: RigMaker) -> None:
    rig = await make_rig(spelling=takes)
    async with rig.reporter(path_spelling=PathSpelling(says)) as reporter:
        restore_id, job = await restore_a_little(rig, reporter)
    assert job.ending is Ending.DELIVERED
    assert_complete(rig, restore_id)
    taken = spellings(rig, restore_id, answers={204})
    expected = {"auto": "document" if takes == "document" else "authority"}.get(says, says)
    assert set(taken) == {expected}


@pytest.mark.parametrize(("says", "takes"), [("authority", "document"), ("document", "authority")])
async def test_a_spelling_that_was_set_stays_though_it_is_refused_and_the_result_is_a_dead_letter(
    says: str, takes: str, make_rig: RigMaker
) -> None:
    rig = await make_rig(spelling=takes)
    async with rig.reporter(path_spelling=PathSpelling(says)) as reporter:
        restore_id, job = await restore_a_little(rig, reporter)
    assert job.ending is Ending.REJECTED
    assert set(spellings(rig, restore_id, answers={400})) == {says}
    assert rig.states(restore_id) == ["queued", "in_progress"]
    (letter,) = await rig.dead_letters()
    assert (letter.report.state.value, letter.report.bytes_restored) == ("completed", 20)


async def test_auto_changes_over_once_and_remembers_for_the_next_restore(make_rig: RigMaker) -> None:
    rig = await make_rig(spelling="document")
    async with rig.reporter(path_spelling=PathSpelling.AUTO) as reporter:
        first, _ = await restore_a_little(rig, reporter)
        second, _ = await restore_a_little(rig, reporter)
    assert spellings(rig, first, answers={400}) == ["authority"]
    assert [patch.answer for patch in rig.patches(second)].count(400) == 0
    assert set(spellings(rig, second, answers={204})) == {"document"}
    for restore_id in (first, second):
        assert_complete(rig, restore_id)


async def test_auto_does_not_change_over_again_once_a_spelling_was_taken(make_rig: RigMaker) -> None:
    rig = await make_rig(spelling="both")
    restore_id = rig.server.start_restore()
    async with rig.reporter(path_spelling=PathSpelling.AUTO) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            rig.server.add_fault({"status": 400}, method="PATCH")
            job.progress(bytes_restored=10)
            await rig.until(lambda: rig.patches(restore_id)[-1].answer == 400)
        assert await job.delivered(10)
    assert set(spellings(rig, restore_id, answers={204, 400})) == {"authority"}
    assert rig.server.document(restore_id)["bytes_restored"] == 10


async def test_auto_finds_the_spelling_with_the_result_alone(make_rig: RigMaker) -> None:
    rig = await make_rig(spelling="document")
    restore_id = rig.server.start_restore()
    async with rig.reporter(path_spelling=PathSpelling.AUTO) as reporter:
        async with reporter.restore(restore_id) as job:
            await rig.until_read(restore_id)
            rig.server.add_fault({"status": 503}, times=9_999, method="PATCH")
            job.progress(bytes_restored=20, files_restored=2)
            assert await asyncio.to_thread(job.finish)
            rig.server.faults.clear()
        assert await job.delivered(10)
    assert job.ending is Ending.DELIVERED
    assert_complete(rig, restore_id)


# Read strictly --------------------------------------------------------------------------------------------


def counters_only(rig: Rig, restore_id: str) -> list[int | str]:
    """The answers to the patches without a state."""
    return [patch.answer for patch in rig.patches(restore_id) if "state" not in patch.values]


@pytest.mark.parametrize("spelling", ["authority", "document", "auto"])
@pytest.mark.parametrize("progress", list(Progress))
async def test_states_and_the_result_arrive_at_a_strict_control_plane(
    progress: Progress, spelling: str, make_rig: RigMaker
) -> None:
    rig = await make_rig(strict=True)
    settings: dict[str, Any] = {"progress": progress, "path_spelling": PathSpelling(spelling)}
    async with rig.reporter(**settings) as reporter:
        restore_id, job = await restore_a_little(rig, reporter)
    assert job.ending is Ending.DELIVERED
    assert_complete(rig, restore_id)
    states = rig.states(restore_id)
    assert states[:2] == ["queued", "in_progress"]
    assert states[-1] == "completed"
    refused = counters_only(rig, restore_id)
    if progress in {Progress.FINAL_ONLY, Progress.WITH_STATE}:
        assert refused == []
    if progress is Progress.AUTO:
        assert refused == [400]
    assert await rig.dead_letters() == []


async def test_after_the_first_400_no_further_patch_of_counters_alone(make_rig: RigMaker) -> None:
    rig = await make_rig(strict=True)
    restore_id = rig.server.start_restore()
    async with rig.reporter() as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            job.progress(bytes_restored=1)
            await rig.until(lambda: len(rig.patches(restore_id)) > 0)
            job.progress(bytes_restored=2)
            await rig.until(lambda: 400 in counters_only(rig, restore_id))
            polls = len(rig.requests())
            for number in range(3, 300):
                job.progress(bytes_restored=number)
            await rig.until(lambda: len(rig.requests()) > polls + 20)  # some forty seconds of polls
            job.error(path="/x", type="no_access")
        assert await job.delivered(10)
    assert counters_only(rig, restore_id) == [400]
    document = rig.server.document(restore_id)
    assert (document["bytes_restored"], document["errors"]["count"]) == (299, 1)


async def test_another_restore_of_the_process_is_asked_again(make_rig: RigMaker) -> None:
    """Decision 5 is of one restore: the next may belong to a control plane that was upgraded since."""
    rig = await make_rig(strict=True)
    async with rig.reporter() as reporter:
        first, _ = await restore_a_little(rig, reporter)
        second, _ = await restore_a_little(rig, reporter)
    assert counters_only(rig, first) == counters_only(rig, second) == [400]


async def test_counters_with_state_are_told_beside_a_state_that_was_read_before(make_rig: RigMaker) -> None:
    rig = await make_rig(strict=True)
    restore_id = rig.server.start_restore()
    async with rig.reporter(progress=Progress.WITH_STATE, idle_poll_interval=1e6) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            for number in (10, 20, 30):
                job.progress(bytes_restored=number)
                await rig.until_bytes(restore_id, number)
            rig.server.request_stop(restore_id)
            job.progress(bytes_restored=40)
            await job.wait_for_stop()
            job.progress(bytes_restored=50)
        assert await job.delivered(10)
    requests = [request for request in rig.requests(restore_id) if not request.is_poll]
    for before, after in pairwise(requests):
        if after.is_patch and "ended_time" not in after.values:
            assert before.is_read
    assert rig.server.erased_stops(restore_id) == 0
    document = rig.server.document(restore_id)
    assert (document["state"], document["bytes_restored"]) == ("stopped", 50)
    rig.assert_truthful(restore_id)


async def test_counters_whatever_the_answer_are_slowed_down_by_refusals(make_rig: RigMaker) -> None:
    rig = await make_rig(strict=True, factor=1_000)
    restore_id = rig.server.start_restore()
    async with rig.reporter(progress=Progress.COUNTERS, report_interval=5.0) as reporter:
        async with reporter.restore(restore_id) as job:
            job.start()
            await rig.until_state(restore_id, "in_progress")
            for number in range(1, 7):
                job.progress(bytes_restored=number)
                await rig.until(lambda: len(counters_only(rig, restore_id)) >= number)  # noqa: B023 - awaited here
        assert await job.delivered(10)
    assert set(counters_only(rig, restore_id)) == {400}
    assert rig.server.document(restore_id)["bytes_restored"] == 6
