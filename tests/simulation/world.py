"""One seed: a host whose process is killed and started again, a control plane, and a bad day for both."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
import random
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent_reporter import Reporter, Settings
from agent_reporter.model.dialect import PathSpelling, Progress
from agent_reporter.settings import DaemonUse, WhenRefused
from tests.simulation.control_plane import AGENT, ORIGIN, PROJECT, ControlPlane
from tests.simulation.disk import Disk
from tests.simulation.engine import Engine
from tests.simulation.expectations import STOP_SECONDS, Expectations
from tests.simulation.host import Life, LogWatch
from tests.simulation.ledger import Case, Ledger
from tests.simulation.loop import (
    PROCESS,
    Process,
    SpinningError,
    StuckError,
    VirtualLoop,
    bury,
)
from tests.simulation.network import Network
from tests.simulation.plan import (
    LIVES,
    ClockJump,
    DiskFault,
    EndsElsewhere,
    Kill,
    Leaves,
    NetFault,
    StopAsked,
    TokenEnds,
)
from tests.simulation.seams import installed

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from tests.simulation.plan import Happening, Plan

BEGINNING = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
BOUND = 900.0
"""Virtual seconds within which everything is delivered, once nothing is wrong any more."""
TOKEN_FILE = "/secret/token"


@dataclass
class Outcome:
    """What became of a seed."""

    plan: Plan
    violations: list[tuple[str, str]]
    seen: Counter[str]
    virtual: float
    trace: list[tuple[Any, ...]]

    @property
    def trace_hash(self) -> str:
        """The same for the same seed, always."""
        return hashlib.blake2b(repr(self.trace).encode(), digest_size=8).hexdigest()


class World:
    """Everything of one run."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.random = random.Random(plan.seed ^ 0x5EED)
        self.loop = VirtualLoop()  # type: ignore[abstract]  # what has to do with files is left out
        self.trace: list[tuple[Any, ...]] = []
        self.ledger = Ledger(self)
        self.expectations = Expectations(self)
        self.disk = Disk(self.random, self.note)
        self.disk.killer = self._is_killed_here
        self.disk.check_content = self._check_content
        self.boot = "boot-0"
        self.skew = timedelta(0)
        self.clock_jumped = False
        self.control_plane = ControlPlane(plan, self.loop.time)
        self.network = Network(self)
        self.lives: list[Life] = []
        self.engines: list[Engine] = []
        self.troubles = 0
        """Faults of network, disk and token that are on right now."""
        self.quiet_since = 0.0
        self._context = contextvars.copy_context()
        self._armed: list[Any] | None = None
        self._processes: dict[int, float] = {}
        """Engines that are processes of their own: until when each lives."""
        self._next_pid = 5000
        self._engines_over: float | None = None

    # What everybody uses.

    def note(self, *what: Any) -> None:
        """Into the trace."""
        self.trace.append((round(self.loop.time(), 6), *what))

    def later(self, delay: float, call: Callable[..., object], *args: Any) -> None:
        """Call it later, outside of all processes."""
        self.loop.call_later(delay, call, *args, context=self._context)

    def host_time(self) -> datetime:
        """The wall clock of the host."""
        return BEGINNING + self.skew + timedelta(seconds=self.loop.time())

    def thread_delay(self) -> float:
        """How long a thread takes to get through."""
        return self.random.random() * (4.0 if "slow" in self.disk.troubles else 0.002)

    def life_of(self, process: Process) -> Life:
        """The same, by its other name."""
        assert isinstance(process, Life)
        return process

    def is_process_alive(self, pid: int) -> bool:
        """Whether a process of the host lives."""
        if pid in self._processes:
            return self.loop.time() < self._processes[pid]
        return any(life.pid == pid and life.is_alive for life in self.lives)

    def start_engine_process(self) -> int:
        """An engine that is a process of its own."""
        self._next_pid += 1
        self._processes[self._next_pid] = float("inf")
        return self._next_pid

    def engine_ended(self, engine: Engine) -> None:
        """It is gone, and its process with it."""
        if engine.pid is not None:
            self._processes[engine.pid] = self.loop.time()
        self._note_engines()

    def is_lost(self, process: Process, restore_id: str) -> bool:
        """Whether nobody is left to say how a restore ended, but `process`, as far as the spool knows."""
        life = self.life_of(process)
        engine = next(each for each in self.engines if each.case.restore_id == restore_id)
        gone = engine.pid is None or not self.is_process_alive(engine.pid)
        job = life.jobs.get(restore_id)
        if engine.case.in_memory:  # an older record was left in the spool, which names another engine
            return job is None or not job.is_live
        return gone and job is None and engine.case.durable is None

    # The run.

    def run(self) -> Outcome:
        """Live through the plan."""
        watch = LogWatch(self)
        logger = logging.getLogger("agent_reporter")
        level, logger.propagate = logger.level, False
        logger.setLevel(logging.WARNING)
        logger.addHandler(watch)
        try:
            with installed(self):
                try:
                    self.loop.run(self._main())
                except (StuckError, SpinningError) as problem:
                    self.ledger.violated("settles_in_time", f"{type(problem).__name__}: {problem}")
                for life in self.lives:
                    life.is_alive = False
                    bury(life, self.loop)
        finally:
            logger.removeHandler(watch)
            logger.setLevel(level)
            logger.propagate = True
        for complaint in self.loop.complaints:
            self.ledger.violated("no_failure_of_ours", complaint)
        return Outcome(self.plan, self.ledger.violations, self.ledger.seen, self.loop.time(), self.trace)

    async def _main(self) -> None:
        self.disk.make("/secret")
        self.disk.put(TOKEN_FILE, self.control_plane.door.good.encode())
        for number, script in enumerate(self.plan.scripts):
            case = Case(f"restore-{number}")
            self.ledger.cases[case.restore_id] = case
            self.control_plane.begin(case.restore_id)
            self.engines.append(Engine(self, script, case))
        for happening in self.plan.happenings:
            self._schedule(happening)
        self._note_engines()
        while not self.ledger.violations:
            life = self._start()
            await life.over
            self._note_engines()
            if life.is_alive:
                self.expectations.nothing_left(life)
                self.disk.release(life)
                life.is_alive = False
            if self.ledger.violations or self._is_over():
                break
            await asyncio.sleep(0.1 + self.plan.restarts_after[min(life.number, LIVES - 1)])
        if not self.ledger.violations:
            self.ledger.close()

    def _start(self) -> Life:
        life = Life(self, len(self.lives))
        self.lives.append(life)
        self.note("starts", life.name)
        kept = {record.report.restore_id: record for record in self.disk.records("/spool").values()}
        for case in self.ledger.cases.values():
            case.kept_wait = kept[case.restore_id].exchange.not_before if case.restore_id in kept else None
        context = contextvars.copy_context()
        context.run(PROCESS.set, life)
        task = self.loop.create_task(self._live(life), name=life.name, context=context)
        task.add_done_callback(lambda done: self._left(life, done), context=self._context)
        return life

    def _left(self, life: Life, done: asyncio.Task[None]) -> None:
        if not life.is_alive:
            return
        if not done.cancelled() and (problem := done.exception()) is not None:
            self.ledger.violated("no_failure_of_ours", f"the process failed: {problem!r}")
        if not life.over.done():
            life.over.set_result(None)

    async def _live(self, life: Life) -> None:
        number = min(life.number, LIVES - 1)
        takes_over = self.plan.takes_over[number] or life.number >= LIVES or self._is_last_life()
        async with Reporter(self._settings(), clock=life.clock, takes_over=takes_over) as life.reporter:
            for engine in self.engines:
                if engine.is_done:
                    continue
                if engine.starts and not engine.script.resumed[min(engine.starts - 1, LIVES - 1)]:
                    engine.is_done = True
                    self._note_engines()
                    continue
                life.engines.append(
                    asyncio.create_task(engine.run(life), name=f"engine of {engine.case.restore_id}")
                )
            for came_to in await asyncio.gather(*life.engines, return_exceptions=True):
                if isinstance(came_to, Exception):
                    self.ledger.violated("engine_undisturbed", f"an engine failed: {came_to!r}")
            while not life.is_leaving and (
                self.plan.stays[number] or life.number >= LIVES or self._is_last_life()
            ):
                if self._is_settled(life) and (life.number < LIVES or self._is_last_life()):
                    break
                await asyncio.sleep(1.0)
            life.is_leaving = True

    def _settings(self) -> Settings:
        chosen = self.plan.settings
        signs_in = "agent_password_file" if self.plan.agent_password else "token_file"
        changes = {
            **{name: chosen[name] for name in _PLAIN},
            "progress": Progress(chosen["progress"]),
            "path_spelling": PathSpelling(chosen["path_spelling"]),
            "agent_id": AGENT if chosen["agent"] or self.plan.agent_password else None,
            "when_refused": WhenRefused(chosen["when_refused"]),
            signs_in: Path(TOKEN_FILE),
        }
        return replace(_common_settings(), **changes)

    def _is_last_life(self) -> bool:
        """Whether nothing is left to happen but that all is delivered."""
        return self._engines_over is not None and self.loop.time() >= self.plan.good_at

    def _is_settled(self, life: Life) -> bool:
        # What could not be cleared up is left to the next process.
        takes_over = life.reporter._takes_over and not life.could_not_clear_up
        return not life.reporter._all.open and not (takes_over and self._waiting())

    def _waiting(self) -> list[str]:
        return [name for name in self.disk.names("/spool") if name.endswith(".json")]

    def has_ended(self, life: Life, restore_id: str) -> bool:
        """Whether whoever starts an engine again can see that it is too late."""
        if not self.ledger.cases[restore_id].opened:
            return False
        is_taken_over = restore_id in life.reporter._all.open
        return is_taken_over or self.control_plane.restore(restore_id).is_final

    def _is_over(self) -> bool:
        return self._is_last_life() and not self._waiting()

    def _note_engines(self) -> None:
        if self._engines_over is None and all(engine.is_done for engine in self.engines):
            self._engines_over = self.loop.time()
            wait = max(0.0, self.plan.good_at - self.loop.time()) + BOUND
            self.later(wait, self._too_late)

    def _too_late(self) -> None:
        life = self.lives[-1]
        if not life.over.done() or not self._is_over():
            self.ledger.violated("settles_in_time", f"not within {BOUND:g} s: {self._what_waits(life)}")
            if not life.over.done():
                self.kill(power=False)

    def _what_waits(self, life: Life) -> str:
        open_ = getattr(life, "reporter", None) and life.reporter._deliveries
        states = {name: restore.delivery.exchange for name, restore in open_.open.items()} if open_ else {}
        return f"{self.disk.names('/spool')} {states}"

    # What happens.

    def _schedule(self, happening: Happening) -> None:
        if isinstance(happening, Kill) and happening.in_finish is not None:
            return
        self.later(happening.at, self._happen, happening)
        if isinstance(happening, NetFault | DiskFault):
            self.later(happening.at + happening.seconds, self._unhappen, happening)

    def _happen(self, happening: Happening) -> None:
        self.note("happens", happening)
        match happening:
            case NetFault():
                self.network.faults.append(happening)
                self._trouble(1)
            case DiskFault():
                self.ledger.seen[f"disk {happening.kind}"] += 1
                self.disk.troubles.append(happening.kind)
                self._trouble(1)
            case Kill():
                self._kill_soon(happening)
            case StopAsked():
                self._ask_stop_soon(happening)
            case ClockJump():
                self.ledger.seen["clock jump"] += 1
                self.clock_jumped = True
                self.skew += timedelta(seconds=happening.seconds)
            case TokenEnds():
                self._end_token(happening)
            case EndsElsewhere():
                self._end_elsewhere(happening)
            case Leaves():
                self._leave()

    def _kill_soon(self, happening: Kill) -> None:
        if happening.calls:
            self._armed = [happening.calls, happening.power]
        else:
            self.kill(power=happening.power)

    def _ask_stop_soon(self, happening: StopAsked) -> None:
        name = f"restore-{happening.restore}"
        if happening.in_window:
            self.network.after_read[name] = lambda: self._ask_stop(name)
        else:
            self._ask_stop(name)

    def _end_elsewhere(self, happening: EndsElsewhere) -> None:
        case = self.ledger.cases[f"restore-{happening.restore}"]
        if self.control_plane.end(case.restore_id, happening.state):
            case.elsewhere = case.disturbed = True
            self.ledger.seen["ended elsewhere"] += 1

    def _unhappen(self, happening: NetFault | DiskFault) -> None:
        if isinstance(happening, NetFault):
            self.network.faults.remove(happening)
        else:
            self.disk.troubles.remove(happening.kind)
        self._trouble(-1)

    def _trouble(self, more: int) -> None:
        self.troubles += more
        self.quiet_since = self.loop.time()

    def _end_token(self, happening: TokenEnds) -> None:
        self.ledger.seen["token ends"] += 1
        self._trouble(1)
        self.control_plane.door.replace()
        if happening.between != "old" and not self.plan.agent_password:
            self.disk.put(TOKEN_FILE, b"" if happening.between == "none" else b"\xff\x00garbage")

        def renew() -> None:
            self.disk.put(TOKEN_FILE, self.control_plane.door.good.encode())
            self._trouble(-1)

        self.later(happening.after, renew)

    def _ask_stop(self, restore_id: str) -> None:
        if not self.control_plane.ask_stop(restore_id):
            return
        self.note("stop asked", restore_id)
        self.ledger.cases[restore_id].stop_asked = True
        self.ledger.seen["stop asked"] += 1
        life = self.lives[-1] if self.lives else None
        if life is not None and (exchange := life.exchange(restore_id)) is not None and exchange.attempt:
            self.ledger.seen["stop asked during backoff"] += 1
        self.later(STOP_SECONDS, self.expectations.stopped, restore_id, self.loop.time(), life)

    def _leave(self) -> None:
        """The process is asked to end: its engines are cancelled, and it drains."""
        life = self.lives[-1] if self.lives else None
        if life is None or not life.is_alive or not hasattr(life, "reporter"):
            return
        self.ledger.seen["leaves"] += 1
        life.is_leaving = True
        for task in life.engines:
            task.cancel()

    # Kills.

    def arm_in_finish(self, engine: Engine) -> None:
        """A restore begins to finish: is its process to be killed in that?"""
        number = self.engines.index(engine)
        for happening in self.plan.happenings:
            if isinstance(happening, Kill) and happening.in_finish == number and engine.starts == 1:
                self._armed = [happening.calls, happening.power]

    def _is_killed_here(self) -> bool:
        if self._armed is None or PROCESS.get() is not self.lives[-1]:
            return False
        if self._armed[0] > 0:
            self._armed[0] -= 1
            return False
        self.ledger.seen["kill at a call"] += 1
        self.kill(power=self._armed[1])
        return True

    def kill(self, *, power: bool) -> None:
        """The process is gone, at once; or the whole host."""
        self._armed = None
        life = self.lives[-1] if self.lives else None
        if life is None or not life.is_alive or life.over.done():
            return
        self.note("killed", life.name, power)
        self.ledger.seen["power loss" if power else "kill"] += 1
        life.is_alive = False
        self.disk.release(life)
        if power:
            self.disk.lose_power()
            self._note_forgotten()
            self.boot = f"boot-{len(self.lives)}"
        for engine in self.engines:
            self._kill_engine(engine, life, power=power)
        life.over.set_result(None)

    def _note_forgotten(self) -> None:
        """A record whose writer was killed before it was durable may be gone."""
        kept = self.disk.records("/spool")
        for case in self.ledger.cases.values():
            if case.opened and case.durable is None and f"{case.restore_id}.json" not in kept:
                case.forgotten = True

    def _kill_engine(self, engine: Engine, life: Life, *, power: bool) -> None:
        if engine.pid is not None and self.is_process_alive(engine.pid):
            self._processes[engine.pid] = self.loop.time() + (0.0 if power else engine.script.outlives)
        self.expectations.kept_early(engine, life)

    def _check_content(self, path: str, content: bytes) -> None:
        if b"canary-token" in content:
            self.ledger.violated("token_concealed", f"in {path}")


_PLAIN = (
    "report_interval",
    "idle_poll_interval",
    "retry_cap",
    "retry_after_cap",
    "drain_timeout",
    "max_errors",
    "concurrency",
    "retention",
)


@cache
def _common_settings() -> Settings:
    """What is the same in each run; to make settings takes as long as a short run."""
    return Settings(endpoint=ORIGIN, project_id=PROJECT, spool_dir=Path("/spool"), daemon=DaemonUse.NEVER)


def run(plan: Plan) -> Outcome:
    """Run a plan."""
    return World(plan).run()
