"""A control plane that repeats what it was asked with, in whatever way such things are done."""

from __future__ import annotations

import html
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote

from tests.bombs.bombs import Bomb, Call, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CUT_AT = 500
"""Where the agent is known to cut what the other side says."""
_SECRETS = re.compile(
    rb'(?:X-Auth-Token: |"password":|"apiKey":)("(?:[^"\\]|\\.)*"|[^\r\n"]+)', re.IGNORECASE
)


def secret_of(request: bytes) -> str:
    """The secret that a request was signed with; empty if there is none."""
    found = _SECRETS.search(request)
    text = found[1].decode("latin-1") if found else ""
    return str(json.loads(text)) if text.startswith('"') else text


def _answer(status: int, body: str, *headers: str, reason: str = "Whatever") -> bytes:
    content = body.encode("latin-1")
    head = "\r\n".join([f"HTTP/1.1 {status} {reason}", f"Content-Length: {len(content)}", *headers, "", ""])
    return head.encode("latin-1") + content


def _said(said: str) -> str:
    return json.dumps({"message": said, "errors": [said]})


def _cut(secret: str) -> str:
    """A sentence that is cut in the middle of the secret."""
    return "y" * (CUT_AT - len(secret) // 2 - 1) + " " + secret


def _echo(name: str, make: Callable[[str, str], bytes]) -> Bomb:
    """Answers with what `make` makes of the secret and of the whole request."""
    return Bomb(name, lambda of: [make(secret_of(of.request), of.request.decode("latin-1"))])


def _statuses() -> Iterator[Bomb]:
    for status in (400, 401, 403, 404, 409, 500, 503):
        yield _echo(f"{status} with the request", lambda _, request, n=status: _answer(n, _said(request)))  # type: ignore[misc]  # mypy: lambdas with defaults
        yield _echo(f"{status} with the secret", lambda secret, _, n=status: _answer(n, _said(secret)))  # type: ignore[misc]  # as above


def _ways() -> Iterator[Bomb]:
    """The secret in an error, said in each way that there is."""
    for name, say in {
        "cut in the middle": lambda secret: _said(_cut(secret)),
        "as JSON in JSON": lambda secret: _said(json.dumps({"password": secret, "X-Auth-Token": secret})),
        "by numbers": lambda secret: (
            '{"message": "' + "".join(f"\\u{ord(letter):04x}" for letter in secret) + '"}'
        ),
        "as PHP does it": lambda secret: _said(secret).replace("/", "\\/"),
        "as in a URL": lambda secret: _said(quote(secret, safe="")),
        "as HTML": lambda secret: f"<h1>Error</h1><pre>{html.escape(secret)}</pre>",
        "as text": lambda secret: secret,
    }.items():
        yield _echo(f"secret {name}", lambda secret, _, say=say: _answer(500, say(secret)))  # type: ignore[misc]  # mypy: lambdas with defaults


def _places() -> Iterator[Bomb]:
    """The secret where no text is expected."""
    yield _echo("secret as the reason phrase", lambda secret, _: _answer(500, "", reason=secret))
    yield _echo("secret as Retry-After", lambda secret, _: _answer(503, "", f"Retry-After: {secret}"))
    yield _echo("secret as a header", lambda secret, _: _answer(401, "", f"WWW-Authenticate: {secret}"))
    yield _echo("secret as a cookie", lambda secret, _: _answer(500, "", f"Set-Cookie: t={secret}"))
    yield _echo("secret in place of HTTP", lambda secret, _: f"{secret}\r\n\r\n".encode("latin-1"))
    yield _echo("secret as the status", lambda secret, _: f"HTTP/1.1 {secret}\r\n\r\n".encode("latin-1"))
    yield _echo("secret as a broken header", lambda secret, _: _answer(500, "", f"a {secret}"))
    yield _echo("secret as a length", lambda secret, _: _answer(500, "", f"Content-Length: {secret}"))
    yield _echo(
        "secret in a long header", lambda secret, _: _answer(500, "", f"{'y' * 80}{secret}: {'y' * 9_000}")
    )
    yield _echo("secret in a chunk's size", lambda secret, _: _chunked(secret))
    yield _echo("secret in every place of a document", lambda secret, _: _answer(200, _document(secret)))
    for status in (301, 307):
        yield Bomb(f"{status} to another origin with the secret", lambda of, n=status: [_elsewhere(of, n)])  # type: ignore[misc]  # mypy: lambdas with defaults


def _chunked(secret: str) -> bytes:
    return f"HTTP/1.1 500 Whatever\r\nTransfer-Encoding: chunked\r\n\r\n{secret}\r\n".encode("latin-1")


def _document(secret: str) -> str:
    event = {"id": secret, "event": secret, "restore": {"id": secret}}
    errors = {"count": secret, "reason": secret, "diagnostics": secret}
    return json.dumps(
        {"state": secret, "bytes_restored": secret, "errors": errors, "events": [event], "token": secret}
    )


def _elsewhere(of: Target, status: int) -> bytes:
    return _answer(status, "", f"Location: {of.elsewhere}/?token={quote(secret_of(of.request))}")


ECHOES = [*_statuses(), *_ways(), *_places()]


def is_final(echo: Bomb, call: Call) -> bool:
    """Whether the agent may rightly give the restore up for it."""
    return call is Call.PATCH and echo.name[:3] in {"400", "403", "404"}
