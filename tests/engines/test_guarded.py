from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter.engines.adapter import Outcome, StopCause, Stream
from agent_reporter.engines.command_line import taken_apart
from agent_reporter.engines.guarded import Guarded
from agent_reporter.engines.observe import Observe
from agent_reporter.model.state import RestoreState

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = taken_apart(["tape", "restore"])


def raises(*_: object) -> None:
    raise KeyError("no")


def leaves(*_: object) -> None:
    sys.exit(9)


class Strange(Observe):
    """Answers as it is told to."""

    def __init__(self, **answers: Callable[..., Any]) -> None:
        super().__init__(None)
        for name, answer in answers.items():
            setattr(self, name, answer)


class StrangeReader:
    def __init__(self, answer: Callable[..., Any]) -> None:
        self.read_line = answer
        self.outcome = answer


@pytest.mark.parametrize("fault", [raises, leaves])
def test_an_adapter_that_fails_keeps_no_restore_from_its_start(fault: Callable[..., Any]) -> None:
    said: list[str] = []
    names = ("recognises", "restores_nothing", "prepare", "reader")
    guarded = Guarded(Strange(**dict.fromkeys(names, fault)), said.append)
    assert not guarded.recognises(COMMAND)
    assert not guarded.restores_nothing(COMMAND)
    assert guarded.prepare(COMMAND, {"A": "b"}) == (["restore"], {"A": "b"})
    assert guarded.reader().outcome(0, None).state is RestoreState.COMPLETED
    assert len(said) == len(names)
    assert all("The engine 'observe' raised" in sentence for sentence in said)


@pytest.mark.parametrize("answer", [(["a", 1], {}), (["a"], {"A": 1}), (None, {}), None])
def test_a_command_that_is_none_is_not_started(answer: object) -> None:
    guarded = Guarded(Strange(prepare=lambda *_: answer), lambda _: None)
    assert guarded.prepare(COMMAND, {}) == (["restore"], {})


@pytest.mark.parametrize("fault", [raises, leaves])
def test_a_reader_that_fails_is_told_of_once_and_the_end_is_told(fault: Callable[..., Any]) -> None:
    said: list[str] = []
    reader = Guarded(Strange(reader=lambda: StrangeReader(fault)), said.append).reader()
    assert list(reader.read_line(Stream.ERR, "x")) == list(reader.read_line(Stream.OUT, "x")) == []
    outcome = reader.outcome(0, StopCause.HOST)
    assert (outcome.state, outcome.reason) == (RestoreState.FAILED, "adapter_failed")
    assert "The engine ended with exit status 0." in outcome.diagnostics
    assert len(said) == 1


@pytest.mark.parametrize(
    "answer",
    [None, Outcome(RestoreState.IN_PROGRESS), Outcome(RestoreState.FAILED, errors=None)],  # type: ignore[arg-type]
)
def test_an_outcome_that_is_none_is_a_failure(answer: Outcome | None) -> None:
    reader = Guarded(Strange(reader=lambda: StrangeReader(lambda *_: answer)), lambda _: None).reader()
    assert reader.outcome(0, None).reason == "adapter_failed"
