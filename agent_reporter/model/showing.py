"""Any object in a few words for a message, whatever its own `repr` or `str` does."""

from __future__ import annotations

MAX_SHOWN = 80


def shown(value: object) -> str:
    """The `repr` of `value`, cut; or what it is, if it cannot be shown."""
    try:
        return repr(value)[:MAX_SHOWN]
    except Exception:  # noqa: BLE001 - it is somebody else's code
        return f"<{type(value).__name__} that cannot be shown>"


def described(problem: BaseException) -> str:
    """The class of an exception and what it says."""
    name = type(problem).__name__
    try:
        said = str(problem)
    except Exception:  # noqa: BLE001 - as above
        return name
    return f"{name}: {said}" if said else name


def printable(text: str) -> str:
    """`text` with what steers a terminal in escaped form."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
