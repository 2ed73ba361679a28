"""What the daemon knows of whoever reports a restore to it, and what is told to it beside the protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import MalformedError
from agent_reporter.model.documents import count_of
from agent_reporter.model.process_identity import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Client:
    """The user whose restore it is, and the processes that it ends with.

    `stop_requested` is whether a stop was asked for on this host.
    """

    uid: int
    processes: tuple[ProcessIdentity, ...] = ()
    stop_requested: bool = False

    def to_document(self) -> dict[str, Any]:
        """The JSON object that `from_document` reads back."""
        return {
            "uid": self.uid,
            "processes": [process.to_document() for process in self.processes],
            "stop_requested": self.stop_requested,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Client:
        """Read what `to_document` wrote; raises MalformedError for anything else."""
        processes = document.get("processes")
        if not isinstance(processes, list) or not all(isinstance(process, dict) for process in processes):
            raise MalformedError("'processes' has to be an array of objects")
        return cls(
            uid=count_of(document, "uid", None),
            processes=tuple(ProcessIdentity.from_document(process) for process in processes),
            stop_requested=bool(document.get("stop_requested")),
        )


@dataclass(frozen=True, slots=True)
class Facts:
    """What an engine tells the daemon, and the protocol has no path for. Sent as headers with each patch.

    `pids` are the processes that the restore ends with; the totals are bytes and files.
    """

    pids: tuple[int, ...] = ()
    total_bytes: int | None = None
    total_files: int | None = None
