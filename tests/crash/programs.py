"""The programs that are played."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.crash.daemon import Daemon, Resume
from tests.crash.run import Flush, Run, RunRestic

if TYPE_CHECKING:
    from tests.crash.play import Program

PROGRAMS: tuple[Program, ...] = (Run(), RunRestic(), Flush(), Daemon(), Resume())
