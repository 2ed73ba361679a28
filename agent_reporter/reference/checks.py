"""What a JSON value has to be, said as small checks that are put together.

A check takes a value and the name a person would know it by, and yields a sentence for everything that is
wrong with it: none for a value that is right.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final, NoReturn

from agent_reporter.reference.exchange import RefusedError

Check = Callable[[object, str], Iterator[str]]

MAX_SENTENCES: Final = 20
"""As many sentences as one answer carries: a patch may be wrong in a hundred thousand places."""

LARGEST_INTEGER: Final = 2**63 - 1
"""What the store can hold."""

_UTC_TIME: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?(Z|\+00:00)"
)


def read_json(body: bytes) -> Any:
    """The JSON document in `body`; raises RefusedError (400) when there is none.

    NaN and Infinity are refused too: Python reads them, JSON has no such numbers.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as problem:
        raise RefusedError(400, f"The body is not JSON: {problem}.") from problem


def insist(check: Check, value: object, name: str) -> None:
    """Raise RefusedError (400) with the first sentences that `check` has about `value`."""
    refuse_if_any(f"{name} is not valid.", check(value, name))


def refuse_if_any(message: str, sentences: Iterator[str]) -> None:
    """Raise RefusedError (400) with `message` and the first of the sentences, when there are any."""
    errors = list(islice(sentences, MAX_SENTENCES))
    if errors:
        raise RefusedError(400, message, errors)


def is_text(value: object, name: str) -> Iterator[str]:
    """A string that UTF-8 can carry."""
    if not isinstance(value, str):
        yield f"{name} has to be a string, not {_kind(value)}."
    elif not value.isascii() and _has_lone_surrogate(value):
        yield f"{name} holds half of a surrogate pair, which is no character."


def is_name(value: object, name: str) -> Iterator[str]:
    """A string that is not empty."""
    yield from is_text(value, name)
    if value == "":
        yield f"{name} may not be empty."


def is_flag(value: object, name: str) -> Iterator[str]:
    """True or false."""
    if not isinstance(value, bool):
        yield f"{name} has to be true or false, not {_kind(value)}."


def is_integer(value: object, name: str) -> Iterator[str]:
    """An integer that the store can hold; true and false are none."""
    if not isinstance(value, int) or isinstance(value, bool):
        yield f"{name} has to be an integer, not {_kind(value)}."
    elif abs(value) > LARGEST_INTEGER:
        yield f"{name} is larger than {LARGEST_INTEGER}."


def is_count(value: object, name: str) -> Iterator[str]:
    """An integer that is not negative."""
    yield from is_integer(value, name)
    if isinstance(value, int) and value < 0:
        yield f"{name} may not be negative."


def is_duration(value: object, name: str) -> Iterator[str]:
    """Seconds: a finite number that is not negative."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        yield f"{name} has to be a number, not {_kind(value)}."
    elif not math.isfinite(value) or value < 0:
        yield f"{name} has to be a finite number of seconds that is not negative."


def is_time(value: object, name: str) -> Iterator[str]:
    """RFC 3339, UTC, to the microsecond at most, as the protocol writes times."""
    if not isinstance(value, str) or not _names_a_moment(value):
        yield f"{name} has to be a time such as 2014-10-20T13:11:58.985151Z."


def one_of(*values: object) -> Check:
    """Exactly one of `values`."""

    def check(value: object, name: str) -> Iterator[str]:
        # Compared with the type beside it: to Python, true is 1.
        if not any(value == allowed and type(value) is type(allowed) for allowed in values):
            yield f"{name} has to be one of {', '.join(map(str, values))}."

    return check


def nullable(check: Check) -> Check:
    """Null, or what `check` wants."""

    def check_or_null(value: object, name: str) -> Iterator[str]:
        if value is not None:
            yield from check(value, name)

    return check_or_null


def array_of(check: Check) -> Check:
    """An array whose every item is what `check` wants."""

    def check_items(value: object, name: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{name} has to be an array, not {_kind(value)}."
            return
        for index, item in enumerate(value):
            yield from check(item, f"{name}[{index}]")

    return check_items


def object_of(required: Mapping[str, Check], optional: Mapping[str, Check] | None = None) -> Check:
    """An object with all of the required keys, any of the optional ones, and no others."""
    known = {**required, **(optional or {})}

    def check_members(value: object, name: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{name} has to be an object, not {_kind(value)}."
            return
        for key in sorted(required.keys() - value.keys()):
            yield f"{name} has to have {key!r}."
        for key, member in value.items():
            if key in known:
                yield from known[key](member, f"{name}.{key}")
            else:
                yield f"{name} has {key!r:.80}, which is not known here."

    return check_members


def map_of(check: Check) -> Check:
    """An object whose every value is what `check` wants, whatever the keys are."""

    def check_values(value: object, name: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{name} has to be an object, not {_kind(value)}."
            return
        for key, member in value.items():
            yield from is_text(key, f"A key of {name}")
            yield from check(member, f"{name}.{key}")

    return check_values


def any_of(*checks: Check, wanted: str) -> Check:
    """What at least one of `checks` wants; `wanted` says for a person what that is."""

    def check(value: object, name: str) -> Iterator[str]:
        failures: Sequence[list[str]] = [list(islice(each(value, name), MAX_SENTENCES)) for each in checks]
        if all(failures):
            yield f"{name} has to be {wanted}."

    return check


def _names_a_moment(text: str) -> bool:
    if not _UTC_TIME.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def _has_lone_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _kind(value: object) -> str:
    """What JSON calls the type of `value`."""
    names: dict[type, str] = {
        type(None): "null",
        bool: "a boolean",
        int: "an integer",
        float: "a fraction",
        str: "a string",
        list: "an array",
        dict: "an object",
    }
    return names.get(type(value), type(value).__name__)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no JSON number")
