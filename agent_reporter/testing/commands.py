"""Checks of the facts about an engine, and of how its command is recognised and prepared."""

from __future__ import annotations

import re
import shlex
import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import Adapter
from agent_reporter.engines.command_line import taken_apart
from agent_reporter.testing import rules
from agent_reporter.testing.rules import shown

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from random import Random

    from agent_reporter.engines.command_line import Invocation
    from agent_reporter.testing.case import Case

MESSAGE_LANGUAGE = frozenset({"LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES"})
"""Variables that an adapter may change: messages in any other language cannot be read."""

_NAME = re.compile(r"[a-z][a-z0-9_-]*")
_UNCATCHABLE = frozenset({signal.SIGKILL, signal.SIGSTOP})
_PREFIXES: tuple[list[str], ...] = (
    *([], ["sudo", "-u", "me"], ["sudo", "-n", "--"], ["env", "A=b"], ["nice", "-n", "5", "ionice", "-c2"]),
    *(["nohup"], ["timeout", "-k", "5", "10m"], ["sudo", "-u"], ["sudo"]),
)
_STRANGE_COMMANDS: tuple[list[str], ...] = (
    *([], [""], ["", ""], ["-"], ["--"], ["/"], ["."], ["a/"], ["sudo"], ["sh", "-c"], ["sh", "-c", ""]),
    *(["sh", "-c", "exec '"], ["sh", "-c", 'exec $1 "$@"'], ["\udcff", "\udcff"], ["x" * 100_000]),
)
_STRANGE_WORDS = (
    *("", "-", "--", "-v", "-vvv", "--x=y", "--x", "=", "restore", "\udcff", "a b", "'", "\n", "é" * 9_999),
)
_ENVIRONMENTS: tuple[Mapping[str, str], ...] = (
    {},
    {"PATH": "/bin", "HOME": "/root", "LANG": "de_DE.UTF-8", "EMPTY": "", "ODD": "\udcff"},
)


def it_states_its_facts(case: Case) -> None:
    """Name, signal, and what the protocol class asks for."""
    adapter: object = case.adapter
    if not isinstance(adapter, Adapter):
        rules.FACTS.broken(f"{shown(adapter)} is no agent_reporter.engines.adapter.Adapter.")
    name: object = adapter.name
    number: object = adapter.stop_signal
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "auto":
        rules.FACTS.broken(f"Its name is {shown(name)}.")
    if not isinstance(number, signal.Signals) or number in _UNCATCHABLE:
        rules.FACTS.broken(f"Its stop_signal is {shown(number)}.")
    for fact in ("begins_at_once", "tells_counts"):
        if not isinstance(getattr(adapter, fact), bool):
            rules.FACTS.broken(f"Its {fact} is {shown(getattr(adapter, fact))}.")


def it_recognises_its_commands(case: Case) -> None:
    """Those that are given, whatever is in front of them."""
    for command in (*case.commands, *case.other_commands):
        for words in ([*command], ["sudo", *command], ["sh", "-c", f"exec {shlex.join(command)}"]):
            if not _recognised(case, taken_apart(words)):
                rules.RECOGNISES.broken(f"It did not recognise {shown(words)}.")


def it_prepares_commands(case: Case) -> None:
    """Each command that it recognises, in each environment: nothing is lost, and twice is once."""
    for invocation in _invocations(case):
        case.tally.commands += 1
        if _recognised(case, invocation):
            for environment in _ENVIRONMENTS:
                _check_prepared(case, invocation, environment)


def it_leaves_other_commands(case: Case) -> None:
    """Those that are given as commands that do not restore."""
    for command in case.other_commands:
        invocation = taken_apart(command)
        for environment in _ENVIRONMENTS:
            prepared = _prepared(case, invocation, environment)
            if prepared != (list(invocation.arguments), environment):
                rules.LEAVES_OTHER_COMMANDS.broken(f"It made {shown(prepared)} of {shown(command)}.")


def _check_prepared(case: Case, invocation: Invocation, environment: Mapping[str, str]) -> None:
    given = dict(environment)
    arguments, variables = _prepared(case, invocation, given)
    what = f"It made the arguments {shown(arguments)} of {shown(list(invocation.arguments))}"
    if given != environment:
        rules.CHANGES_NO_INPUT.broken(f"{what}, and changed the environment that it was given.")
    if (arguments, variables) != _prepared(case, invocation, given):
        rules.CHANGES_NO_INPUT.broken(f"{what}, and something else when it was asked again.")
    if not _holds_in_order(arguments, invocation.arguments):
        rules.KEEPS_ARGUMENTS.broken(f"{what}.")
    for name in environment.keys() - MESSAGE_LANGUAGE:
        if variables.get(name) != environment[name]:
            kept = variables.get(name)
            rules.KEEPS_ENVIRONMENT.broken(f"{what}, and {shown(kept)} of {name}={shown(environment[name])}.")
    twice = _prepared(case, replace(invocation, arguments=tuple(arguments)), variables)
    if twice != (arguments, variables):
        rules.PREPARES_ONCE.broken(f"{what}, and of these, asked again, {shown(twice)}.")


def _recognised(case: Case, invocation: Invocation) -> bool:
    answers = [_asked(case, invocation), _asked(case, invocation)]
    if answers not in ([True, True], [False, False]):
        rules.RECOGNISES.broken(f"It answered {shown(answers)} about {shown(invocation)}.")
    return bool(answers[0])


def _asked(case: Case, invocation: Invocation) -> object:
    try:
        return case.adapter.recognises(invocation)
    except Exception as problem:  # noqa: BLE001 - whatever it raises is the finding
        rules.NEVER_RAISES.broken(f"recognises raised {shown(problem)} for {shown(invocation)}.")


def _prepared(
    case: Case, invocation: Invocation, environment: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    try:
        arguments, variables = case.adapter.prepare(invocation, environment)
    except Exception as problem:  # noqa: BLE001 - whatever it raises is the finding
        rules.NEVER_RAISES.broken(f"prepare raised {shown(problem)} for {shown(invocation)}.")
    if not all(isinstance(word, str) for word in (*arguments, *variables, *variables.values())):
        rules.KEEPS_ARGUMENTS.broken(f"It made {shown((arguments, variables))} of {shown(invocation)}.")
    return list(arguments), dict(variables)


def _invocations(case: Case) -> Iterator[Invocation]:
    """The commands that are given as people write them, well and not so well, and what is no command."""
    random = case.random("commands")
    for command in _STRANGE_COMMANDS:
        yield taken_apart(command)
    for command in map(list, (*case.commands, *case.other_commands)):
        yield taken_apart(["sh", "-c", f"exec {shlex.join(command)}"])
        for prefix in _PREFIXES:
            yield taken_apart([*prefix, *command])
        for length in range(1, len(command)):
            yield taken_apart(command[:length])
            yield _in_a_script(command[:length], command[length:])
        for _ in range(100 * case.thoroughness):
            yield taken_apart(_with_strange_words(random, command))


def _in_a_script(fixed: Sequence[str], rest: Sequence[str]) -> Invocation:
    """A wrapper that holds the first words of a command, and is called with the others."""
    script = f'#!/bin/sh\nexec {shlex.join(fixed)} "$@"\n'
    return taken_apart(["./wrapper", *rest], {"./wrapper": script}.get)


def _with_strange_words(random: Random, command: Sequence[str]) -> list[str]:
    words = list(command)
    for _ in range(random.randrange(1, 4)):
        spot = random.randrange(1, len(words) + 1)
        words[spot : spot + random.randrange(2)] = [random.choice((*_STRANGE_WORDS, *command))]
    return words


def _holds_in_order(words: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether all `wanted` are in `words`, in their order."""
    rest = iter(words)
    return all(word in rest for word in wanted)
