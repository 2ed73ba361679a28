"""A host on which a crowd of restores is reported at once, and everything that happens to it in that time."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.exchange import RefusedError
from agent_reporter.reference.server import AGENT, PROJECT
from tests.daemon.host_daemon import DaemonService
from tests.daemon.host_notes import Notes, read_notes
from tests.daemon.host_plan import (
    DYING_WAYS,
    STOPPED_WAYS,
    Engine,
    Moment,
    Phase,
    Times,
    Way,
    draw_courses,
    draw_kills,
)
from tests.daemon.host_restic import LINE_LIMIT, Program, child_of, follow, make_program, ways_missing
from tests.daemon.host_shell import SCRIPT
from tests.daemon.host_truth import Record, untruths

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.daemon.host_plan import Course

TOKEN = "a-token-that-engines-do-not-need"
ROOT = Path(__file__).parents[2]
KNOWN_SECONDS = 90.0
"""Until the control plane knows at the beginning that every engine restores."""
BEFORE_DATA = {"start_requested", "queued", "preparing"}
UNKNOWN = "unknown"
"""The state of a restore while the control plane is away."""
ENGINES_END_SECONDS = 30.0
GRACE = ["--grace", "4"]
STOP_SECONDS = 3.0
"""In which an engine is to know of a stop, while there is a way to the control plane."""
DOUBTFUL_PATCHES = 5
"""Patches at the beginning of the outage that are done, and whose answer is lost."""


@dataclass(frozen=True)
class Options:
    """What is played. Times are in seconds."""

    restores: int
    times: Times
    kills: int
    seed: int
    parts: int = 4
    """Of the repository that restic restores."""
    deaths: tuple[Phase, ...] = tuple(Phase)
    """When engines die that are to die."""
    daemon: dict[str, str] = field(default_factory=dict)
    """Settings of the daemon, as they are in its environment but for the prefix."""
    patience: float = 90.0
    """After the last phase, for every record to be true."""


@dataclass
class Restore:
    """One restore: what is to become of it, and what has."""

    id: str
    course: Course
    directory: Path
    process: asyncio.subprocess.Process | None = None
    following: asyncio.Task[Notes] | None = None
    stop_asked_at: float | None = None
    died_at: float | None = None
    notes: Notes = field(default_factory=Notes)
    record: Record | None = None
    untruths: list[str] = field(default_factory=list)

    @property
    def stop_seconds(self) -> float | None:
        """From the request until the engine knew of it."""
        if self.stop_asked_at is None or self.notes.stopped_at is None:
            return None
        return self.notes.stopped_at - self.stop_asked_at

    @property
    def age(self) -> float | None:
        """How old the result was when the control plane took it."""
        ended = self.notes.ended_at or self.died_at
        over = None if self.record is None else self.record.over_at
        return None if ended is None or over is None else over - ended


@dataclass
class Outcome:
    """What came of it all."""

    restores: list[Restore]
    engine: str
    kills: int
    starts: int
    patches: int
    answers_503: int
    lost_answers: int
    requests: dict[str, int]
    outage: float
    last_true: float
    """Seconds after the outage at which the last record was true; below 0 if that was before its end."""
    seconds: float
    troubles: list[str]
    """What is wrong beside the records."""

    @property
    def is_true(self) -> bool:
        return not self.troubles and not any(restore.untruths for restore in self.restores)


class Crowd:
    """The restores, the daemon, the control plane, and who meddles with them."""

    def __init__(self, directory: Path, options: Options, server: ReferenceServer) -> None:
        self._directory = directory
        self._options = options
        self._server = server
        self._began = {phase: asyncio.Event() for phase in Phase}
        self._is_away = False
        self._outage_over = 0.0
        self._troubles: list[str] = []
        chance = random.Random(options.seed)
        courses = draw_courses(chance, options.restores, options.times, options.deaths, ways_missing())
        self._kills = draw_kills(chance, options.kills)
        self._restores = [self._new(number, course) for number, course in enumerate(courses)]
        self._spools = [directory / "daemon-spool", directory / "user-spool"]
        self._daemon = DaemonService(directory, self._daemon_environment())
        self._program: Program

    async def play(self) -> Outcome:
        """All of it, from the first start to the last look."""
        begun = time.monotonic()
        self._program = await asyncio.to_thread(make_program, self._directory, self._options.parts)
        await self._daemon.start()
        try:
            async with asyncio.TaskGroup() as meddling:
                meddling.create_task(self._pass_phases())
                for kill in self._kills:
                    meddling.create_task(self._kill_daemon(kill))
                for restore in self._restores:
                    meddling.create_task(self._go(restore))
            await self._until_all_over()
            await self._until_engines_end()
            await self._leave()
        finally:
            self._clear_up()
        self._judge()
        return self._outcome(time.monotonic() - begun)

    # --- what happens -------------------------------------------------------------------------------------

    async def _pass_phases(self) -> None:
        times = self._options.times
        self._began[Phase.CALM].set()
        calm_over = asyncio.create_task(asyncio.sleep(times.calm))
        lasting = [each for each in self._restores if each.course.way not in DYING_WAYS]
        await self._until(lambda: not any(self._state(each) in BEFORE_DATA for each in lasting))
        await calm_over
        early = [
            each for each in self._restores if each.course.way in STOPPED_WAYS and is_in(each, Phase.CALM)
        ]
        await self._until(lambda: all(each.stop_asked_at is not None for each in early))
        await asyncio.sleep(STOP_SECONDS)
        await self._suffer_outage(times.outage)
        self._outage_over = time.time()
        self._began[Phase.AFTER].set()
        await asyncio.sleep(times.after)

    async def _suffer_outage(self, seconds: float) -> None:
        """Answers get lost, then requests are refused, then dropped, then nobody listens at all."""
        self._began[Phase.OUTAGE].set()
        self._server.add_fault("apply_then_drop", times=DOUBTFUL_PATCHES, method="PATCH")
        self._server.add_fault({"status": 503}, for_seconds=seconds / 3)
        self._server.add_fault("drop", for_seconds=seconds)
        await asyncio.sleep(seconds * 2 / 3)
        self._is_away = True
        await self._server.stop()
        await asyncio.sleep(seconds / 3)
        self._server.faults.clear()
        await self._server.start()
        self._is_away = False

    async def _kill_daemon(self, moment: Moment) -> None:
        await self._at(moment)
        await self._daemon.kill()

    async def _go(self, restore: Restore) -> None:
        """Start one engine, and do to it what is to be done."""
        await self._start(restore)
        act, way = restore.course.act, restore.course.way
        if act is None:
            return
        await self._at(act)
        if way in STOPPED_WAYS:
            await self._ask_stop(restore, act.phase)
        else:
            await self._end_engine(restore)

    async def _ask_stop(self, restore: Restore, phase: Phase) -> None:
        """As a user does: at the control plane, or at the daemon while there is no way to that."""
        if phase is Phase.OUTAGE:
            restore.stop_asked_at = time.time()
            await self._curl_stop(restore)
            return
        await self._until(lambda: self._state(restore) == "in_progress")
        restore.stop_asked_at = time.time()
        try:
            self._server.request_stop(restore.id)
        except RefusedError as problem:
            self._troubles.append(f"restore {restore.id} could not be stopped: {problem}")

    async def _curl_stop(self, restore: Restore) -> None:
        patch = '[{"op":"replace","path":"/state","value":"stop_requested"}]'
        words = ["-s", "--unix-socket", str(self._daemon.path), "--retry", "30", "--retry-all-errors"]
        words += ["--retry-delay", "1", "-w", "%{http_code}", "-o", "/dev/null", "-X", "PATCH", "-d", patch]
        url = f"http://localhost/v2/{PROJECT}/restores/{restore.id}"
        curl = await asyncio.create_subprocess_exec("curl", *words, url, stdout=asyncio.subprocess.PIPE)
        status, _ = await curl.communicate()
        if status != b"204":
            self._troubles.append(f"the daemon answered a stop of restore {restore.id} with {status!r}")

    async def _end_engine(self, restore: Restore) -> None:
        assert restore.process is not None
        await self._until(lambda: self._state(restore) != "start_requested")  # else nobody knows of it
        pids = [restore.process.pid]
        if restore.course.engine is Engine.RUN:
            await self._until(lambda: child_of(pids[0]) is not None, ENGINES_END_SECONDS)
            child = child_of(pids[0])
            if child is None:
                self._troubles.append(f"the engine of restore {restore.id} was not there to be killed")
                return
            pids = [child] if restore.course.way is Way.ENGINE_KILLED else [pids[0], child]
        restore.died_at = time.time()
        for pid in pids:
            os.kill(pid, signal.SIGTERM if restore.course.way is Way.LEAVES else signal.SIGKILL)

    async def _at(self, moment: Moment) -> None:
        times = self._options.times
        seconds = {Phase.CALM: times.calm, Phase.OUTAGE: times.outage, Phase.AFTER: times.after}
        await self._began[moment.phase].wait()
        await asyncio.sleep(moment.part * seconds[moment.phase])

    # --- engines ------------------------------------------------------------------------------------------

    def _new(self, number: int, course: Course) -> Restore:
        directory = self._directory / f"{number:02}"
        directory.mkdir()
        return Restore(self._server.start_restore(), course, directory)

    async def _start(self, restore: Restore) -> None:
        course = restore.course
        environment = self._engine_environment()
        agent = [sys.executable, "-m", "agent_reporter.cli.main"]
        mine = [restore.id, str(restore.directory), str(course.seconds), course.way.value]
        command: list[str] = []
        pipe: int | None = None
        match course.engine:
            case Engine.LIBRARY:
                command = [sys.executable, "-m", "tests.daemon.host_library", *mine]
            case Engine.CURL:
                command = ["sh", "-c", SCRIPT, "engine", *mine]
            case Engine.RUN:
                engine = self._program.command(course, restore.directory)
                options = [*GRACE, *self._program.options(restore.directory)]
                command = [*agent, "run", "--restore-id", restore.id, *options, "--", *engine]
                environment = self._program.environment(course) | environment
                pipe = asyncio.subprocess.PIPE
        with (restore.directory / "log").open("wb") as log:
            restore.process = await asyncio.create_subprocess_exec(
                *command,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe or log,
                stderr=pipe or log,
                start_new_session=True,
                limit=LINE_LIMIT,
            )
        if course.engine is Engine.RUN:
            restore.following = asyncio.create_task(follow(course, restore.process, self._program))

    def _engine_environment(self) -> dict[str, str]:
        """What an engine knows: where the daemon is, and not where the control plane is."""
        return _plain_environment() | {
            "AGENT_REPORTER_DAEMON": "always",
            "AGENT_REPORTER_PROJECT_ID": PROJECT,
            "AGENT_REPORTER_SOCKET": str(self._daemon.path),
            "AGENT_REPORTER_SPOOL_DIR": str(self._spools[1]),
            "SOCKET": str(self._daemon.path),
            "PROJECT": PROJECT,
        }

    def _daemon_environment(self) -> dict[str, str]:
        token = self._directory / "token"
        token.touch(mode=0o600)
        token.write_text(TOKEN)
        settings = {f"AGENT_REPORTER_{name.upper()}": value for name, value in self._options.daemon.items()}
        return (
            _plain_environment()
            | {
                "AGENT_REPORTER_ENDPOINT": self._server.url,
                "AGENT_REPORTER_PROJECT_ID": PROJECT,
                "AGENT_REPORTER_AGENT_ID": AGENT,
                "AGENT_REPORTER_TOKEN_FILE": str(token),
                "AGENT_REPORTER_SPOOL_DIR": str(self._spools[0]),
            }
            | settings
        )

    # --- the end ------------------------------------------------------------------------------------------

    async def _until_all_over(self) -> None:
        over = {"completed", "completed_with_errors", "failed", "stopped"}
        await self._until(
            lambda: all(self._state(each) in over for each in self._restores), self._options.patience
        )

    async def _until_engines_end(self) -> None:
        for restore in self._restores:
            assert restore.process is not None
            try:
                async with asyncio.timeout(ENGINES_END_SECONDS):
                    await restore.process.wait()
            except TimeoutError:
                self._troubles.append(f"the engine of restore {restore.id} did not end")

    async def _leave(self) -> None:
        """What a user's own spool holds is flushed; then the daemon ends, and nothing is left."""
        flush = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agent_reporter.cli.main", "flush"),
            env=self._engine_environment(),
            stdout=asyncio.subprocess.DEVNULL,
        )
        if status := await flush.wait():
            self._troubles.append(f"flush ended with {status}")
        if status := await self._daemon.end():
            self._troubles.append(f"the daemon ended with {status}")
        self._troubles += [f"a daemon ended of itself, with {status}" for status in self._daemon.failures]
        self._troubles += [f"in the daemon's log: {line}" for line in self._daemon.complaints()]
        self._troubles += [f"left: {what}" for spool in self._spools for what in left_in(spool)]

    def _clear_up(self) -> None:
        self._daemon.abandon()
        for restore in self._restores:
            if restore.process is not None:
                with suppress(ProcessLookupError):
                    os.killpg(restore.process.pid, signal.SIGKILL)

    def _judge(self) -> None:
        for restore in self._restores:
            if restore.following is None:
                restore.notes = read_notes(restore.directory / "notes")
            elif restore.following.done():
                restore.notes = restore.following.result()
            restore.record = Record(
                self._server.document(restore.id),
                self._server.history(restore.id),
                self._server.erased_stops(restore.id),
            )
            restore.untruths = untruths(restore.course, restore.notes, restore.record)

    def _outcome(self, seconds: float) -> Outcome:
        history = self._server.history()
        over = [each.record.over_at for each in self._restores if each.record and each.record.over_at]
        return Outcome(
            restores=self._restores,
            engine=self._program.name,
            kills=self._daemon.kills,
            starts=self._daemon.starts,
            patches=sum(request["method"] == "PATCH" for request in history),
            answers_503=sum(request["answer"] == 503 for request in history),
            lost_answers=sum(request["answer"] == "dropped" for request in history),
            requests=dict(self._daemon.requests),
            outage=self._options.times.outage,
            last_true=max(over, default=0.0) - self._outage_over,
            seconds=seconds,
            troubles=self._troubles,
        )

    def _state(self, restore: Restore) -> str:
        return UNKNOWN if self._is_away else str(self._server.document(restore.id)["state"])

    async def _until(self, is_so: Callable[[], bool], within: float = KNOWN_SECONDS) -> None:
        """Wait for something at the control plane; what does not come is for the judgement at the end."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                while not is_so():  # noqa: ASYNC110 - nobody sets an event for it
                    await asyncio.sleep(0.05)


@asynccontextmanager
async def crowd(directory: Path, options: Options) -> AsyncIterator[Crowd]:
    """A crowd in `directory`, whose path is short: the socket's is in it."""
    async with ReferenceServer(directory / "control-plane", token=TOKEN) as server:
        yield Crowd(directory, options, server)


def is_in(restore: Restore, phase: Phase) -> bool:
    """Whether what is done to a restore is done in that phase."""
    return restore.course.act is not None and restore.course.act.phase is phase


def left_in(spool: Path) -> list[str]:
    """What a spool still holds: records, dead letters, what was set aside, and lines of the journal."""
    left = [str(path) for pattern in ("*.json", "dead/*", "aside/*") for path in spool.glob(pattern)]
    for segment in spool.glob("journal.[0-9]*"):
        left += [f"{segment}: {line}" for line in segment.read_text().splitlines()[1:]]
    return left


def _plain_environment() -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_REPORTER_")}
    return own | {"PYTHONPATH": str(ROOT)}
