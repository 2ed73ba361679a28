"""The last lines an engine printed, for the diagnostics of a run that did not go well."""

from __future__ import annotations

from collections import deque

from agent_reporter.engines.wording import clean

MAX_LINES = 12
MAX_LINE_CHARACTERS = 2048
MAX_CHARACTERS = 3500


class LastWords:
    """Keeps the newest lines, within bounds."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=MAX_LINES)

    def add(self, line: str) -> None:
        """Keep `line`, unless it is blank."""
        text = clean(line, MAX_LINE_CHARACTERS).strip()
        if text:
            self._lines.append(text)

    def __str__(self) -> str:
        """All that is kept, a line each. The newest tell most: they stay when not all fit."""
        return "\n".join(self._lines)[-MAX_CHARACTERS:]
