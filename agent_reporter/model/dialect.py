"""How a control plane wants to be told: what its 400s taught us (decisions 1 and 5 of `protocol.md`)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from agent_reporter.errors import MalformedError
from agent_reporter.model.documents import text_of
from agent_reporter.model.patch import Content, Spelling

if TYPE_CHECKING:
    from collections.abc import Mapping


class PathSpelling(StrEnum):
    """The setting `path_spelling`."""

    AUTHORITY = "authority"
    DOCUMENT = "document"
    AUTO = "auto"


class Progress(StrEnum):
    """The setting `progress`: how counters travel while a restore runs."""

    AUTO = "auto"
    """Alone; after a 400 no more of them for that restore."""
    COUNTERS = "counters"
    """Alone, whatever the answer."""
    WITH_STATE = "with_state"
    """Beside `in_progress`, after a read."""
    FINAL_ONLY = "final_only"
    """Only in the result."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to say something."""

    content: Content
    spelling: Spelling


@dataclass(frozen=True, slots=True)
class Dialect:
    """What is known of how this control plane wants to be told about this restore.

    `settled` is whether `spelling` is not to be changed: it was set, or a patch in it was taken.
    """

    spelling: Spelling = Spelling.AUTHORITY
    settled: bool = True
    progress: Progress = Progress.AUTO

    @classmethod
    def of_settings(cls, path_spelling: PathSpelling, progress: Progress) -> Dialect:
        """The dialect to begin with."""
        if path_spelling is PathSpelling.AUTO:
            return cls(Spelling.AUTHORITY, settled=False, progress=progress)
        return cls(Spelling(path_spelling.value), settled=True, progress=progress)

    def ways(self, content: Content) -> tuple[Way, ...]:
        """The ways to try, in this order, one after each 400."""
        contents = _CONTENTS[content]
        spellings = (self.spelling,) if self.settled else (self.spelling, self.spelling.other)
        return tuple(
            Way(content, spelling)
            for content in contents
            for spelling in ((self.spelling,) if content in _WITHOUT_SPELLED_PATHS else spellings)
        )

    def settle(self, way: Way) -> Dialect:
        """A patch that used spelled paths was taken: that spelling stays."""
        if self.settled and self.spelling is way.spelling:
            return self
        return replace(self, spelling=way.spelling, settled=True)

    def without_progress(self) -> Dialect:
        """No more counters before the result (decision 5)."""
        return replace(self, progress=Progress.FINAL_ONLY)

    def to_document(self) -> dict[str, Any]:
        """The JSON object that `from_document` reads back."""
        return {"spelling": self.spelling.value, "settled": self.settled, "progress": self.progress.value}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Dialect:
        """Read what `to_document` wrote; raises MalformedError for anything else."""
        try:
            return cls(
                Spelling(text_of(document, "spelling")),
                settled=bool(document.get("settled")),
                progress=Progress(text_of(document, "progress")),
            )
        except ValueError as problem:
            raise MalformedError(f"no dialect: {problem}") from problem


_CONTENTS = {
    Content.RESULT: (Content.RESULT, Content.RESULT_ALONE),
    Content.STATE: (Content.STATE, Content.STATE_ALONE),
    Content.PROGRESS: (Content.PROGRESS,),
    Content.PROGRESS_BESIDE_STATE: (Content.PROGRESS_BESIDE_STATE,),
    Content.STOP: (Content.STOP,),
}
_WITHOUT_SPELLED_PATHS = frozenset({Content.STATE_ALONE, Content.STOP})
