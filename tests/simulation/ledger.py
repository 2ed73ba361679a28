"""What was said, sent, carried out and answered, held against the invariants of the house as it happens.

The house's invariants, each with the checks that say it. A violation names its check.

1. A result that `finish` returned from is delivered, or in the spool, or a dead letter.
   - `result_kept`: when `finish` has returned True, no power loss takes the result away
   - `result_kept` too: a disk that is only full takes a result into its reserve
   - `result_delivered`: in the end the control plane has it, unchanged, or it is a dead letter, for a reason
   - `dead_letter_true`: a dead letter is what the engine stated
   - `settled_for_good`: no power loss brings back what is over, or takes its dead letter away
   - `kept_early`: a restore that began is in the spool within two seconds
   - `resumed_whole`: who goes on from a record begins with no less than it says
   - `lost_is_said`: of a restore that nobody is left to report, the control plane is told that it failed
   - `settles_in_time`: once all is well, everything is delivered within a bounded time
   - `acknowledged_true`: what is taken for acknowledged is at the control plane
   - `progress_arrives`: what an engine stated last before a quiet time arrives, counters and errors
   - `report_true`: the result is what the engine stated, to the last byte and error
2. Nothing goes backwards by our doing.
   - `states_forward`, `counters_up`, `errors_up`: of the restore at the control plane
3. A stop request is never erased by us, and reaches the engine.
   - `state_after_read`: a state goes out only straight after a read that allows for it
   - `stop_not_erased`: no state is told over a stop that the engine or its reporter knows of
   - `stop_heeded`: an answer that shows a stop makes the job stop, at once
   - `stop_in_time`: within some polls, also while patches fail or wait
   - `stop_invented`: and none is told of that nobody asked for
   - `looks_go_on`: and looks for stops go on while they fail
   - `polls_bounded`: and no more looks for stops are made than the interval allows
4. One end, and a true one.
   - `no_false_end`: an end that is told was stated by the engine, or nobody is left to state one
   - `one_end`: no other end is told after a durable one
   - `nothing_after_end`: nothing is told after an end that was acknowledged
5. The engine is not disturbed.
   - `engine_undisturbed`: no exception, no call of the disk from what must not do any
   - `no_failure_of_ours`: no loop of ours failed, and asyncio has nothing to complain of
6. Requests keep the rules.
   - `one_in_flight`: one of a delivery at a time, for a restore
   - `doubt_read_first`: after an uncertain outcome a state is told only after a read
   - `conflict_read_first`: so is anything after a 409
   - `takeover_reads_first`: a restore that was taken over is read before it is told of
   - `backoff`: no request before the retry rules allow it, with what `Retry-After` asked for; and a wait that
     was kept goes on after a restart
   - `sign_in_backoff`: no sign-in before `Retry-After` of the last allows it
   - `requests_bounded`: no flood, whatever is answered
7. `token_concealed`: no token in a record or an event.
8. `nothing_left`: a process that ends in good order leaves no task, descriptor or lock; and has no more
   tasks than its restores take (`tasks_bounded`), nor a report more records of errors than it may (`errors_bounded`).
"""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from agent_reporter.model.times import format_time
from agent_reporter.reference.patches import Field
from tests.simulation.plan import FINALS

if TYPE_CHECKING:
    from datetime import datetime

    from agent_reporter.model.exchange import Ending
    from agent_reporter.model.report import Report
    from agent_reporter.reference.restores import Restore
    from tests.simulation.host import Life
    from tests.simulation.network import Request
    from tests.simulation.world import World

FORWARD = ("start_requested", "queued", "preparing", "in_progress")
RETRIED = frozenset({301, 307, 408, 425, 429, 500, 502, 503, 504})
REFUSED_READS = frozenset({400, 403, 404, 405, 413, 501})
RETRY_BASE = 1.0
SLACK = 1e-3
STRAIGHT, CALM = 1.0, 20.0
FLOOD = 100
"""Requests of one delivery in ten seconds: of progress alone there are up to twenty, each after a read."""
MAX_TASKS, TASKS_A_RESTORE = 10, 10


class ViolationError(Exception):
    """An invariant does not hold: `args` are the check and what happened."""


@dataclass
class Talk:
    """The conversation of one process about one restore, as the network sees it."""

    delivery: object = None
    """Whose it is: a process may deliver an orphan, and then what a new engine states of the same restore."""
    requests: int = 0
    last: deque[float] = field(default_factory=lambda: deque(maxlen=FLOOD))
    """When the last of them were made."""
    in_flight: Request | None = None
    fresh: bool = False
    fresh_at: float = 0.0
    doubt: bool = False
    conflict: bool = False
    unreadable: bool = False
    told_end: bool = False
    failures: int = 0
    failed_at: float | None = None
    """When the last request failed, if it did."""
    floor: float = 0.0
    last_trouble: float = -1e9


@dataclass
class Case:
    """All that is known of one restore."""

    restore_id: str
    stated: list[Report] = field(default_factory=list)
    """Every end that an engine stated, also where `finish` never returned."""
    durable: Report | None = None
    """The one that `finish` returned True for."""
    stop_asked: bool = False
    reads_refused: bool = False
    in_memory: bool = False
    """The spool could not be used when it was opened: it may hold an older record."""
    undurable: bool = False
    """`finish` returned False once."""
    opened: bool = False
    forgotten: bool = False
    """Its process was killed before anything of it could be kept."""
    elsewhere: bool = False
    disturbed: bool = False
    """Something that was sent before came late, or came from elsewhere."""
    refusals: Counter[int] = field(default_factory=Counter)
    believed: bool = False
    """An answer to a result had to be taken at its word, as nothing can be read."""
    kept_wait: datetime | None = None
    """Until when the last life wanted to wait, as it was kept."""
    last_number: int = 0
    talks: dict[str, Talk] = field(default_factory=dict)
    told_by: list[Request] = field(default_factory=list)
    """Ends that were carried out."""


class Ledger:
    """Keeps the books of one run; raises nothing, and notes the first violation."""

    def __init__(self, world: World) -> None:
        self.cases: dict[str, Case] = {}
        self.violations: list[tuple[str, str]] = []
        self.seen: Counter[str] = Counter()
        """Interesting things that happened, by name."""
        self._world = world
        self._polls: dict[tuple[str, str], deque[float]] = {}
        self._next_sign_in: dict[str, float] = {}
        """By process: not before."""

    def violated(self, check: str, what: str) -> None:
        """Note that an invariant does not hold."""
        self.violations.append((check, what))
        self._world.note("VIOLATION", check, what)

    # What the network tells.

    def sent(self, request: Request) -> None:
        """A request leaves."""
        self._world.note(
            "send", request.process.name, request.kind, request.restore_id, _brief(request.changes)
        )
        if request.fault is not None:
            self.seen[f"net {request.fault.kind}"] += 1
        if request.kind == "events":
            self._count_poll(request)
        if request.kind == "sign_in":
            self._check_sign_in(request)
        if len(request.process.tasks) > MAX_TASKS + TASKS_A_RESTORE * len(self.cases):
            self.violated("tasks_bounded", f"{len(request.process.tasks)} tasks")
        if not request.is_of_delivery or not request.restore_id:
            return
        case = self.cases[request.restore_id]
        life = self._world.life_of(request.process)
        delivery, talk = life.delivery(request.restore_id), case.talks.get(request.process.name)
        if talk is None:
            talk = case.talks[request.process.name] = Talk(delivery)
        elif delivery is not talk.delivery:
            # Another record, which waits as it knows, from its first try.
            talk = case.talks[request.process.name] = Talk(delivery, in_flight=talk.in_flight)
            case.kept_wait = None
        self._check_one_in_flight(case, request)
        self._check_flood(talk, request)
        self._check_backoff(case, talk, request)
        self._check_acknowledged(case, request)
        if request.kind == "patch":
            if life.is_takeover(request.restore_id) and talk.requests == 0:
                self.violated("takeover_reads_first", f"{request.restore_id}: {_brief(request.changes)}")
            self._check_patch(case, talk, request)
        talk.requests += 1
        talk.in_flight = request
        case.last_number = request.number

    def _check_one_in_flight(self, case: Case, request: Request) -> None:
        for name, other in case.talks.items():
            if other.in_flight is not None and other.in_flight.process.is_alive:
                self.violated("one_in_flight", f"{case.restore_id}: {request.kind} beside one of {name}")

    def _check_flood(self, talk: Talk, request: Request) -> None:
        talk.last.append(request.at)
        if len(talk.last) == FLOOD and request.at - talk.last[0] < 10.0:
            self.violated("requests_bounded", f"{FLOOD} in {request.at - talk.last[0]:.1f} s")

    def _check_backoff(self, case: Case, talk: Talk, request: Request) -> None:
        if talk.requests == 0 and case.kept_wait is not None and not case.in_memory:
            too_early = (case.kept_wait - self._world.host_time()).total_seconds()
            if too_early > SLACK and not self._world.clock_jumped:
                self.violated("backoff", f"{case.restore_id}: {too_early:.3f} s too early after a restart")
        if talk.failed_at is None:
            return
        life, settings = self._world.life_of(request.process), self._world.plan.settings
        spread = min(settings["retry_cap"], RETRY_BASE * 2.0 ** min(max(talk.failures, 1) - 1, 32))
        floor = min(max(talk.floor, 0.0), settings["retry_after_cap"])
        due = talk.failed_at + floor + life.clock.draws.get(request.task, 0.0) * spread
        if self._world.loop.time() < due - SLACK:
            self.violated(
                "backoff",
                f"{request.restore_id}: {request.kind} {due - self._world.loop.time():.3f} s too early",
            )
        talk.failed_at = None

    def _check_acknowledged(self, case: Case, request: Request) -> None:
        life = self._world.life_of(request.process)
        exchange = life.exchange(case.restore_id)
        known = None if exchange is None else exchange.acknowledged
        if known is None or case.disturbed or case.believed:
            return
        there = self._world.control_plane.restore(case.restore_id)
        if there.is_final or (case.reads_refused and len(case.talks) > 1):
            return  # an end of another life; or what another life told, which nobody can read
        if (
            known.bytes_restored > there.bytes_restored
            or known.files_restored > there.files_restored
            or known.error_count > there.errors["count"]
        ):
            self.violated("acknowledged_true", f"{case.restore_id}: {known} but there it is {_shown(there)}")

    def _check_patch(self, case: Case, talk: Talk, request: Request) -> None:
        name, state = case.restore_id, request.state
        if talk.told_end and not self._world.is_lost(request.process, name):
            self.violated("nothing_after_end", f"{name}: {_brief(request.changes)}")
        if talk.conflict and not talk.unreadable:
            self.violated("conflict_read_first", f"{name}: {_brief(request.changes)}")
        if state is not None and talk.doubt and not (talk.unreadable and request.is_final):
            self.violated("doubt_read_first", f"{name}: {_brief(request.changes)}")
        if state is not None and not request.is_final:
            if not talk.fresh and not talk.unreadable:
                self.violated("state_after_read", f"{name}: {state}")
            if talk.fresh and request.at - talk.fresh_at > STRAIGHT and self._is_calm():
                self.violated("state_after_read", f"{name}: {request.at - talk.fresh_at:.1f} s after it")
            job = self._world.life_of(request.process).jobs.get(name)
            request.stop_known = job is not None and job._stop_requested
        if request.is_final:
            self._check_end(case, request)
        talk.fresh = False

    def _is_calm(self) -> bool:
        """Whether nothing is wrong, or was of late: nobody waits for a token."""
        world = self._world
        return not world.troubles and (not world.quiet_since or world.loop.time() - world.quiet_since > CALM)

    def _check_end(self, case: Case, request: Request) -> None:
        if any(_tells(request, report) for report in case.stated):
            return
        is_lost = request.state == "failed" and self._world.is_lost(request.process, case.restore_id)
        if case.durable is not None and not is_lost and not _tells(request, case.durable):
            self.violated(
                "one_end", f"{case.restore_id}: {_brief(request.changes)} after {case.durable.state}"
            )
        if not is_lost:
            self.violated("no_false_end", f"{case.restore_id}: {_brief(request.changes)}")

    def arrived(self, request: Request, status: int) -> None:
        """The control plane has dealt with a request."""
        self._world.note("arrive", request.number, status)

    def applied(self, request: Request, before: Restore, after: Restore) -> None:
        """A patch was carried out."""
        case = self.cases[request.restore_id]
        self._world.note("apply", request.number, _shown(after))
        if request.number < case.last_number or request.given_up or request.status is not None:
            case.disturbed = True
            self.seen["applied late"] += 1
        else:
            self._check_progress(case, request, before, after)
        if after.is_final:
            case.told_by.append(request)
        if after.erased_stops > before.erased_stops:
            self.seen["stop erased"] += 1
            if request.stop_known:
                self.violated("stop_not_erased", f"{case.restore_id}: by {_brief(request.changes)}")

    def _check_progress(self, case: Case, request: Request, before: Restore, after: Restore) -> None:
        if case.disturbed:
            return  # what came late is known after the next read only
        if case.reads_refused and len(case.talks) > 1:
            return  # whoever cannot read goes on from what was kept
        what = f"{case.restore_id}: {_shown(before)} -> {_shown(after)} by {_brief(request.changes)}"
        if after.bytes_restored < before.bytes_restored or after.files_restored < before.files_restored:
            self.violated("counters_up", what)
        if after.errors["count"] < before.errors["count"]:
            self.violated("errors_up", what)
        goes_on = before.state in FORWARD and after.state in FORWARD
        if goes_on and FORWARD.index(after.state) < FORWARD.index(before.state):
            self.violated("states_forward", what)

    def unanswered(self, request: Request, why: str) -> None:
        """No answer came to its sender."""
        self._world.note("unanswered", request.number, why)
        talk = self._talk(request)
        if talk is None:
            return
        talk.in_flight = None
        if why == "given up":
            return
        if request.kind == "patch" and request.state is not None and not request.refused:
            talk.doubt, talk.unreadable = True, False
        self._failed(talk, request, 0.0)

    def answered(self, request: Request, status: int, body: bytes, retry_after: str | None) -> None:
        """An answer came to its sender, whole."""
        self._world.note("answer", request.number, status, retry_after)
        request.status = status
        self.seen[f"answer {status}"] += 1
        self._heed_stops(request, status, body)
        if request.kind == "sign_in" and status != 200:
            self._hold_sign_ins(request, retry_after)
        talk = self._talk(request)
        if talk is None:
            return
        talk.in_flight = None
        case = self.cases[request.restore_id]
        if request.kind == "read":
            case.reads_refused |= status in REFUSED_READS
            self._read(talk, status, body)
        else:
            self._patched(case, talk, request, status)
        if status in RETRIED or (status == 501 and request.kind == "patch"):
            now = self._world.life_of(request.process).clock.now()
            self._failed(talk, request, _asked_to_wait(retry_after, now))
        if status != 204 and not (status == 200 and request.kind == "read"):
            talk.last_trouble = self._world.loop.time()

    def _read(self, talk: Talk, status: int, body: bytes) -> None:
        if status in REFUSED_READS:
            talk.unreadable, talk.fresh = True, False
        if status != 200:
            return
        state = _state_of(body)
        if state is None:
            return
        talk.doubt = talk.conflict = talk.unreadable = False
        talk.fresh = state not in FINALS and state != "stop_requested"
        talk.fresh_at = self._world.loop.time()

    def _patched(self, case: Case, talk: Talk, request: Request, status: int) -> None:
        if status == 204:
            talk.doubt = talk.conflict = talk.unreadable = False
            talk.failures = 0
            talk.told_end = request.is_final
            return
        if status in {409, 200, 202}:
            if talk.unreadable:
                case.believed = True
                if status < 300:
                    talk.doubt, talk.failures = False, 0
            else:
                talk.conflict = True
        if 400 <= status < 500 and status not in {401, 408, 409, 425, 429}:
            case.refusals[status] += 1
        if request.state is not None and (status >= 500 or (status in {200, 202} and not talk.unreadable)):
            talk.doubt = True
            if status >= 500:
                talk.unreadable = False

    def _failed(self, talk: Talk, request: Request, floor: float) -> None:
        self._world.life_of(request.process).clock.draws.pop(request.task, None)
        talk.failures += 1
        talk.failed_at, talk.floor = self._world.loop.time(), floor
        talk.last_trouble = talk.failed_at

    def _talk(self, request: Request) -> Talk | None:
        if not request.is_of_delivery or not request.restore_id:
            return None
        return self.cases[request.restore_id].talks[request.process.name]

    def _check_sign_in(self, request: Request) -> None:
        held = self._next_sign_in.get(request.process.name, 0.0)
        if request.at < held - SLACK:
            self.violated("sign_in_backoff", f"{held - request.at:.3f} s too early")

    def _hold_sign_ins(self, request: Request, retry_after: str | None) -> None:
        if request.status in {400, 401, 403, 404, 409}:
            return  # there is nothing to wait for
        asked = _asked_to_wait(retry_after, self._world.life_of(request.process).clock.now())
        held = min(max(asked, 0.0), self._world.plan.settings["retry_after_cap"])
        self._next_sign_in[request.process.name] = self._world.loop.time() + held

    # Stops.

    def _heed_stops(self, request: Request, status: int, body: bytes) -> None:
        if status != 200 or b"stop_request" not in body:
            return
        try:
            document = json.loads(body)
        except ValueError:
            return
        named: list[str] = []
        if request.kind == "events" and isinstance(document.get("events"), list):
            named = [e["restore"]["id"] for e in document["events"] if e["event"] == "restore_stop_request"]
        elif request.kind == "read" and document.get("state") == "stop_requested":
            named = [request.restore_id]
        life = self._world.life_of(request.process)
        for restore_id in named:
            job = life.jobs.get(restore_id)
            if job is not None and job.is_live and not job._stop_requested:
                self._world.later(0.05, self._check_heeded, life, restore_id, job)

    def _check_heeded(self, life: Life, restore_id: str, job: Any) -> None:
        if life.is_alive and not life.is_leaving and job.is_live and not job._stop_requested:
            self.violated("stop_heeded", restore_id)

    def _count_poll(self, request: Request) -> None:
        polls = self._polls.setdefault((request.process.name, request.restore_id), deque(maxlen=12))
        polls.append(request.at)
        # Five in ten seconds; some more where a token was refused, or watching began anew.
        if len(polls) == 12 and request.at - polls[0] < 10.0:
            self.violated("polls_bounded", f"12 looks for events in {request.at - polls[0]:.1f} s")

    # What the engines tell.

    def finished(self, case: Case, report: Report, *, durable: bool) -> None:
        """`finish` has returned."""
        self.seen["finish durable" if durable else "finish not durable"] += 1
        self._world.note("finished", case.restore_id, report.state.value, durable)
        if not durable:
            case.undurable = True
            disk = self._world.disk
            # Not where the spool could not be used when the restore was opened: then it is not kept at all.
            is_kept = disk.is_owned(f"/spool/{case.restore_id}.lock")
            if is_kept and disk.has_reserve(f"/spool/.{case.restore_id}.reserve"):
                self.violated("result_kept", f"{case.restore_id}: there was room in the reserve")
            return
        case.durable = report
        found = [
            record.report
            for directory in ("/spool", "/spool/dead")
            for record in self._world.disk.records(directory, durable=True).values()
        ]
        if not any(_same_end(each, report) for each in found) and not self._is_there(case, report):
            self.violated("result_kept", f"{case.restore_id}: {report.state.value} is not durable")

    def settled(self, case: Case, ending: Ending) -> None:
        """A job is told that its delivery is over."""
        disk = self._world.disk
        if case.in_memory or disk.failures:
            return
        is_back = f"{case.restore_id}.json" in disk.records("/spool", durable=True)
        letters = disk.records("/spool/dead", durable=True).values()
        is_letter = any(record.report.restore_id == case.restore_id for record in letters)
        if is_back or not (ending.loses_nothing or is_letter):
            self.violated("settled_for_good", f"{case.restore_id}: {ending.value}, but not for good")

    def stopping(self, case: Case) -> None:
        """An engine stops, as its job said it should."""
        self.seen["stopped"] += 1
        is_over = self._world.control_plane.restore(case.restore_id).is_final
        if not (case.stop_asked or is_over or case.refusals or case.believed):
            self.violated("stop_invented", case.restore_id)

    def _is_there(self, case: Case, report: Report) -> bool:
        there = self._world.control_plane.restore(case.restore_id)
        # The same state from elsewhere is taken for ours.
        is_same = there.ended_time == _time(report) or len(case.stated) > 1 or case.elsewhere
        return there.state == report.state.value and is_same

    # The end.

    def close(self) -> None:
        """Everything is over: what became of each restore?"""
        dead = list(self._world.disk.records("/spool/dead").values())
        waiting = self._world.disk.records("/spool")
        for name in waiting:
            self.violated("settles_in_time", f"{name} is left in the spool")
        for case in self.cases.values():
            letters = [record for record in dead if record.report.restore_id == case.restore_id]
            self._close(case, [letter.report for letter in letters])

    def _close(self, case: Case, letters: list[Report]) -> None:
        if not case.opened or case.believed:
            return
        there = self._world.control_plane.restore(case.restore_id)
        truth = case.durable
        for letter in letters:
            self.seen["dead letter"] += 1
            self._check_letter(case, letter, there)
        if truth is not None:
            if self._is_there(case, truth):
                self._check_there(case, truth, there, letters)
            elif not any(_same_end(letter, truth) for letter in letters):
                self.violated(
                    "result_delivered",
                    f"{case.restore_id}: {truth.state.value} is neither there ({_shown(there)}) nor a dead letter",
                )
        elif not there.is_final and not letters and not case.forgotten and not case.undurable:
            self.violated("lost_is_said", f"{case.restore_id}: it is {there.state} for ever")

    def _check_letter(self, case: Case, letter: Report, there: Restore) -> None:
        name = case.restore_id
        is_stated = any(_same_end(letter, report) for report in case.stated)
        # On a full disk the last that was kept is buried, where the end that nobody stated finds no room.
        is_lost = letter.errors.reason == "reporter_lost" or not letter.is_final
        if not is_stated and not is_lost:
            self.violated("dead_letter_true", f"{name}: {letter.state.value} was never stated")
        retention = self._world.plan.settings["retention"]
        if not (
            case.refusals
            or case.elsewhere
            or (there.is_final and there.ended_time != _time(letter))
            or (self._world.loop.time() > retention or self._world.clock_jumped)
        ):
            self.violated("result_delivered", f"{name}: it is a dead letter without a reason")

    def _check_there(self, case: Case, truth: Report, there: Restore, letters: list[Report]) -> None:
        if letters:
            return
        if (
            there.bytes_restored < truth.bytes_restored
            or there.files_restored < truth.files_restored
            or there.errors["count"] < truth.errors.count
        ):
            self.violated(
                "result_delivered", f"{case.restore_id}: {_shown(there)}, and it was {_told(truth)}"
            )


def _asked_to_wait(retry_after: str | None, now: datetime) -> float:
    """Seconds, in either form of the header; 0 for what is none. Not the product's own reading of it."""
    text = retry_after or ""
    if text.isdigit():
        return float(text)
    try:
        return (parsedate_to_datetime(text) - now).total_seconds()
    except ValueError:
        return 0.0


def _tells(request: Request, report: Report) -> bool:
    """Whether a patch tells that end."""
    changes = request.changes
    errors = changes.get(Field.ERRORS)
    return (
        changes[Field.STATE] == report.state.value
        and changes.get(Field.ENDED_TIME) == _time(report)
        and changes.get(Field.BYTES_RESTORED, report.bytes_restored) >= report.bytes_restored
        and changes.get(Field.FILES_RESTORED, report.files_restored) >= report.files_restored
        and (errors is None or errors["count"] >= report.errors.count)
    )


def _same_end(one: Report, other: Report) -> bool:
    """Whether both tell the same end; a full disk may have taken error records away."""
    return (
        one.restore_id == other.restore_id
        and one.state is other.state
        and one.ended_time == other.ended_time
        and one.bytes_restored == other.bytes_restored
        and one.files_restored == other.files_restored
        and one.errors.count == other.errors.count
    )


def _state_of(body: bytes) -> str | None:
    try:
        state = json.loads(body).get("state")
    except (ValueError, AttributeError, RecursionError):
        return None
    return state if state in FORWARD or state in FINALS or state == "stop_requested" else None


def _time(report: Report) -> str | None:
    return None if report.ended_time is None else format_time(report.ended_time)


def _brief(changes: dict[Field, Any]) -> str:
    return ", ".join(
        f"{name.value}={value['count'] if name is Field.ERRORS else value}" for name, value in changes.items()
    )


def _shown(restore: Restore) -> str:
    return (
        f"{restore.state} {restore.bytes_restored} bytes {restore.files_restored} files "
        f"{restore.errors['count']} errors"
    )


def _told(report: Report) -> str:
    return (
        f"{report.state.value} {report.bytes_restored} bytes {report.files_restored} files "
        f"{report.errors.count} errors"
    )
