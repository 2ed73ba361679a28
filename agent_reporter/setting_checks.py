"""What the texts of some settings have to be. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit


def checked_secret_path(value: object) -> object:
    """`value`, if it can be the path of a file with a secret; raises ValueError."""
    if isinstance(value, str) and "/" not in value:  # not quoted: it may be the secret itself
        raise ValueError("has to be the path of a file, such as /etc/agent-reporter/secret or ./secret")
    return value


def checked_base_url(url: str | None) -> str | None:
    """`url` without a slash at its end, if it can be built on or is empty; raises ValueError, without it."""
    if not url:
        return url
    parts = _parts_of(url)
    if parts is None or not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("has to be a URL such as https://backup.example.com")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("must not hold a user, a password, a query or a fragment")
    return url.rstrip("/")


def _parts_of(url: str) -> SplitResult | None:
    """The parts of a URL of a server; None if it is none. Why is not said: that would quote a password."""
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if is_url else None


def is_loopback(url: str) -> bool:
    """Whether its host is this one."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
