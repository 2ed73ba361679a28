"""All targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.fuzz import (
    answers,
    command_lines,
    engine_output,
    host_files,
    settings_files,
    socket_requests,
    spool_files,
)

if TYPE_CHECKING:
    from tests.fuzz.fuzzing import Target

_ROOMS = (engine_output, command_lines, socket_requests, answers, spool_files, settings_files, host_files)
TARGETS: dict[str, Target] = {target.name: target for room in _ROOMS for target in room.TARGETS}
