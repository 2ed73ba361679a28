"""The daemon's metrics, as Prometheus reads them: over a loopback address, and from a file."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent_reporter.daemon.metrics import FILE_INTERVAL, loopback
from agent_reporter.daemon.notify import Notifier
from agent_reporter.daemon.service import Service
from agent_reporter.errors import ConfigurationError
from agent_reporter.means import STOP_BUCKETS
from agent_reporter.version import __version__

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.daemon.conftest import Client, Daemons

KINDS = {
    "agent_reporter": "info",
    "agent_reporter_restores_open": "gauge",
    "agent_reporter_oldest_undelivered_seconds": "gauge",
    "agent_reporter_reports_accepted": "counter",
    "agent_reporter_reports_conflated": "counter",
    "agent_reporter_requests": "counter",
    "agent_reporter_sign_ins": "counter",
    "agent_reporter_stop_seconds": "histogram",
    "agent_reporter_spool_files": "gauge",
    "agent_reporter_spool_bytes": "gauge",
    "agent_reporter_connections": "gauge",
    "agent_reporter_connections_closed": "counter",
}

Figures = dict[tuple[str, str], float]
"""By the name of a sample, and the value of its only label."""


def read(text: str) -> Figures:
    """The samples of an exposition that is in order: each family once, described, of the right kind."""
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    named = {family.name.removesuffix("_info"): family.type for family in families}
    assert {name: "gauge" if kind == "info" else kind for name, kind in KINDS.items()} == named
    assert len(families) == len(KINDS)
    samples = [sample for family in families for sample in family.samples]
    assert all(len(sample.labels) <= 1 for sample in samples)
    return {(sample.name, "".join(sample.labels.values())): sample.value for sample in samples}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def scrape(port: int, path: str = "/metrics", method: str = "GET") -> tuple[int, str, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def eventually(look: Callable[[], Awaitable[Figures]], name: str, label: str, value: float) -> Figures:
    """Look until a figure has a value."""
    async with asyncio.timeout(10):
        while (found := await look()).get((name, label)) != value:  # noqa: ASYNC110 - figures have no event
            await asyncio.sleep(0.01)
    return found


async def test_a_daemon_that_has_done_nothing_yet_has_all_its_metrics(daemons: Daemons) -> None:
    port = free_port()
    async with daemons.running(metrics_listen=f"127.0.0.1:{port}"):
        status, kind, text = await scrape(port)
        assert (status, kind.partition(";")[0]) == (200, "text/plain")
        found = read(text)
    assert found["agent_reporter_info", __version__] == 1
    assert found["agent_reporter_restores_open", ""] == 0
    assert found["agent_reporter_oldest_undelivered_seconds", ""] == 0
    assert found["agent_reporter_stop_seconds_count", ""] == 0
    assert found["agent_reporter_spool_files", "dead"] == 0


async def test_what_became_of_some_restores_is_counted(daemons: Daemons, client: Client) -> None:
    port = free_port()
    rig = daemons.rig

    async def look() -> Figures:
        return read((await scrape(port))[2])

    async with daemons.running(metrics_listen=f"127.0.0.1:{port}"):
        through, stopped, running = (rig.server.start_restore() for _ in range(3))
        for restore_id in (through, stopped, running):
            await client.tell(restore_id, bytes_restored=5)
            await rig.until_bytes(restore_id, 5)
        rig.server.request_stop(stopped)
        assert (await client.events(stopped, "?wait=3600")).document["events"]
        await client.tell(stopped, state="stopped")
        await client.tell(through, state="completed")
        refused = await client.tell("no-such-restore", state="completed")
        assert refused.status == 204
        for restore_id, state in ((through, "completed"), (stopped, "stopped")):
            await rig.until_state(restore_id, state)
        found = await eventually(look, "agent_reporter_spool_files", "dead", 1)
        found = await eventually(look, "agent_reporter_restores_open", "", 1)
        assert found["agent_reporter_reports_accepted_total", ""] == 6
        delivered = found["agent_reporter_requests_total", "delivered"]
        assert delivered == sum(patch.applied for patch in rig.requests() if patch.is_patch)
        assert found["agent_reporter_requests_total", "read"] >= 3
        assert found["agent_reporter_stop_seconds_count", ""] == 1
        assert found["agent_reporter_stop_seconds_sum", ""] > 0
        buckets = [found["agent_reporter_stop_seconds_bucket", str(bound)] for bound in STOP_BUCKETS]
        buckets.append(found["agent_reporter_stop_seconds_bucket", "+Inf"])
        assert buckets == sorted(buckets)
        assert buckets[-1] == 1
        assert found["agent_reporter_connections", ""] >= 1
        assert found["agent_reporter_spool_bytes", ""] > 0


async def test_what_cannot_be_delivered_grows_old_until_it_is(daemons: Daemons, client: Client) -> None:
    port = free_port()

    async def look() -> Figures:
        return read((await scrape(port))[2])

    restore_id = daemons.rig.server.start_restore()
    async with daemons.running(metrics_listen=f"127.0.0.1:{port}"):
        await client.tell(restore_id, bytes_restored=1)
        await daemons.rig.until_bytes(restore_id, 1)
        daemons.rig.server.add_fault({"status": 503}, for_seconds=100_000)
        for count in range(2, 5):
            await client.tell(restore_id, bytes_restored=count)
        await daemons.rig.clock.sleep(20)
        found = await look()
        assert found["agent_reporter_oldest_undelivered_seconds", ""] >= 20
        assert found["agent_reporter_requests_total", "retry"] >= 1
        daemons.rig.server.faults.clear()
        await eventually(look, "agent_reporter_oldest_undelivered_seconds", "", 0)


async def test_a_read_that_is_not_answered_well_is_counted_as_what_it_came_to(
    daemons: Daemons, client: Client
) -> None:
    port = free_port()
    daemons.rig.server.add_fault({"status": 503}, for_seconds=100_000)
    async with daemons.running(metrics_listen=f"127.0.0.1:{port}", drain_timeout=1):
        await client.tell(daemons.rig.server.start_restore(), state="in_progress")
        await daemons.rig.clock.sleep(20)
        found = read((await scrape(port))[2])
        assert found["agent_reporter_requests_total", "retry"] >= 1
        assert ("agent_reporter_requests_total", "read") not in found


async def test_only_metrics_are_served_there(daemons: Daemons) -> None:
    port = free_port()
    async with daemons.running(metrics_listen=f"127.0.0.1:{port}"):
        for path, method in (("/", "GET"), ("/metrics", "POST"), ("/v2/110011/restores", "GET")):
            status, _, text = await scrape(port, path, method)
            assert (status, text) == (404, "There is /metrics.\n")


async def test_a_port_that_the_service_manager_made_serves_them_too(daemons: Daemons) -> None:
    with socket.create_server(("127.0.0.1", 0)) as port:
        port.settimeout(0)
        service = Service(
            daemons.settings(), daemons.settings, daemons.rig.clock, Notifier(None), [port.dup()]
        )
        task = asyncio.create_task(service.run())
        async with asyncio.timeout(10):
            await service.ready.wait()
        assert read((await scrape(port.getsockname()[1]))[2])["agent_reporter_info", __version__] == 1
        service.end()
        await task


async def test_a_port_that_is_taken_is_said_to_be_so(daemons: Daemons) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match=f"metrics_listen: {listen}: "):
            async with daemons.running(metrics_listen=listen):
                pass


async def test_without_being_asked_for_nothing_is_shown(daemons: Daemons) -> None:
    async with daemons.running():
        assert not daemons.rig.directory.joinpath("metrics.prom").exists()


async def test_a_file_is_kept_up_to_date_and_is_always_whole(
    daemons: Daemons, client: Client, tmp_path: Path
) -> None:
    file = tmp_path / "agent_reporter.prom"

    async def look() -> Figures:
        return read(await asyncio.to_thread(file.read_text)) if await asyncio.to_thread(file.exists) else {}

    async with daemons.running(metrics_file=file):
        await eventually(look, "agent_reporter_restores_open", "", 0)
        await client.tell(daemons.rig.server.start_restore(), state="in_progress")
        await daemons.rig.clock.sleep(FILE_INTERVAL)
        await eventually(look, "agent_reporter_restores_open", "", 1)
    assert [path.name for path in await asyncio.to_thread(lambda: list(tmp_path.glob("*.prom*")))] == [
        file.name
    ]


async def test_a_file_that_cannot_be_written_costs_only_itself(
    daemons: Daemons, client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    restore_id = daemons.rig.server.start_restore()
    async with daemons.running(metrics_file=tmp_path / "nowhere" / "agent_reporter.prom"):
        await client.tell(restore_id, state="completed")
        await daemons.rig.until_state(restore_id, "completed")
        async with asyncio.timeout(10):
            while not any("metrics.not_written" in record.getMessage() for record in caplog.records):  # noqa: ASYNC110 - a thread logs it
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("listen", "place"),
    [
        ("127.0.0.1:9187", ("127.0.0.1", 9187)),
        ("127.8.8.8:1", ("127.8.8.8", 1)),
        ("[::1]:9187", ("::1", 9187)),
        ("127.0.0.1:0", ("127.0.0.1", 0)),
    ],
)
def test_a_loopback_address_and_port_is_where_metrics_may_be(listen: str, place: tuple[str, int]) -> None:
    assert loopback(listen) == place


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "9187",
        ":9187",
        "0.0.0.0:9187",
        "[::]:9187",
        "192.0.2.1:9187",
        "localhost:9187",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "[::ffff:192.0.2.1]:9187",
    ],
)
def test_any_other_place_is_refused(listen: str) -> None:
    with pytest.raises(ConfigurationError, match="no loopback address"):
        loopback(listen)
