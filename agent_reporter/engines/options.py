"""Options among the words of a command, and whether they surely ask to restore nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import re
    from collections.abc import Collection, Sequence


def before_dashes(words: Sequence[str]) -> Sequence[str]:
    """What comes before a `--`: after it, a word that looks like an option is none."""
    return words[: words.index("--")] if "--" in words else words


def is_asked_for(
    words: Sequence[str], options: Collection[str], bundle: re.Pattern[str], letters_with_value: str
) -> bool:
    """Whether one of the long `options`, or a short one in a `bundle`, is among `words`.

    A short one is not certain where it may be the value of the word before: of a long option, or of a short
    one that ends in one of `letters_with_value`. What comes after `--` is no option.
    """
    may_be_options = before_dashes(words)
    if any(word in options or word.removesuffix("=true") in options for word in may_be_options):
        return not any(word.removesuffix("=false") in options for word in may_be_options if "=" in word)
    return any(
        bundle.fullmatch(word) and not _may_take_a_value(before, letters_with_value)
        for before, word in pairwise(["", *may_be_options])
    )


def _may_take_a_value(word: str, letters_with_value: str) -> bool:
    if word.startswith("--"):
        return "=" not in word
    return word.startswith("-") and word[-1:] in letters_with_value
