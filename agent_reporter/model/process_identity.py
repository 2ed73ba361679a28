"""Which process is meant, also after its number went to another one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent_reporter.model.documents import count_of, parse_object, text_of

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of one boot of this machine; a recycled pid is another identity."""

    pid: int
    start_ticks: int
    """When it started, in clock ticks since boot."""
    boot_id: str

    def to_document(self) -> dict[str, Any]:
        """The JSON object that `from_document` reads back."""
        return {"pid": self.pid, "start_ticks": self.start_ticks, "boot_id": self.boot_id}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> ProcessIdentity:
        """Read what `to_document` wrote; raises MalformedError for anything else."""
        return cls(
            count_of(document, "pid", None),
            count_of(document, "start_ticks", None),
            text_of(document, "boot_id"),
        )

    def encode(self) -> bytes:
        """The bytes of a file that names its owner."""
        return json.dumps(self.to_document()).encode() + b"\n"

    @classmethod
    def decode(cls, content: bytes) -> ProcessIdentity:
        """Read what `encode` wrote; raises MalformedError for anything else."""
        return cls.from_document(parse_object(content))
