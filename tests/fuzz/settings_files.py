"""Settings: a TOML file, variables and options, with anything in them.

An input is the file, a byte 0x1f, and lines NAME=VALUE: those in capital letters are variables, others options.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

from yarl import URL

from agent_reporter.cli.main import build_parser
from agent_reporter.cli.options import load_settings
from agent_reporter.control_plane.connection import answers
from agent_reporter.control_plane.http import tls_of
from agent_reporter.errors import ConfigurationError
from agent_reporter.settings import Settings, kinds
from tests.fuzz.fuzzing import Target, a_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.fuzz.fuzzing import Check

BETWEEN = b"\x1f"
EXAMPLE = Path(__file__).parent.parent.parent / "config" / "agent-reporter.toml"
SECRET = "hunter-2-hunter-2"
"""Nobody should write one into settings, and where somebody does no sentence repeats it."""
PREFIX = "AGENT_REPORTER_"
MAX_SENTENCE = 20_000


class Place:
    """Where the file is."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "settings.toml"
        self._parser = build_parser(["flush"])

    def settings_are_right_or_refused_in_a_sentence(self, data: bytes) -> None:
        """No other exception, no secret, nothing that steers a terminal; and what is taken can be used."""
        content, _, rest = data.partition(BETWEEN)
        self._file.write_bytes(content)
        variables, options = _given(rest)
        with patch.dict(os.environ, variables, clear=True):
            try:
                args = self._parser.parse_args(["flush", "--config", str(self._file), *options])
                settings = load_settings(args)
            except ConfigurationError as problem:
                sentence = str(problem)
                assert len(sentence) < MAX_SENTENCE
                assert SECRET not in sentence
            else:
                can_be_used(settings)


def can_be_used(settings: Settings) -> None:
    """What the program makes of settings first, without touching the disk."""
    with suppress(ConfigurationError):
        destination = settings.destination
        str(URL(destination.endpoint) / "v2" / destination.project_id / "restores")
    with suppress(ConfigurationError):
        tls_of(settings)
    answers(settings.socket)
    assert settings.backoff.delay(3, 0.5, 1e9) <= 1e9
    assert settings.retention_period.total_seconds() > 0
    again = Settings.from_json(settings.to_json())
    assert (again, again.given) == (settings, settings.given)


def _given(rest: bytes) -> tuple[dict[str, str], list[str]]:
    """Variables, and options that are there: what argparse refuses, it refuses."""
    variables, options = {}, []
    for word in rest.split(b"\n"):
        name, _, value = os.fsdecode(word.replace(b"\0", b"")).partition("=")
        if name.isupper():
            variables[PREFIX + name] = value
        elif name in kinds() and name != "allow_http":
            options.append(f"--{name.replace('_', '-')}={value}")
    return variables, options


@contextmanager
def _place() -> Iterator[Check]:
    with a_directory() as directory:
        yield Place(directory).settings_are_right_or_refused_in_a_sentence


def _seeds() -> Sequence[bytes]:
    shown = EXAMPLE.read_bytes()
    all_set = b"\n".join(line[1:] for line in shown.split(b"\n") if line.startswith(b"#") and b" = " in line)
    url = f"https://user:{SECRET}@backup.example.com".encode()
    return [
        shown,
        all_set,
        b'endpoint = "https://backup.example.com"\nproject_id = "1"\n\x1fPROGRESS=auto\nretention=5\nSOCKET=/a\n',
        b'endpoint = "%b"\ntoken = "%b"\n\x1fENDPOINT=%b\nendpoint=%b' % (url, SECRET.encode(), url, url),
        b'identity_endpoint = "http://[::1]:80/a"\nidentity_username = "me"\nidentity_api_key_file = "/k"\n',
        b'agent_id = "a"\nagent_password_file = "/p"\nca_file = "/nowhere/ca.pem"\nallow_http = true\n',
        b'[table]\na = [1, {b = 2.5e3}, 2020-01-01T00:00:00Z, 0xff, inf, nan, """\nx""", \'y\']\n[[more]]\na.b.c = 1\n',
        b"\x1fRETRY_CAP=1e3\nSTOP_POLL_INTERVAL=inf\nMAX_ERRORS=-0\nALLOW_HTTP=yes\nLOG_LEVEL=debug\n",
    ]


TARGETS = [
    Target(
        "settings",
        ("settings.py", "setting_checks.py", "setting_sources.py", "cli/options.py"),
        _seeds,
        _place,
    )
]
