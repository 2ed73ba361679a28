"""Makes every restore on a backup host visible, stoppable, and its outcome certain.

    async with Reporter(settings) as reporter, reporter.restore(restore_id) as job:
        job.start(total_bytes=...)
        job.progress(bytes_restored=..., files_restored=...)

What an engine holds is a `Job`; see `agent_reporter.job` for what it can state and ask.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from agent_reporter.version import __version__

if TYPE_CHECKING:
    from agent_reporter.errors import (
        AgentReporterError,
        ConfigurationError,
        InvalidRestoreIdError,
        MisuseError,
        RestoreBusyError,
        RestoreEndedError,
        SignInError,
        SpoolError,
        StopRequested,
        TransportError,
    )
    from agent_reporter.job import Job
    from agent_reporter.model.dialect import PathSpelling, Progress
    from agent_reporter.model.exchange import Ending
    from agent_reporter.model.state import RestoreState
    from agent_reporter.reporter import BackgroundReporter, Reporter
    from agent_reporter.settings import DaemonUse, Settings, WhenRefused

_HOMES = {
    "agent_reporter.errors": (
        "AgentReporterError",
        "ConfigurationError",
        "InvalidRestoreIdError",
        "MisuseError",
        "RestoreBusyError",
        "RestoreEndedError",
        "SignInError",
        "SpoolError",
        "StopRequested",
        "TransportError",
    ),
    "agent_reporter.job": ("Job",),
    "agent_reporter.model.dialect": ("PathSpelling", "Progress"),
    "agent_reporter.model.exchange": ("Ending",),
    "agent_reporter.model.state": ("RestoreState",),
    "agent_reporter.reporter": ("BackgroundReporter", "Reporter"),
    "agent_reporter.settings": ("DaemonUse", "Settings", "WhenRefused"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [  # what is public, imported when it is first used, so that a command loads only what it needs
    "AgentReporterError",
    "BackgroundReporter",
    "ConfigurationError",
    "DaemonUse",
    "Ending",
    "InvalidRestoreIdError",
    "Job",
    "MisuseError",
    "PathSpelling",
    "Progress",
    "Reporter",
    "RestoreBusyError",
    "RestoreEndedError",
    "RestoreState",
    "Settings",
    "SignInError",
    "SpoolError",
    "StopRequested",
    "TransportError",
    "WhenRefused",
    "__version__",
]


if not TYPE_CHECKING:  # a checker knows the names above, and that there are no others

    def __getattr__(name: str) -> object:
        if name not in _HOME_OF:
            raise AttributeError(f"module 'agent_reporter' has no attribute {name!r}")
        if name in {"Reporter", "Settings"}:  # an engine's loop is not to wait for these later
            import_module("agent_reporter.logs").load()
            import_module("agent_reporter.setting_sources")
        return getattr(import_module(_HOME_OF[name]), name)

    def __dir__() -> list[str]:
        return sorted(__all__)
