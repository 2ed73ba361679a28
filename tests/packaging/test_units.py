"""The systemd units, as far as can be judged without a systemd that runs: `.ci/package` has one."""

from __future__ import annotations

import shutil
import subprocess
from configparser import RawConfigParser
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
THRESHOLD = "10"
"""Ten times the exposure that is allowed."""

analyzed = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")


def read(name: str) -> RawConfigParser:
    unit = RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # names keep their capitals
    unit.read(UNITS / name)
    return unit


@analyzed
def test_systemd_has_nothing_to_say_about_the_units(tmp_path: Path) -> None:
    for unit in [*UNITS.glob("*.service"), *UNITS.glob("*.socket")]:
        text = unit.read_text().replace("/usr/bin/agent-reporter", "/bin/true")  # ours is not installed here
        (tmp_path / unit.name).write_text(text)

    said = subprocess.run(
        ["systemd-analyze", "verify", *tmp_path.iterdir()], capture_output=True, text=True, check=False
    )

    assert said.stderr + said.stdout == ""


@analyzed
@pytest.mark.parametrize("unit", sorted(unit.name for unit in UNITS.glob("*.service")))
def test_the_exposure_of_a_service_is_low(unit: str) -> None:
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={THRESHOLD}", "--no-pager"]

    said = subprocess.run([*command, UNITS / unit], capture_output=True, text=True, check=False)

    assert said.returncode == 0, said.stdout


def test_the_service_that_sees_users_and_processes_has_no_network() -> None:
    service = read("agent-reporter.service")["Service"]

    assert service["PrivateNetwork"] == "yes"
    assert service["RestrictAddressFamilies"] == "AF_UNIX"
    assert "PrivateUsers" not in service  # it would see every user as nobody
    assert "ProtectProc" not in service  # it would not see the engines of other users
    assert "ProcSubset" not in service  # it would not see which boot this is


def test_the_service_with_the_network_sees_no_users_and_no_processes() -> None:
    service = read("agent-reporter-out.service")["Service"]

    assert service["PrivateUsers"] == "yes"
    assert service["ProtectProc"] == "invisible"
    assert "StateDirectory" not in service
    assert "LoadCredential" not in service


def test_a_restart_leaves_the_socket_in_its_place() -> None:
    assert "RuntimeDirectory" not in read("agent-reporter.service")["Service"]


def test_no_number_of_failures_ends_the_service_for_good() -> None:
    service = read("agent-reporter.service")

    assert service["Unit"]["StartLimitIntervalSec"] == "0"
    assert service["Service"]["Restart"] == "on-failure"
