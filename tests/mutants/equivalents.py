"""Mutants that no test can find, as nothing that can be seen depends on them. Each with the reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Equivalent:
    """One of them: in this function, this line becomes that one."""

    function: str
    was: str
    becomes: str
    reason: str


_NOT_BUFFERED = "what is written goes past the file object, to its descriptor"

EQUIVALENTS = (
    Equivalent(
        "Reserve.spend",
        "file.truncate(len(content))",
        "file.truncate(None)",
        "None is where the descriptor stands, which is the end of the content",
    ),
    Equivalent(
        "Reserve.spend",
        'with os.fdopen(descriptor, "wb", buffering=0) as file:',
        'with os.fdopen(descriptor, "wb", ) as file:',
        _NOT_BUFFERED,
    ),
    Equivalent(
        "replace_file",
        'with os.fdopen(descriptor, "wb", buffering=0) as file:',
        'with os.fdopen(descriptor, "wb", ) as file:',
        _NOT_BUFFERED,
    ),
    Equivalent(
        "Delivery.__init__",
        "self._ended_at: float | None = None",
        'self._ended_at: float | None = ""',
        "both stand for not yet, and nothing but `or` asks",
    ),
    *(
        Equivalent(
            "Delivery._wake_now", f"self.{name} = False", f"self.{name} = None", "asked for its truth alone"
        )
        for name in ("_is_waking", "_wakes_urgently")
    ),
    Equivalent(
        "Delivery._exchange",
        "learnt = after_no_answer(self.exchange, step, str(problem), self._world(), uncertain=False)",
        "learnt = after_no_answer(self.exchange, step, str(problem), self._world(), uncertain=None)",
        "asked for its truth alone",
    ),
)
