"""A small fleet keeps the targets that `python -m tests.fleet` holds a big one to; and the short cuts change nothing."""

from __future__ import annotations

import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent_reporter.model import pacing
from agent_reporter.settings import Settings
from tests.fleet.agents import TICKS
from tests.fleet.chart import draw
from tests.fleet.conversation import BUSY, DONE, LOST, UNSIGNED, Conversations, Outcome
from tests.fleet.scenarios import DRAINED_WITHIN, SCENARIOS, Scenario, play

if TYPE_CHECKING:
    from tests.fleet.simulation import Fleet

SETTINGS = Settings(endpoint="https://backup.example.com", project_id="110011", agent_id="agent")
AGENTS = 2_000
NAMES = {scenario.name: scenario for scenario in SCENARIOS}
RESTART = NAMES["all restart at once"]
REFUSED = NAMES["all tokens are refused at once"]
SAME_AGE = NAMES["all tokens are of the same age"]
LONG_RETRY_AFTER = NAMES["503 with Retry-After: 3600 for 25.5 minutes"]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_a_fleet_keeps_to_its_targets(scenario: Scenario) -> None:
    figures, fleet = play(scenario, AGENTS, SETTINGS)
    assert figures.misses == []
    assert fleet.behind == 0, "each restore that was behind has told its newest in the end"
    assert figures.steady == pytest.approx(AGENTS * (1 + 1 / 2 + 1 / 30), rel=0.02)


# --- that a target can be missed ---------------------------------------------------------------------------


def test_a_fleet_that_restarts_without_a_spread_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "SPREAD_INTERVALS", 1.0)
    assert "load at recovery" in play(RESTART, AGENTS, SETTINGS)[0].misses


def test_a_fleet_that_signs_in_at_once_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "SPREAD_INTERVALS", 0.0)
    assert "load at recovery" in play(REFUSED, AGENTS, SETTINGS)[0].misses


def test_a_fleet_that_renews_its_tokens_together_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pacing, "SPREAD_OF_LIFE", 0.0)
    assert "load at recovery" in play(SAME_AGE, AGENTS, SETTINGS)[0].misses


def test_a_fleet_that_waits_too_long_is_found() -> None:
    patient = replace(SETTINGS, retry_after_cap=300.0)
    assert play(LONG_RETRY_AFTER, AGENTS, patient)[0].misses == ["time to drain"]


def test_no_wait_for_a_retry_is_longer_than_a_fleet_may_take_to_drain() -> None:
    assert SETTINGS.retry_after_cap + SETTINGS.retry_cap <= DRAINED_WITHIN


def test_a_fleet_that_retries_without_a_wait_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def pause(now: float, retry_at: float, _next_telling: float, *, urgent: bool) -> float:
        return max(0.0, retry_at - now)

    monkeypatch.setattr(pacing, "pause", pause)
    hasty = replace(SETTINGS, retry_base=0.2)
    scenario = NAMES["503 with Retry-After: 0 for 3 minutes"]
    assert "load in the outage" in play(scenario, AGENTS, hasty)[0].misses


# --- that the short cuts change nothing --------------------------------------------------------------------


def short(mood: Outcome) -> Scenario:
    def begin(fleet: Fleet, now: float) -> None:
        fleet.change(now, mood)

    def recover(fleet: Fleet, now: float) -> None:
        fleet.change(now, DONE)
        fleet.recover()

    return Scenario("short", {30.0: begin, 120.0: recover}, 120.0)


@pytest.mark.parametrize("scenario", [RESTART, REFUSED], ids=lambda scenario: scenario.name)
def test_what_is_remembered_and_counted_is_what_each_event_would_have_come_to(scenario: Scenario) -> None:
    _, quick = play(scenario, 30, SETTINGS, capacity=100.0)
    _, slow = play(scenario, 30, SETTINGS, capacity=100.0, by_events=True, remembers=False)
    assert quick.events < slow.events / 10
    assert quick.conversations.decided < slow.conversations.decided / 10
    assert (quick.calls, quick.looks, quick.sign_ins) == (slow.calls, slow.looks, slow.sign_ins)
    assert quick.drained == pytest.approx(slow.drained)


@pytest.mark.parametrize("mood", [BUSY, Outcome(503, "20"), LOST], ids=["503", "Retry-After", "no answer"])
def test_an_outage_that_is_run_through_ahead_makes_the_same_load(mood: Outcome) -> None:
    quick, fleet = play(short(mood), 1_000, SETTINGS)
    slow, _ = play(short(mood), 1_000, SETTINGS, by_events=True)
    for begin, end in ((30, 35), (35, 60), (60, 119), (120, 180)):
        seconds = slice(begin * TICKS, end * TICKS)
        assert sum(quick.load[seconds]) == pytest.approx(sum(slow.load[seconds]), rel=0.05), begin
    assert quick.drained_after == pytest.approx(slow.drained_after, rel=0.1)
    assert fleet.behind == 0


def test_places_are_shared_and_lead_where_the_product_leads_one_alone() -> None:
    shared, alone = Conversations(), Conversations(remembers=False)
    one, other = shared.under_way(), alone.under_way()
    for outcome in (BUSY, LOST, UNSIGNED, UNSIGNED, BUSY, DONE, DONE):
        one, wait = one.after.get(outcome) or shared.decide(one, outcome, 0.0)
        other, same_wait = alone.decide(other, outcome, 0.0)
        assert wait == same_wait
        assert (one.sends, one.urgent, one.is_over) == (other.sends, other.urgent, other.is_over)
        assert replace(one.exchange, acknowledged=None) == replace(other.exchange, acknowledged=None)
    assert one is shared.under_way()


# --- the command -------------------------------------------------------------------------------------------


def test_the_chart_is_a_png_of_the_load() -> None:
    figures, _ = play(RESTART, 50, SETTINGS)
    chart = draw([figures, figures])
    assert chart.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = (int.from_bytes(chart[at : at + 4]) for at in (16, 20))
    begin = chart.index(b"IDAT")
    size = int.from_bytes(chart[begin - 4 : begin])
    pixels = zlib.decompress(chart[begin + 4 : begin + 4 + size])
    assert len(pixels) == (width + 1) * height
    assert len(set(pixels)) > 4, "there is something to be seen"


@pytest.mark.parametrize(("agents", "status"), [("2000", 0), ("0", 2)])
def test_the_command_says_by_its_exit_status_whether_all_is_well(
    agents: str, status: int, tmp_path: Path
) -> None:
    command = ["-m", "tests.fleet", "all", "restart", "at", "once", "--agents", agents]
    done = subprocess.run(
        [sys.executable, *command, "--chart", tmp_path / "fleet.png"],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert (tmp_path / "fleet.png").exists() == (status == 0)


def test_the_exit_status_is_1_where_a_target_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.fleet.__main__ import main

    monkeypatch.setattr(pacing, "SPREAD_INTERVALS", 1.0)
    monkeypatch.setattr(sys, "argv", ["fleet", "all", "restart", "at", "once", "--agents", "500"])
    assert main() == 1
