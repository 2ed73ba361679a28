"""The pattern of `run --error-lines`: taken only if it is quick on any line, whatever an engine prints.

Python's `re` looks at every way to match, and nothing else of the process runs meanwhile.
"""

from __future__ import annotations

import importlib
import re
import warnings
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SEARCHED_CHARACTERS = 1024
"""As much of a line is searched: what comes then costs time, and says no more."""
MAX_DEGREE = 3
"""Of the steps on a line: as many as it has characters, to the power of that."""

_FEW_TIMES = 4
"""A choice that is repeated as often at most, such as numbers in an address, is no worse than in a row."""

_parser: Any = importlib.import_module(
    "re._parser"
)  # the only one there is that tells how a pattern is built
_REPEATS = (_parser.MAX_REPEAT, _parser.MIN_REPEAT)
_SETS = (_parser.ANY, _parser.IN, _parser.LITERAL, _parser.NOT_LITERAL)
"""What one character is matched with."""
_BEGINNINGS = ((_parser.AT, _parser.AT_BEGINNING), (_parser.AT, _parser.AT_BEGINNING_STRING))
_KEEPS_ITS_CHOICE = ("POSSESSIVE_REPEAT", "ATOMIC_GROUP", "ASSERT", "ASSERT_NOT")
"""What is matched once, and never tried another way."""


def error_pattern(pattern: str) -> re.Pattern[str]:
    """The lines on stderr that tell of an error; raises ConfigurationError for what is no such pattern."""
    try:
        with warnings.catch_warnings(action="ignore"):  # Python's own would quote our source
            compiled = re.compile(pattern)
            parsed = _parser.parse(pattern)
        is_endless = _repeats_a_choice(parsed)
        degree = _degree(parsed)
    except (re.error, RecursionError, OverflowError, ValueError) as problem:
        raise ConfigurationError(
            f"--error-lines {pattern!r:.200} is no regular expression: {problem!s:.200}. Write it "
            "as Python's re has it."
        ) from problem
    if is_endless:
        raise ConfigurationError(
            f"--error-lines {pattern!r:.200} repeats what holds a repeat or a choice itself, which may take "
            "for ever on a long line. Write a repeat of single characters, such as '[a-z ]+' for "
            "'([a-z]+ ?)+', and '.*' for '(.|\\s)*' or '(one|two)*'."
        )
    if degree > MAX_DEGREE:
        raise ConfigurationError(
            f"--error-lines {pattern!r:.200} has too many of '.*' and the like for a long line. Begin it "
            "with '^', and say what each stops at, such as '[^:]*: ' for '.*: '."
        )
    if compiled.search(""):
        raise ConfigurationError(
            f"--error-lines {pattern!r:.200} is found in every line, also in an empty one. Name what only "
            "the lines of errors hold, such as '^ERROR: '."
        )
    return compiled


def _degree(parsed: Any) -> int:
    """The power of a line's length that bounds the steps to find that a pattern is not in it."""
    begins = [*_in_a_row(parsed), None][0]
    return _degree_from(parsed) + (begins not in _BEGINNINGS)


def _degree_from(parsed: Any) -> int:
    """The same from one place in the line on.

    One for each endless repeat that may end in several places, and one for the rest after it, if that
    repeats anything.
    """
    row = list(_in_a_row(parsed))
    degree = 0
    is_open = rest_counts = False
    for (operation, argument), following in zip(row, [*row[1:], None], strict=False):
        if operation in _REPEATS and argument[1] >= MAX_SEARCHED_CHARACTERS:
            if _ends_in_one_place(argument[2], following):
                rest_counts = rest_counts or is_open
            else:
                is_open, degree = True, degree + 1
        elif operation not in _SETS:
            degree += max((_degree_from(part) for part in _parts(argument)), default=0)
    return degree + rest_counts


def _in_a_row(pattern: Any) -> Iterator[tuple[Any, Any]]:
    """The operations of a parsed pattern, with groups that only mark a part of it laid open."""
    for operation, argument in pattern:
        if operation is _parser.SUBPATTERN:
            yield from _in_a_row(argument[-1])
        else:
            yield operation, argument


def _ends_in_one_place(repeated: Any, following: tuple[Any, Any] | None) -> bool:
    """Whether what follows a repeat is a character that the repeat stops at."""
    inner = list(_in_a_row(repeated))
    is_of_one = len(inner) == 1 and inner[0][0] in _SETS
    if not is_of_one or following is None or following[0] is not _parser.LITERAL:
        return False
    return not _matches(*inner[0], following[1])


def _matches(operation: Any, argument: Any, character: int) -> bool:
    """Whether what matches one character matches this one; yes where that is not plain."""
    if operation is _parser.LITERAL:
        return bool(argument == character)
    if operation is _parser.NOT_LITERAL:
        return bool(argument != character)
    if operation is not _parser.IN:
        return True
    is_negated = argument[0][0] is _parser.NEGATE
    return is_negated != any(_is_in(item, character) for item in argument if item[0] is not _parser.NEGATE)


def _is_in(item: Any, character: int) -> bool:
    """Whether an item of a set stands for a character."""
    operation, argument = item
    if operation is _parser.LITERAL:
        return bool(argument == character)
    if operation is _parser.RANGE:
        return bool(argument[0] <= character <= argument[1])
    kind, letter = str(argument), chr(character)
    is_of_kind = {"DIGIT": letter.isdigit(), "SPACE": letter.isspace()}.get(
        kind.removeprefix("CATEGORY_").removeprefix("NOT_"), letter.isalnum() or letter == "_"
    )
    return is_of_kind is not ("_NOT_" in kind)


def _repeats_a_choice(pattern: Any, times: int = 1) -> bool:
    """Whether a part of a parsed pattern is repeated that can match the same text in several ways.

    Then the ways to match a line may be twice as many with each character. `times` is how often the pattern
    is repeated itself.
    """
    for operation, argument in pattern:
        least, most = argument[:2] if operation in _REPEATS else (1, 1)
        if times > _FEW_TIMES and (least != most or operation is _parser.BRANCH):
            return True
        times_within = most * (1 if str(operation) in _KEEPS_ITS_CHOICE else times)
        if any(_repeats_a_choice(part, times_within) for part in _parts(argument)):
            return True
    return False


def _parts(argument: Any) -> Iterator[Any]:
    """The patterns in the argument of an operation."""
    if isinstance(argument, _parser.SubPattern):
        yield argument
    elif isinstance(argument, (tuple, list)):
        for part in argument:
            yield from _parts(part)
