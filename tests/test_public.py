"""The library's front: what it exports, and that it costs nothing until it is used."""

from __future__ import annotations

import subprocess
import sys
from importlib import resources

import pytest

import agent_reporter


@pytest.mark.parametrize("name", agent_reporter.__all__)
def test_everything_that_is_public_is_there(name: str) -> None:
    assert getattr(agent_reporter, name) is not None
    assert name in dir(agent_reporter)


def test_what_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Reporters'"):
        agent_reporter.Reporters  # type: ignore[attr-defined]  # noqa: B018 - that it raises is the point


def test_the_package_says_that_it_is_typed() -> None:
    assert resources.files(agent_reporter).joinpath("py.typed").is_file()


def test_importing_the_package_imports_nothing_that_is_not_used() -> None:
    script = "import sys, agent_reporter; print(*(name for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert not {"aiohttp", "pydantic", "rich", "structlog", "tenacity"} & set(loaded.split())


def test_status_needs_no_http() -> None:
    script = "import sys, agent_reporter.cli.status; print(*(name for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert not {"aiohttp", "tenacity"} & set(loaded.split())
