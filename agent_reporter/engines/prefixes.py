"""Programs such as sudo and nice that start another: where in a command what they start begins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Prefix:
    """How a program that starts another reads its own options."""

    short_with_value: str = ""
    """Letters of the short options that take a value."""
    long_with_value: frozenset[str] = frozenset()
    assignments: bool = False
    """Whether NAME=VALUE words come before the command."""
    operands: int = 0
    """How many words of its own come before the command."""


PREFIXES: dict[str, Prefix] = {
    "sudo": Prefix(
        "CDghpRrTtUu",
        frozenset(
            (
                *("--chdir", "--chroot", "--close-from", "--command-timeout", "--group", "--host"),
                *("--other-user", "--prompt", "--role", "--type", "--user"),
            )
        ),
        assignments=True,
    ),
    "doas": Prefix("Cu"),
    "env": Prefix("uC", frozenset({"--unset", "--chdir"}), assignments=True),
    "nice": Prefix("n", frozenset({"--adjustment"})),
    "ionice": Prefix("cn", frozenset({"--class", "--classdata"})),
    "nohup": Prefix(),
    "stdbuf": Prefix("ioe", frozenset({"--input", "--output", "--error"})),
    "runuser": Prefix(
        "ugGwsT", frozenset({"--user", "--group", "--supp-group", "--whitelist-environment", "--shell"})
    ),
    "setpriv": Prefix(
        "",
        frozenset(
            (
                *("--reuid", "--regid", "--ruid", "--rgid", "--euid", "--egid", "--groups", "--inh-caps"),
                *("--ambient-caps", "--bounding-set", "--securebits", "--pdeathsig", "--selinux-label"),
            )
        ),
    ),
    "setsid": Prefix(),
    "taskset": Prefix(operands=1),
    "timeout": Prefix("ks", frozenset({"--kill-after", "--signal"}), operands=1),
}


def after_prefixes(command: Sequence[str]) -> int | None:
    """The index of the word in `command` that names what is started in the end; None if there is none."""
    index = 0
    while index < len(command):
        prefix = PREFIXES.get(PurePath(command[index]).name)
        if prefix is None:
            return index
        index = _after_own_words(prefix, command, index + 1)
    return None


def _after_own_words(prefix: Prefix, command: Sequence[str], index: int) -> int:
    """The index after the options, assignments and operands of the program before `index`."""
    while index < len(command) and command[index].startswith("-"):
        word = command[index]
        index += 1
        if word == "--":
            break
        if _takes_next_word(prefix, word):
            index += 1
    while prefix.assignments and index < len(command) and "=" in command[index]:
        index += 1
    return index + prefix.operands


def _takes_next_word(prefix: Prefix, word: str) -> bool:
    """Whether the value of the option `word` is the word after it."""
    if word.startswith("--"):
        return word in prefix.long_with_value
    for position, letter in enumerate(word[1:], start=2):
        if letter in prefix.short_with_value:
            return position == len(word)
    return False
