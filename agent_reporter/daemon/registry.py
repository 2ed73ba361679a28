"""Every restore that engines report to this daemon: begun, amended, made durable, delivered, forgotten."""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from agent_reporter import processes
from agent_reporter.daemon.events import ENDS, STOP_REQUEST
from agent_reporter.daemon.journaled import JournaledKeeper
from agent_reporter.daemon.left_behind import LeftBehind, brought_together
from agent_reporter.daemon.liveness import GRACE_AFTER_START_SECONDS, GRACE_SECONDS, Liveness
from agent_reporter.daemon.peers import ROOT
from agent_reporter.daemon.refusals import RefusedError
from agent_reporter.daemon.restores import LocalRestore
from agent_reporter.errors import (
    InvalidRestoreIdError,
    MalformedError,
    RestoreBusyError,
    RestoreEndedError,
    SpoolError,
)
from agent_reporter.logs import get_logger
from agent_reporter.model.amendment import ConflictError, amended
from agent_reporter.model.client import Client
from agent_reporter.model.exchange import Exchange
from agent_reporter.model.lost import ENGINE_LOST, lost
from agent_reporter.model.record import Record
from agent_reporter.model.report import Report
from agent_reporter.model.restore_id import checked_restore_id
from agent_reporter.takeover import after_takeover
from agent_reporter.threads import in_thread

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent_reporter.daemon.events import Events
    from agent_reporter.daemon.journal import Journal
    from agent_reporter.daemon.peers import Peer
    from agent_reporter.deliveries import Deliveries
    from agent_reporter.delivery import Delivery
    from agent_reporter.means import Means
    from agent_reporter.model.amendment import Amendment
    from agent_reporter.model.client import Facts
    from agent_reporter.model.process_identity import ProcessIdentity
    from agent_reporter.spool import Entry, Spool

REMEMBERED = 1_000
"""Restores that are over, and are still shown."""
REMEMBERED_BYTES = 16 * 1024 * 1024
"""Of their error records, about, at most."""
_log = get_logger()


@dataclass(slots=True)
class Local:
    """A restore of this daemon with all that belongs to it."""

    restore: LocalRestore
    keeper: JournaledKeeper
    delivery: Delivery
    is_kept: bool = True
    """Whether all that was taken of it is durable."""


class Registry:
    """The restores of this daemon."""

    def __init__(
        self, means: Means, deliveries: Deliveries, spool: Spool, journal: Journal, events: Events
    ) -> None:
        self._means = means
        self._clock = means.clock
        self._deliveries = deliveries
        self._spool = spool
        self._journal = journal
        self._events = events
        self._open: dict[str, Local] = {}
        self._past: OrderedDict[str, Local] = OrderedDict()
        self._past_bytes = 0
        self.left = LeftBehind(spool, means.settings.destination, {})
        """Restores that another daemon left, and nobody has gone on with yet."""
        self._registering: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._liveness = Liveness(means, self._lose)
        self._on_stop, self._on_end = self._tell_stop, self._forget  # bound once, and not for each restore

    def start(self) -> None:
        """Begin to follow engines, and to keep the journal short."""
        self._deliveries.spawn("liveness", self._liveness.run)

    # --- what engines ask ---------------------------------------------------------------------------------

    async def amend(self, restore_id: str, peer: Peer, amendment: Amendment, facts: Facts) -> None:
        """Take what `peer` states of a restore, which begins with that, and return once it is durable.

        Raises RefusedError: 400 for a bad id or process, 403 for another user's restore, 409 where the
        restore's state does not allow it, 503 where it cannot be made durable or there are too many.
        """
        local = self.find(restore_id)
        if local is not None:
            _authorise(local.restore, peer)
        is_result = amendment.state is not None and amendment.state.is_final
        # Before anything is begun: what is refused leaves nothing behind. A result needs no process any more.
        client = None if local is None else local.restore.client
        named = () if is_result else self._liveness.identify(facts.pids, client)
        local = local or await self._register(restore_id, peer)
        restore = local.restore
        _authorise(restore, peer)
        restore.last_heard = self._clock.monotonic()
        before = restore.report
        is_repeated = before.is_final and not local.is_kept and amendment.state is before.state
        if not is_repeated:
            self._name_processes(restore, named)
            try:
                restore.report = amended(
                    before, amendment, self._clock.now(), self._means.settings.max_errors
                )
            except ConflictError as problem:
                raise RefusedError(409, str(problem)) from None
        after = restore.report  # another call may go on from it before this one is durable
        await self._keep(local)
        self._means.tally.accepted += 1
        self._notice(local, before, after)

    async def ask_stop(self, restore_id: str, peer: Peer) -> None:
        """Have a restore stopped: its engine learns of it, and the control plane, once that is durable.

        Raises RefusedError: 403 for another user's restore, 404 for one that is not here, 409 after its end.
        """
        local = self.find(restore_id)
        if local is None:
            raise RefusedError(404, f"Restore {restore_id} is not reported to this daemon.")
        _authorise(local.restore, peer)
        if not local.restore.is_live:
            raise RefusedError(409, f"Restore {restore_id} has ended as {local.restore.report.state.value}.")
        local.restore.request_stop()
        await self._keep(local)
        local.delivery.ask_stop()

    def find(self, restore_id: str) -> Local | None:
        """A restore that is open here, or was until lately."""
        return self._open.get(restore_id) or self._past.get(restore_id)

    @property
    def is_settled(self) -> bool:
        """Whether no file is left of a restore that is over, so that no line is needed that says so."""
        return all(local.keeper.is_settled for local in self._past.values())

    def all(self) -> list[Local]:
        """The restores that are open, in the order in which they came."""
        return list(self._open.values())

    @contextmanager
    def listening(self, restore_id: str, peer: Peer) -> Iterator[None]:
        """A user looks at a restore: if it is the user's own, its engine is not silent meanwhile."""
        local = self._open.get(restore_id)
        if local is None or local.restore.client.uid != peer.uid:
            yield
            return
        local.restore.listeners += 1
        try:
            yield
        finally:
            local.restore.listeners -= 1
            local.restore.last_heard = self._clock.monotonic()

    # --- from the start to the end ------------------------------------------------------------------------

    def close(self) -> None:
        """Follow nobody any more."""
        self._liveness.close()

    def begin(self, entry: Entry, record: Record, *, resumed: bool = False) -> Local:
        """Deliver a restore from now on, and follow its engine; `resumed` is one of another daemon's life."""
        restore = LocalRestore(
            record.report,
            record.client or Client(ROOT),
            on_stop=self._on_stop,
            on_end=self._on_end,
        )
        restore.last_heard = self._clock.monotonic()
        keeper = JournaledKeeper(entry, record, self._clock, self._journal, self._means.writes)
        local = Local(restore, keeper, self._deliveries.begin(restore, keeper, spread=resumed))
        self._open[restore.restore_id] = local
        restore.end_is_told = not restore.is_live
        if restore.is_live:
            self._liveness.follow(restore, grace=GRACE_AFTER_START_SECONDS if resumed else GRACE_SECONDS)
            if restore.client.stop_requested:
                local.delivery.ask_stop()
                self._events.publish(STOP_REQUEST, restore.restore_id, restore.client.uid)
        return local

    async def _register(self, restore_id: str, peer: Peer) -> Local:
        """Begin with a restore that was not known; only one call at a time does so for the same restore."""
        if (lock := self._registering.get(restore_id)) is None:
            lock = self._registering[restore_id] = asyncio.Lock()
        async with lock:
            return self.find(restore_id) or await self._open_entry(restore_id, peer)

    async def _open_entry(self, restore_id: str, peer: Peer) -> Local:
        self._refuse_too_many(peer)
        try:
            checked_restore_id(restore_id)
            entry = await in_thread(
                "spool-open", partial(self._spool.open, restore_id), abandoned=lambda entry: entry.release()
            )
        except InvalidRestoreIdError as problem:
            raise RefusedError(400, str(problem)) from None
        except RestoreBusyError as problem:  # it may be looked at for an instant, also by ourselves
            raise RefusedError(503, str(problem), retry_after=1) from None
        except SpoolError as problem:
            raise RefusedError(503, str(problem), retry_after=5) from None
        try:
            kept = brought_together(entry.record, self.left.journaled.get(restore_id, {}))
            record = self._record(restore_id, kept, peer)
        except (RefusedError, MalformedError) as problem:
            await in_thread("spool-release", entry.release)
            raise problem if isinstance(problem, RefusedError) else RefusedError(503, str(problem)) from None
        self.left.taken(restore_id)
        return self.begin(entry, record)

    def _refuse_too_many(self, peer: Peer) -> None:
        most = self._means.settings.max_restores
        own = sum(local.restore.client.uid == peer.uid for local in self._open.values())
        if len(self._open) >= most or own >= max(1, most // 2):
            raise RefusedError(
                503,
                f"{len(self._open)} restores are open here, {own} of them this user's. The most are {most}, "
                "and half of that for one user (max_restores).",
                retry_after=10,
            )

    def _record(self, restore_id: str, kept: Record | None, peer: Peer) -> Record:
        """What to begin with: something new, or what the spool has of a restore that nobody reports."""
        destination = self._means.settings.destination
        if kept is None:
            exchange = Exchange(dialect=self._deliveries.dialect)
            return Record(destination, Report(restore_id), exchange, client=Client(peer.uid))
        owner = os.getuid() if kept.client is None else kept.client.uid
        if not peer.may_act_for(owner):
            raise RefusedError(403, f"Restore {restore_id} is another user's.")
        if kept.client is None and kept.engine is not None and processes.is_alive(kept.engine):
            raise RefusedError(409, f"The engine of restore {restore_id} runs, as process {kept.engine.pid}.")
        if kept.destination != destination:
            raise RefusedError(409, f"Restore {restore_id} is kept here for {kept.destination}.")
        if kept.report.is_final:
            raise RefusedError(409, str(RestoreEndedError(restore_id, kept.report.state.value)))
        return replace(after_takeover(kept), client=kept.client or Client(peer.uid))

    def _name_processes(self, restore: LocalRestore, named: tuple[ProcessIdentity, ...]) -> None:
        if restore.is_live and named:
            living = filter(processes.is_alive, restore.client.processes)
            restore.client = replace(restore.client, processes=(*living, *named))
            self._liveness.follow(restore)

    async def _keep(self, local: Local) -> None:
        restore = local.restore
        local.is_kept = False
        try:
            await local.keeper.take(restore.report, restore.client)
        except SpoolError as problem:
            local.is_kept = False  # also if a call beside this one has succeeded
            local.delivery.wake(urgent=True)  # the control plane may have it sooner than the disk
            raise RefusedError(503, str(problem), retry_after=5) from None
        local.is_kept = True

    def _notice(self, local: Local, before: Report, after: Report) -> None:
        has_first_error = before.errors.count == 0 < after.errors.count
        if after.state is not before.state or has_first_error:
            local.delivery.wake(urgent=True)
        if after.is_final:
            self._end(local.restore)

    def _end(self, restore: LocalRestore) -> None:
        """Its engine says nothing more; what is left to do is to deliver."""
        self._liveness.forget(restore)
        if restore.end_is_told:
            return
        restore.end_is_told = True
        if restore.stop_asked_at is not None:
            self._means.tally.stops.add(self._clock.monotonic() - restore.stop_asked_at)
        self._events.end(ENDS[restore.report.state], restore.restore_id, restore.client.uid)

    def _tell_stop(self, restore: LocalRestore) -> None:
        restore.stop_asked_at = self._clock.monotonic()
        self._events.publish(STOP_REQUEST, restore.restore_id, restore.client.uid)
        _log.info("restore.stop_requested", restore_id=restore.restore_id)

    def _lose(self, restore: LocalRestore, what_happened: str) -> None:
        """Nobody is left to state how it ended."""
        local = self._open.get(restore.restore_id)
        if local is None or not restore.is_live:
            self._liveness.forget(restore)
            return
        _log.warning("restore.engine_lost", restore_id=restore.restore_id, why=what_happened)
        restore.report = lost(restore.report, self._clock.now(), ENGINE_LOST, what_happened)
        self._end(restore)
        self._deliveries.spawn(f"lose {restore.restore_id}", partial(self._keep_lost, local))

    async def _keep_lost(self, local: Local) -> None:
        try:
            await self._keep(local)
        except RefusedError as problem:
            _log.error("restore.not_kept", restore_id=local.restore.restore_id, problem=str(problem))
        local.delivery.wake(urgent=True)

    def _forget(self, restore: LocalRestore) -> None:
        local = self._open.pop(restore.restore_id, None)
        if local is None:
            return
        self._end(restore)
        self._past[restore.restore_id] = local
        self._past_bytes += _size(local)
        while len(self._past) > REMEMBERED or self._past_bytes > REMEMBERED_BYTES:
            self._past_bytes -= _size(self._past.popitem(last=False)[1])


def _authorise(restore: LocalRestore, peer: Peer) -> None:
    if not peer.may_act_for(restore.client.uid):
        raise RefusedError(403, f"Restore {restore.restore_id} is another user's.")


def _size(local: Local) -> int:
    records = local.restore.report.errors.records
    return sum(200 + len(each.path) + len(each.description) + len(each.details) for each in records)
