from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_reporter.engines.lines import LineSplitter


def split(*chunks: bytes, limit: int = 1 << 20) -> list[str]:
    splitter = LineSplitter(limit)
    return [line for chunk in chunks for line in splitter.feed(chunk)] + splitter.flush()


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        (b"", []),
        (b"a\nb\r\nc\rd", ["a", "b", "c", "d"]),
        (b"\n\r\r\n", ["", "", ""]),
        (b"caf\xe9\nna\xc3\xafve\n", ["caf\ufffd", "na\u00efve"]),
        (b"cut \xe2\x82\nnext", ["cut \ufffd", "next"]),
        (
            b"\x1b[2Ksignal\n\x1b[1m\x1b[31mred\n not \x1b[2K leading\n\x1b[\n",
            ["signal", "red", " not \x1b[2K leading", "\x1b["],
        ),
        ("separators\u2028\x0b\x0c\x85 end no line".encode(), ["separators\u2028\x0b\x0c\x85 end no line"]),
    ],
)
def test_lines_end_at_newlines_and_carriage_returns_only(content: bytes, lines: list[str]) -> None:
    assert split(content) == lines
    assert split(*(bytes([byte]) for byte in content)) == lines


def test_a_line_beyond_the_limit_is_cut_and_its_rest_thrown_away() -> None:
    content = b"x" * 25 + b"\nshort\n" + b"y" * 10 + b"\n" + b"z" * 11
    expected = ["x" * 10, "short", "y" * 10, "z" * 10]
    assert split(content, limit=10) == expected
    assert split(*(bytes([byte]) for byte in content), limit=10) == expected


def test_an_endless_line_takes_no_more_memory_than_the_limit() -> None:
    splitter = LineSplitter(1000)
    for _ in range(1000):
        assert splitter.feed(b"x" * 1000) == []
    assert len(splitter._unfinished) == 1000
    assert splitter.feed(b"\n") == ["x" * 1000]


pieces = st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"\xff", b"\xe2\x82\xac", b"\x1b[2K", b"long" * 5])


@given(content=st.lists(pieces).map(b"".join), data=st.data())
def test_lines_are_the_same_wherever_the_chunks_are_cut(content: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)))))
    chunks = [content[a:b] for a, b in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    assert split(*chunks, limit=16) == split(content, limit=16)
