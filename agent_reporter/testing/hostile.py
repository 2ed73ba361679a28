"""Lines that no engine should print, made of those that one did print."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Stream

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from agent_reporter.testing.recordings import Line, Recording

    Mutation = Callable[[random.Random, str], str]

MAX_TEMPLATES = 300
NESTED = 100_000

_DIGITS = re.compile(r"\d+")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_WORD = re.compile(r"\S+")
_VALUE = re.compile(r'(?<=[:\[,])\s*(?:"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null)')
_MEMBER = re.compile(r'"(?:[^"\\]|\\.)*"\s*:\s*(?:"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null),?')

_HOSTILE_NUMBERS = (
    *("0", "-1", "00", "1.5", "-0.0", "1e999", "-1e999", "NaN", "Infinity"),
    *(str(2**31), str(2**63 - 1), str(2**63), str(2**70), "9" * 10_000, "1,234,567", "\u0663", "²"),
)
_HOSTILE_VALUES = (
    *_HOSTILE_NUMBERS,
    *("null", "true", "{}", "[]", '""', '[{"a":[]}]', '{"message":{"message":1}}'),
    *('"\\ud800"', '"/a/\\udfff/b"', '"\\u0000"', '"\\n\\n"', '"' + "é" * 1_000_000 + '"'),
    "[" * NESTED + "]" * NESTED,
)
_HOSTILE_WORDS = (
    *("", ":", ": : ", "/", '"', "'", "{", "}", "\\", "%s", "{0}", "()", "(28)", "\0", "\x1b[2K", "\t"),
    *("\ufffd", "é", "\u2028", "\x85", "\U0001f4be", "No space left on device", "a" * 1_000_000),
)
_ALWAYS = (
    *("", " ", "\0", "\ufffd" * 100, "{", "}", "[]", "null", "{}", '{"', '"', "0", ":", ": ", "NaN", "\x1b["),
    *('{"a":' * NESTED, "[" * NESTED, "(" * NESTED, "x" * 1_000_000, ":" * 100_000, "9" * 100_000),
)
"""Lines that each reader is fed, whatever its engine prints."""


def templates(lines: Iterable[Line]) -> list[Line]:
    """One line of each kind in `lines`: kinds differ in more than numbers and paths."""
    kinds: dict[tuple[Stream, str], Line] = {}
    for stream, text in lines:
        words = (word for word in _WORD.findall(text) if "/" not in word)
        kind = _DIGITS.sub("", " ".join(words))[:200]
        if len(kinds) < MAX_TEMPLATES:
            kinds.setdefault((stream, kind), (stream, text))
    return list(kinds.values())


def kinds(recordings: Iterable[Recording]) -> list[Line]:
    """One line of each kind that `recordings` hold; any line if they hold none."""
    return templates(line for recording in recordings for line in recording.all_lines) or [(Stream.ERR, "x")]


def hostile_lines(random: random.Random, lines: Sequence[Line]) -> Iterator[Line]:
    """Lines without end: those of `lines`, most of them spoilt in one or two ways, and some of nobody's."""
    for text in _ALWAYS:
        yield from ((stream, text) for stream in Stream)
    while True:
        stream, text = random.choice(lines)
        for _ in range(random.randrange(3)):
            text = random.choice(_MUTATIONS)(random, text)
        if random.random() < 0.1:
            stream = random.choice(list(Stream))
        yield from [(stream, text)] * random.choice((1, 1, 1, 2))


def stretched(random: random.Random, text: str, length: int) -> Iterator[str]:
    """`text` made longer by `length` characters, in ways that backtracking patterns do not like."""
    for filling in ("x", " ", ": ", "/a", "1", "(", "a: /b "):
        spot = random.randrange(len(text) + 1)
        yield text[:spot] + filling * (length // len(filling)) + text[spot:]


def ends_of_words(text: str) -> list[int]:
    """Where each word of `text` ends, or each string where it is JSON."""
    strings = [found.end() - 1 for found in _VALUE.finditer(text) if found[0].endswith('"')]
    return strings or [found.end() for found in _WORD.finditer(text)]


def _replaced(random: random.Random, text: str, pattern: re.Pattern[str], by: Sequence[str]) -> str:
    """`text` with one match of `pattern` replaced."""
    matches = list(pattern.finditer(text[:100_000]))
    if not matches:
        return text
    match = random.choice(matches)
    return text[: match.start()] + random.choice(by) + text[match.end() :]


def _cut(random: random.Random, text: str) -> str:
    return text[: random.randrange(len(text) + 1)]


def _without_start(random: random.Random, text: str) -> str:
    return text[random.randrange(len(text) + 1) :]


def _number(random: random.Random, text: str) -> str:
    return _replaced(random, text, _NUMBER, _HOSTILE_NUMBERS)


def _value(random: random.Random, text: str) -> str:
    return _replaced(random, text, _VALUE, _HOSTILE_VALUES)


def _without_member(random: random.Random, text: str) -> str:
    return _replaced(random, text, _MEMBER, ("",))


def _word(random: random.Random, text: str) -> str:
    return _replaced(random, text, _WORD, _HOSTILE_WORDS)


def _repeated(random: random.Random, text: str) -> str:
    start = random.randrange(len(text) + 1)
    return text + text[start:]


_MUTATIONS: tuple[Mutation, ...] = (_cut, _without_start, _number, _value, _without_member, _word, _repeated)
