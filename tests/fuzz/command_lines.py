"""What is typed: commands behind `run`, and patterns for `--error-lines`.

An input of commands is words with NUL between, then perhaps a byte 0x1f, and the text of the script that any
program is. One of patterns is the pattern, a byte 0x1f, and what an engine prints on stderr.
"""

from __future__ import annotations

import os
import shlex
import warnings
from contextlib import nullcontext
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Stream
from agent_reporter.engines.catalogue import AUTO, OWN, choose, own, to_start
from agent_reporter.engines.command_line import taken_apart
from agent_reporter.engines.error_lines import error_pattern
from agent_reporter.engines.observe import Observe
from agent_reporter.errors import ConfigurationError
from agent_reporter.testing.case import Case
from agent_reporter.testing.commands import _ENVIRONMENTS, _check_prepared, _recognised
from agent_reporter.testing.watched import WatchedReader
from tests.engines.test_conformance import NO_RESTORES, RESTORES
from tests.fuzz.fuzzing import Target

if TYPE_CHECKING:
    from collections.abc import Sequence

BETWEEN = b"\x1f"
PREFIXES = (
    "",
    "sudo -u me ",
    "env A=b nice -n 5 ",
    "timeout -k 5 10m ",
    "/usr/bin/sudo -n -- ",
    "taskset 0x1 ",
)
SCRIPTS = (
    '#!/bin/sh\nexec restic -r /r "$@"\n',
    '#!/bin/bash\nset -e\ncd /srv\nexec sudo /opt/borg --lock-wait 5 "${@}";\n',
    '#!/usr/bin/env bash\nexec ./more "$@"\n',
)
PATTERNS = (
    "^mytool: (?P<path>.*): failed",
    r"^ERROR: \[(?P<path>[^\]]+)\] (not found|denied)$",
    r"(?i)\berror\b|cannot (read|write) '(?P<path>[^']*)'",
    r"\d{1,3}(\.\d{1,3}){3}: .*refused",
    r"(?>a+)b++(?=c)(?!d)(?P<path>e)?(?(path)f|g)",
)


def a_command_is_taken_apart_and_put_together_again(data: bytes) -> None:
    """Nothing raises or is lost, and what an adapter puts between are words that it puts there once."""
    words, _, script = data.partition(BETWEEN)
    command = [os.fsdecode(word) for word in words.split(b"\0")] if words else []
    text = script.decode("utf-8", "replace")
    invocation = taken_apart(command, lambda _: text or None)
    assert invocation.with_arguments(invocation.arguments) == command
    invocation.keeps_its_process  # noqa: B018 - it has to be told of any command
    for adapter in map(own, OWN):
        case = Case(adapter, (), (), (), 0, 1)
        assert adapter.restores_nothing(invocation) in {True, False}
        if _recognised(case, invocation):
            for environment in _ENVIRONMENTS:
                _check_prepared(case, invocation, environment)
    for word in (*to_start(choose(AUTO, invocation), invocation, dict(_ENVIRONMENTS[1]))[0],):
        os.fsencode(word)


def a_pattern_is_refused_in_a_sentence_or_finds_errors_in_time(data: bytes) -> None:
    """Whatever the pattern, and whatever the lines."""
    pattern, _, printed = data.partition(BETWEEN)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python, about what a pattern may mean one day
            compiled = error_pattern(os.fsdecode(pattern))
    except ConfigurationError as problem:
        sentence = str(problem)
        assert sentence.startswith("--error-lines ")
        assert len(sentence) < 1_000
        return
    reader = WatchedReader(Case(Observe(compiled), (), (), (), 0, 1), "fuzzed lines")
    for line in printed.decode("utf-8", "replace").split("\n"):
        reader.read((Stream.ERR, line))
        if line:
            reader.read((Stream.ERR, line * (3_000 // len(line))))
    reader.outcome(0)


def _commands() -> Sequence[bytes]:
    commands = [command for some in (*RESTORES.values(), *NO_RESTORES.values()) for command in some]
    plain = [shlex.split(prefix + command) for command in commands for prefix in PREFIXES]
    in_shells = [["sh", "-c", f"exec {command}", "sh"] for command in commands]
    words = [b"\0".join(map(os.fsencode, command)) for command in [*plain, *in_shells]]
    return [*words, *(some + BETWEEN + text.encode() for text in SCRIPTS for some in words[::7])]


def _patterns() -> Sequence[bytes]:
    lines = b"mytool: /srv/a: failed\nERROR: [/a] denied\ncannot write '/srv/b'\n10.0.0.1: refused\nabbbcef\n"
    return [pattern.encode() + BETWEEN + lines for pattern in PATTERNS]


TARGETS = [
    Target(
        "command-lines",
        (
            *("engines/command_line.py", "engines/prefixes.py", "engines/options.py"),
            *(f"engines/{name}.py" for name in OWN),
        ),
        _commands,
        lambda: nullcontext(a_command_is_taken_apart_and_put_together_again),
    ),
    Target(
        "error-lines",
        ("engines/observe.py",),
        _patterns,
        lambda: nullcontext(a_pattern_is_refused_in_a_sentence_or_finds_errors_in_time),
    ),
]
