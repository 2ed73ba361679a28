"""Who may do what: the fixed token, the tokens that sign-ins give, and the accounts behind those.

Accounts come from the constructor, and from `accounts.json` in the data directory if that is there (read
once, at the start; keep it to its owner, mode 0600)::

    {
        "agents": [{"project_id": "110011", "id": "8f135b4f", "password": "...", "fingerprint": "..."}],
        "users": [{"project_id": "110011", "username": "jo", "api_key": "..."}]
    }

Both lists may be left out. An agent is the host whose fingerprint it has; where the file gives none, the
first host that signs in as the agent.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agent_reporter.reference import checks
from agent_reporter.reference.exchange import RefusedError
from agent_reporter.reference.times import millis

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from agent_reporter.reference.store import Store

FILE_NAME: Final = "accounts.json"

_ACCOUNTS: Final = checks.object_of(
    {},
    {
        "agents": checks.array_of(
            checks.object_of(
                {"project_id": checks.is_name, "id": checks.is_name, "password": checks.is_name},
                {"fingerprint": checks.is_name},
            )
        ),
        "users": checks.array_of(
            checks.object_of(
                {"project_id": checks.is_name, "username": checks.is_name, "api_key": checks.is_name}
            )
        ),
    },
)
_AGENT_SIGN_IN: Final = checks.object_of(
    {
        "project_id": checks.is_name,
        "id": checks.is_name,
        "password": checks.is_text,
        "name": checks.is_text,
        "version": checks.is_text,
        "host": checks.object_of(
            {
                "os": checks.object_of(
                    {"name": checks.is_text, "version": checks.is_text, "architecture": checks.is_text}
                ),
                "fingerprint": checks.is_name,
                "addresses": checks.array_of(
                    checks.object_of({"version": checks.one_of(4, 6), "addr": checks.is_name})
                ),
            }
        ),
    }
)
_USER_SIGN_IN: Final = checks.object_of(
    {
        "auth": checks.object_of(
            {
                "RAX-KSKEY:apiKeyCredentials": checks.object_of(
                    {"username": checks.is_name, "apiKey": checks.is_text}
                )
            }
        )
    }
)


@dataclass(frozen=True, slots=True)
class AgentAccount:
    """An agent that may sign in, and the host that it is, where that is known before."""

    project_id: str
    id: str
    password: str
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True)
class UserAccount:
    """A user that may sign in at the Identity service."""

    project_id: str
    username: str
    api_key: str


@dataclass(frozen=True, slots=True)
class Accounts:
    """Everybody who may sign in."""

    agents: Sequence[AgentAccount] = ()
    users: Sequence[UserAccount] = ()

    def agent(self, project_id: str, agent_id: str) -> AgentAccount | None:
        """The account of an agent, or None."""
        return next((it for it in self.agents if (it.project_id, it.id) == (project_id, agent_id)), None)

    def user(self, username: str) -> UserAccount | None:
        """The account of a user, or None."""
        return next((it for it in self.users if it.username == username), None)

    def __add__(self, others: Accounts) -> Accounts:
        return Accounts([*self.agents, *others.agents], [*self.users, *others.users])


def load_accounts(directory: Path) -> Accounts:
    """The accounts of the data directory; raises ValueError if the file holds anything else."""
    path = directory / FILE_NAME
    if not path.exists():
        return Accounts()
    try:
        document = checks.read_json(path.read_bytes())
        checks.insist(_ACCOUNTS, document, "The file")
    except RefusedError as problem:
        raise ValueError(f"{path}: {' '.join([problem.message, *problem.errors])}") from problem
    return Accounts(
        [AgentAccount(**agent) for agent in document.get("agents", [])],
        [UserAccount(**user) for user in document.get("users", [])],
    )


class TokenFile:
    """The fixed token in a file, read again when the file changes. A missing file is no token."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._token = ""

    def __call__(self) -> str:
        """The token of this moment, or an empty string."""
        try:
            stat = self._path.stat()
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if seen != self._seen:
                self._token = self._path.read_text().strip()
                self._seen = seen
        except (OSError, UnicodeDecodeError):
            self._seen, self._token = None, ""
        return self._token


class Gate:
    """Decides whose token is valid where, and gives tokens to those who sign in.

    `fixed_token` gives the token that is valid in every project, or an empty string for none. Tokens from
    sign-ins live `token_lifetime` seconds and are valid in the project of their account.
    """

    def __init__(
        self,
        store: Store,
        accounts: Accounts,
        fixed_token: Callable[[], str],
        *,
        now: Callable[[], float],
        token_lifetime: float,
    ) -> None:
        self._store = store
        self._accounts = accounts
        self._fixed_token = fixed_token
        self._now = now
        self._token_lifetime = token_lifetime

    def admit(self, token: str | None, project_id: str) -> None:
        """Raise RefusedError: 401 if the token is none of ours or too old, 403 if it is another project's."""
        if token and _same(token, self._fixed_token()):
            return
        project = self._store.project_of_token(token) if token else None
        if project is None:
            raise RefusedError(401, "The token in X-Auth-Token is missing, unknown, or has expired.")
        if project != project_id:
            raise RefusedError(403, "The token is for another project.")

    def sign_in_agent(self, project_id: str, document: Any) -> dict[str, Any]:
        """Sign an agent in; raises RefusedError with 400, 401, or 409 when it is another host."""
        checks.insist(_AGENT_SIGN_IN, document, "The sign-in")
        if document["project_id"] != project_id:
            raise RefusedError(400, "The project in the body is not the project in the path.")
        account = self._accounts.agent(project_id, document["id"])
        if account is None or not _same(document["password"], account.password):
            raise RefusedError(401, "There is no such agent, or its password is another.")
        self._bind(account, document["host"]["fingerprint"])
        token, expires = self._issue(project_id)
        return {"token": {"id": token, "expires": expires}}

    def sign_in_user(self, document: Any, origin: str) -> dict[str, Any]:
        """Sign a user in as the Identity service does; raises RefusedError with 400 or 401."""
        checks.insist(_USER_SIGN_IN, document, "The sign-in")
        credentials = document["auth"]["RAX-KSKEY:apiKeyCredentials"]
        account = self._accounts.user(credentials["username"])
        if account is None or not _same(credentials["apiKey"], account.api_key):
            raise RefusedError(401, "There is no such user, or the API key is another.")
        project_id = account.project_id
        token, expires = self._issue(project_id)
        endpoint = {"tenantId": project_id, "publicURL": f"{origin}/v2/{project_id}"}
        catalog = [{"name": "cloudBackup", "type": "rax:backup", "endpoints": [endpoint]}]
        tenant = {"id": project_id}
        return {
            "access": {
                "token": {"id": token, "expires": expires, "tenant": tenant},
                "serviceCatalog": catalog,
            }
        }

    def _bind(self, account: AgentAccount, fingerprint: str) -> None:
        known = account.fingerprint or self._store.fingerprint(account.project_id, account.id)
        if known is None:
            self._store.bind_agent(account.project_id, account.id, fingerprint)
        elif known != fingerprint:
            raise RefusedError(409, "The fingerprint is another host's: two hosts sign in as one agent.")

    def _issue(self, project_id: str) -> tuple[str, str]:
        token, expires = secrets.token_hex(16), self._now() + self._token_lifetime
        self._store.put_token(token, project_id, expires)
        return token, millis(expires)


def _same(given: str, known: str) -> bool:
    """Whether two secrets are equal, without telling by the time it takes. An empty one equals none."""
    encoded = given.encode("utf-8", "surrogateescape"), known.encode("utf-8", "surrogateescape")
    return bool(known) and hmac.compare_digest(*encoded)
