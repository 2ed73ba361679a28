"""What all tests share: the engines that are found on this machine."""

from __future__ import annotations

import signal

import pytest

from agent_reporter import logs
from tests.engines.real_restic import binaries

MISSING = "no restic: put restic-* into a directory and name it in AGENT_REPORTER_TEST_ENGINES"


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_secrets", {})
    monkeypatch.setattr(logs, "_forms", ())


def pytest_configure() -> None:
    """A shell starts what runs in the background with SIGINT ignored, and all that it starts inherits that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `restic` runs with each version there is."""
    if "restic" in metafunc.fixturenames:
        found = binaries() or [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="restic")]
        metafunc.parametrize("restic", found, ids=str if binaries() else None, scope="session")
