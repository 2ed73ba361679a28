"""The wheel and the sdist."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="hatchling is not installed")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `packaging/build-dist` builds: twice, or it fails."""
    folder = tmp_path_factory.mktemp("dist")
    command = [ROOT / "packaging" / "build-dist", folder]
    done = subprocess.run(
        command,
        env={"PYTHON": sys.executable, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_two_builds_in_two_places_are_the_same_bits(dist: Path) -> None:
    assert sorted(file.suffix for file in dist.iterdir()) == [".gz", ".whl"]


def test_the_wheel_holds_the_package_alone(dist: Path) -> None:
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = wheel.namelist()

    assert "agent_reporter/cli/main.py" in names
    assert all(name.startswith(("agent_reporter/", "agent_reporter-")) for name in names)


def test_the_sdist_holds_what_the_package_is_built_and_tested_with(dist: Path) -> None:
    with tarfile.open(next(dist.glob("*.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}

    assert {"packaging/build-deb", "packaging/requirements.lock", "tests/packaging/test_dist.py"} <= names
