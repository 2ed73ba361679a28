"""Settings: command line, then `AGENT_REPORTER_*` in the environment, then a TOML file, then defaults.

Secrets are never settings: a setting names the file that holds one.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from datetime import timedelta
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from agent_reporter.errors import ConfigurationError
from agent_reporter.model.backoff import Backoff
from agent_reporter.model.dialect import Dialect, PathSpelling, Progress
from agent_reporter.model.error_log import DEFAULT_MAX_RECORDS
from agent_reporter.model.record import Destination

SYSTEM_FILE = Path("/etc/agent-reporter/agent-reporter.toml")
CREDENTIAL = "agent-reporter.token"
"""The name of the systemd credential that holds a token."""

NAME_IN_URL = r"^([^./?#\x00-\x1f\x7f]|\.[^./?#\x00-\x1f\x7f]|\.\.[^/?#\x00-\x1f\x7f])*\z"
"""What can stand in a URL's path as one part: no slash, and not a part that leads up."""

Seconds = Annotated[float, Field(gt=0, le=365 * 86_400, allow_inf_nan=False)]

_file: ContextVar[Path | None] = ContextVar("settings_file", default=None)


class WhenRefused(StrEnum):
    """The setting `when_refused`."""

    CONTINUE = "continue"
    STOP = "stop"


class DaemonUse(StrEnum):
    """The setting `daemon`: whether a restore is reported through the daemon of this host."""

    AUTO = "auto"
    """Through the daemon if its socket answers, else by this process itself."""
    ALWAYS = "always"
    NEVER = "never"


def _state_home() -> Path:
    named = os.environ.get("XDG_STATE_HOME", "")
    if named.startswith("/"):
        return Path(named)
    try:
        return Path.home() / ".local" / "state"
    except RuntimeError:
        raise ValueError("there is no home directory for the spool: set spool_dir") from None


def _system_file() -> Path | None:
    """The system's file, if it is there for this user."""
    try:
        return SYSTEM_FILE if SYSTEM_FILE.is_file() else None
    except OSError:
        return None


class Settings(BaseSettings):
    """Everything that can be set. Durations are seconds."""

    model_config = SettingsConfigDict(
        env_prefix="AGENT_REPORTER_", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    endpoint: str = Field(
        default="",
        description="URL of the control plane, without /v2. https, or http to a loopback address.",
    )
    project_id: str = Field(
        default="",
        pattern=NAME_IN_URL,
        description="Project (tenant, account) that the restores belong to.",
    )
    agent_id: str | None = Field(
        default=None,
        min_length=1,
        pattern=NAME_IN_URL,
        description="This host's agent id: sent as X-Agent-Id, and one poll then serves all its restores.",
    )
    token_file: Path | None = Field(
        default=None,
        description="File that holds a token; read again when it changes. It must not be open to others.",
    )
    agent_password_file: Path | None = Field(
        default=None, description="File that holds the agent's password, to sign in with agent_id."
    )
    identity_endpoint: str | None = Field(
        default=None, description="URL of the Identity service, to sign in as a user; without /v2.0."
    )
    identity_username: str | None = Field(default=None, description="User name at the Identity service.")
    identity_api_key_file: Path | None = Field(
        default=None, description="File that holds that user's API key."
    )
    spool_dir: Path = Field(
        default_factory=lambda: _state_home() / "agent-reporter" / "spool",
        description="Directory of undelivered reports. Default: $XDG_STATE_HOME/agent-reporter/spool.",
    )
    report_interval: Seconds = Field(
        default=1.0, description="Progress is told at most once in so many seconds; states at once."
    )
    path_spelling: PathSpelling = Field(
        default=PathSpelling.AUTHORITY,
        description="Spelling of four paths: authority, document, or auto (changes over after a 400).",
    )
    progress: Progress = Field(
        default=Progress.AUTO,
        description="How counters travel before the result: auto, counters, with_state or final_only.",
    )
    stop_poll_interval: Seconds = Field(
        default=2.0, description="A stop request is looked for once in so many seconds while restores run."
    )
    idle_poll_interval: Seconds = Field(
        default=30.0, description="Every restore is itself read once in so many seconds, as events vanish."
    )
    request_timeout: Seconds = Field(default=10.0, description="A request is given up after so many seconds.")
    retry_base: Seconds = Field(default=1.0, description="The first retry waits up to so many seconds.")
    retry_cap: Seconds = Field(default=60.0, description="No retry waits longer, but for a Retry-After.")
    retry_after_cap: Seconds = Field(default=240.0, description="A longer Retry-After is taken as this.")
    retention: Seconds = Field(
        default=7 * 86_400.0, description="A result is tried to be delivered for so many seconds."
    )
    drain_timeout: Seconds = Field(
        default=10.0, description="At the end, deliveries get so many seconds; what is left stays spooled."
    )
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = Field(
        default=20, description="Requests in flight at once, for all restores together."
    )
    max_errors: Annotated[int, Field(ge=0, le=10_000)] = Field(
        default=DEFAULT_MAX_RECORDS, description="Error records kept of a restore; all errors are counted."
    )
    when_refused: WhenRefused = Field(
        default=WhenRefused.CONTINUE,
        description="What the engine does after a 403, 404 or 405: continue unreported, or stop.",
    )
    daemon: DaemonUse = Field(
        default=DaemonUse.AUTO,
        description="Report through the daemon of this host: auto (if its socket answers), always, never.",
    )
    socket: Path = Field(
        default=Path("/run/agent-reporter/api.sock"), description="Unix socket of the daemon."
    )
    socket_group: str | None = Field(
        default=None,
        min_length=1,
        description="Group that may use a socket which the daemon makes itself. Default: the daemon's own.",
    )
    way_out: Path | None = Field(
        default=None,
        description="Unix socket of the way-out command, for a daemon without a network of its own.",
    )
    silence_limit: Seconds = Field(
        default=3_600.0,
        description="A restore of the daemon that names no process is lost after so many silent seconds.",
    )
    max_restores: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=4_000, description="Restores open in the daemon at once; one user gets half of them."
    )
    max_connections: Annotated[int, Field(ge=4, le=1_000_000)] = Field(
        default=4_096, description="Connections to the daemon at once; one user gets half of them."
    )
    peer_rate: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        default=2_000, description="Requests a second that the daemon takes of one user."
    )
    metrics_listen: str | None = Field(
        default=None,
        description="Loopback address and port for the daemon's Prometheus metrics, such as 127.0.0.1:9187.",
    )
    metrics_file: Path | None = Field(
        default=None, description="File for the daemon's metrics, for node_exporter's textfile collector."
    )
    allow_http: bool = Field(
        default=False, description="Allow http to other than loopback addresses: tokens travel readable."
    )
    ca_file: Path | None = Field(
        default=None, description="Certificates to trust instead of the system's, in PEM."
    )
    log_level: str = Field(
        default="warning",
        pattern="^(debug|info|warning|error|critical)$",
        description="Least level of events written to stderr: debug, info, warning, error, critical.",
    )
    log_format: str = Field(
        default="auto",
        pattern="^(auto|text|json|journal)$",
        description="Events as text, json, fields of the journal, or as suits stderr (auto).",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the signature is pydantic's
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Where settings come from, the strongest first."""
        file = _file.get()
        if file is None:
            return init_settings, env_settings
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, file)

    @classmethod
    def load(cls, file: Path | None = None, /, **overrides: object) -> Settings:
        """Settings from all sources; `overrides` are the strongest.

        `file` has to exist if it is named; otherwise the system's file is read if it is there. Raises
        ConfigurationError, which names every setting that is wrong.
        """
        if file is not None and not file.is_file():
            raise ConfigurationError(f"{file}: no such file. Name the settings file with --config.")
        chosen = file or _system_file()
        before = _file.set(chosen)
        try:
            return cls(**overrides)  # type: ignore[arg-type]  # validated by pydantic
        except ValidationError as problem:
            raise ConfigurationError(_explain(problem, chosen)) from None
        except (OSError, ValueError, RecursionError) as problem:
            raise ConfigurationError(f"{chosen}: cannot be read as TOML: {problem}") from None
        finally:
            _file.reset(before)

    @field_validator("*")
    @classmethod
    def _is_possible_path(cls, value: object) -> object:
        if isinstance(value, Path) and "\0" in str(value):
            raise ValueError("has to be a path, and there is none with a NUL in it")
        return value

    @field_validator("token_file", "agent_password_file", "identity_api_key_file", mode="before")
    @classmethod
    def _is_no_secret(cls, value: object) -> object:
        if isinstance(value, str) and "/" not in value:  # not quoted: it may be the secret itself
            raise ValueError("has to be the path of a file, such as /etc/agent-reporter/secret or ./secret")
        return value

    @field_validator("endpoint", "identity_endpoint")
    @classmethod
    def _is_base_url(cls, url: str | None) -> str | None:
        if not url:
            return url
        parts = _parts_of(url)
        if parts is None or not url.isascii() or not url.isprintable() or " " in url:
            raise ValueError("has to be a URL such as https://backup.example.com")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must not hold a user, a password, a query or a fragment")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        for name in ("endpoint", "identity_endpoint"):
            url = getattr(self, name)
            if url and urlsplit(url).scheme == "http" and not self.allow_http and not _is_loopback(url):
                raise ValueError(
                    f"{name}: {url} is http, and tokens would travel readable. Use https, or set allow_http."
                )
        if self.retry_cap < self.stop_poll_interval:
            raise ValueError("retry_cap: has to be at least stop_poll_interval")
        if self.agent_password_file is not None and self.agent_id is None:
            raise ValueError("agent_password_file: needs agent_id beside it")
        identity = (self.identity_endpoint, self.identity_username, self.identity_api_key_file)
        if any(identity) and not all(identity):
            raise ValueError(
                "identity_endpoint, identity_username and identity_api_key_file go together: set all or none"
            )
        return self

    @property
    def destination(self) -> Destination:
        """The control plane and project; raises ConfigurationError if they are not set.

        Where only the daemon is to be used, it alone has to know where the control plane is.
        """
        for name in ("endpoint", "project_id"):
            if not getattr(self, name) and not (name == "endpoint" and self.daemon is DaemonUse.ALWAYS):
                raise ConfigurationError(
                    f"{name} is not set. Set it with --{name.replace('_', '-')}, "
                    f"AGENT_REPORTER_{name.upper()}, or in {SYSTEM_FILE}."
                )
        return Destination(self.endpoint, self.project_id)

    @property
    def backoff(self) -> Backoff:
        """How retries spread."""
        return Backoff(self.retry_base, self.retry_cap, self.retry_after_cap)

    @property
    def dialect(self) -> Dialect:
        """How the control plane is spoken to at first."""
        return Dialect.of_settings(self.path_spelling, self.progress)

    @property
    def retention_period(self) -> timedelta:
        """How long a result is tried to be delivered."""
        return timedelta(seconds=self.retention)


def _parts_of(url: str) -> SplitResult | None:
    """The parts of a URL of a server; None if it is none. Why is not said: that would quote a password."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if is_url else None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _explain(problem: ValidationError, file: Path | None) -> str:
    lines = []
    for error in problem.errors(include_url=False, include_input=False):
        name = ".".join(str(part) for part in error["loc"])
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "is no setting" + (f" (in {file}, or as an argument)" if file else "")
        lines.append(f"{name}: {message}" if name else message)
    return "settings: " + "; ".join(lines)
