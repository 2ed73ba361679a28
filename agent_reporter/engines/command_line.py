"""A command taken apart: where in it the engine is, behind programs such as sudo, and shells that exec it."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import TYPE_CHECKING

from agent_reporter.engines.prefixes import after_prefixes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    ReadScript = Callable[[str], str | None]

SHELLS = frozenset({"sh", "bash", "dash", "ash", "ksh", "zsh"})
_STAND_BETWEEN = frozenset({"doas", "runuser", "timeout"})
"""They go on to run beside what they start, and not every signal comes through."""
_MAX_SCRIPTS = 4
"""Wrappers of wrappers are followed so far."""

_SHEBANG = re.compile(r"#!\s*(?:\S*/)?(?:env\s+)?(\w+)")
_WORD = r"""(?!\#)(?:[^\s;&|<>()`'"\\]|\\.|'[^']*'|"(?:[^"\\`$]|\$(?!\()|\\.)*")+"""
# A simple command that the shell becomes: what comes before is its own affair, what comes after never runs.
_EXEC = re.compile(rf"(?:^|[\n;&|])[ \t]*exec[ \t]+(?P<words>{_WORD}(?:[ \t]+{_WORD})*)$")
_COMMENT = re.compile(r"(?:^|\s)\#[^\n]*$")
_ALL_ARGUMENTS = ('"$@"', '"${@}"')
# A script that looks at its arguments may understand a word that is put among them as one for itself.
_LOOKS_AT_ARGUMENTS = re.compile(
    r"\$\{?[0-9*#@]|BASH_ARG|\bshift\b|\bset\s+(?:--|[^-+\s])|\bgetopts?\b|\bread\b"
)
_VERSION = r"(?:v?\d[\w.]*|[-_](?:v?\d|linux|freebsd|darwin|openbsd)[\w.-]*)?"
_MOVING = re.compile(r"(?:^|[\n;&|])\s*(?:cd|pushd)\b|\bPATH=")


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command that starts an engine."""

    before: tuple[str, ...]
    """What comes before the arguments: such as `sudo -u me /usr/bin/restic`."""
    program: str
    """The engine's file name, such as `restic-0.19.1`; "" if the command starts nothing."""
    arguments: tuple[str, ...]
    """The engine's arguments, as far as they are in the command."""
    fixed: tuple[str, ...] = ()
    """Arguments that a wrapper puts in front of those: they are in its script, and cannot be changed."""
    script: tuple[int, str, str] | None = None
    """Of `sh -c SCRIPT`: the word's index in `before`, and the script up to and after the arguments."""

    @property
    def keeps_its_process(self) -> bool:
        """Whether what is started becomes the engine, or passes signals on to it, as sudo does."""
        return not any(PurePath(word).name in _STAND_BETWEEN for word in self.before[:-1])

    def starts(self, name: str) -> bool:
        """Whether the engine is called `name`, with a version or a system behind it or not.

        A script that somebody called after it, such as `restic-restore.sh`, is another program.
        """
        is_script = self.program.endswith((".sh", ".bash", ".py", ".pl"))
        return not is_script and re.fullmatch(name + _VERSION, self.program) is not None

    def with_arguments(self, arguments: Sequence[str]) -> list[str]:
        """The whole command, with `arguments` in place of its own, which have to be among them in order."""
        if self.script is None:
            return [*self.before, *arguments]
        index, start, end = self.script
        command = list(self.before)
        command[index] = start + _woven(end, self.arguments, arguments)
        return command


def taken_apart(command: Sequence[str], read_script: ReadScript = lambda _: None) -> Invocation:
    """Find the engine in `command`.

    `read_script` gives the text of a program that is a script, found as a shell finds it, or None. Only a
    script that ends in `exec PROGRAM ... "$@"`, and does not look at its arguments before, is seen through;
    and only where it is certain which file it is: at an absolute path, or with nothing in front of it.
    """
    return _taken_apart(tuple(command), read_script, _MAX_SCRIPTS)


def _taken_apart(command: tuple[str, ...], read_script: ReadScript, scripts: int) -> Invocation:
    index = after_prefixes(command)
    if index is None:
        return Invocation(command, "", ())
    word = command[index]
    plain = Invocation(command[: index + 1], PurePath(word).name, command[index + 1 :])
    if plain.program in SHELLS:
        return _through_shell(plain, read_script, scripts) or plain
    is_certain = index == 0 or word.startswith("/")
    text = read_script(word) if scripts and is_certain else None
    inner = _of_script(text, read_script, scripts) if text is not None and _is_shell_script(text) else None
    return replace(inner, before=plain.before, arguments=plain.arguments) if inner else plain


def _through_shell(shell: Invocation, read_script: ReadScript, scripts: int) -> Invocation | None:
    """The engine behind `sh -c 'exec ENGINE ...'`; None if it cannot be told."""
    arguments = shell.arguments
    position = 0
    while position < len(arguments) and re.fullmatch(r"-[A-Za-z]+", arguments[position]):
        option = arguments[position]
        position += 2 if option.endswith("o") else 1
        if "c" in option and position < len(arguments):
            command = shell.before + arguments
            return _of_command_string(command, len(shell.before) + position, read_script, scripts)
    return None


def _of_command_string(
    command: tuple[str, ...], index: int, read_script: ReadScript, scripts: int
) -> Invocation | None:
    """The engine that the script at `index` becomes. What comes after the script are words for it alone."""
    found = _exec_at_the_end_of(command[index])
    words = found and _words(found["words"])
    if not found or not words:
        return None
    moves = _MOVING.search(command[index][: found.start()]) is not None
    inner = _taken_apart(tuple(words), _absolute(read_script) if moves else read_script, scripts)
    if not inner.program or inner.script is not None:
        return None
    start = found.start("words") + _end_of_word(found["words"], len(inner.before))
    script = index, command[index][:start], command[index][start:]
    return Invocation(command, inner.program, inner.arguments, inner.fixed, script)


def _of_script(text: str, read_script: ReadScript, scripts: int) -> Invocation | None:
    """The engine that a script becomes, with its own arguments in `fixed`; None if it cannot be told."""
    found = _exec_at_the_end_of(text)
    if found is None:
        return None
    own, _, last = found["words"].rpartition(" ")
    if last not in _ALL_ARGUMENTS or _LOOKS_AT_ARGUMENTS.search(text[: found.start("words")] + own):
        return None
    words = _words(own)
    # What comes in front of "$@" may be an option that waits for its value.
    if not words or _may_wait_for_its_value(words[-1]):
        return None
    inner = _taken_apart(tuple(words), _absolute(read_script), scripts - 1)
    if not inner.program or inner.script is not None:
        return None
    return replace(inner, arguments=(), fixed=inner.fixed + inner.arguments)


def _exec_at_the_end_of(text: str) -> re.Match[str] | None:
    text = text.rstrip().removesuffix(";").rstrip()
    found = _EXEC.search(text)
    return found if found and not _COMMENT.search(text[: found.start("words")]) else None


def _absolute(read_script: ReadScript) -> ReadScript:
    """For scripts that are started from who knows where."""
    return lambda word: read_script(word) if word.startswith("/") else None


def _may_wait_for_its_value(word: str) -> bool:
    return word.startswith("-") and word != "--" and "=" not in word


def _woven(text: str, words: Sequence[str], more_words: Sequence[str]) -> str:
    """`text`, a piece of a shell script that holds `words`, with what is new in `more_words` between them."""
    woven, rest, old = "", text, list(words)
    for word in more_words:
        if old and word == old[0]:
            old.pop(0)
            end = _end_of_word(rest, 1)
            woven, rest = woven + rest[:end], rest[end:]
        else:
            woven += " " + shlex.quote(word)
    return woven + rest


def _words(text: str) -> list[str] | None:
    try:
        return shlex.split(text)
    except ValueError:
        return None


def _end_of_word(text: str, number: int) -> int:
    """The index in `text` after its first `number` words, of which there are so many."""
    for end in range(len(text) + 1):
        at_end = end == len(text) or text[end].isspace()
        if at_end and len(_words(text[:end]) or ()) == number:
            return end
    return len(text)


def _is_shell_script(text: str) -> bool:
    shebang = _SHEBANG.match(text)
    return shebang is not None and shebang[1] in SHELLS
