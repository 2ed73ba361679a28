"""The inputs that once failed."""

from __future__ import annotations

import ast
from pathlib import Path

FILE = Path(__file__).with_suffix(".txt")


def failed_inputs() -> list[tuple[str, bytes]]:
    """The names of targets, and what once made them fail."""
    lines = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
    pairs = (line.split(maxsplit=1) for line in lines)
    # A product of bytes, b"9" * 5000, keeps a line short.
    return [(name, _bytes_of(ast.parse(written, mode="eval").body)) for name, written in pairs]


def _bytes_of(node: ast.expr) -> bytes:
    match node:
        case ast.Constant(bytes() as data):
            return data
        case ast.BinOp(left, ast.Add(), right):
            return _bytes_of(left) + _bytes_of(right)
        case ast.BinOp(left, ast.Mult(), ast.Constant(int() as times)):
            return _bytes_of(left) * times
    raise ValueError(f"only bytes, their sums and products: {ast.unparse(node)}")
