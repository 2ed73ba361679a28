"""`status --watch`: looks again and again, and draws what `watch_rows` decides, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from textwrap import wrap
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent_reporter.cli.restores_shown import look
from agent_reporter.cli.watch_rows import (
    GAP,
    Column,
    Interest,
    followed,
    hidden_in_words,
    line,
    notes,
    page,
    rows,
    still_open,
    summary,
)
from agent_reporter.cli.wording import shortened
from agent_reporter.model.times import format_time

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from rich.console import JustifyMethod, RenderableType

    from agent_reporter.cli.watch_rows import Key, Page, Row, Watched
    from agent_reporter.settings import Settings

STYLES = {
    Interest.FAILING: "red",
    Interest.STOPPING: "yellow",
    Interest.LATE: "yellow",
    Interest.ENDED: "dim",
}
NUMBERS = frozenset({Column.BYTES, Column.RATE, Column.LEFT, Column.FILES, Column.ERRORS, Column.UNDELIVERED})


def watch(settings: Settings, interval: float) -> int:
    """Show the restores each `interval` seconds until Ctrl-C, SIGTERM, or nobody reads them; return 0."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the terminal is to be left in order
    console = Console()
    is_live = console.is_terminal and not console.is_dumb_terminal
    try:
        with suppress(KeyboardInterrupt), _Screen(console) if is_live else _Log() as shown:
            _show_again_and_again(settings, interval, shown)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still buffered
    return 0


def _show_again_and_again(settings: Settings, interval: float, shown: Shown) -> None:
    watched: dict[Key, Watched] = {}
    answered_at = time.monotonic()
    while True:
        found = look(settings, still_open(watched))
        moment, now = time.monotonic(), datetime.now(UTC)
        answered_at = answered_at if found.told is None else moment
        watched = followed(watched, found, moment)
        shown.show(rows(watched, found, moment, now), notes(found, watched, moment - answered_at), now)
        time.sleep(interval)


class Shown(Protocol):
    """Where it is shown."""

    def show(self, made: Sequence[Row], said: Sequence[str], now: datetime) -> None:
        """Show all rows, and what there is to say beside them."""
        ...


class _Screen:
    """A terminal's whole screen while the block lasts; then it is as it was, with the last drawing below."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, screen=True, auto_refresh=False)
        self._last: RenderableType | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
        if self._last is not None:
            self._console.print(self._last)

    def show(self, made: Sequence[Row], said: Sequence[str], now: datetime) -> None:
        """Draw all that has room."""
        width, height = self._console.size
        self._last = drawing(made, said, now, width, height)
        self._live.update(self._last, refresh=True)


class _Log:
    """A file or a pipe: a line for each restore and look, with the time in front."""

    def __init__(self) -> None:
        self._said: list[str] = []
        self._ended: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def show(self, made: Sequence[Row], said: Sequence[str], now: datetime) -> None:
        """Print the rows; an end and a note only when they are new."""
        ended = {one.cells[Column.RESTORE] for one in made if one.ending}
        news = [note for note in said if note not in self._said]
        lines = [line(one) for one in made if one.cells[Column.RESTORE] not in ended & self._ended]
        self._said, self._ended = list(said), ended
        for text in [*news, *lines]:
            print(f"{format_time(now)} {text}")
        sys.stdout.flush()


def drawing(made: Sequence[Row], said: Sequence[str], now: datetime, width: int, height: int) -> Group:
    """The rows, with what there is to say above them: not more than `width` and `height` have room for."""
    head = [Text(f"{now.astimezone():%H:%M:%S}  {summary(made)}", "bold")]
    head += [Text(part, "yellow") for note in said for part in wrap(note, width)]
    found = page(made, width, height - len(head))
    parts: list[RenderableType] = [*head]
    if made:
        parts.append(_line(found, [Text(column) for column in found.columns], "dim"))
    for one, below in found.shown:
        style = STYLES.get(one.interest, "")
        parts.append(_line(found, [_cell(one, column, found) for column in found.columns], style))
        if below:
            parts.append(_cut(f"  {below}", style or "dim"))
    if found.hidden:
        parts.append(_cut(hidden_in_words(found.hidden), "dim"))
    return Group(*parts)


def _line(found: Page, cells: Sequence[RenderableType], style: str) -> Table:
    """A table of one line, so that another kind of line can follow."""
    table = Table.grid(padding=(0, GAP, 0, 0))
    for column, width in found.columns.items():
        justify: JustifyMethod = "right" if column in NUMBERS else "left"
        table.add_column(width=width, no_wrap=True, overflow="ellipsis", justify=justify)
    table.add_row(*cells, style=style)
    return table


def _cell(one: Row, column: Column, found: Page) -> RenderableType:
    if column is Column.RESTORE:
        return Text(shortened(one.cells[column], found.columns[column]))
    if column is not Column.BAR:
        return Text(one.cells[column])
    return Text() if one.part is None else ProgressBar(1.0, one.part, width=found.columns[column])


def _cut(text: str, style: str) -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")
