"""Where the conversation with the control plane about one restore stands.

What comes next is decided by `steps`, what an answer teaches by `learning`; `delivery` acts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import MalformedError
from agent_reporter.model.acknowledged import Acknowledged
from agent_reporter.model.dialect import Dialect
from agent_reporter.model.documents import count_of, object_of, text_of
from agent_reporter.model.times import format_time, parse_optional_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from agent_reporter.model.patch import Content
    from agent_reporter.model.state import RestoreState


class Ending(StrEnum):
    """Why a delivery is over."""

    DELIVERED = "delivered"
    """The control plane has the result."""
    DELIVERED_BARE = "delivered_bare"
    """It has the state and the times of the result, and refused the rest."""
    GONE = "gone"
    """403, 404 or 405: it wants to hear nothing of this restore from us."""
    REJECTED = "rejected"
    """It refuses the result in every way there is to say it."""
    ENDED_ELSEWHERE = "ended_elsewhere"
    """The restore has a final state there that is not ours."""
    EXPIRED = "expired"
    """The result could not be delivered for as long as results are kept."""

    @property
    def in_words(self) -> str:
        """What happened, for a person."""
        return _IN_WORDS[self]

    @property
    def loses_nothing(self) -> bool:
        """Whether the control plane has all there was to tell."""
        return self is Ending.DELIVERED


_IN_WORDS = {
    Ending.DELIVERED: "delivered",
    Ending.DELIVERED_BARE: "delivered without counts and errors, which the control plane refused",
    Ending.GONE: "refused by the control plane: kept as a dead letter",
    Ending.REJECTED: "not understood by the control plane: kept as a dead letter",
    Ending.ENDED_ELSEWHERE: "too late, as the control plane had another end: kept as a dead letter",
    Ending.EXPIRED: "too old to deliver: kept as a dead letter",
}


@dataclass(frozen=True, slots=True)
class Exchange:
    """The state of one conversation. Immutable: every answer gives the next one."""

    acknowledged: Acknowledged | None = None
    """None until the restore was read, or turned out not to be readable."""
    dialect: Dialect = field(default_factory=Dialect)
    readable: bool = True
    """Whether the last read was not refused. It is tried again after each success and each doubt: one refusal
    does not turn reads off for good."""
    fresh: bool = False
    """The last thing that happened was a read: a state may be told."""
    uncertain: bool = False
    """A patch with `/state` may or may not have been carried out."""
    result_told: bool = False
    """The result may have been carried out: a 409 can be its echo."""
    contradicted: bool = False
    """A 409 was the answer to the last patch."""
    stop_requested: bool = False
    """A read showed a stop request."""
    stop_wanted: bool = False
    """A stop was asked for on this host: the control plane is to know of it."""
    unsigned: bool = False
    """The last answer was a 401."""
    signed_again: bool = False
    """A new token was asked for since the last success or wait."""
    refused: tuple[Content, int] | None = None
    """What was answered 400 last, and how many ways of saying it were."""
    refused_states: frozenset[RestoreState] = frozenset()
    """States that were answered 400 in every way: they are not told again."""
    attempt: int = 0
    """Failures since the last delivered patch."""
    not_before: datetime | None = None
    """The next request is to wait until then."""
    failure: str = ""
    """The last failure in words, empty after a success."""
    ending: Ending | None = None

    def to_document(self) -> dict[str, Any]:
        """What of it has to survive a restart, as a JSON object."""
        return {
            "acknowledged": None if self.acknowledged is None else self.acknowledged.to_document(),
            "dialect": self.dialect.to_document(),
            "uncertain": self.uncertain or self.contradicted,
            "attempt": self.attempt,
            "not_before": None if self.not_before is None else format_time(self.not_before),
            "failure": self.failure,
            "ending": None if self.ending is None else self.ending.value,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Exchange:
        """Read what `to_document` wrote; raises MalformedError for anything else."""
        known = document.get("acknowledged")
        try:
            ending = None if document.get("ending") is None else Ending(document["ending"])
        except ValueError as problem:
            raise MalformedError(f"no ending: {problem}") from problem
        return cls(
            acknowledged=None
            if known is None
            else Acknowledged.from_document(object_of(document, "acknowledged")),
            dialect=Dialect.from_document(object_of(document, "dialect")),
            uncertain=bool(document.get("uncertain")),
            attempt=count_of(document, "attempt"),
            not_before=parse_optional_time(document.get("not_before")),
            failure=text_of(document, "failure", ""),
            ending=ending,
        )
