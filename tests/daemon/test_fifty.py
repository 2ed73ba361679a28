"""The short form of `python -m tests.daemon.fifty`: real processes, an outage, a daemon that is killed."""

from __future__ import annotations

import random
import shutil
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from tests.daemon.fifty import play, show
from tests.daemon.host_crowd import Options
from tests.daemon.host_plan import Phase, Times

if TYPE_CHECKING:
    from pathlib import Path

SHORT = {"report_interval": "0.5", "retry_cap": "2", "silence_limit": "4"}
"""How often the daemon looks whether an engine is gone depends on the limit of silence."""


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
async def test_every_record_is_true_after_an_outage_in_which_the_daemon_is_killed(
    socket_directory: Path,
) -> None:
    options = Options(
        restores=12,
        times=Times(calm=4, outage=6, after=1),
        kills=2,
        seed=random.randrange(2**32),
        parts=2,
        deaths=(Phase.AFTER,),
        daemon=SHORT,
        patience=60,
    )
    print(f"\nseed {options.seed}")
    outcome = await play(socket_directory, options)
    show(outcome, Console(width=120))
    assert outcome.is_true
