"""Every error of this package, under one root; each says what happened, to which restore, and what to do."""

from __future__ import annotations


class AgentReporterError(Exception):
    """The root of this package's errors."""


class ConfigurationError(AgentReporterError):
    """A setting is missing, contradicts another, or names something that cannot be used."""


class InvalidRestoreIdError(AgentReporterError, ValueError):
    """A restore id that is empty or cannot stand in a URL and a file name."""

    def __init__(self, restore_id: object) -> None:
        """Name the id that was refused."""
        super().__init__(
            f"{restore_id!r} is no restore id: it has to be 1 to 128 characters of A-Z a-z 0-9 . _ ~ -, "
            "and start with a letter or a digit. Take the id from the control plane's answer to the start "
            "of the restore."
        )


class MisuseError(AgentReporterError, ValueError):
    """A call an engine made with arguments that cannot be true; nothing was changed by it."""

    def __init__(self, restore_id: str, problem: str) -> None:
        """Say which restore the call was for, and what was wrong with it."""
        super().__init__(f"restore {restore_id}: {problem}; the call changed nothing")
        self.restore_id = restore_id


class StopRequested(AgentReporterError):  # noqa: N818 - it is a request, not an error, and leaves a block like one
    """Raised in the engine, by `Job.raise_if_stop_requested`, once the restore is to stop."""

    def __init__(self, restore_id: str) -> None:
        """Name the restore that is to stop."""
        super().__init__(f"restore {restore_id}: a stop was requested")
        self.restore_id = restore_id


class RestoreBusyError(AgentReporterError):
    """Another process reports this restore, or the restore's engine still runs."""

    def __init__(self, restore_id: str, who: str) -> None:
        """Name the restore, and say in a sentence who has it."""
        super().__init__(
            f"restore {restore_id}: {who}. Wait until that ends, or stop it, before you start the same "
            "restore again."
        )
        self.restore_id = restore_id


class RestoreEndedError(AgentReporterError):
    """The spool holds a final report of this restore that the control plane has not taken yet."""

    def __init__(self, restore_id: str, state: str) -> None:
        """Name the restore and how it ended."""
        super().__init__(
            f"restore {restore_id} has already ended as {state}, and that report waits to be delivered. "
            "Deliver it with `agent-reporter flush`, and start a new restore for a new attempt."
        )
        self.restore_id = restore_id


class SpoolError(AgentReporterError):
    """The spool could not be read or written."""


class MalformedError(AgentReporterError, ValueError):
    """A document from outside (an answer, a spool file) that does not say what it has to."""


class SignInError(AgentReporterError):
    """No token is to be had right now; deliveries are held, and none is lost.

    `retry_after` is the header of the answer, if it held one.
    """

    def __init__(self, what: str, retry_after: str | None = None) -> None:
        """Say why, and what to do."""
        super().__init__(what)
        self.retry_after = retry_after


class TransportError(AgentReporterError):
    """A request got no answer.

    `uncertain` is whether the request may have been carried out all the same.
    """

    def __init__(self, what: str, *, uncertain: bool) -> None:
        """Say what went wrong on the way."""
        super().__init__(what)
        self.uncertain = uncertain
