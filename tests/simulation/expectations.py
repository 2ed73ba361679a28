"""What can be expected where nothing, or nothing of the kind, is wrong: checks that look at the whole world."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_reporter.model.dialect import Progress
from tests.simulation.plan import DiskFault, EndsElsewhere, NetFault, StopAsked, TokenEnds

if TYPE_CHECKING:
    from agent_reporter import Job
    from tests.simulation.engine import Engine
    from tests.simulation.host import Life
    from tests.simulation.ledger import Case
    from tests.simulation.world import World

STOP_SECONDS = 9.0
"""A stop reaches its engine within so many: a look each 2 s, the first at random, and one that hangs for 4."""
SETTLED = 6.0
"""Seconds without trouble after which a delivery has nothing left to tell, if its engine says no more."""
TOKEN_MEMORY = 70.0
"""Seconds for which a sign-in that failed may be held back."""
TO_BE_KEPT = 2.0
LOOK_SECONDS = 30.0
"""Looks for stops go on, also while they fail: an interval, two that hang, and a sign-in that hangs."""


class Expectations:
    """The checks of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ledger = world.ledger

    def stopped(self, restore_id: str, asked: float, life: Life | None) -> None:
        """Unless something kept the looks for stops from getting through, the job knows."""
        job = None if life is None else life.jobs.get(restore_id)
        engine = next(each for each in self._world.engines if each.case.restore_id == restore_id)
        if life is None or job is None or not life.is_alive or life.is_leaving or not job.is_live:
            return
        if self._world.disk.troubles or self._hinders_looks(asked - STOP_SECONDS):
            return
        if engine.opened_at is None or engine.opened_at > asked or self._world.plan.events != 200:
            return
        self._ledger.seen["stop in time"] += 1
        if not job._stop_requested:
            self._ledger.violated("stop_in_time", f"{restore_id}: asked {STOP_SECONDS:g} s ago")

    def looked(self, life: Life, engine: Engine, job: Job) -> None:
        """Looks for stops go on, however they end."""
        now, last = self._world.loop.time(), life.reporter._all.watcher.last_look
        since = max(last or 0.0, engine.opened_at or 0.0)
        if job.awaits_stop and now - since > LOOK_SECONDS:
            self._ledger.violated("looks_go_on", f"{job.restore_id}: none for {now - since:.1f} s")

    def _hinders_looks(self, since: float) -> bool:
        """Whether anything but patches was hindered between then and now."""
        now = self._world.loop.time()
        for each in self._world.plan.happenings:
            match each:
                case NetFault(what="patch" | "state" | "result" | "counters") | StopAsked() | EndsElsewhere():
                    continue
                case NetFault() | DiskFault():
                    end = each.at + each.seconds
                case TokenEnds():
                    end = each.at + each.after + TOKEN_MEMORY
                case _:
                    end = each.at
            if each.at <= now and end >= since:
                return True
        return False

    def arrived(self, life: Life, restore_id: str, job: Job) -> None:
        """After a quiet time the control plane has what the engine stated before."""
        case = self._ledger.cases[restore_id]
        report = job.take_report()
        if not self._is_quiet(life, case) or report.state.value != "in_progress":
            return
        self._ledger.seen["quiet time"] += 1
        there = self._world.control_plane.restore(restore_id)
        if (
            there.bytes_restored < report.bytes_restored
            or there.files_restored < report.files_restored
            or there.errors["count"] < report.errors.count
        ) and not case.disturbed:
            self._ledger.violated("progress_arrives", f"{restore_id}: {there} is not {report}")

    def _is_quiet(self, life: Life, case: Case) -> bool:
        """Whether nothing keeps progress from being told, and has not for a while."""
        world, settings = self._world, self._world.plan.settings
        talk, exchange = case.talks.get(life.name), life.exchange(case.restore_id)
        now = world.loop.time()
        if (
            talk is None
            or talk.in_flight is not None
            or exchange is None
            or world.troubles
            or world.clock_jumped
        ):
            return False
        tells_progress = (
            settings["progress"] in {"auto", "counters"}
            and exchange.dialect.progress is not Progress.FINAL_ONLY
            and not world.plan.strict
        )
        return (
            tells_progress
            and now - world.quiet_since > SETTLED
            and now - talk.last_trouble > SETTLED
            and not (talk.failures or exchange.attempt or case.refusals or case.elsewhere)
            and world.plan.reads == 200
            and settings["concurrency"] >= len(world.engines)
        )

    def nothing_left(self, life: Life) -> None:
        """A process that ended in good order leaves nothing."""
        tasks = [task.get_name() for task in life.tasks if not task.done()]
        if tasks:
            self._ledger.violated("nothing_left", f"tasks: {tasks}")
        left = self._world.disk.descriptors_of(life)
        if left and not self._world.disk.failures:
            self._ledger.violated("nothing_left", f"descriptors: {left}")

    def kept_early(self, engine: Engine, life: Life) -> None:
        """At a kill: what the process was reporting is in the spool."""
        case = engine.case
        kept = f"{case.restore_id}.json" in self._world.disk.records("/spool")
        if case.restore_id not in life.jobs or kept:
            return
        case.forgotten = True
        opened = self._world.loop.time() - (engine.opened_at or 0.0)
        if (
            not engine.is_done
            and opened > TO_BE_KEPT
            and not self._world.disk.failures
            and not self._ledger.seen["disk slow"]
        ):
            ending = life.jobs[case.restore_id].ending
            if ending is None and life.exchange(case.restore_id) is not None:
                self._ledger.violated(
                    "kept_early", f"{case.restore_id}: nothing is kept after {opened:.1f} s"
                )
