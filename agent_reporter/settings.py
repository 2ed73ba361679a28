"""Settings: what can be set, what is so by itself, and what goes together.

They come from the command line, then `AGENT_REPORTER_*` in the environment, then a TOML file, then defaults
(`setting_sources.py`). Secrets are never settings: a setting names the file that holds one.
"""

from __future__ import annotations

import json
import os
from dataclasses import MISSING, Field, dataclass, field, fields
from datetime import timedelta
from enum import StrEnum
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints
from urllib.parse import urlsplit

from agent_reporter.errors import ConfigurationError
from agent_reporter.model.backoff import Backoff
from agent_reporter.model.dialect import Dialect, PathSpelling, Progress
from agent_reporter.model.error_log import DEFAULT_MAX_RECORDS
from agent_reporter.model.record import Destination
from agent_reporter.setting_checks import checked_base_url, checked_secret_path, is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SYSTEM_FILE = Path("/etc/agent-reporter/agent-reporter.toml")
CREDENTIAL = "agent-reporter.token"
"""The name of the systemd credential that holds a token."""

NAME_IN_URL = r"^([^./?#\x00-\x1f\x7f]|\.[^./?#\x00-\x1f\x7f]|\.\.[^/?#\x00-\x1f\x7f])*\z"
"""What can stand in a URL's path as one part: no slash, and not a part that leads up."""


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


def _setting(*, default: Any = MISSING, default_factory: Any = MISSING, **described: Any) -> Any:
    """A setting, `described` as `setting_sources.read` takes it."""
    return field(default=default, default_factory=default_factory, metadata=described)


def _seconds(default: float, description: str) -> Any:
    bounds = {"gt": 0, "le": 365 * 86_400, "allow_inf_nan": False}
    return _setting(default=default, description=description, **bounds)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that can be set. Durations are seconds.

    `load` takes texts as well, and checks each value; made by hand, only types and what goes together are
    looked at. Raises ConfigurationError.
    """

    endpoint: str = _setting(
        after=checked_base_url,
        default="",
        description="URL of the control plane, without /v2. https, or http to a loopback address.",
    )
    project_id: str = _setting(
        default="",
        pattern=NAME_IN_URL,
        description="Project (tenant, account) that the restores belong to.",
    )
    agent_id: str | None = _setting(
        default=None,
        min_length=1,
        pattern=NAME_IN_URL,
        description="This host's agent id: sent as X-Agent-Id, and one poll then serves all its restores.",
    )
    token_file: Path | None = _setting(
        before=checked_secret_path,
        default=None,
        description="File that holds a token; read again when it changes. It must not be open to others.",
    )
    agent_password_file: Path | None = _setting(
        before=checked_secret_path,
        default=None,
        description="File that holds the agent's password, to sign in with agent_id.",
    )
    identity_endpoint: str | None = _setting(
        after=checked_base_url,
        default=None,
        description="URL of the Identity service, to sign in as a user; without /v2.0.",
    )
    identity_username: str | None = _setting(default=None, description="User name at the Identity service.")
    identity_api_key_file: Path | None = _setting(
        before=checked_secret_path, default=None, description="File that holds that user's API key."
    )
    spool_dir: Path = _setting(
        default_factory=lambda: _state_home() / "agent-reporter" / "spool",
        description="Directory of undelivered reports. Default: $XDG_STATE_HOME/agent-reporter/spool.",
    )
    report_interval: float = _seconds(
        1.0, "Progress is told at most once in so many seconds; states at once."
    )
    path_spelling: PathSpelling = _setting(
        default=PathSpelling.AUTHORITY,
        description="Spelling of four paths: authority, document, or auto (changes over after a 400).",
    )
    progress: Progress = _setting(
        default=Progress.AUTO,
        description="How counters travel before the result: auto, counters, with_state or final_only.",
    )
    stop_poll_interval: float = _seconds(
        2.0, "A stop request is looked for once in so many seconds while restores run."
    )
    idle_poll_interval: float = _seconds(
        30.0, "Every restore is itself read once in so many seconds, as events vanish."
    )
    request_timeout: float = _seconds(10.0, "A request is given up after so many seconds.")
    retry_base: float = _seconds(1.0, "The first retry waits up to so many seconds.")
    retry_cap: float = _seconds(60.0, "No retry waits longer, but for a Retry-After.")
    retry_after_cap: float = _seconds(240.0, "A longer Retry-After is taken as this.")
    retention: float = _seconds(7 * 86_400.0, "A result is tried to be delivered for so many seconds.")
    drain_timeout: float = _seconds(
        10.0, "At the end, deliveries get so many seconds; what is left stays spooled."
    )
    concurrency: int = _setting(
        default=20, ge=1, le=1_000, description="Requests in flight at once, for all restores together."
    )
    max_errors: int = _setting(
        default=DEFAULT_MAX_RECORDS,
        ge=0,
        le=10_000,
        description="Error records kept of a restore; all errors are counted.",
    )
    when_refused: WhenRefused = _setting(
        default=WhenRefused.CONTINUE,
        description="What the engine does after a 403, 404 or 405: continue unreported, or stop.",
    )
    daemon: DaemonUse = _setting(
        default=DaemonUse.AUTO,
        description="Report through the daemon of this host: auto (if its socket answers), always, never.",
    )
    socket: Path = _setting(
        default=Path("/run/agent-reporter/api.sock"), description="Unix socket of the daemon."
    )
    socket_group: str | None = _setting(
        default=None,
        min_length=1,
        description="Group that may use a socket which the daemon makes itself. Default: the daemon's own.",
    )
    way_out: Path | None = _setting(
        default=None,
        description="Unix socket of the way-out command, for a daemon without a network of its own.",
    )
    silence_limit: float = _seconds(
        3_600.0, "A restore of the daemon that names no process is lost after so many silent seconds."
    )
    max_restores: int = _setting(
        default=4_000,
        ge=1,
        le=1_000_000,
        description="Restores open in the daemon at once; one user gets half of them.",
    )
    max_connections: int = _setting(
        default=4_096,
        ge=4,
        le=1_000_000,
        description="Connections to the daemon at once; one user gets half of them.",
    )
    peer_rate: int = _setting(
        default=2_000, ge=1, le=1_000_000, description="Requests a second that the daemon takes of one user."
    )
    metrics_listen: str | None = _setting(
        default=None,
        description="Loopback address and port for the daemon's Prometheus metrics, such as 127.0.0.1:9187.",
    )
    metrics_file: Path | None = _setting(
        default=None, description="File for the daemon's metrics, for node_exporter's textfile collector."
    )
    allow_http: bool = _setting(
        default=False, description="Allow http to other than loopback addresses: tokens travel readable."
    )
    ca_file: Path | None = _setting(
        default=None, description="Certificates to trust instead of the system's, in PEM."
    )
    log_level: str = _setting(
        default="warning",
        pattern="^(debug|info|warning|error|critical)$",
        description="Least level of events written to stderr: debug, info, warning, error, critical.",
    )
    log_format: str = _setting(
        default="auto",
        pattern="^(auto|text|json|journal)$",
        description="Events as text, json, fields of the journal, or as suits stderr (auto).",
    )

    given: frozenset[str] = field(default=frozenset(), compare=False)
    """No setting: the names of those that somebody has set."""

    def __post_init__(self) -> None:
        for name, kind in kinds().items():
            value = getattr(self, name)
            if not isinstance(value, kind) and not (kind is float and isinstance(value, int)):
                wanted = getattr(kind, "__name__", str(kind))
                raise ConfigurationError(f"settings: {name}: has to be {wanted}. Settings.load takes text.")
        try:
            for name in ("endpoint", "identity_endpoint"):
                checked_base_url(getattr(self, name))
        except ValueError as problem:  # before anything quotes it: there may be a password in it
            raise ConfigurationError(f"settings: {name}: {problem}") from None
        for wrong in self._inconsistencies():
            raise ConfigurationError(f"settings: {wrong}")

    def _inconsistencies(self) -> Iterator[str]:
        for name in ("endpoint", "identity_endpoint"):
            url = getattr(self, name)
            if url and urlsplit(url).scheme == "http" and not self.allow_http and not is_loopback(url):
                yield (
                    f"{name}: {url} is http, and tokens would travel readable. Use https, or set allow_http."
                )
        if self.retry_cap < self.stop_poll_interval:
            yield "retry_cap: has to be at least stop_poll_interval"
        if self.agent_password_file is not None and self.agent_id is None:
            yield "agent_password_file: needs agent_id beside it"
        identity = (self.identity_endpoint, self.identity_username, self.identity_api_key_file)
        if any(identity) and not all(identity):
            yield (
                "identity_endpoint, identity_username and identity_api_key_file go together: set all or none"
            )

    @classmethod
    def load(cls, file: Path | None = None, /, **overrides: object) -> Settings:
        """Settings from all sources; `overrides` are the strongest.

        `file` has to exist if it is named; otherwise the system's file is read if it is there. Raises
        ConfigurationError, which names every setting that is wrong.
        """
        from agent_reporter import setting_sources  # noqa: PLC0415 - it weighs more than all else here

        if file is not None and not file.is_file():
            raise ConfigurationError(f"{file}: no such file. Name the settings file with --config.")
        declared = tuple((each, kinds()[each.name]) for each in described())
        values, given = setting_sources.read(declared, file or _system_file(), overrides)
        return cls(**values, given=given)

    def to_json(self) -> str:
        """All of it as text, for `from_json` in another process."""
        values = {each.name: getattr(self, each.name) for each in described()}
        return json.dumps({**values, "given": sorted(self.given)}, default=os.fspath)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """What `to_json` made."""
        values = json.loads(text)
        given = frozenset(values.pop("given"))
        return cls(**{name: _made(kinds()[name], value) for name, value in values.items()}, given=given)

    @cached_property
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


def described() -> tuple[Field[Any], ...]:
    """The settings: each with its name, its default, and in `metadata` what it means and what it can be."""
    return tuple(each for each in fields(Settings) if each.metadata)


@cache
def kinds() -> Mapping[str, Any]:
    """The type of each setting."""
    hints = get_type_hints(Settings)
    return {each.name: hints[each.name] for each in described()}


def _made(kind: Any, value: Any) -> Any:
    """A value of JSON as what it was."""
    if not isinstance(value, str):
        return value
    (made,) = {*(get_args(kind) or (kind,))} - {type(None)}
    return made(value)
