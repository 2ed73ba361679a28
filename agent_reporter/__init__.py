"""Makes every restore on a backup host visible, stoppable, and its outcome certain.

    async with Reporter(settings) as reporter, reporter.restore(restore_id) as job:
        job.start(total_bytes=...)
        job.progress(bytes_restored=..., files_restored=...)

What an engine holds is a `Job`; see `agent_reporter.job` for what it can state and ask.
"""

__version__ = "0.1.0"

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
from agent_reporter.settings import Settings, WhenRefused

__all__ = [
    "AgentReporterError",
    "BackgroundReporter",
    "ConfigurationError",
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
