"""A watcher of processes, and one repository a session, made by the oldest restic so that all can read it."""

from __future__ import annotations

import pytest

from tests.engines.real_restic import RealRestic, Repository, binaries, make_repository
from tests.engines.watcher import Watcher

MISSING = "no restic: put restic-* into a directory and name it in AGENT_REPORTER_TEST_ENGINES"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "restic" in metafunc.fixturenames:
        found = binaries() or [pytest.param(None, marks=pytest.mark.skip(reason=MISSING), id="restic")]
        metafunc.parametrize("restic", found, ids=str if binaries() else None, scope="session")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    oldest: RealRestic = binaries()[0]
    return make_repository(tmp_path_factory.mktemp("restic"), oldest, files=30, file_bytes=200_000)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()
