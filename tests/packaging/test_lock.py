"""The lock of the service's dependencies, which `packaging/renew-lock` makes from pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "packaging" / "requirements.lock").read_text()
RENEW = "run packaging/renew-lock"


def locked() -> dict[str, str]:
    return {canonicalize_name(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==(\S+)", LOCK)}


def declared() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return [Requirement(line) for line in project["dependencies"]]


def test_each_dependency_is_locked_to_a_version_that_is_allowed() -> None:
    for requirement in declared():
        version = locked().get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not locked: {RENEW}"
        assert requirement.specifier.contains(version), f"{requirement} is locked to {version}: {RENEW}"


def test_nothing_is_locked_that_is_no_dependency_any_more() -> None:
    direct = re.findall(r"(?m)^([\w.-]+)==[^#]*?(?:# via agent-reporter|# via\n    #   agent-reporter)", LOCK)

    assert {canonicalize_name(name) for name in direct} == {
        canonicalize_name(requirement.name) for requirement in declared()
    }, RENEW


def test_everything_locked_has_hashes() -> None:
    for name, rest in re.findall(r"(?ms)^([\w.-]+)==(.*?)(?=^[\w.-]+==|\Z)", LOCK):
        assert "--hash=sha256:" in rest, name


def test_the_lock_names_no_index() -> None:
    assert "://" not in LOCK
    assert "index-url" not in LOCK
