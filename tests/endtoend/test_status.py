"""What `status` and `status --watch` say: decided without a terminal, a daemon or time."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agent_reporter.cli import status
from agent_reporter.cli.restores_shown import DAEMON, Look, Told, describe, describe_told, next_try
from agent_reporter.cli.watch import drawing
from agent_reporter.cli.watch_rows import (
    ENDED_SECONDS,
    GAP,
    RATE_SECONDS,
    Column,
    Interest,
    Key,
    Row,
    Samples,
    Watched,
    columns_for,
    followed,
    line,
    notes,
    page,
    rate_of,
    row,
    rows,
    sampled,
    still_open,
)
from agent_reporter.cli.wording import part_of, printable, reason_of, rough_duration, shortened
from agent_reporter.errors import MalformedError
from agent_reporter.model.client import Client
from agent_reporter.model.exchange import Exchange
from agent_reporter.spool import Listed
from tests.builders import START, a_record, a_result

NOW = START + timedelta(hours=1)
GIB = 1024**3


def document(restore_id: str = "r-1", state: str = "in_progress", **delivery: Any) -> dict[str, Any]:
    """What the daemon tells of a restore."""
    return {
        "id": restore_id,
        "state": state,
        "started_time": "2026-01-02T03:04:05.678901Z",
        "ended_time": None,
        "errors": {"count": delivery.pop("errors", 0), "reason": "", "diagnostics": ""},
        "files_restored": delivery.pop("files", 317),
        "bytes_restored": delivery.pop("bytes", 5 * GIB),
        "delivery": {
            "newest_state": "in_progress" if state == "stop_requested" else state,
            "total_files": 2_000,
            "total_bytes": 10 * GIB,
            "acknowledged": None,
            "undelivered_since": None,
            "attempts": 0,
            "next_try": None,
            "why": "",
            "ending": None,
            "uid": 1000,
            "pids": [7],
            **delivery,
        },
    }


def told(restore_id: str = "r-1", state: str = "in_progress", **delivery: Any) -> dict[str, Any]:
    return describe_told(document(restore_id, state, **delivery))


def before(seconds: float) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def seen(*restores: dict[str, Any], ended: dict[str, dict[str, Any] | None] | None = None) -> Look:
    """A look at which the daemon answered."""
    of_daemon = [restore for restore in restores if restore["owner"] == DAEMON]
    return Look(list(restores), [], Told(of_daemon, ended or {}))


def one_row(restore: dict[str, Any], samples: Samples = (), **options: Any) -> Row:
    return row(Watched(restore, samples), 100.0, NOW, **options)


FAILING: dict[str, Any] = {
    "why": "PATCH https://backup.example.com/v2/110011/restores/r-1: no answer within 10 s",
    "undelivered_since": before(150),
    "next_try": (NOW + timedelta(seconds=8)).isoformat(),
    "errors": 3,
}


# --- documents ----------------------------------------------------------------------------------------------


def test_a_restore_of_the_daemon_and_one_of_the_spool_have_the_same_members() -> None:
    own = describe(Listed("r-1", a_record(client=Client(1000, stop_requested=True)), owner=7))
    of_daemon = told(state="stop_requested")
    assert own.keys() == of_daemon.keys()
    assert own["newest"].keys() - {"revision"} == of_daemon["newest"].keys()
    assert own["newest"]["stop_requested"]
    assert of_daemon["newest"]["stop_requested"]
    assert (of_daemon["owner"], own["owner"]) == (DAEMON, 7)


def test_a_stop_is_not_requested_any_more_of_a_restore_that_ended() -> None:
    own = describe(Listed("r-1", a_record(a_result(), client=Client(1000, stop_requested=True))))
    assert not own["newest"]["stop_requested"]


def test_what_the_daemon_passes_on_of_a_restore_it_does_not_have_is_shown_without_a_delivery() -> None:
    passed_on = describe_told({"id": "r-1", "state": "completed", "bytes_restored": 5})
    assert passed_on["newest"]["state"] == "completed"
    assert (passed_on["ending"], passed_on["newest"]["total_bytes"]) == (None, None)


@pytest.mark.parametrize("wrong", [{}, {"id": "r-1"}, {"id": 1, "state": "failed"}, document(why=3)])
def test_a_document_that_is_none_of_a_restore_is_malformed(wrong: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        describe_told(wrong)


@pytest.mark.parametrize(
    ("listed", "following"),
    [
        (Listed("r-1", a_record(), owner=7), ""),
        (
            Listed("r-1", a_record(exchange=Exchange(not_before=NOW + timedelta(seconds=8))), owner=7),
            "in 8 s",
        ),
        (Listed("r-1", a_record(exchange=Exchange(not_before=NOW)), owner=7), "now"),
        (Listed("r-1", a_record()), "at the next run or flush"),
        (Listed("r-1", a_record(client=Client(0))), "once the daemon runs"),
        (Listed("r-1", a_record(a_result(), client=Client(0))), "at the next run or flush"),
        (Listed("r-1", a_record(), dead=True), "never: dead letter"),
    ],
)
def test_when_the_next_try_is(listed: Listed, following: str) -> None:
    assert next_try(describe(listed), NOW) == following


def test_what_others_said_is_shown_as_it_is_in_the_table_of_status() -> None:
    written = io.StringIO()
    Console(file=written, width=200).print(status._table([told(why="[/red] \x1b[2J [bold]no")], NOW))
    assert "[/red]  [2J [bold]no" in written.getvalue()


# --- rates --------------------------------------------------------------------------------------------------


@given(
    speed=st.integers(0, 10**12),
    steps=st.lists(st.floats(0.1, 60), min_size=1, max_size=100),
)
def test_an_even_speed_is_the_rate(speed: int, steps: list[float]) -> None:
    samples: Samples = ((0.0, 0),)
    moment = 0.0
    for step in steps:
        moment += step
        samples = sampled(samples, moment, int(speed * moment))
    assert rate_of(samples) == pytest.approx(speed, rel=0.01, abs=20)


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 2**63)), min_size=1, max_size=300))
def test_samples_are_few_and_no_rate_is_below_zero(fed: list[tuple[float, int]]) -> None:
    samples: Samples = ()
    moment = 0.0
    for step, count in fed:
        moment += step
        samples = sampled(samples, moment, count)
        assert samples[-1] == (moment, count)
        assert len(samples) <= RATE_SECONDS + 3
        assert (rate_of(samples) or 0) >= 0


def test_a_rate_is_that_of_the_last_half_minute() -> None:
    samples: Samples = ()
    for second in range(200):
        samples = sampled(
            samples, float(second), 1_000 * second if second < 100 else 99_000 + 10 * (second - 99)
        )
    assert rate_of(samples) == pytest.approx(10)
    assert rate_of(samples[:1]) is None


def test_time_is_left_only_where_something_moves_towards_a_known_total() -> None:
    moving = ((0.0, 4 * GIB), (10.0, 5 * GIB))
    assert one_row(told(), moving).cells[Column.RATE] == "102.4 MiB/s"
    assert one_row(told(), moving).cells[Column.LEFT] == "50 s"
    assert one_row(told(total_bytes=None), moving).cells[Column.LEFT] == ""
    still = one_row(told(), ((0.0, 5 * GIB), (40.0, 5 * GIB)))
    assert (still.cells[Column.RATE], still.cells[Column.LEFT]) == ("0 B/s", "")
    assert one_row(told(state="completed"), moving).cells[Column.RATE] == ""
    assert one_row(told(), moving, is_current=False).cells[Column.RATE] == ""


# --- rows ---------------------------------------------------------------------------------------------------


def test_a_row_says_what_is_wrong_without_the_request() -> None:
    cells = one_row(told(**FAILING)).cells
    assert cells[Column.WHY] == "no answer within 10 s"
    assert (cells[Column.UNDELIVERED], cells[Column.NEXT_TRY], cells[Column.ERRORS]) == (
        "2 min",
        "in 8 s",
        "3",
    )
    assert (cells[Column.BYTES], cells[Column.FILES]) == ("5.0/10.0 GiB", "317/2000")


def test_the_part_that_is_restored_is_known_only_with_a_total() -> None:
    assert one_row(told()).part == 0.5
    assert one_row(told(total_bytes=None)).part is None
    assert one_row(told(bytes=20 * GIB)).part == 1
    assert one_row(told(state="completed", total_bytes=None)).part == 1


def test_the_most_interesting_rows_come_first() -> None:
    found = seen(
        told("running-2", started_time="x"),
        told("running-1"),
        told("late", undelivered_since=before(60)),
        told("later", undelivered_since=before(90)),
        told("on-its-way", undelivered_since=before(1)),
        told("stopping", "stop_requested"),
        told("failing", **FAILING),
    )
    ended = {("ended", True): Watched(told("ended", "completed", ending="delivered"), ended_at=99.0)}
    made = rows(followed(ended, found, 100.0), found, 100.0, NOW)
    named = [one.cells[Column.RESTORE] for one in made]
    assert named == ["failing", "stopping", "later", "late", "on-its-way", "running-1", "running-2", "ended"]
    assert made[1].cells[Column.STATE] == "stopping"


def test_a_restore_that_ended_is_shown_for_a_while_with_how_it_ended() -> None:
    watched = followed({}, seen(told()), 0.0)
    assert still_open(watched) == ["r-1"]
    ended = seen(ended={"r-1": told(state="failed", ending="delivered")})
    watched = followed(watched, ended, 10.0)
    assert still_open(watched) == []
    assert "failed, delivered, 20 s ago" in line(rows(watched, seen(), 30.0, NOW)[0])
    assert followed(watched, seen(), 10.0 + ENDED_SECONDS - 1)
    assert not followed(watched, seen(), 10.0 + ENDED_SECONDS)


def test_a_restore_that_nobody_knows_any_more_is_shown_as_it_was_last() -> None:
    watched = followed(followed({}, seen(told()), 0.0), seen(ended={"r-1": None}), 1.0)
    assert "not reported here any more, last seen in_progress" in line(rows(watched, seen(), 2.0, NOW)[0])


def test_a_restore_that_was_not_asked_for_yet_is_not_taken_for_ended() -> None:
    assert still_open(followed(followed({}, seen(told()), 0.0), seen(), 1.0)) == ["r-1"]


def test_a_restore_that_is_begun_again_is_open_again() -> None:
    watched = followed(followed({}, seen(told()), 0.0), seen(ended={"r-1": told(state="failed")}), 1.0)
    assert still_open(followed(watched, seen(told()), 2.0)) == ["r-1"]


def test_while_the_daemon_is_away_its_restores_stay_and_a_note_says_so() -> None:
    watched = followed(followed({}, seen(told(bytes=GIB)), 0.0), seen(told()), 10.0)
    away = Look([], [], None, daemon_problem="The daemon is not asked: it sleeps.")
    stale = followed(watched, away, 20.0)
    assert stale == watched
    assert rows(stale, away, 20.0, NOW)[0].cells[Column.RATE] == ""
    assert notes(away, stale, 10.0) == [
        "The daemon is not asked: it sleeps. Its restores are shown as they were 10 s ago."
    ]
    assert "not there any more" in notes(Look([], []), stale, 10.0)[0]
    back = seen(told(bytes=6 * GIB))
    assert rows(followed(stale, back, 30.0), back, 30.0, NOW)[0].cells[Column.RATE] != ""
    assert notes(back, stale, 0.0) == []


def test_a_restore_of_the_own_spool_has_ended_when_its_file_is_gone() -> None:
    own = describe(Listed("r-1", a_record(a_result()), owner=7))
    watched = followed(followed({}, Look([own], []), 0.0), Look([], [], spool_problem="closed"), 1.0)
    assert watched[("r-1", False)].ended_at is None
    watched = followed(watched, Look([], []), 2.0)
    assert "completed, 3 s ago" in line(rows(watched, Look([], []), 5.0, NOW)[0])


def test_dead_letters_and_what_cannot_be_read_are_counted_beside_the_rows() -> None:
    found = Look(
        [describe(Listed("r-1", a_record(), dead=True)), describe(Listed("r-2", None, problem="torn"))],
        ["/spool/aside/r-3.json"],
        spool_problem="the spool is closed",
    )
    assert followed({}, found, 0.0) == {}
    assert notes(found, {}, 0.0) == [
        "the spool is closed",
        "1 dead letter: see `agent-reporter status`.",
        "2 files of the spool cannot be read: see there, too.",
    ]


def test_a_line_of_a_log_says_it_all() -> None:
    one = one_row(told(**FAILING), ((0.0, 4 * GIB), (10.0, 5 * GIB)))
    assert line(one) == (
        "restore r-1: in_progress, 5.0/10.0 GiB, 102.4 MiB/s, 50 s left, "
        "undelivered for 2 min, next try in 8 s, 3 errors, no answer within 10 s, 317/2000 files"
    )


# --- a page -------------------------------------------------------------------------------------------------

KINDS: list[dict[str, Any]] = [
    {},
    {"state": "stop_requested"},
    {"undelivered_since": before(60)},
    FAILING,
    {"total_bytes": None, "total_files": None, "bytes": 0},
    {"bytes": 1_023 * GIB, "total_bytes": 1_023 * GIB, "files": 10**9, "total_files": 10**9, "errors": 10**6},
]


def many(kinds: list[int], id_length: int = 36) -> list[Row]:
    restores = [told(f"{number:0{id_length}}", **KINDS[kind]) for number, kind in enumerate(kinds)]
    watched: dict[Key, Watched] = followed({}, seen(*restores), 0.0)
    return rows(followed(watched, seen(*restores), 10.0), seen(), 10.0, NOW)


@given(
    kinds=st.lists(st.integers(0, len(KINDS) - 1), max_size=60),
    id_length=st.integers(1, 128),
    width=st.integers(30, 300),
    height=st.integers(3, 60),
)
def test_a_page_fits_shows_the_most_interesting_and_counts_the_rest(
    kinds: list[int], id_length: int, width: int, height: int
) -> None:
    made = many(kinds, id_length)
    shown = page(made, width, height)
    assert sum(shown.columns.values()) + GAP * (len(shown.columns) - 1) <= width
    assert 1 + sum(1 + bool(below) for _, below in shown.shown) + bool(shown.hidden) <= height
    assert [*(one for one, _ in shown.shown), *shown.hidden] == made
    for one, _ in shown.shown:
        for column in (Column.BYTES, Column.RATE, Column.LEFT, Column.FILES, Column.ERRORS):
            if column in shown.columns:
                assert len(one.cells[column]) <= shown.columns[column]


def test_a_wider_terminal_has_more_columns_and_needs_no_lines_below() -> None:
    made = many([0, 3])
    assert list(columns_for(made, 80)) == list(Column)[:6]
    assert list(columns_for(made, 200)) == list(Column)
    assert columns_for(made, 200)[Column.RESTORE] == 36
    assert [bool(below) for _, below in page(made, 80, 24).shown] == [True, True]
    assert [bool(below) for _, below in page(made, 200, 24).shown] == [False, False]


def test_where_room_is_short_only_rows_in_trouble_have_a_line_below() -> None:
    shown = page(many([3, *[0] * 21]), 80, 24)
    assert [bool(below) for _, below in shown.shown] == [True, *[False] * 21]
    assert not shown.hidden


def drawn(made: list[Row], said: list[str], width: int, height: int) -> list[str]:
    written = io.StringIO()
    console = Console(file=written, width=width, height=height)
    console.print(drawing(made, said, NOW, width, height))
    return written.getvalue().splitlines()


@pytest.mark.parametrize(("width", "height"), [(40, 10), (80, 24), (132, 43), (250, 60)])
def test_a_drawing_of_a_thousand_restores_fits(width: int, height: int) -> None:
    made = many([3] * 5 + [1] * 5 + [2] * 5 + [0] * 985)
    lines = drawn(made, ["The daemon sleeps. " * 4], width, height)
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert "1000 restores, 5 failing, 5 stopping, 5 late" in lines[0] or width == 40
    assert lines[-1].startswith("and 9")


def test_a_drawing_has_a_bar_for_each_restore_with_a_total() -> None:
    lines = drawn(many([0, 3, 4]), [], 80, 24)
    assert sum("━" in text for text in lines) == 2
    assert "undelivered for 2 min, next try in 8 s, 3 errors, no answer within 10 s" in "".join(lines)
    assert lines[2].startswith("0000000000…0000000001")


def test_what_others_said_is_drawn_as_it_is() -> None:
    one = one_row(told(why="[/red] \x1b[2J [bold]no\nmore"))
    assert any("[/red]  [2J [bold]no more" in text for text in drawn([one], [], 200, 24))


def test_where_there_is_nothing_a_drawing_says_so() -> None:
    lines = drawn([], [], 80, 24)
    assert len(lines) == 1
    assert lines[0].endswith("0 restores")


def test_each_interest_has_a_name() -> None:
    assert [kind.in_words for kind in Interest] == ["failing", "stopping", "late", "running", "ended"]


# --- words --------------------------------------------------------------------------------------------------


def test_a_size_and_its_total_are_in_one_unit() -> None:
    assert part_of(5 * GIB, 10 * GIB) == "5.0/10.0 GiB"
    assert part_of(0, 900) == "0/900 B"
    assert part_of(2048, 1024) == "2.0/1.0 KiB"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (42.4, "42 s"), (119, "119 s"), (720, "12 min"), (19_000, "5.3 h"), (3 * 86_400, "3 d")],
)
def test_a_rough_duration_is_short(seconds: float, words: str) -> None:
    assert rough_duration(seconds) == words


@given(st.text(), st.integers(0, 200))
def test_what_is_shortened_fits_and_keeps_both_ends(text: str, width: int) -> None:
    short = shortened(text, width)
    assert len(short) <= max(width, 0)
    assert short == text or width < 3 or (short[0] == text[0] and short[-1] == text[-1])


@given(st.text())
def test_what_is_printable_keeps_its_length_and_obeys_nobody(text: str) -> None:
    assert len(printable(text)) == len(text)
    assert printable(text).isprintable()


def test_a_reason_is_what_went_wrong() -> None:
    assert reason_of("GET https://x/v2/1/restores/r-1: no answer") == "no answer"
    assert reason_of("HTTP 503: GET well soon") == "HTTP 503: GET well soon"
    assert reason_of("") == ""
