"""What all tests share: the engines that are found on this machine, and which tests are traced for coverage."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from agent_reporter import logs
from tests.engines.real_restic import binaries

if TYPE_CHECKING:
    from collections.abc import Generator

MISSING = "no restic: put restic-* into a directory and name it in AGENT_REPORTER_TEST_ENGINES"

HERE = Path(__file__).parent
TRACED = [HERE / name for name in ("delivery", "model", "test_keeper.py", "test_spool.py")]
"""The tests that have to take every branch that is measured; to trace the others as well makes them twice as dear."""

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")  # a busy machine makes no property fail


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_secrets", {})
    monkeypatch.setattr(logs, "_forms", ())


def pytest_configure() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and all that it starts inherits that.

    What events need is loaded here, as a reporter and the daemon load it: in a loop it would block.
    """
    logs.load()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Not by pytest-cov's `no_cover`: in a worker of xdist, a tracer from before it takes over then."""
    tracer, of_threads = sys.gettrace(), threading.gettrace()
    if tracer is None or any(item.path.is_relative_to(traced) for traced in TRACED):
        return (yield)
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        threading.settrace(of_threads)
        sys.settrace(tracer)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `restic` runs with each version there is."""
    if "restic" in metafunc.fixturenames:
        found = binaries() or [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="restic")]
        metafunc.parametrize("restic", found, ids=str if binaries() else None, scope="session")
