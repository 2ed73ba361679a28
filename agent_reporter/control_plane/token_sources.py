"""Where tokens come from: a file, a systemd credential, an agent's password, an Identity user's API key."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from yarl import URL

from agent_reporter.control_plane.secret_file import read_secret
from agent_reporter.errors import ConfigurationError, MalformedError, SignInError, TransportError
from agent_reporter.logs import conceal
from agent_reporter.model import verdict
from agent_reporter.model.documents import object_of, text_of
from agent_reporter.model.times import parse_optional_time
from agent_reporter.settings import CREDENTIAL
from agent_reporter.threads import in_thread
from agent_reporter.version import __version__

if TYPE_CHECKING:
    from datetime import datetime

    from agent_reporter.control_plane.http import HttpSession
    from agent_reporter.model.verdict import Answer
    from agent_reporter.settings import Settings

FILE_GOOD_FOR = 1.0
"""Seconds until a token file is looked at again."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A token. `expires` is when the issuer ends it; `good_for` after how many seconds to ask again."""

    value: str = field(repr=False)
    expires: datetime | None = None
    good_for: float | None = None


class TokenSource(Protocol):
    """One way to get a token."""

    name: str
    """What the source is, for a person."""

    async def fetch(self) -> Grant:
        """Get a token; raises SignInError that says what to do, and `retry_after` seconds to hold."""
        ...


def choose_source(settings: Settings, http: HttpSession) -> TokenSource:
    """What the settings name: a token file, else a credential, a password, an API key, in this order."""
    credentials = os.environ.get("CREDENTIALS_DIRECTORY")
    if settings.token_file is not None:
        return TokenFile(settings.token_file)
    if credentials and (Path(credentials) / CREDENTIAL).exists():
        return TokenFile(Path(credentials) / CREDENTIAL)
    if settings.agent_password_file is not None:
        return AgentPassword(settings, settings.agent_password_file, http)
    if settings.identity_api_key_file is not None:
        return IdentityApiKey(settings, settings.identity_api_key_file, http)
    raise ConfigurationError(
        "nothing to sign in with. Set token_file, or agent_id with agent_password_file, or the three "
        f"identity_... settings, or give the unit a credential named {CREDENTIAL}."
    )


class TokenFile:
    """A file that holds a token, also a systemd credential; read again, so that it can be rotated."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"token file {path}"

    async def fetch(self) -> Grant:
        """Read the file."""
        return Grant(await in_thread("sign-in", partial(read_secret, self.path)), good_for=FILE_GOOD_FOR)


class AgentPassword:
    """Signs in as an agent (`protocol.md`, Signing in)."""

    def __init__(self, settings: Settings, password_file: Path, http: HttpSession) -> None:
        self.name = f"agent {settings.agent_id} with its password"
        self._settings = settings
        self._password_file = password_file
        self._http = http

    async def fetch(self) -> Grant:
        """POST the agent's password and what this host is."""
        password = await in_thread("sign-in", partial(read_secret, self._password_file))
        agent_id = str(self._settings.agent_id)
        url = URL(self._settings.endpoint) / "v2" / self._settings.project_id / "agents" / "tokens"
        body = {
            "project_id": self._settings.project_id,
            "id": agent_id,
            "password": password,
            "name": platform.node(),
            "version": __version__,
            "host": await in_thread("sign-in", partial(_describe_host, agent_id, url)),
        }
        answer = await _post(self._http, url, body)
        if answer.status == 409:
            raise SignInError(
                f"agent {agent_id} is signed in from another host (409). Two hosts must not share an agent: "
                "register this one as an agent of its own."
            )
        return _grant(answer, self.name, ("token",))


class IdentityApiKey:
    """Signs in as a user at the Identity service (`protocol.md`, Signing in)."""

    def __init__(self, settings: Settings, api_key_file: Path, http: HttpSession) -> None:
        self.name = f"Identity user {settings.identity_username}"
        self._username = settings.identity_username
        self._url = URL(str(settings.identity_endpoint)) / "v2.0" / "tokens"
        self._api_key_file = api_key_file
        self._http = http

    async def fetch(self) -> Grant:
        """POST the user's API key."""
        api_key = await in_thread("sign-in", partial(read_secret, self._api_key_file))
        credentials = {"username": self._username, "apiKey": api_key}
        answer = await _post(self._http, self._url, {"auth": {"RAX-KSKEY:apiKeyCredentials": credentials}})
        return _grant(answer, self.name, ("access", "token"))


async def _post(http: HttpSession, url: URL, body: object) -> Answer:
    try:
        return await http.request("POST", url, headers={"Content-Type": "application/json"}, body=body)
    except TransportError as problem:
        raise SignInError(f"sign-in: {problem}") from None


def _grant(answer: Answer, name: str, place: tuple[str, ...]) -> Grant:
    said = verdict.explain(answer)
    if answer.status in {400, 401, 403, 404}:
        raise SignInError(f"sign-in as {name} was refused ({said}). Check its secret.")
    if answer.status != 200:
        raise SignInError(f"sign-in as {name} failed: {said}", answer.retry_after)
    try:
        document: dict[str, Any] = answer.document()
        for key in place:
            document = object_of(document, key)
        value, expires = text_of(document, "id"), parse_optional_time(document.get("expires"))
    except MalformedError as problem:
        raise SignInError(f"sign-in as {name}: the answer holds no token: {problem}") from None
    conceal(value)
    if not value.isascii() or not value.isprintable() or not value:
        raise SignInError(f"sign-in as {name}: the answer holds no usable token")
    return Grant(value, expires)


def _describe_host(agent_id: str, url: URL) -> dict[str, Any]:
    system = platform.uname()
    return {
        "os": {"name": system.system, "version": system.release, "architecture": system.machine},
        "fingerprint": hashlib.sha256(f"{agent_id} {_machine_id()}".encode()).hexdigest(),
        "addresses": _addresses(url),
    }


def _machine_id() -> str:
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip() or platform.node()
    except (OSError, ValueError):
        return platform.node()


def _addresses(url: URL) -> list[dict[str, Any]]:
    """The local address that the control plane is reached from. No packet is sent to find it."""
    try:
        family, _, _, _, remote = socket.getaddrinfo(url.host, url.port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(remote)
            address = probe.getsockname()[0]
    except (OSError, UnicodeError):
        return []
    return [{"version": 6 if family == socket.AF_INET6 else 4, "addr": address}]
