"""The rules that an adapter keeps: each has a name, and a sentence that says why it is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

SHOWN_CHARACTERS = 300


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that is so of every adapter."""

    name: str
    why: str

    def broken(self, what: str) -> NoReturn:
        """Raise Breach: `what` says what the adapter did."""
        raise Breach(self, what)


class Breach(Exception):  # noqa: N818 - the kit makes a ConformanceError of it, which knows the rest
    """A rule was broken."""

    def __init__(self, rule: Rule, what: str) -> None:
        """Say which rule, and what the adapter did."""
        super().__init__(what)
        self.rule = rule
        self.what = what


class ConformanceError(AssertionError):
    """An adapter breaks a rule: which one, with what input, why the rule is there, and how to repeat it."""

    def __init__(self, adapter: object, breach: Breach, repeat: str) -> None:
        """`repeat` says how to come to the same input again."""
        super().__init__(
            f"{type(adapter).__name__} breaks the rule: {breach.rule.name}.\n"
            f"{breach.what}\n"
            f"The rule is there because {breach.rule.why}.\n"
            f"{repeat}"
        )
        self.rule = breach.rule
        self.what = breach.what


def shown(value: object) -> str:
    """`value` for a message: what is long is cut in its middle."""
    half = SHOWN_CHARACTERS // 2
    if isinstance(value, str) and len(value) > SHOWN_CHARACTERS:
        return f"{value[:half]!r} ... {value[-half:]!r} ({len(value):,} characters)"
    written = repr(value)
    return written if len(written) <= SHOWN_CHARACTERS else f"{written[:half]} ... {written[-half:]}"


FACTS = Rule(
    "it states its facts: a name of one word in lower case, a signal that can be caught, two booleans",
    "the name is typed on a command line, and the signal is the first one of a stop",
)
RECOGNISES = Rule(
    "it recognises its own commands, and says True or False to any other",
    "every adapter is asked about every command that is started",
)
KEEPS_ARGUMENTS = Rule(
    "it keeps all arguments in their order and only puts words between them",
    "what a person asked to restore is what has to be restored",
)
KEEPS_ENVIRONMENT = Rule(
    "it keeps the variables it is given, but for those of the language of messages",
    "passwords and settings of the engine are in them",
)
CHANGES_NO_INPUT = Rule(
    "it changes nothing that it is given, and prepares the same command the same way",
    "the same values are shown and used elsewhere",
)
PREPARES_ONCE = Rule(
    "it adds nothing to a command that has what it would add",
    "a person may have asked for it already, and most options must not stand twice",
)
LEAVES_OTHER_COMMANDS = Rule(
    "it leaves a command that does not restore as it is",
    "its output is for the person who asked for it",
)
NEVER_RAISES = Rule(
    "it never raises, whatever it is given",
    "what people type and what comes out of a pipe is cut, mixed and broken, and the restore goes on",
)
OBSERVES = Rule(
    "its reader tells only Begun, Progress and EngineError, with values of their types",
    "the reporter takes them as they are",
)
BEGINS_ONCE = Rule(
    "its reader tells at most once that the restore has begun, and never if it begins at once",
    "a restore begins once",
)
COUNTS = Rule(
    "its counters are whole numbers from 0 to 2**63-1",
    "the control plane takes no others",
)
COUNTS_UP = Rule(
    "its counters never go down",
    "people and the control plane take a count that goes down for a mistake",
)
TEXTS = Rule(
    "its texts can be encoded as UTF-8 and are bounded, and its types are tokens",
    "one record with a megabyte in it, or with a lone surrogate, holds up all the others",
)
STREAMS = Rule(
    "errors, last counters, reason and state are the same in any order of lines between the two streams",
    "two pipes are read at once, and nobody knows which line was printed first",
)
LINES_ALONE = Rule(
    "what a reader tells depends on its own lines alone, not on other readers, chunks, time or chance",
    "a pipe hands bytes over in any pieces and at any time, and one process may read several engines",
)
ONE_RECORD = Rule(
    "the same error printed three times is one record: path, type and code stay the same",
    "engines repeat an error for each attempt and each block",
)
MEMORY = Rule(
    "what its reader holds is bounded, however many lines there are, and however long",
    "a full disk makes millions of errors, and the reporter runs beside the restore",
)
CHEAP = Rule(
    "it reads a long line in a time that grows as the line does",
    "while a line is read the pipe fills, and then the engine waits: look for nested repetition in patterns",
)
FINAL = Rule(
    "its outcome is a final state, with the reason as a token, and sentences of at most 4 KiB of UTF-8",
    "it is the last word on the restore",
)
SAYS_WHY = Rule(
    "a restore that is not completed has a reason and a sentence about it",
    "somebody has to do something about it",
)
STOPPED_WHEN_ASKED = Rule(
    "a restore is stopped only if that was asked for, and then the reason says by whom",
    "an engine that somebody killed has failed, whatever its exit status",
)
ERRORS_COUNT = Rule(
    "a restore with errors is not completed",
    "exit status 0 and a summary say that the engine ended, not that all is there",
)
STATUS_COUNTS = Rule(
    "a restore is not completed when the exit status is not 0",
    "an engine that says that it failed is believed",
)
NO_PASSWORDS = Rule(
    "neither its diagnostics nor its errors hold a password of a URL",
    "they are shown to everybody who may see the restore",
)
SAME_AGAIN = Rule(
    "its outcome depends on the lines, the exit status and the stop alone",
    "the same run has to be judged the same way again",
)
AS_RECORDED = Rule(
    "each recording ends as it is said to end",
    "that is what the adapter is for",
)
