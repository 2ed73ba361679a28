from __future__ import annotations

import os
from dataclasses import FrozenInstanceError, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from agent_reporter import settings as module
from agent_reporter.errors import ConfigurationError
from agent_reporter.model.backoff import Backoff
from agent_reporter.model.dialect import Dialect, PathSpelling, Progress
from agent_reporter.model.patch import Spelling
from agent_reporter.model.record import Destination
from agent_reporter.settings import Settings, WhenRefused, described, kinds

SECONDS = [name for name, kind in kinds().items() if kind is float]
URLS = ["endpoint", "identity_endpoint"]
IDENTITY = {"identity_username": "jo", "identity_api_key_file": "/key"}


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("AGENT_REPORTER_"):
            monkeypatch.delenv(name)
    monkeypatch.setattr(module, "SYSTEM_FILE", tmp_path / "system.toml")


def file_with(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


# --- where settings come from -----------------------------------------------------------------------------


def test_the_command_line_beats_the_environment_beats_the_file_beats_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_with(tmp_path, 'project_id = "file"\nconcurrency = 2\nmax_errors = 2\n')
    monkeypatch.setenv("AGENT_REPORTER_PROJECT_ID", "environment")
    monkeypatch.setenv("AGENT_REPORTER_CONCURRENCY", "3")
    settings = Settings.load(file, project_id="command-line")
    assert (settings.project_id, settings.concurrency, settings.max_errors, settings.retry_base) == (
        "command-line",
        3,
        2,
        1.0,
    )


def test_the_systems_file_is_read_if_it_is_there_and_no_other_is_named(tmp_path: Path) -> None:
    assert Settings.load().project_id == ""
    (tmp_path / "system.toml").write_text('project_id = "system"')
    assert Settings.load().project_id == "system"
    assert Settings.load(file_with(tmp_path, "")).project_id == ""


def test_a_file_of_one_load_is_not_read_by_the_next(tmp_path: Path) -> None:
    assert Settings.load(file_with(tmp_path, 'project_id = "file"')).project_id == "file"
    assert Settings.load().project_id == ""
    with pytest.raises(ConfigurationError):
        Settings.load(file_with(tmp_path, "concurrency = 0"))
    assert Settings.load().concurrency == 20


def test_all_settings_can_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {
        "endpoint": "https://backup.example.com/",
        "token_file": "/run/token",
        "path_spelling": "auto",
        "progress": "final_only",
        "when_refused": "stop",
        "allow_http": "true",
        "retention": "3600",
    }
    for name, value in given.items():
        monkeypatch.setenv(f"AGENT_REPORTER_{name.upper()}", value)
    settings = Settings.load()
    assert settings.endpoint == "https://backup.example.com"
    assert settings.token_file == Path("/run/token")
    assert (settings.path_spelling, settings.progress) == (PathSpelling.AUTO, Progress.FINAL_ONLY)
    assert (settings.when_refused, settings.allow_http) == (WhenRefused.STOP, True)
    assert settings.retention_period == timedelta(hours=1)


def test_the_spool_is_in_the_home_of_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/var/lib/states")
    assert Settings.load().spool_dir == Path("/var/lib/states/agent-reporter/spool")
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", "/home/jo")
    assert Settings.load().spool_dir == Path("/home/jo/.local/state/agent-reporter/spool")


def test_a_file_that_is_named_and_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml: no such file.*--config"):
        Settings.load(tmp_path / "nowhere.toml")


@pytest.mark.parametrize(
    "content",
    [
        b"project_id = ",
        b"[[[",
        b"\xff\xfe",
        b"project_id = 1\nproject_id = 2\n",
        b"a = " + b"[" * 5_000 + b"]" * 5_000,
    ],
)
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"broken\.toml: cannot be read as TOML"):
        Settings.load(path)


@pytest.mark.parametrize("name", ["socket", "spool_dir", "ca_file", "metrics_file", "token_file"])
def test_a_path_with_a_nul_in_it_is_none(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}: has to be a path"):
        Settings.load(**{name: "/tmp/\0x"})


def test_what_was_loaded_cannot_be_changed() -> None:
    settings = Settings.load()
    with pytest.raises(FrozenInstanceError):
        settings.project_id = "another"  # type: ignore[misc]  # that it raises is the point


@pytest.mark.parametrize(
    "wrong",
    [{"spool_dir": "/spool"}, {"retry_cap": "60"}, {"progress": "auto"}, {"agent_id": 5}, {"socket": None}],
)
def test_what_is_made_by_hand_of_another_type_is_refused_with_its_name(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=f"settings: {name}: has to be .*Settings.load takes text"):
        Settings(**wrong)


def test_what_is_made_by_hand_and_does_not_go_together_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"settings: endpoint: http://10\.0\.0\.1 is http"):
        Settings(endpoint="http://10.0.0.1")
    with pytest.raises(ConfigurationError, match="settings: retry_cap"):
        replace(Settings(), retry_cap=1.0)


@pytest.mark.parametrize("url", ["http://jo:s3cret@host", "https://jo:s3cret@host", "http://[::1"])
@pytest.mark.parametrize("name", URLS)
def test_a_url_that_is_none_is_not_quoted_though_settings_are_made_by_hand(name: str, url: str) -> None:
    identity = {"identity_username": "jo", "identity_api_key_file": Path("/key")}
    with pytest.raises(ConfigurationError, match=f"settings: {name}: ") as caught:
        Settings(**{"identity_endpoint": "https://identity", **identity, name: url})  # type: ignore[arg-type]
    assert "s3cret" not in str(caught.value)


def test_what_was_given_is_known_from_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_REPORTER_CONCURRENCY", "20")
    settings = Settings.load(file_with(tmp_path, "max_errors = 2"), log_level="warning")
    assert settings.given == {"concurrency", "max_errors", "log_level"}
    assert Settings.load().given == {"concurrency"}


def test_settings_are_the_same_in_another_process(tmp_path: Path) -> None:
    path = os.fsdecode(b"/run/\xff/\xc3\xa9")
    chosen = {
        "progress": "final_only",
        "token_file": path,
        "allow_http": True,
        "retry_cap": 90,
        "agent_id": "h",
    }
    settings = Settings.load(file_with(tmp_path, 'when_refused = "stop"'), **chosen)
    again = Settings.from_json(settings.to_json())
    assert (again, again.given) == (settings, settings.given)
    assert [type(getattr(again, name)) for name in kinds()] == [
        type(getattr(settings, name)) for name in kinds()
    ]


# --- what is refused --------------------------------------------------------------------------------------

BAD: list[tuple[str, Any]] = [
    *[(name, value) for name in SECONDS for value in (0, -1, "nan", "inf", "soon", 366 * 86_400)],
    *[("concurrency", value) for value in (0, 1001, 1.5, "many")],
    *[("max_errors", value) for value in (-1, 10_001, "all")],
    ("path_spelling", "either"),
    ("progress", "sometimes"),
    ("when_refused", "panic"),
    ("allow_http", "perhaps"),
    ("log_level", "loud"),
    ("log_level", "INFO"),
    ("log_format", "xml"),
    ("project_id", 5),
    ("project_id", "/110011"),
    ("project_id", ".."),
    ("project_id", "a/b"),
    ("agent_id", ""),
    ("agent_id", "two\nlines"),
    *[
        (name, value)
        for name in URLS
        for value in (
            "backup.example.com",
            "ftp://backup.example.com",
            "https://",
            "https:///v2",
            "https://[::1",
            "https://host:99999",
            "https://host:port",
            "https://ho st",
            "https://host\n",
            "https://jo@host",
            "https://jo:pw@host",
            "https://:pw@host",
            "https://host?query",
            "https://host#fragment",
            "//host",
            5,
        )
    ],
]


def test_every_setting_that_is_a_time_is_tried() -> None:
    assert len(SECONDS) == 10


@pytest.mark.parametrize(("name", "value"), BAD)
def test_every_bad_value_is_refused_and_its_setting_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^settings: .*{name}: "):
        Settings.load(**{**IDENTITY, "identity_endpoint": "https://identity", name: value})


def test_all_bad_values_are_named_at_once(tmp_path: Path) -> None:
    file = file_with(tmp_path, 'concurrency = 0\nlog_level = "loud"\nnonsense = 1\n')
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(file, retry_base=-1)
    for name in ("concurrency", "log_level", "nonsense", "retry_base"):
        assert f"{name}: " in str(caught.value)


def test_an_unknown_setting_is_named_with_its_file(tmp_path: Path) -> None:
    file = file_with(tmp_path, 'tokenfile = "/run/token"')
    with pytest.raises(ConfigurationError, match=r"tokenfile: is no setting \(in .*settings\.toml"):
        Settings.load(file)
    with pytest.raises(ConfigurationError, match="tokenfile: is no setting"):
        Settings.load(tokenfile="/run/token")
    with pytest.raises(ConfigurationError, match="section"):
        Settings.load(file_with(tmp_path, "[section]\nproject_id = 'x'"))


@pytest.mark.parametrize("name", URLS)
@pytest.mark.parametrize(
    "url",
    [
        "http://backup.example.com",
        "HTTP://backup.example.com",
        "http://10.0.0.1",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://[2001:db8::1]",
        "http://0.0.0.0",
    ],
)
def test_http_is_refused_since_tokens_would_travel_readable(name: str, url: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{name}: .* is http.*allow_http"):
        Settings.load(**{**IDENTITY, "identity_endpoint": "https://identity", name: url})
    allowed = {**IDENTITY, "identity_endpoint": "https://identity", name: url, "allow_http": True}
    assert getattr(Settings.load(**allowed), name) == url


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:8080", "http://127.8.9.1", "http://localhost", "http://[::1]:80", "http://LOCALHOST"],
)
def test_http_to_a_loopback_address_is_allowed(url: str) -> None:
    assert Settings.load(endpoint=url).endpoint == url


def test_settings_that_need_each_other_are_refused_alone() -> None:
    with pytest.raises(ConfigurationError, match="agent_password_file: needs agent_id"):
        Settings.load(agent_password_file="/password")
    for alone in ({"identity_endpoint": "https://identity"}, {"identity_username": "jo"}, IDENTITY):
        with pytest.raises(
            ConfigurationError, match="identity_endpoint, identity_username and identity_api_key_file"
        ):
            Settings.load(**alone)
    assert Settings.load(identity_endpoint="https://identity", **IDENTITY).identity_username == "jo"


def test_the_cap_of_retries_is_at_least_the_polling_interval() -> None:
    with pytest.raises(ConfigurationError, match="retry_cap: has to be at least stop_poll_interval"):
        Settings.load(retry_cap=1, stop_poll_interval=2)
    assert Settings.load(retry_cap=2, stop_poll_interval=2).retry_cap == 2


@pytest.mark.parametrize("name", ["endpoint", "project_id"])
def test_what_is_not_set_is_said_when_it_is_needed_with_all_the_ways_to_set_it(name: str) -> None:
    settings = Settings.load(**{"endpoint": "https://host", "project_id": "110011", name: ""})
    with pytest.raises(ConfigurationError) as caught:
        _ = settings.destination
    for way in (
        f"{name} is not set",
        f"--{name.replace('_', '-')}",
        f"AGENT_REPORTER_{name.upper()}",
        ".toml",
    ):
        assert way in str(caught.value)


# --- secrets ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": "s3cret"},
        {"password": "s3cret"},
        {"endpoint": "https://jo:s3cret@host"},
        {"endpoint": "https://jo:s3cret@ho\u2100st"},
        {"endpoint": "http://jo:s3cret@host"},
        {"endpoint": "https://s3cret@host"},
        {"endpoint": "ftp://jo:s3cret@host"},
        {"endpoint": "https://host?token=s3cret"},
        {"endpoint": "https://host:s3cret"},
        {"identity_endpoint": "https://jo:s3cret@identity"},
        {"log_level": "s3cret"},
        {"token_file": ["s3cret"]},
    ],
)
def test_no_message_shows_what_may_be_a_secret_in_the_wrong_place(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**wrong)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value)


def test_a_file_with_a_secret_in_it_is_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(file_with(tmp_path, 'token = "s3cret"\nendpoint = "https://jo:s3cret@host"\n'))
    assert "s3cret" not in str(caught.value)


def test_settings_hold_names_of_files_and_no_secrets(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret")
    assert "s3cret" not in repr(Settings.load(token_file=tmp_path / "token"))


# --- what others make of them -----------------------------------------------------------------------------


def test_settings_become_what_other_parts_take() -> None:
    settings = Settings.load(
        endpoint="https://host/base/", project_id="110011", retry_base=2, retry_cap=30, retry_after_cap=40
    )
    assert settings.destination == Destination("https://host/base", "110011")
    assert settings.backoff == Backoff(2, 30, 40)
    assert settings.dialect == Dialect(Spelling.AUTHORITY, settled=True, progress=Progress.AUTO)


def test_every_setting_is_described() -> None:
    assert [each.name for each in described() if not each.metadata["description"]] == []
