"""The short form of the fuzzers: some hundred inputs for each target, the same each time, and what once failed."""

from __future__ import annotations

from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.fuzz.failed_inputs import failed_inputs
from tests.fuzz.fuzzing import Target, failure_of, search, shrunk
from tests.fuzz.mutation import MAX_BYTES, mutated
from tests.fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fuzz.fuzzing import Check

INPUTS = 150
ONCE = failed_inputs()


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_does_no_harm(name: str) -> None:
    target = TARGETS[name]
    random, seeds = Random(name), target.seeds()
    inputs = [data for failed, data in ONCE if failed == name]
    inputs += random.sample(seeds, min(20, len(seeds)))
    inputs += [mutated(random, random.choice(seeds), seeds) for _ in range(INPUTS)]
    with target.open() as check:
        failures = [failure for data in inputs if (failure := failure_of(check, data)) is not None]
    for failure in failures[:3]:
        print(f"{failure.what}\n  at {failure.place}\n  {failure.data[:2_000]!r}")
    assert not failures


def test_what_once_failed_is_of_targets_that_there_are() -> None:
    assert {name for name, _ in ONCE} <= set(TARGETS)


def stumbles(data: bytes) -> None:
    """Each of its steps is one bit away from the one before, and all together are far from the seed."""
    if data[:1] != b"c":
        return
    if data[1:2] != b"c":
        return
    if data[2:3] != b"c":
        return
    if data[3:4] != b"c":
        return
    raise ValueError(data)


@contextmanager
def stumbling() -> Iterator[Check]:
    yield stumbles


STUMBLING = Target("stumbling", (__file__,), lambda: [b"aaaaaaaa"], stumbling)


def test_the_search_comes_by_feedback_to_what_chance_does_not_find_and_makes_it_small() -> None:
    found = search(STUMBLING, seed=0, seconds=60, executions=20_000)
    [failure] = found.failures.values()
    assert failure.data == b"cccc"
    assert failure.what == "ValueError: b'cccc'"
    taken, _ = found.branches.of_all()
    assert taken == 8


def test_the_same_seed_tries_the_same_inputs() -> None:
    first, again = (search(STUMBLING, seed=3, seconds=60, executions=3_000) for _ in range(2))
    assert first.corpus == again.corpus
    assert search(STUMBLING, seed=4, seconds=60, executions=3_000).corpus != first.corpus


def test_an_input_is_made_small_only_as_long_as_it_fails_in_the_same_place() -> None:
    def two_ways(data: bytes) -> None:
        assert b"no" not in data
        if b"yes" in data:
            raise ValueError(data)

    failure = failure_of(two_ways, b"n yes o")
    assert failure is not None
    assert shrunk(two_ways, failure).data == b"yes"


def test_spoilt_inputs_are_bounded_and_different() -> None:
    random = Random(0)
    inputs = {mutated(random, b'{"a": [1, "b"], "c": null}\n', [b"x"]) for _ in range(1_000)}
    assert len(inputs) > 700
    assert max(map(len, inputs)) <= MAX_BYTES
