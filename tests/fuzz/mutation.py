"""Bytes that nobody should send, made of those that somebody did."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from random import Random

    Mutation = Callable[[Random, bytes], bytes]

MAX_BYTES = 1 << 14
"""No input is longer: what endless input does is for tests of bounds."""
DEEP = 1_200
"""Deeper than Python's recursion limit."""
MANY_DIGITS = b"9" * 5_000
"""More than Python makes a number of."""

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_WORD = re.compile(rb"[^\s/:=\"',;&?]+")
_STRING = rb'"(?:[^"\\\n]|\\.)*"'
_VALUE = re.compile(rb"(?<=[:\[,=])\s*(?:" + _STRING + rb"|-?\d[\d.eE+-]*|true|false|null|\{\}|\[\])")
_MEMBER = re.compile(_STRING + rb"\s*:\s*(?:" + _STRING + rb"|-?\d[\d.eE+-]*|true|false|null),?")
_NODE = re.compile(rb"[\[{\"]")
_LINE = re.compile(rb"[^\n]*\n")

_decoder = json.JSONDecoder()

_NUMBERS = (
    *(b"0", b"-1", b"00", b"1.5", b"-0.0", b"1e999", b"-1e999", b"NaN", b"Infinity", b"1_000", b"1,234"),
    *(b"%d" % number for power in (31, 32, 53, 63, 64, 70) for number in (2**power - 1, 2**power)),
    *(b"0x7f", b"\xd9\xa3", b"\xc2\xb2", b"9" * 400, b"9" * 4_300, MANY_DIGITS),
)
_STRINGS = (
    *(b'""', b'"x"', b"'x'", b'"\\ud800"', b'"/a/\\udfff/b"', b'"\\u0000"', b'"\\n\\r"', b'"\\u001b[2J"'),
    *(b'"0001-01-01T00:00:00+23:59"', b'"9999-12-31T23:59:59-23:59"', b'"2014-10-20T13:11:58.985151Z"'),
    b'"%b"' % (b"\xc3\xa9" * 4_000),
)
_OTHERS = (
    *(b"null", b"true", b"{}", b"[]", b'[{"a":[]}]', b'{"message":{"message":1}}'),
    *(b"[" * DEEP + b"]" * DEEP, b'{"a":' * DEEP + b"1" + b"}" * DEEP),
)
_TOKENS = (
    *_NUMBERS,
    *(b"", b" ", b":", b": ", b"/", b"..", b"../", b'"', b"'", b"{", b"}", b"[", b"]", b"\\", b"%", b"%00"),
    *(b"\0", b"\n", b"\r", b"\r\n", b"\t", b"\x1b[2K", b"\x1b]0;x\x07", b"\x7f", b"\x85", b"\xff", b"\x1f"),
    *(
        b"\xed\xa0\x80",
        b"\xef\xbf\xbd",
        b"\xe2\x80\xa8",
        b"\xe2\x80\xae",
        b"\xf0\x9f\x92\xbe",
        b"\xef\xbb\xbf",
    ),
    *(
        b"-",
        b"--",
        b"=",
        b"#",
        b"*",
        b"(",
        b")",
        b"?",
        b"@",
        b"://",
        b"http://[",
        b"\xe2\x84\x80",
        b"a" * 4_000,
    ),
)
"""What is put between, in place of words, and of single bytes."""


def mutated(random: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """`data`, spoilt in one to four ways; parts of `others` may come into it."""
    for _ in range(random.choice((1, 1, 2, 4))):
        if random.random() < 0.1:
            data = _spliced(random, data, random.choice(others))
        else:
            data = random.choice(_MUTATIONS)(random, data)
    return data[:MAX_BYTES]


def _part(random: Random, data: bytes) -> tuple[int, int]:
    """Where a part of `data` begins and ends: mostly a short one."""
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.choice((1, 1, 2, 4, 16, 64, 1024)))


def _replaced(random: Random, data: bytes, pattern: re.Pattern[bytes], by: Sequence[bytes]) -> bytes:
    """`data` with one match of `pattern` replaced."""
    start = random.randrange(len(data) + 1)  # not all matches are looked for
    match = pattern.search(data, start) or pattern.search(data)
    if match is None:
        return data
    return data[: match.start()] + random.choice(by) + data[match.end() :]


def _spliced(random: Random, data: bytes, other: bytes) -> bytes:
    start, end = _part(random, data)
    first, last = _part(random, other)
    part = other[first : random.choice((last, len(other)))]
    return data[:start] + part + data[random.choice((start, end)) :]


def _flipped(random: Random, data: bytes) -> bytes:
    if not data:
        return data
    spot = random.randrange(len(data))
    return data[:spot] + bytes([data[spot] ^ (1 << random.randrange(8))]) + data[spot + 1 :]


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _without_part(random: Random, data: bytes) -> bytes:
    start, end = _part(random, data)
    return data[:start] + data[end:]


def _repeated(random: Random, data: bytes) -> bytes:
    start, end = _part(random, data)
    return data[:end] + data[start:end] * random.choice((1, 2, 50)) + data[end:]


def _token(random: Random, data: bytes) -> bytes:
    spot = random.randrange(len(data) + 1)
    return data[:spot] + random.choice(_TOKENS) + data[spot + random.randrange(2) :]


def _byte(random: Random, data: bytes) -> bytes:
    spot = random.randrange(len(data) + 1)
    return data[:spot] + bytes([random.randrange(256)]) + data[spot + 1 :]


def _number(random: Random, data: bytes) -> bytes:
    return _replaced(random, data, _NUMBER, _NUMBERS)


def _word(random: Random, data: bytes) -> bytes:
    return _replaced(random, data, _WORD, _TOKENS)


def _value(random: Random, data: bytes) -> bytes:
    return _replaced(random, data, _VALUE, random.choice((_NUMBERS, _STRINGS, _OTHERS)))


def _node(random: Random, data: bytes) -> bytes:
    """A whole object, array or string of some JSON replaced, wrapped, or there twice."""
    match = _NODE.search(data, random.randrange(len(data) + 1)) or _NODE.search(data)
    if match is None:
        return data
    start = match.start()
    try:
        _, length = _decoder.raw_decode(data[start:].decode("latin-1"))
    except (ValueError, RecursionError):
        return data
    node = data[start : start + length]
    others = random.choice((_NUMBERS, _STRINGS, _OTHERS))
    by = random.choice((b"[%b]" % node, b'{"a":%b}' % node, b"%b,%b" % (node, node), random.choice(others)))
    return data[:start] + by + data[start + length :]


def _without_member(random: Random, data: bytes) -> bytes:
    return _replaced(random, data, _MEMBER, (b"",))


def _twice(random: Random, data: bytes) -> bytes:
    """A member of an object, or a line, that stands there twice."""
    pattern = random.choice((_MEMBER, _LINE))
    match = pattern.search(data, random.randrange(len(data) + 1)) or pattern.search(data)
    return data if match is None else data[: match.end()] + match[0] + data[match.end() :]


def _encoded(random: Random, data: bytes) -> bytes:
    """The whole of it in another encoding."""
    if random.random() < 0.9:
        return data  # nothing much can be read of the rest
    encoding = random.choice(("utf-16", "utf-8-sig", "utf-32", "cp037"))
    return data.decode("utf-8", "replace").encode(encoding, "replace")


_MUTATIONS: tuple[Mutation, ...] = (
    *(_flipped, _cut, _without_part, _repeated, _token, _token, _byte, _number, _word),
    *(_value, _value, _node, _node, _without_member, _twice, _encoded),
)
