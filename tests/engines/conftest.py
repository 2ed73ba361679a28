"""A watcher of processes, and one repository a session, made by the oldest restic so that all can read it."""

from __future__ import annotations

import pytest

from tests.engines.real_restic import RealRestic, Repository, binaries, make_repository
from tests.engines.watcher import Watcher


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    oldest: RealRestic = binaries()[0]
    return make_repository(tmp_path_factory.mktemp("restic"), oldest, files=30, file_bytes=200_000)


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()
