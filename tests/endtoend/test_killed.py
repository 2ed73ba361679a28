"""The reporter is killed with SIGKILL at twenty random moments; the next flush tells the truth each time."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from typing import TYPE_CHECKING

import pytest

from agent_reporter.reference import ReferenceServer
from tests.endtoend.agent import TOKEN, Agent, ended, make_agent, values
from tests.engines.real_restic import binaries, make_repository

if TYPE_CHECKING:
    from pathlib import Path

    from tests.engines.real_restic import Repository

MOMENTS = 20
AT_ONCE = 4
KILLS_PER_MOMENT = 10
"""A run may end before its moment; then another one is drawn, at most so often."""

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    if not binaries():
        pytest.skip("no restic")
    return make_repository(tmp_path_factory.mktemp("killed"), binaries()[0], files=300, file_bytes=100_000)


async def killed(
    agent: Agent, restore_id: str, words: list[str], repository: Repository, after: float
) -> bool:
    """Kill the reporter `after` seconds from when it has kept something; whether it was still there."""
    process = await agent.start(
        "run", "--restore-id", restore_id, "--", *words, environment=repository.environment()
    )
    while process.returncode is None and not list(agent.spool.glob("*.json")):  # noqa: ASYNC110 - another process's file
        await asyncio.sleep(0.01)
    ending = asyncio.create_task(ended(process))
    await asyncio.wait([ending], timeout=after)
    was_there = process.returncode is None
    if was_there:
        process.send_signal(signal.SIGKILL)
    await ending
    return was_there


async def test_after_twenty_kills_at_random_moments_every_flush_brings_a_true_final_state(
    repository: Repository, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    restic = binaries()[-1]
    bound = asyncio.Semaphore(AT_ONCE)
    print(f"\n{restic}, seed {seed}")

    async def one(server: ReferenceServer, name: str, after: float) -> bool:
        """One run that is killed `after` seconds, and the flush; returns whether it was killed in time."""
        agent = make_agent(tmp_path / f"host-{name}", server.url)
        restore_id = server.start_restore()
        target = tmp_path / f"target-{name}"
        words = [restic.path, "restore", "latest", "--target", str(target), "--limit-download", "15000"]
        async with bound:
            try:
                was_killed = await killed(agent, restore_id, words, repository, after)
                told_before = server.document(restore_id)
                flushed = await agent.do("flush", "--timeout", "60")
            finally:
                agent.kill_all()
        document = server.document(restore_id)
        print(
            f"killed after {after:.2f} s{'' if was_killed else ' (it had ended)'}: "
            f"{told_before['state']}, {told_before['bytes_restored']} bytes -> "
            f"{document['state']} {document['errors']['reason']}, {document['bytes_restored']} bytes"
        )
        assert flushed.status == 0, flushed.text
        assert not list(agent.spool.glob("*.json"))
        assert not list((agent.spool / "dead").iterdir())
        counters = values(server, restore_id, "/bytes-restored")
        assert counters == sorted(counters)
        assert sum(state in FINAL for state in values(server, restore_id, "/state")) == 1
        if document["state"] == "completed":
            assert document["bytes_restored"] == repository.bytes
            assert len(list((target / "data").iterdir())) == repository.files
        else:
            assert was_killed
            assert (document["state"], document["errors"]["reason"]) == ("failed", "reporter_lost")
            assert document["started_time"]
            assert document["ended_time"]
        states.append(document["state"])
        return was_killed

    async def one_kill(server: ReferenceServer, number: int, length: float) -> None:
        for attempt in range(KILLS_PER_MOMENT):
            if await one(server, f"{number}-{attempt}", chance.uniform(0, length)):
                return
        pytest.fail(f"no run lasted until its moment: {length:.1f} s is too long for them")

    states: list[str] = []
    async with ReferenceServer(tmp_path / "control-plane", token=TOKEN) as server:
        begun = time.monotonic()
        assert not await one(server, "whole", 60)
        length = time.monotonic() - begun
        await asyncio.gather(*(one_kill(server, number, length) for number in range(MOMENTS)))
    assert states.count("failed") >= 1
    print(f"{MOMENTS} kills: {states.count('failed')} failed, {states.count('completed')} completed")


FINAL = {"completed", "completed_with_errors", "failed", "stopped"}
