"""Amounts, durations and what others said, as a person reads them."""

from __future__ import annotations

import re

_REQUEST = re.compile(r"^[A-Z]+ (https?:/)?/\S+: ")
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400


def amount(size: float) -> str:
    """`210.3 MiB`, for a size in bytes."""
    unit = _unit(size)
    return f"{_in_unit(size, unit)} {_UNITS[unit]}"


def part_of(size: float, total: float) -> str:
    """`16.6/41.9 GiB`, for sizes in bytes, in the unit of the greater."""
    unit = _unit(max(size, total))
    return f"{_in_unit(size, unit)}/{_in_unit(total, unit)} {_UNITS[unit]}"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `5 h 2 min` or `2 d 3 h`."""
    seconds = max(0.0, seconds)
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    if whole < _DAY:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    return f"{whole // _DAY} d {whole % _DAY // _HOUR} h"


def rough_duration(seconds: float) -> str:
    """`42 s`, `12 min`, `5.3 h` or `3 d`: short, for columns."""
    whole = round(max(0.0, seconds))
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < 2 * _HOUR:
        return f"{whole // _MINUTE} min"
    if whole < 2 * _DAY:
        return f"{whole / _HOUR:.1f} h"
    return f"{whole // _DAY} d"


def counted(number: int, name: str) -> str:
    """`1 restore`, `3 restores`."""
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def printable(text: str) -> str:
    """`text` from outside in one line, with nothing in it that a terminal would obey."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def shortened(text: str, width: int) -> str:
    """`text` in `width` characters, with what is too much left out in the middle: ids differ at both ends."""
    if len(text) <= width:
        return text
    head = width // 2
    return f"{text[:head]}…{text[len(text) - (width - head - 1) :]}" if width > 1 else "…"[:width]


def reason_of(failure: str) -> str:
    """What went wrong, without the request in front, `GET https://...: `, which names the restore again."""
    return _REQUEST.sub("", printable(failure))


def _unit(size: float) -> int:
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size /= 1024
        unit += 1
    return unit


def _in_unit(size: float, unit: int) -> str:
    return f"{size:.0f}" if unit == 0 else f"{size / 1024**unit:.1f}"
