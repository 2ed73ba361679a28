"""A small adapter that is right, and one for each rule that breaks it, as people do."""

from __future__ import annotations

import json
import random
import re
import signal
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, cast

from agent_reporter.engines.adapter import Begun, EngineError, Outcome, Progress, StopCause, Stream
from agent_reporter.engines.fields import count, parse_object, path, text
from agent_reporter.engines.judgement import Endings, Evidence, judge
from agent_reporter.engines.last_words import LastWords
from agent_reporter.model.state import RestoreState
from agent_reporter.testing import Recording, rules

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent_reporter.engines.adapter import Observation
    from agent_reporter.engines.command_line import Invocation
    from agent_reporter.testing import Rule

    Prepared = tuple[list[str], dict[str, str]]

COMMANDS = [["sound", "restore", "x", "-v"], ["/opt/sound", "-q", "restore", "x"]]
OTHER_COMMANDS = [["sound", "list"]]
RECORDINGS = [
    Recording(
        out=b'{"done":10,"of":30}\n{"done":20,"of":30}\n{"done":30,"of":30}\n{"end":true}\n',
        state="completed",
        progress=Progress(30, None, 30),
        errors=0,
        name="well",
    ),
    Recording(
        out=b'{"done":10,"of":30}\r{"done":30,"of":30}\n{"end":true}\n',
        err=b'{"error":"No space left","path":"/t/a"}\n{"error":"No space left","path":"/t/\xc3\xa4"}\nwarning\n',
        returncode=1,
        state="completed_with_errors",
        reason="unable_to_process_some_files",
        errors=2,
        name="some",
    ),
    Recording(out=b'{"done":10,"of":30}\n', err=b"killed\n", returncode=-15, state="failed", name="killed"),
    Recording(
        out=b'{"done":10}\n', returncode=130, stop=StopCause.CONTROL_PLANE, state="stopped", name="stopped"
    ),
]

_ENDINGS = Endings(engine="sound", partial=frozenset({1}))


class SoundReader:
    """Lines of JSON: `done` and `of` in bytes, `error` and `path`, and `end`."""

    def __init__(self) -> None:
        self.begun = False
        self.done = 0
        self.total = 0
        self.errors = 0
        self.ended = False
        self.last_words = LastWords()

    def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
        message = parse_object(line)
        if message is None and stream is Stream.ERR:
            self.last_words.add(line)
        elif message is None:
            return
        elif "error" in message:
            yield self.error(message)
        elif "done" in message:
            yield from self.begin()
            yield self.progress(message)
        elif "end" in message:
            self.ended = True

    def begin(self) -> list[Begun]:
        begun, self.begun = self.begun, True
        return [] if begun else [Begun()]

    def progress(self, message: dict[str, Any]) -> Progress:
        self.done = max(self.done, count(message["done"]))
        self.total = max(self.total, count(message.get("of")))
        return Progress(bytes_restored=self.done, total_bytes=self.total)

    def error(self, message: dict[str, Any]) -> EngineError:
        self.errors += 1
        return EngineError(path(message.get("path")), "restore_error", text(message["error"]))

    def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
        evidence = Evidence(errors=self.errors, went_through=self.ended, context=str(self.last_words))
        return judge(_ENDINGS, evidence, returncode, stop)


class Sound:
    """Nothing is wrong with it."""

    name = "sound"
    stop_signal = signal.SIGTERM
    ends_its_helpers = True
    begins_at_once = False
    tells_counts = True
    made: ClassVar[type[SoundReader]] = SoundReader

    def recognises(self, invocation: Invocation) -> bool:
        return invocation.program == "sound"

    def restores_nothing(self, invocation: Invocation) -> bool:  # noqa: ARG002 - others look at it
        return False

    def prepare(self, invocation: Invocation, environment: Mapping[str, str]) -> Prepared:
        words, variables = list(invocation.arguments), dict(environment)
        all_words = [*invocation.fixed, *words]
        if "restore" in all_words and "--json" not in all_words:
            words.insert(0, "--json")
        return words, variables

    def reader(self) -> SoundReader:
        return self.made()


class Broken(Sound):
    """One of those below. `breaks` is the rule that the kit has to name."""

    breaks: ClassVar[Rule]


class CannotBeStopped(Broken):
    breaks = rules.FACTS
    stop_signal = signal.SIGKILL


class KnowsOnePath(Broken):
    breaks = rules.RECOGNISES

    def recognises(self, invocation: Invocation) -> bool:
        return invocation.before == ("sound",)


class DropsAnArgument(Broken):
    breaks = rules.KEEPS_ARGUMENTS

    def prepare(self, invocation: Invocation, environment: Mapping[str, str]) -> Prepared:
        words, variables = super().prepare(invocation, environment)
        return [word for word in words if word != "-q"], variables


class CleansTheEnvironment(Broken):
    breaks = rules.KEEPS_ENVIRONMENT

    def prepare(self, invocation: Invocation, environment: Mapping[str, str]) -> Prepared:
        return super().prepare(invocation, {"PATH": environment.get("PATH", "")})


class WritesIntoTheEnvironment(Broken):
    breaks = rules.CHANGES_NO_INPUT

    def prepare(self, invocation: Invocation, environment: Mapping[str, str]) -> Prepared:
        cast("dict[str, str]", environment)["SOUND_PROGRESS"] = "1"
        return super().prepare(invocation, environment)


class AsksTwice(Broken):
    breaks = rules.PREPARES_ONCE

    def prepare(self, invocation: Invocation, environment: Mapping[str, str]) -> Prepared:
        words = ["--json"] if "restore" in (*invocation.fixed, *invocation.arguments) else []
        return [*words, *invocation.arguments], dict(environment)


class ChangesEveryCommand(Broken):
    breaks = rules.LEAVES_OTHER_COMMANDS

    def prepare(self, invocation: Invocation, environment: Mapping[str, str]) -> Prepared:
        words = [] if "--json" in (*invocation.fixed, *invocation.arguments) else ["--json"]
        return [*words, *invocation.arguments], dict(environment)


class RaisesOnBadJson(Broken):
    breaks = rules.NEVER_RAISES

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
            if line.startswith("{"):
                json.loads(line)
            return super().read_line(stream, line)


class TellsText(Broken):
    breaks = rules.OBSERVES

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
            yield from super().read_line(stream, line)
            if line == "warning":
                yield cast("Observation", line)


class BeginsWithEachLine(Broken):
    breaks = rules.BEGINS_ONCE

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def begin(self) -> list[Begun]:
            return [Begun()]


class BelievesNumbers(Broken):
    breaks = rules.COUNTS

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def progress(self, message: dict[str, Any]) -> Progress:
            number = message["done"]
            progress = super().progress(message)
            if isinstance(number, (int, float)):
                return progress._replace(bytes_restored=cast("int", number))
            return progress


class CountsDown(Broken):
    breaks = rules.COUNTS_UP

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def progress(self, message: dict[str, Any]) -> Progress:
            return super().progress(message)._replace(bytes_restored=count(message["done"]))


class PassesSurrogatesOn(Broken):
    breaks = rules.TEXTS

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def error(self, message: dict[str, Any]) -> EngineError:
            self.errors += 1
            return EngineError(str(message.get("path"))[:1000], "restore_error", text(message["error"]))


class PassesMegabytesOn(Broken):
    breaks = rules.TEXTS

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def error(self, message: dict[str, Any]) -> EngineError:
            whole = str(message["error"]).encode(errors="replace").decode()
            return super().error(message)._replace(description=whole)


class SharesItsState(Broken):
    breaks = rules.LINES_ALONE

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        seen: ClassVar[set[str]] = set()

        def error(self, message: dict[str, Any]) -> EngineError:
            error = super().error(message)
            first = error.path not in self.seen
            self.seen.add(error.path)
            return error if first else error._replace(details="again")


class TellsByChance(Broken):
    breaks = rules.LINES_ALONE

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def error(self, message: dict[str, Any]) -> EngineError:
            return super().error(message)._replace(details=f"number {random.random()}")


class BelievesTheLastStream(Broken):
    breaks = rules.STREAMS

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        last: Stream | None = None

        def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
            self.last = stream
            return super().read_line(stream, line)

        def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
            if returncode == 1 and self.last is Stream.OUT:
                return Outcome(RestoreState.FAILED, "engine_failed", "sound failed.")
            return super().outcome(returncode, stop)


class NumbersItsErrors(Broken):
    breaks = rules.ONE_RECORD

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def error(self, message: dict[str, Any]) -> EngineError:
            error = super().error(message)
            return error._replace(code=self.errors)


class KeepsEveryPath(Broken):
    breaks = rules.MEMORY

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def __init__(self) -> None:
            super().__init__()
            self.paths: list[str] = []

        def error(self, message: dict[str, Any]) -> EngineError:
            error = super().error(message)
            self.paths.append(error.path)
            return error


class KeepsTheLastLines(Broken):
    breaks = rules.MEMORY

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
            self.lines = [*self.lines, line][-20:]
            return super().read_line(stream, line)


class ReadsAgainAndAgain(Broken):
    breaks = rules.CHEAP

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
            if re.search(r"\w+ failed: ", line):
                self.errors += 1
            return super().read_line(stream, line)


class SaysEverything(Broken):
    breaks = rules.FINAL

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        line = ""

        def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
            self.line = line
            return super().read_line(stream, line)

        def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
            outcome = super().outcome(returncode, stop)
            if outcome.state is RestoreState.FAILED:
                return Outcome(outcome.state, outcome.reason, f"sound failed: {self.line}")
            return outcome


class HasNoListOfErrors(Broken):
    breaks = rules.FINAL

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
            outcome = super().outcome(returncode, stop)
            return replace(outcome, errors=cast("tuple[EngineError, ...]", None))


class SaysNothing(Broken):
    breaks = rules.SAYS_WHY

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
            outcome = super().outcome(returncode, stop)
            return outcome if outcome.state is RestoreState.STOPPED else Outcome(outcome.state)


class StoppedByItself(Broken):
    breaks = rules.STOPPED_WHEN_ASKED

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
            if returncode in {130, 143}:
                return Outcome(RestoreState.STOPPED, "stop_requested", "sound was stopped.")
            return super().outcome(returncode, stop)


class ForgivesErrors(Broken):
    breaks = rules.ERRORS_COUNT

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
            return super().outcome(returncode, stop) if returncode else Outcome(RestoreState.COMPLETED)


class BelievesTheSummary(Broken):
    breaks = rules.STATUS_COUNTS

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
            if self.ended and not self.errors:
                return Outcome(RestoreState.COMPLETED)
            return super().outcome(returncode, stop)


class TellsPasswords(Broken):
    breaks = rules.NO_PASSWORDS

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        line = ""

        def read_line(self, stream: Stream, line: str) -> Iterable[Observation]:
            self.line = line[:500].encode(errors="replace").decode()
            return super().read_line(stream, line)

        def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
            outcome = super().outcome(returncode, stop)
            if outcome.state is RestoreState.FAILED:
                return Outcome(outcome.state, outcome.reason, f"sound failed: {self.line}")
            return outcome


class TellsPasswordsInDetails(Broken):
    breaks = rules.NO_PASSWORDS

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def error(self, message: dict[str, Any]) -> EngineError:
            whole = str(message["error"])[:500].encode(errors="replace").decode()
            return super().error(message)._replace(details=whole)


class ForgetsWhenAsked(Broken):
    breaks = rules.SAME_AGAIN

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
            outcome = super().outcome(returncode, stop)
            self.last_words = LastWords()
            return outcome


class TakesPartForAll(Broken):
    breaks = rules.AS_RECORDED

    class made(SoundReader):  # noqa: N801 - it takes the place of an attribute
        def outcome(self, returncode: int, stop: StopCause | None) -> Outcome:
            self.ended = False
            evidence = Evidence(errors=self.errors, context=str(self.last_words))
            return judge(Endings(engine="sound"), evidence, returncode, stop)


BROKEN = sorted(Broken.__subclasses__(), key=lambda each: each.__name__)
