"""A picture as a PNG, written by hand: a few bars, lines and words are no reason for a dependency."""

from __future__ import annotations

import struct
import zlib

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
