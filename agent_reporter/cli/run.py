"""`run`: run an engine's command, and report its restore. The exit status is the engine's own.

Piped, the engine's output goes through byte for byte; on a terminal there is a progress bar in its place.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from agent_reporter.cli.main import say
from agent_reporter.cli.options import add_settings, load_settings, seconds
from agent_reporter.engines.adapter import StopCause, Stream
from agent_reporter.engines.catalogue import AUTO, choose, own_names, to_start
from agent_reporter.engines.command_line import taken_apart
from agent_reporter.engines.error_lines import error_pattern
from agent_reporter.engines.observe import Observe
from agent_reporter.engines.running.lookout import Lookout
from agent_reporter.engines.running.process import EngineProcess
from agent_reporter.engines.running.scripts import read_script
from agent_reporter.engines.running.spawn import EngineNotStartedError
from agent_reporter.engines.running.supervision import STOPPING_SIGNALS, Supervision
from agent_reporter.engines.running.target_folder import checked_target
from agent_reporter.errors import AgentReporterError, ConfigurationError
from agent_reporter.log_output import configure
from agent_reporter.model.exchange import Ending, Exchange
from agent_reporter.model.restore_id import checked_restore_id
from agent_reporter.model.state import RestoreState, may_follow
from agent_reporter.reporter import Reporter
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent_reporter.engines.adapter import Adapter
    from agent_reporter.job import Job
    from agent_reporter.settings import Settings

NOT_RUN = 125
"""Exit status where the engine was not started for a reason of ours; `env` and `timeout` use it so."""
START_PATIENCE = 2.0
"""Seconds that an engine waits at most to hear whether its restore is to start at all."""
DEFAULT_GRACE = 60.0
PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the command's options."""
    parser.usage = "agent-reporter run --restore-id ID [options] -- COMMAND [ARGUMENT ...]"
    parser.add_argument(
        "--restore-id", required=True, metavar="ID", help="the restore's id at the control plane"
    )
    parser.add_argument(
        "--engine",
        default=AUTO,
        metavar="ENGINE",
        help=f"what COMMAND is: {', '.join([AUTO, *own_names()])}, or an engine of an installed "
        "package (default: auto)",
    )
    parser.add_argument(
        "--grace",
        type=seconds,
        default=DEFAULT_GRACE,
        metavar="SECONDS",
        help="what the engine gets to stop by itself before it is killed (default: 60)",
    )
    parser.add_argument(
        "--target",
        metavar="DIR",
        help="the folder that COMMAND restores to. Of an engine that tells no counts itself, the files that "
        "were changed there since the start are counted; without it, the bytes that its processes write. "
        "Not used for an engine that tells its counts",
    )
    parser.add_argument(
        "--error-lines",
        metavar="REGEX",
        help="each line on stderr in which this is found is an error, of the file that (?P<path>...) in it "
        "is; a restore with errors is never completed. Not used for an engine that is known (default: none)",
    )
    parser.add_argument(
        "--not-run",
        type=int,
        choices=range(1, 256),
        metavar="STATUS",
        help="exit status if COMMAND was not started at all (default: 125, 126 or 127, as `env` has it)",
    )
    parser.add_argument(
        "--as-is",
        action="store_true",
        help="start COMMAND unchanged and show no bar: most engines then tell no counts",
    )
    add_settings(parser)
    parser.add_argument("engine_command", nargs=argparse.REMAINDER, metavar="-- COMMAND")


def run(args: argparse.Namespace) -> int:
    """Run the command and return its exit status, 128+N for signal N; 125 if it was not started by us."""
    command = args.engine_command[1:] if args.engine_command[:1] == ["--"] else args.engine_command
    if not command:
        return say("run: there is no command. Put it behind --, such as: -- restic restore latest", NOT_RUN)
    try:
        restore_id = checked_restore_id(args.restore_id)
        settings = load_settings(args)
        one = Run(
            restore_id,
            command,
            settings,
            engine=args.engine,
            grace=args.grace,
            as_is=args.as_is,
            target=None if args.target is None else checked_target(args.target),
            error_lines=None if args.error_lines is None else error_pattern(args.error_lines),
        )
        status = asyncio.run(one.go())
    except AgentReporterError as problem:
        return say(problem, args.not_run or NOT_RUN)
    return status if one.has_started else args.not_run or status


class Run:
    """One run of an engine's command."""

    def __init__(
        self,
        restore_id: str,
        command: list[str],
        settings: Settings,
        *,
        engine: str,
        grace: float,
        as_is: bool,
        target: Path | None,
        error_lines: re.Pattern[str] | None,
    ) -> None:
        self._restore_id = restore_id
        self._settings = settings
        self._grace = grace
        self._lookout = Lookout(target)
        invocation = taken_apart(command, read_script)
        adapter = choose(engine, invocation, self._say)
        self._adapter: Adapter = Observe(error_lines) if isinstance(adapter, Observe) else adapter
        if self._adapter.restores_nothing(invocation):
            raise ConfigurationError(
                f"run: this {self._adapter.name} command restores nothing, so there is nothing to report of "
                f"restore {restore_id}. Name the command that restores, or start this one without run."
            )
        self._command, self._environment = list(command), dict(os.environ)
        if not as_is:
            self._command, self._environment = to_start(self._adapter, invocation, os.environ)
        is_known = self._adapter.recognises(invocation) and invocation.keeps_its_process
        self._alone = is_known and self._adapter.ends_its_helpers
        self.has_started = False
        """Whether there was an engine at all."""
        self._supervision: Supervision | None = None
        self._early_signals: list[signal.Signals] = []
        self._draining: Reporter | None = None
        is_read_by_us = self._environment != os.environ or self._command != command
        self._has_bar = is_read_by_us and sys.stdout.isatty() and sys.stderr.isatty()

    async def go(self) -> int:
        """Run the engine, report its restore, and return the exit status."""
        configure(self._log_level(), self._settings.log_format)
        with _signals(self._pass_on):
            async with Reporter(self._settings) as reporter:
                job = await reporter.open(self._restore_id)
                try:
                    status = await self._report(reporter, job)
                except BaseException as problem:
                    await in_thread("job-leave", partial(job.leave, problem))
                    raise
                self._draining = reporter
        if job.ending is None:
            self._say(
                f"ended as {job.state.value}, which is not reported yet. It is kept in "
                f"{self._settings.spool_dir}, and `agent-reporter flush` delivers it."
            )
        elif not job.ending.loses_nothing:
            self._say(f"{job.state.value}, {job.ending.in_words}")
        return status

    async def _report(self, reporter: Reporter, job: Job) -> int:
        bar = None
        if self._has_bar:
            from agent_reporter.cli.bar import Bar  # noqa: PLC0415 - only a terminal needs it

            bar = Bar(job, lambda: reporter.exchange(job))
        show = None if bar is None else bar.show
        supervision = Supervision(job, self._adapter, self._lookout, self._grace, show)
        self._supervision = supervision
        for number in self._early_signals:
            supervision.pass_on(number)
        if may_follow(job.state, RestoreState.PREPARING):
            job.preparing()
        await reporter.contacted(job, START_PATIENCE)
        exchange = reporter.exchange(job)
        if exchange is not None and exchange.ending is Ending.ENDED_ELSEWHERE:
            return await self._has_ended(job, exchange)
        if job.stop_requested or supervision.stop is not None:
            return await self._never_start(job, supervision.stop or StopCause.CONTROL_PLANE)
        if bar is None:
            return await self._start(reporter, job, supervision)
        async with bar:
            return await self._start(reporter, job, supervision)

    def _pass_on(self, number: signal.Signals) -> None:
        """A signal came: it is for the engine, or, after its end, cuts the last deliveries short."""
        if self._draining is not None:
            if number in STOPPING_SIGNALS:
                self._draining.end_drain()
        elif self._supervision is not None:
            self._supervision.pass_on(number)
        else:
            self._early_signals.append(number)

    async def _start(self, reporter: Reporter, job: Job, supervision: Supervision) -> int:
        try:
            engine = await EngineProcess.start(
                self._command,
                self._environment,
                on_line=supervision.read_line,
                sinks={} if self._has_bar else {Stream.OUT: 1, Stream.ERR: 2},
                warn=self._say,
                at_exit=self._lookout.look_at_exit,
                alone=self._alone,
            )
        except EngineNotStartedError as problem:
            await in_thread(
                "job-finish",
                partial(
                    job.finish, RestoreState.FAILED, reason="engine_not_started", diagnostics=str(problem)
                ),
            )
            self._say(str(problem))
            return problem.returncode
        self.has_started = True
        naming = asyncio.create_task(reporter.name_engine(job, engine.identity))
        returncode = await supervision.until_end(engine)
        await naming
        return 128 - returncode if returncode < 0 else returncode

    async def _never_start(self, job: Job, cause: StopCause) -> int:
        diagnostics = "The stop came before the engine was started."
        await in_thread(
            "job-finish",
            partial(job.finish, RestoreState.STOPPED, reason=cause.reason, diagnostics=diagnostics),
        )
        self._say("a stop came first: the engine was not started")
        return 128 + self._adapter.stop_signal

    async def _has_ended(self, job: Job, exchange: Exchange) -> int:
        """There is nothing to restore, and nothing to add to what the control plane knows."""
        state = RestoreState.FAILED if exchange.acknowledged is None else exchange.acknowledged.state
        await in_thread("job-finish", partial(job.finish, state))
        self._say(f"{exchange.failure}. The engine was not started. Start a new restore for a new attempt.")
        return NOT_RUN

    def _log_level(self) -> str:
        """Piped, stderr is the engine's, byte for byte, unless somebody asks for more."""
        if self._has_bar or "log_level" in self._settings.given:
            return self._settings.log_level
        return "error"

    def _say(self, sentence: str) -> None:
        say(f"restore {self._restore_id}: {sentence}", 0)


@contextmanager
def _signals(pass_on: Callable[[signal.Signals], None]) -> Iterator[None]:
    """Signals to this process are for the engine."""
    loop = asyncio.get_running_loop()
    # What our caller has us ignore, as nohup does, is ignored by the engine as well.
    heard = [number for number in PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN]
    for number in heard:
        loop.add_signal_handler(number, pass_on, number)
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)
