"""Checks of how a run is judged, beyond those that each outcome is put to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_reporter.engines.adapter import EngineError, Progress, StopCause, Stream
from agent_reporter.testing import rules
from agent_reporter.testing.hostile import ends_of_words, kinds
from agent_reporter.testing.rules import shown
from agent_reporter.testing.watched import WatchedReader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent_reporter.testing.case import Case
    from agent_reporter.testing.recordings import Line

PASSWORD = "pa55-w0rd"  # noqa: S105 - of nobody: it is looked for in what is shown
URL = f"https://me:{PASSWORD}@host/repository"
STATUSES = range(-64, 256)
STOPS = (None, *StopCause)


def recordings_end_as_they_did(case: Case) -> None:
    """Each recording, with what is said of it."""
    for recording in case.recordings:
        reader = WatchedReader(case, recording.name)
        observations = reader.read_all(recording.all_lines)
        outcome = reader.outcome(recording.returncode, recording.stop)
        errors = [each for each in [*observations, *outcome.errors] if isinstance(each, EngineError)]
        told: dict[str, object] = {
            "state": outcome.state,
            "reason": outcome.reason,
            "progress": Progress(**reader.counters),
            "errors": len({(error.path, error.type, error.code) for error in errors}),
        }
        for name, value in told.items():
            expected = getattr(recording, name)
            if expected is not None and value != expected:
                rules.AS_RECORDED.broken(
                    f"Of {recording.name}, exit status {recording.returncode}, the {name} is {shown(value)}, "
                    f"and should be {shown(expected)}: {shown(outcome.diagnostics)}"
                )


def any_exit_status_is_judged(case: Case) -> None:
    """Every status, with a stop and without, after nothing and after all of a recording; and asked again."""
    random = case.random("statuses")
    every = [(status, stop) for status in STATUSES for stop in STOPS]
    _check_endings(WatchedReader(case, "no output"), every)
    for recording in case.recordings:
        reader = WatchedReader(case, recording.name)
        reader.read_all(recording.all_lines)
        _check_endings(reader, random.sample(every, min(len(every), 100 * case.thoroughness)))


def no_password_is_told(case: Case) -> None:
    """A URL with a password in each place of each kind of line, and so many that any cut is within one."""
    random = case.random("passwords")
    spoilt = [
        (stream, f"{text[:spot]} {URL}{text[spot:]}")
        for stream, text in kinds(case.recordings)
        for spot in ends_of_words(text)
    ]
    for line in random.sample(spoilt, min(len(spoilt), 500 * case.thoroughness)):
        _check_words(case, [line])
    for stream in Stream:
        for _ in range(50 * case.thoroughness):
            urls = random.choice((4, 15, 150)) * f"{URL} "
            _check_words(case, [(stream, f"Fatal: {'x' * random.randrange(99)} {urls}")] * 20)


def _check_endings(reader: WatchedReader, endings: Sequence[tuple[int, StopCause | None]]) -> None:
    """That each of `endings` is judged twice in the same way, whatever was asked between."""
    first = {ending: reader.outcome(*ending) for ending in endings}
    for ending in reversed(endings):
        again = reader.outcome(*ending)
        if again != first[ending]:
            said = f"It said {shown(first[ending])} first, and {shown(again)} when asked again"
            rules.SAME_AGAIN.broken(f"{said}, for exit status {ending[0]} and stop {ending[1]!s}.")


def _check_words(case: Case, lines: Sequence[Line]) -> None:
    """That the password is not in what is said of a run that printed `lines`, however it ended."""
    reader = WatchedReader(case, "lines with a password")
    errors = [each for each in reader.read_all(lines) if isinstance(each, EngineError)]
    outcomes = [reader.outcome(returncode) for returncode in (0, 1, -9)]
    words = [outcome.diagnostics for outcome in outcomes]
    for error in [*errors, *(error for outcome in outcomes for error in outcome.errors)]:
        words += [error.path, error.description, error.details]
    for said in words:
        if PASSWORD[:5] in said:
            rules.NO_PASSWORDS.broken(f"It said {shown(said)} after {shown(list(lines))}.")
