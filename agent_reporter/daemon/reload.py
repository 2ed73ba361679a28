"""Which settings a running daemon takes over when it is told to look at them again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent_reporter.settings import Settings

NEEDS_RESTART = frozenset(
    {
        "agent_id",
        "agent_password_file",
        "allow_http",
        "ca_file",
        "concurrency",
        "endpoint",
        "identity_api_key_file",
        "identity_endpoint",
        "identity_username",
        "max_connections",
        "max_restores",
        "metrics_file",
        "metrics_listen",
        "path_spelling",
        "progress",
        "project_id",
        "request_timeout",
        "socket",
        "socket_group",
        "spool_dir",
        "token_file",
        "way_out",
    }
)
"""What is built in when the daemon starts. (The files that settings name are read again in any case.)"""


def merged(running: Settings, loaded: Settings) -> tuple[Settings, list[str]]:
    """The settings to go on with, and the names of those that were changed in vain."""
    kept: dict[str, Any] = {name: getattr(running, name) for name in NEEDS_RESTART}
    in_vain = sorted(name for name, value in kept.items() if value != getattr(loaded, name))
    return replace(loaded, **kept), in_vain
