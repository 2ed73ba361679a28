"""A chart of the load as a PNG, written by hand: a few bars, lines and words are no reason for a dependency."""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING

from tests.fleet.agents import TICKS
from tests.fleet.scenarios import CALM, MOST_AT_RECOVERY, MOST_IN_OUTAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fleet.scenarios import Figures

WIDTH, PANEL, MARGIN = 1_000, 150, 24
ROOM = 26
"""Above each panel, for its name."""
WHITE, GREY, INK, BLUE, RED, ORANGE = range(6)
PALETTE = bytes.fromhex("ffffff d8d8d8 303030 4a7fb5 c03028 e09030")
SIGNS = "0123456789abcdefghijklmnopqrstuvwxyz.,:-%"
ROWS = (
    "75557 26227 71747 71717 55711 74717 74757 71111 75757 75717 "
    "25755 65656 34443 65556 74647 74644 34553 55755 72227 11152 55655 44447 57755 "
    "65555 25552 65644 25573 65655 34216 72222 55557 55552 55775 55255 55222 71247 "
    "00002 00024 02020 00700 51245"
)
FONT = dict(zip(SIGNS, ROWS.split(), strict=True))
"""Each sign in five rows of three dots, a row as the digit whose bits they are."""


class Canvas:
    """Pixels in a palette."""

    def __init__(self, width: int, height: int) -> None:
        self.width = width
        self.rows = [bytearray(width) for _ in range(height)]

    def box(self, left: int, top: int, width: int, height: int, colour: int) -> None:
        """Fill a rectangle, as far as it is on the canvas."""
        left, right = max(left, 0), min(left + width, self.width)
        for row in self.rows[max(top, 0) : max(top + height, 0)]:
            row[left:right] = bytes([colour]) * (right - left)

    def text(self, left: int, top: int, words: str, colour: int = INK, size: int = 2) -> None:
        """Write in small letters, which are all there are."""
        for char in words.lower():
            for number, row in enumerate(FONT.get(char, "")):
                for column in range(3):
                    if int(row) >> (2 - column) & 1:
                        self.box(left + column * size, top + number * size, size, size, colour)
            left += 4 * size

    def png(self) -> bytes:
        """The file."""
        header = struct.pack(">IIBBBBB", self.width, len(self.rows), 8, 3, 0, 0, 0)
        pixels = zlib.compress(b"".join(b"\0" + row for row in self.rows), 9)
        chunks = ((b"IHDR", header), (b"PLTE", PALETTE), (b"IDAT", pixels), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(name, content) for name, content in chunks)


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def draw(results: Sequence[Figures]) -> bytes:
    """One panel below the other, all in times the steady load; the limits as lines, the recovery as an upright one."""
    canvas = Canvas(WIDTH + 2 * MARGIN, len(results) * (PANEL + ROOM) + MARGIN)
    for number, figures in enumerate(results):
        _panel(canvas, number * (PANEL + ROOM) + ROOM, figures)
    return canvas.png()


def _panel(canvas: Canvas, top: int, figures: Figures) -> None:
    most = max(2.0, *figures.load)
    bottom = top + PANEL

    def height(load: float) -> int:
        return round(load / most * (PANEL - 4))

    def column(second: float) -> int:
        return MARGIN + round(second * TICKS / len(figures.load) * WIDTH)

    canvas.box(MARGIN, bottom, WIDTH, 1, INK)
    for number in range(WIDTH):
        begin = number * len(figures.load) // WIDTH
        end = max((number + 1) * len(figures.load) // WIDTH, begin + 1)
        tall = height(max(figures.load[begin:end]))
        canvas.box(MARGIN + number, bottom - tall, 1, tall, BLUE)
    recovers = column(figures.scenario.recovers_at)
    canvas.box(MARGIN, bottom - height(1.0), WIDTH, 1, GREY)
    if figures.scenario.has_outage:
        canvas.box(column(CALM), bottom - height(MOST_IN_OUTAGE), recovers - column(CALM), 2, ORANGE)
    canvas.box(recovers, bottom - height(MOST_AT_RECOVERY), MARGIN + WIDTH - recovers, 2, RED)
    canvas.box(recovers, top, 1, PANEL, INK)
    drained = "" if figures.drained_after is None else f", 99% drained in {figures.drained_after:.0f} s"
    words = f"{figures.scenario.name}: at most {figures.at_recovery:.2f} x at recovery{drained}"
    canvas.text(MARGIN, top - 14, words)
