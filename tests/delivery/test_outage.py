"""A demonstration: one restore goes through an outage of every kind, and is stopped in the midst of it.

    pytest -s tests/delivery/test_outage.py

shows every patch that arrived. Time runs a hundred times faster than it says.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent_reporter import Job
    from tests.delivery.conftest import Log, Request, Rig

BUSY = {"status": 503, "headers": {"Retry-After": "30"}, "body": {"message": "Come back later."}}


async def restore(job: Job, rig: Rig, done: asyncio.Event) -> None:
    """The engine: it knows nothing of all this, restores a file a second, and stops when it is told to."""
    job.start(total_bytes=1_000_000)
    while not job.stop_requested:
        job.advance(bytes=1_000, files=1)
        await rig.clock.sleep(1.0)
    done.set()


async def test_nothing_is_lost_in_an_outage_and_a_stop_gets_through_it(rig: Rig, log: Log) -> None:
    restore_id = rig.server.start_restore(total_bytes=1_000_000)
    server, stopped = rig.server, asyncio.Event()

    def patches() -> list[Request]:
        return rig.patches(restore_id)

    async with rig.reporter(retry_cap=20.0) as reporter:
        async with reporter.restore(restore_id) as job:
            engine = asyncio.create_task(restore(job, rig, stopped))
            await rig.until_bytes(restore_id, 3_000)

            # 1. The control plane is overloaded, and says for how long.
            server.add_fault(BUSY, times=2, method="PATCH")
            await rig.until(lambda: [patch.answer for patch in patches()].count(503) == 2)
            before = server.document(restore_id)["bytes_restored"]
            await rig.until_bytes(restore_id, before + 1)
            assert job.is_live

            # 2. Connections are dropped, before and after the patch was carried out.
            server.add_fault("drop", times=2, method="PATCH")
            server.add_fault("apply_then_drop", method="PATCH")
            await rig.until(lambda: [patch.answer for patch in patches()].count("dropped") == 3)
            before = server.document(restore_id)["bytes_restored"]
            await rig.until_bytes(restore_id, before + 1)

            # 3. The token is rotated: 401, until the file is read again.
            server.add_fault({"status": 401}, method="PATCH")
            rig.write_token("the-token-of-tomorrow")
            await rig.until(lambda: [patch.answer for patch in patches()].count(401) == 1)
            before = server.document(restore_id)["bytes_restored"]
            await rig.until_bytes(restore_id, before + 1)

            # 4. The patches fail once more, and a user asks for a stop.
            server.add_fault(BUSY, times=99_999, method="PATCH")
            await rig.until(lambda: patches()[-1].answer == 503)
            requests = len(rig.requests())
            server.request_stop(restore_id)
            async with asyncio.timeout(10):
                await stopped.wait()
            await engine
            polls = [request for request in rig.requests()[requests:] if request.is_poll]
            assert patches()[-1].answer == 503, "the outage is not over, and the engine has stopped"

        # 5. The restore has ended; the result waits in the spool until the outage is over.
        (waiting,) = await rig.waiting()
        assert waiting.report.state.value == "stopped"
        server.faults.clear()
        assert await job.delivered(10)

    print_patches(rig, restore_id)
    document, truth = server.document(restore_id), job.take_report()
    assert len(polls) <= 2
    assert document["state"] == "stopped"
    assert (document["bytes_restored"], document["files_restored"]) == (
        truth.bytes_restored,
        truth.files_restored,
    )
    assert truth.bytes_restored == 1_000 * truth.files_restored
    rig.assert_truthful(restore_id)
    assert server.erased_stops(restore_id) == 0
    assert await rig.waiting() == []
    assert await rig.dead_letters() == []
    log.assert_no_bug_of_ours()


def print_patches(rig: Rig, restore_id: str) -> None:
    patches = rig.patches(restore_id)
    print(f"\n{'second':>8}  {'answer':>8}  {'done':<4}  {'state':<12} {'files':>6} {'bytes':>8}")
    for patch in patches:
        values = patch.values
        print(
            f"{patch.time - patches[0].time:8.1f}  {patch.answer:>8}  {'yes' if patch.applied else 'no':<4}  "
            f"{values.get('state', ''):<12} {values.get('files_restored', ''):>6} "
            f"{values.get('bytes_restored', ''):>8}"
        )
