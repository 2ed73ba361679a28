"""What `status --watch` shows, decided from looks and the time, and drawn elsewhere: rates, rows, a page.

A look -> `followed`: each restore with samples of its bytes, also for a while after its end -> `row`: what is
said of it -> `page`: the rows and columns for which there is room, or `line`: one for a log.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Any

from agent_reporter.cli.restores_shown import DAEMON, next_try
from agent_reporter.cli.wording import amount, counted, part_of, printable, reason_of, rough_duration
from agent_reporter.model.exchange import Ending
from agent_reporter.model.state import FINAL_STATES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agent_reporter.cli.restores_shown import Look

RATE_SECONDS = 30.0
"""A rate is that of so many last seconds."""
SAMPLE_SECONDS = 1.0
"""Least distance of the samples that are kept."""
ENDED_SECONDS = 60.0
"""A restore is shown for so long after its end."""
LATE_SECONDS = 5.0
"""What is not delivered for so long is worth a word."""

Samples = tuple[tuple[float, int], ...]
"""Moments in seconds and the bytes that were restored then, the oldest first."""
Key = tuple[str, bool]
"""A restore's id, and whether the daemon told of it."""


def sampled(samples: Samples, moment: float, count: int) -> Samples:
    """`samples` with one more, and without those that no rate needs; a count that went down begins anew."""
    if samples and count < samples[-1][1]:
        return ((moment, count),)
    if len(samples) > 1 and samples[-1][0] - samples[-2][0] < SAMPLE_SECONDS:
        samples = samples[:-1]
    samples = (*samples, (moment, count))
    while len(samples) > 2 and samples[1][0] <= moment - RATE_SECONDS:
        samples = samples[1:]
    return samples


def rate_of(samples: Samples) -> float | None:
    """Bytes a second over all `samples`; None if they are too few to tell."""
    if len(samples) < 2 or samples[-1][0] <= samples[0][0]:
        return None
    return (samples[-1][1] - samples[0][1]) / (samples[-1][0] - samples[0][0])


@dataclass(frozen=True, slots=True)
class Watched:
    """A restore that is followed: what was last told of it, and when it was not there any more."""

    restore: Mapping[str, Any]
    samples: Samples = ()
    ended_at: float | None = None


def followed(before: Mapping[Key, Watched], found: Look, moment: float) -> dict[Key, Watched]:
    """What is followed after another look. What could not be looked at stays as it was told last."""
    after = {}
    for restore in found.restores:
        if "newest" in restore and not restore["dead_letter"]:
            key = (restore["restore_id"], restore["owner"] == DAEMON)
            samples = before[key].samples if key in before else ()
            after[key] = Watched(restore, sampled(samples, moment, restore["newest"]["bytes_restored"]))
    for key, watched in before.items():
        if key not in after and (kept := _when_gone(key, watched, found, moment)) is not None:
            after[key] = kept
    return after


def still_open(watched: Mapping[Key, Watched]) -> list[str]:
    """The daemon's restores that are not known to have ended."""
    return [name for (name, is_daemons), one in watched.items() if is_daemons and one.ended_at is None]


def _when_gone(key: Key, watched: Watched, found: Look, moment: float) -> Watched | None:
    if watched.ended_at is not None:
        return watched if moment - watched.ended_at < ENDED_SECONDS else None
    name, is_daemons = key
    if not is_daemons:
        return watched if found.spool_problem else Watched(watched.restore, ended_at=moment)
    if found.told is None or name not in found.told.ended:
        return watched
    return Watched(found.told.ended[name] or watched.restore, ended_at=moment)


class Interest(IntEnum):
    """How much a row is worth to be seen, the most first."""

    FAILING = 0
    STOPPING = 1
    LATE = 2
    RUNNING = 3
    ENDED = 4

    @property
    def in_words(self) -> str:
        """`failing`."""
        return self.name.lower()


class Column(StrEnum):
    """The columns by their headings, the most important first."""

    RESTORE = "restore"
    STATE = "state"
    BAR = " "
    BYTES = "bytes"
    RATE = "rate"
    LEFT = "left"
    FILES = "files"
    ERRORS = "errors"
    UNDELIVERED = "undelivered"
    NEXT_TRY = "next try"
    WHY = "why"


@dataclass(frozen=True, slots=True)
class Row:
    """What is said of one restore. `part` is how much of it is restored, from 0 to 1, None if not known."""

    interest: Interest
    order: tuple[str, ...]
    cells: Mapping[Column, str]
    part: float | None
    ending: str = ""


def rows(watched: Mapping[Key, Watched], found: Look, moment: float, now: datetime) -> list[Row]:
    """A row for each restore, the most interesting first. `moment` is of the clock of `followed`."""
    made = [
        row(one, moment, now, is_current=found.told is not None or not is_daemons)
        for (_, is_daemons), one in watched.items()
    ]
    return sorted(made, key=lambda one: (one.interest, one.order))


def row(watched: Watched, moment: float, now: datetime, *, is_current: bool = True) -> Row:
    """The row of one restore; one that is not current has no rate."""
    restore, newest = watched.restore, watched.restore["newest"]
    has_ended, is_final = watched.ended_at is not None, newest["state"] in FINAL_STATES
    done, total = newest["bytes_restored"], newest["total_bytes"]
    rate = rate_of(watched.samples) if is_current and not has_ended and not is_final else None
    late = None if has_ended else _seconds_since(restore["undelivered_since"], now)
    is_late = late is not None and late >= LATE_SECONDS
    ending = _how_it_ended(watched, moment) if has_ended else ""
    stops = newest["stop_requested"] and not has_ended
    cells = {
        Column.RESTORE: restore["restore_id"],
        Column.STATE: "stopping" if stops else newest["state"],
        Column.BYTES: amount(done) if total is None else part_of(done, total),
        Column.RATE: "" if rate is None else f"{amount(rate)}/s",
        Column.LEFT: rough_duration((total - done) / rate) if rate and total and total >= done else "",
        Column.FILES: _of(newest["files_restored"], newest["total_files"]),
        Column.ERRORS: str(newest["errors"]["count"] or ""),
        Column.UNDELIVERED: rough_duration(late) if late is not None and is_late else "",
        Column.NEXT_TRY: "" if has_ended or not (is_late or restore["why"]) else next_try(dict(restore), now),
        Column.WHY: ending or reason_of(restore["why"]),
    }
    interest = _interest(has_ended=has_ended, fails=bool(restore["why"]), stops=stops, is_late=is_late)
    since = restore["undelivered_since"] if interest in {Interest.FAILING, Interest.LATE} else None
    return Row(
        interest,
        (since or "", newest["started_time"] or "", restore["restore_id"]),
        {column: printable(text) for column, text in cells.items()},
        _part(done, total, is_complete=newest["state"] == "completed"),
        ending,
    )


def _interest(*, has_ended: bool, fails: bool, stops: bool, is_late: bool) -> Interest:
    if has_ended:
        return Interest.ENDED
    if fails:
        return Interest.FAILING
    if stops:
        return Interest.STOPPING
    return Interest.LATE if is_late else Interest.RUNNING


def _how_it_ended(watched: Watched, moment: float) -> str:
    """In words, and how long ago."""
    state, ending = watched.restore["newest"]["state"], watched.restore["ending"]
    how = state if state in FINAL_STATES else f"not reported here any more, last seen {state}"
    said = f", {Ending(ending).in_words}" if ending in list(Ending) else ""
    return f"{how}{said}, {rough_duration(moment - (watched.ended_at or moment))} ago"


def _part(done: int, total: int | None, *, is_complete: bool) -> float | None:
    if is_complete:
        return 1.0
    return min(1.0, done / total) if total else None


def _of(done: int, total: int | None) -> str:
    return str(done) if total is None else f"{done}/{total}"


def _seconds_since(moment: str | None, now: datetime) -> float | None:
    return None if moment is None else (now - datetime.fromisoformat(moment)).total_seconds()


# --- what is said beside the rows ---------------------------------------------------------------------------


def summary(shown: Sequence[Row]) -> str:
    """How many restores there are, and how many of them want to be looked at."""
    counts = Counter(one.interest for one in shown)
    told = [
        f"{counts[kind]} {kind.in_words}"
        for kind in Interest
        if counts[kind] and kind is not Interest.RUNNING
    ]
    return ", ".join([counted(len(shown), "restore"), *told])


def notes(found: Look, watched: Mapping[Key, Watched], silent_for: float) -> list[str]:
    """What a person has to know of the look itself. `silent_for` seconds the daemon has not answered."""
    said = []
    if found.told is None and (found.daemon_problem or still_open(watched)):
        since = (
            f" Its restores are shown as they were {rough_duration(silent_for)} ago."
            if still_open(watched)
            else ""
        )
        said.append(f"{found.daemon_problem or 'The socket of the daemon is not there any more.'}{since}")
    if found.spool_problem:
        said.append(found.spool_problem)
    dead = sum(restore["dead_letter"] for restore in found.restores)
    unread = sum("newest" not in restore and not restore["dead_letter"] for restore in found.restores)
    if dead:
        said.append(f"{counted(dead, 'dead letter')}: see `agent-reporter status`.")
    if unread or found.set_aside:
        said.append(
            f"{counted(unread + len(found.set_aside), 'file')} of the spool cannot be read: see there, too."
        )
    return [printable(note) for note in said]


def line(one: Row) -> str:
    """A restore in one line, for a log."""
    cells = one.cells
    progress = [
        cells[Column.STATE],
        cells[Column.BYTES],
        cells[Column.RATE],
        cells[Column.LEFT] and f"{cells[Column.LEFT]} left",
    ]
    said = [one.ending] if one.ending else [*progress, detail(one, ())]
    return f"restore {cells[Column.RESTORE]}: {', '.join(filter(None, said))}"


def detail(one: Row, columns: Sequence[Column] | Mapping[Column, int]) -> str:
    """What of a row has no column in `columns`, in words."""
    wording = {
        Column.UNDELIVERED: "undelivered for {}",
        Column.NEXT_TRY: "next try {}",
        Column.ERRORS: "{} errors",
        Column.WHY: "{}",
        Column.FILES: "{} files",
    }
    return ", ".join(
        words.format(one.cells[column])
        for column, words in wording.items()
        if column not in columns and one.cells[column]
    )


# --- a page -------------------------------------------------------------------------------------------------

GAP = 2
"""Characters between two columns."""
LEAST_WIDTHS = {
    Column.RESTORE: 16,
    Column.STATE: 11,
    Column.BAR: 8,
    Column.BYTES: 13,
    Column.RATE: 11,
    Column.LEFT: 6,
    Column.FILES: 9,
    Column.ERRORS: 6,
    Column.UNDELIVERED: 11,
    Column.NEXT_TRY: 8,
    Column.WHY: 24,
}
TEXTS = (Column.RESTORE, Column.STATE, Column.WHY)
"""Columns that may be cut: a number that is cut says something else."""
WIDEST_BAR = 40


@dataclass(frozen=True, slots=True)
class Page:
    """What a terminal has room for: columns with their widths, rows with a line below each, and the rest."""

    columns: Mapping[Column, int]
    shown: Sequence[tuple[Row, str]]
    hidden: Sequence[Row]


def page(shown: Sequence[Row], width: int, height: int) -> Page:
    """The most interesting of the rows that fit into `width` and `height`, with headings and a last line.

    A line below a row says what has no column. Every row has one if there is room; else those in trouble.
    """
    columns = columns_for(shown, width)
    details = [detail(one, columns) for one in shown]
    if len(shown) + sum(map(bool, details)) + 1 > height:
        details = [
            text if one.interest is not Interest.RUNNING or one.cells[Column.ERRORS] else ""
            for one, text in zip(shown, details, strict=True)
        ]
    heights = [1 + bool(text) for text in details]
    fitting = _how_many_fit(heights, height - 1)
    if fitting < len(shown):
        fitting = _how_many_fit(heights, height - 2)
    return Page(columns, list(zip(shown, details, strict=True))[:fitting], shown[fitting:])


def columns_for(shown: Sequence[Row], width: int) -> dict[Column, int]:
    """The first columns of all, as many as fit into `width` characters, with their widths."""
    natural = {
        column: max([len(column), *(len(one.cells.get(column, "")) for one in shown)]) for column in Column
    }
    columns: dict[Column, int] = {}
    spare = width + GAP
    for column, least in LEAST_WIDTHS.items():
        wanted = min(least, natural[column]) if column in TEXTS else max(least, natural[column])
        if columns and wanted + GAP > spare:
            break
        columns[column] = wanted
        spare -= wanted + GAP
    for column, most in [*((column, natural[column]) for column in TEXTS), (Column.BAR, WIDEST_BAR)]:
        if column in columns and spare > 0:
            more = max(0, min(spare, most - columns[column]))
            columns[column] += more
            spare -= more
    return columns


def hidden_in_words(hidden: Sequence[Row]) -> str:
    """What there was no room for."""
    counts = Counter(one.interest for one in hidden)
    return f"and {len(hidden)} more: " + ", ".join(
        f"{counts[kind]} {kind.in_words}" for kind in Interest if counts[kind]
    )


def _how_many_fit(heights: Sequence[int], room: int) -> int:
    fitting = 0
    for height in heights:
        room -= height
        if room < 0:
            break
        fitting += 1
    return fitting
