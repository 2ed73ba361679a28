"""One run: the host with its engines and each life of its reporter, the network, and the control plane."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import hashlib
import logging
import shutil
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from agent_reporter import Reporter
from agent_reporter.clock import SystemClock
from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.accounts import Accounts, AgentAccount
from agent_reporter.reference.exchange import RefusedError
from agent_reporter.settings import DaemonUse, Settings
from tests.simulation.loop import PROCESS, Process, SpinningError, StuckError, bury
from tests.wire.engine import Engine
from tests.wire.ledger import CANARY, Case, Ledger
from tests.wire.loop import WireLoop
from tests.wire.network import HOST, PORT, Network
from tests.wire.plan import LIVES, Fault, Happening, Kill, Plan, ServerRestart, StopAsked, TokenEnds
from tests.wire.seams import close_files_below, installed

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator

    from agent_reporter import Job

BEGINNING = datetime(2026, 1, 1, tzinfo=UTC)
PROJECT, AGENT = "110011", "agent-1"
STOP_SECONDS = 9.0
"""A look each 2 s, the first at random, and one that hangs for 4."""
EVENTS_LIVE, READING = 45.0, 40.0
"""An event that is older may be gone; then it takes the look at the restore itself."""
TOKEN_MEMORY = 70.0
"""For so long a sign-in that failed may be held back."""
MEMORY = Path("/dev/shm")
"""Files are kept there where it is: a sync takes no time."""
BOUND = 400.0
"""Seconds until everything is delivered, once all is well: a retry, an interval of looks for orphans, and more."""
FAILURES_OF_OURS = frozenset(
    {"reporter.loop_failed", "reporter.ended_badly", "job.result_not_kept", "delivery.dead_letter"}
)


@dataclass(frozen=True)
class Outcome:
    """What a plan came to."""

    plan: Plan
    violations: list[tuple[str, str]]
    seen: Counter[str]
    virtual: float
    requests: int
    connects: int
    trace: list[tuple[Any, ...]]

    @property
    def trace_hash(self) -> str:
        """The same for two runs that went the same."""
        return hashlib.sha256(repr(self.trace).encode()).hexdigest()[:16]


class HostClock(SystemClock):
    """Virtual time, and chance from the seed."""

    def __init__(self, world: World) -> None:
        self._world = world

    def now(self) -> datetime:
        return BEGINNING + timedelta(seconds=self._world.loop.time())

    def monotonic(self) -> float:
        return self._world.loop.time()

    def random(self) -> float:
        return self._world.random.random()


class Life(Process):
    """One life of the reporter's process."""

    reporter: Reporter

    def __init__(self, world: World, number: int) -> None:
        super().__init__(f"life-{number}", 1000 + number)
        self.number = number
        self.jobs: dict[str, Job] = {}
        self.is_leaving = False
        self.over = world.loop.create_future()


class LogWatch(logging.Handler):
    """The events of the product: none tells of a failure of ours, and none a secret."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.DEBUG)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        process = PROCESS.get()
        if process is not None and not process.is_alive:
            return  # the dead may say what they like
        said = f"{record.msg} {record.args}"
        event = record.msg.get("event") if isinstance(record.msg, dict) else record.msg
        if event in FAILURES_OF_OURS:
            self._ledger.violated("no_failure_of_ours", said[-1_000:])
        if CANARY in said or any(secret in said for secret in self._ledger.secrets):
            self._ledger.violated("token_concealed", f"in the event {event}")


class World:
    """Everything of one run."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.random = Random(f"wire {plan.seed}")
        self.loop = WireLoop()  # type: ignore[abstract]  # what nobody asks for is not there
        self.trace: list[tuple[Any, ...]] = []
        self.ledger = Ledger(self)
        self.network = self.loop.network = Network(self.loop, self.random, self.ledger)
        self.lives: list[Life] = []
        self.engines: list[Engine] = []
        self._directory = directory
        self._spool = directory / "spool"
        self._tokens = 0
        self._seconds_dead = 0.0
        self._stores = 0
        self._is_bounded = self._is_over = False
        self._restart: asyncio.Task[None] | None = None
        self.server = self._new_server()
        self._secret(f"{CANARY}password" if plan.signs_in else f"{CANARY}token-0")
        self._let_in("" if plan.signs_in else f"{CANARY}token-0")

    def note(self, *event: object) -> None:
        """One more event of the trace."""
        self.trace.append((round(self.loop.time(), 6), *event))

    # The run.

    def run(self) -> Outcome:
        """Live through the plan."""
        with installed(self), _watched(self):
            try:
                self.loop.run(self._main())
            except (StuckError, SpinningError) as problem:
                self.ledger.violated("settles_in_time", f"{type(problem).__name__}: {problem}")
            for life in self.lives:
                life.is_alive = False
                bury(life, self.loop)
        for complaint in self.loop.complaints:
            self.ledger.violated("no_failure_of_ours", complaint)
        self.ledger.seen.update(self.network.hits)
        network = self.network
        return Outcome(
            self.plan,
            self.ledger.violations,
            self.ledger.seen,
            self.loop.time(),
            network.requests,
            network.connects,
            self.trace,
        )

    async def _main(self) -> None:
        await self.server.start()
        for number, script in enumerate(self.plan.scripts):
            case = Case(f"restore-{number}")
            self.ledger.cases[case.restore_id] = case
            self.server.start_restore(restore_id=case.restore_id, project_id=PROJECT, agent_id=AGENT)
            self.engines.append(Engine(script, case))
        for happening in self.plan.happenings:
            self.loop.later(happening.at, self._happen, happening)
        while not self.ledger.violations:
            life = self._start()
            await life.over
            self._take_stock(life)
            if not life.is_alive:
                await asyncio.sleep(self._seconds_dead)
            elif not self._check_nothing_left(life) or self._is_all_told():
                break
            else:
                await asyncio.sleep(0.5)
        self._is_over = True
        if self._restart is not None:
            await self._restart
        if not self.ledger.violations:
            self.ledger.close()
            for letter in (self._spool / "dead").glob("*"):
                self.ledger.violated("result_delivered", f"{letter.name} is a dead letter")
        await self.server.stop()

    def _start(self) -> Life:
        life = Life(self, len(self.lives))
        self.lives.append(life)
        self.note("starts", life.name)
        context = contextvars.copy_context()
        context.run(PROCESS.set, life)
        task = self.loop.create_task(self._live(life), name=life.name, context=context)
        task.add_done_callback(lambda done: self._left(life, done), context=contextvars.copy_context())
        return life

    def _left(self, life: Life, done: asyncio.Task[None]) -> None:
        if not life.is_alive:
            return
        if not done.cancelled() and (problem := done.exception()) is not None:
            self.ledger.violated("no_failure_of_ours", f"the process failed: {problem!r}")
        if not life.over.done():
            life.over.set_result(None)

    async def _live(self, life: Life) -> None:
        async with Reporter(self._settings(), clock=HostClock(self)) as life.reporter:
            engines = [asyncio.create_task(each.run(life)) for each in self.engines if not each.is_done]
            for came_to in await asyncio.gather(*engines, return_exceptions=True):
                if isinstance(came_to, Exception):
                    self.ledger.violated("no_failure_of_ours", f"an engine failed: {came_to!r}")
            self._note_engines()
            while not self.ledger.violations:
                if not self._stays(life) or not (life.reporter._all.open or self._waiting()):
                    break
                await asyncio.sleep(1.0)
            life.is_leaving = True

    def _stays(self, life: Life) -> bool:
        """Whether it waits for its deliveries."""
        return life.number >= LIVES or self.plan.stays[life.number] or self.loop.time() > self.plan.good_at

    def is_leaving(self, process: Process) -> bool:
        """Whether it ends in good order."""
        return any(life is process and life.is_leaving for life in self.lives)

    def _note_engines(self) -> None:
        """Once all engines are done, there is a bound on what is left."""
        if all(engine.is_done for engine in self.engines) and not self._is_bounded:
            self._is_bounded = True
            self.loop.later(max(0.0, self.plan.good_at - self.loop.time()) + BOUND, self._too_late)

    def _too_late(self) -> None:
        if not self._is_over:
            self.ledger.violated("settles_in_time", f"{self._waiting()} wait still")
            self._kill()

    def _take_stock(self, life: Life) -> None:
        """What its engines have stated, by now or ever."""
        for case in self.ledger.cases.values():
            job = life.jobs.get(case.restore_id)
            if job is not None and job.take_report().is_final:
                case.stated = job.take_report()

    def _check_nothing_left(self, life: Life) -> bool:
        tasks = [task.get_name() for task in life.tasks if not task.done()]
        connections = [each.number for each in self.network.open_of(life)]
        life.is_alive = False
        if tasks or connections:
            self.ledger.violated("nothing_left", f"tasks {tasks}, connections {connections}")
        return not self.ledger.violations

    def _is_all_told(self) -> bool:
        return all(engine.is_done for engine in self.engines) and not self._waiting()

    def _waiting(self) -> list[str]:
        return sorted(path.name for path in self._spool.glob("*.json"))

    # What there is.

    def _settings(self) -> Settings:
        plan = self.plan
        secret = {"agent_password_file" if plan.signs_in else "token_file": self._secret()}
        changes: dict[str, Any] = {
            "spool_dir": self._spool,
            "report_interval": plan.report_interval,
            "retry_cap": plan.retry_cap,
            "drain_timeout": plan.drain_timeout,
            "concurrency": plan.concurrency,
            "agent_id": AGENT if plan.has_agent or plan.signs_in else None,
            **secret,
        }
        return replace(_common_settings(), **changes)

    def _secret(self, text: str = "") -> Path:
        """The file with the process's token or password; with `text` in it from now on."""
        path = self._directory / "secret"
        if text:
            path.touch(mode=0o600)
            path.write_text(text)
        return path

    def _new_server(self) -> ReferenceServer:
        self._stores += 1
        return ReferenceServer(
            self._directory / f"store-{self._stores}",
            token_file=self._directory / "token-there",
            accounts=Accounts([AgentAccount(PROJECT, AGENT, f"{CANARY}password")]),
            token_lifetime=self.plan.token_lifetime,
            host=HOST,
            port=PORT,
            now=lambda: BEGINNING.timestamp() + self.loop.time(),
        )

    def _let_in(self, token: str) -> None:
        path = self._directory / "token-there.new"
        path.write_text(token)
        path.replace(self._directory / "token-there")

    # What happens.

    def _happen(self, happening: Happening) -> None:
        if self._is_over:
            return
        if self._is_server_away and isinstance(happening, ServerRestart | TokenEnds | StopAsked):
            self.loop.later(0.5, self._happen, happening)
            return
        self.note("happens", type(happening).__name__)
        self.ledger.seen[type(happening).__name__] += 1
        match happening:
            case Fault():
                self.network.faults.append(happening)
                self.loop.later(happening.seconds, self.network.faults.remove, happening)
            case ServerRestart():
                self._restart_server(happening)
            case TokenEnds():
                self._end_token(happening)
            case StopAsked():
                self._ask_stop(happening)
            case Kill():
                self._seconds_dead = happening.seconds
                self._kill()

    @property
    def _is_server_away(self) -> bool:
        return self._restart is not None and not self._restart.done()

    def _restart_server(self, restart: ServerRestart) -> None:
        self.network.drop_server()

        async def go_and_come() -> None:
            await self.server.stop()
            await asyncio.sleep(restart.seconds)
            if restart.is_emptied:
                self.ledger.emptied()
                self.server = self._new_server()
            await self.server.start()
            if restart.is_emptied:
                for name in self.ledger.cases:
                    self.server.start_restore(restore_id=name, project_id=PROJECT, agent_id=AGENT)

        self._restart = self.loop.create_task(go_and_come(), name="restart")

    def _end_token(self, ends: TokenEnds) -> None:
        self._tokens += 1
        token = f"{CANARY}token-{self._tokens}"
        if self.plan.signs_in:
            self.server.store._db.execute("DELETE FROM tokens")
        else:
            self._let_in(token)
            self.loop.later(ends.seconds, self._secret, token)

    def _ask_stop(self, asked: StopAsked) -> None:
        name = f"restore-{asked.restore}"
        try:
            self.server.request_stop(name)
        except RefusedError:
            return
        now = self.loop.time()
        healed = self._healed_after(now)
        wait = healed + STOP_SECONDS + (READING if healed - now > EVENTS_LIVE else 0.0)
        wait += TOKEN_MEMORY if self.plan.signs_in and healed > now else 0.0
        self.loop.later(wait - now, self._check_stopped, name, now)

    def _healed_after(self, moment: float) -> float:
        """When nothing hinders a stop any more, nor has lately."""
        healed = moment
        for each in self.plan.happenings:
            if (
                isinstance(each, StopAsked)
                or (isinstance(each, Fault) and not each.hinders_looks)
                or each.at > healed + STOP_SECONDS
                or each.end + STOP_SECONDS < healed
            ):
                continue
            healed = max(healed, each.end)
        return healed

    def _check_stopped(self, name: str, asked: float) -> None:
        if self._is_over:
            return
        if self._is_server_away:
            self.loop.later(STOP_SECONDS, self._check_stopped, name, asked)
            return
        life = self.lives[-1]
        job = life.jobs.get(name) if life.is_alive else None
        if job is None or not job.is_live or self.server.document(name)["state"] != "stop_requested":
            return
        self.ledger.seen["stop in time"] += 1
        if not job._stop_requested:
            self.ledger.violated("stop_in_time", f"{name}: asked at {asked:.1f}")

    def _kill(self) -> None:
        life = self.lives[-1] if self.lives else None
        if life is None or not life.is_alive or life.over.done():
            return
        if not hasattr(life, "reporter") or life.reporter._deliveries is None:
            self.loop.later(0.2, self._kill)  # its session is not there yet
            return
        self.note("killed", life.name)
        life.is_alive = False
        self.network.drop_process(life)
        close_files_below(str(self._spool))
        session = life.reporter._all._means.control_plane._http._session
        if session is not None and session.connector is not None:
            session.connector._close()
            session.detach()
        life.over.set_result(None)


@contextmanager
def _watched(world: World) -> Iterator[None]:
    """What is logged and warned of is looked at."""
    watch = LogWatch(world.ledger)
    loggers = [
        logging.getLogger("agent_reporter"),
        logging.getLogger("aiohttp"),
        logging.getLogger("asyncio"),
    ]
    before = [(logger.level, logger.propagate) for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        logger.addHandler(watch)
    gc.freeze()  # of what was there before nothing is looked for
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield
            gc.collect()
        for each in warned:
            world.ledger.violated("nothing_left", f"{each.category.__name__}: {each.message}")
    finally:
        gc.unfreeze()
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(watch)
            logger.setLevel(level)
            logger.propagate = propagate


@cache
def _common_settings() -> Settings:
    """What is the same in each run; to make settings takes as long as a short run."""
    return Settings(
        endpoint=f"http://{HOST}:{PORT}", project_id=PROJECT, allow_http=True, daemon=DaemonUse.NEVER
    )


def run(plan: Plan) -> Outcome:
    """Run a plan."""
    directory = Path(tempfile.mkdtemp(prefix="wire-", dir=MEMORY if MEMORY.is_dir() else None))
    try:
        return World(plan, directory).run()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
