"""What another daemon left when it ended or was killed: the files of the spool, and the journal's lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agent_reporter.daemon.journaled import OVER
from agent_reporter.durable import replace_file
from agent_reporter.errors import MalformedError, RestoreBusyError, SpoolError
from agent_reporter.logs import get_logger
from agent_reporter.model.documents import count_of
from agent_reporter.model.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from agent_reporter.model.record import Destination
    from agent_reporter.spool import Entry, Spool

_log = get_logger()


class LeftBehind:
    """Restores of the daemon that nobody works on yet. Its calls block for the disk."""

    def __init__(
        self, spool: Spool, destination: Destination, journaled: Mapping[str, dict[str, Any]]
    ) -> None:
        """`journaled` is what a replay of the journal gave."""
        self._spool = spool
        self._destination = destination
        self.journaled = {
            restore_id: changes for restore_id, changes in journaled.items() if not changes.get(OVER)
        }
        """What the journal alone has of restores that could not be owned yet."""
        self.over = set(journaled.keys() - self.journaled.keys())
        """Restores that the journal alone says are over: their files are going, or are there still."""

    def taken(self, restore_id: str) -> None:
        """Somebody goes on with it."""
        self.journaled.pop(restore_id, None)
        self.over.discard(restore_id)

    def own(self) -> list[tuple[Entry, Record]]:
        """Own all that can be owned; each is whole in its file then, and its lines are not needed."""
        alive = [listed for listed in self._spool.listing() if not listed.dead]
        of_daemon = {
            listed.restore_id
            for listed in alive
            if listed.record is not None and listed.record.client is not None
        }
        unread = {listed.restore_id for listed in alive if listed.record is None}
        self.over.intersection_update(of_daemon | unread)
        found = []
        for restore_id in sorted(of_daemon | self.journaled.keys()):
            try:
                entry = self._spool.open(restore_id)
            except RestoreBusyError:
                continue
            except SpoolError as problem:
                _log.error("daemon.not_resumed", restore_id=restore_id, problem=str(problem))
                continue
            if restore_id in self.over:
                if _discard(entry):
                    self.over.discard(restore_id)
                continue
            record = self._bring_together(entry)
            if record is None or record.destination != self._destination:
                entry.release()
            else:
                found.append((entry, record))
        return found

    def _bring_together(self, entry: Entry) -> Record | None:
        """What the file and the lines say together, made one in the file."""
        try:
            record = brought_together(entry.record, self.journaled.get(entry.restore_id, {}))
            if record is not None and record != entry.record:
                entry.write(record)
                record = entry.record  # a result that the file had stays in it
        except SpoolError as problem:
            _log.error("daemon.not_resumed", restore_id=entry.restore_id, problem=str(problem))
            return None
        except MalformedError as problem:
            self._set_aside(entry.restore_id, str(problem))
            return entry.record
        self.journaled.pop(entry.restore_id, None)
        return record

    def _set_aside(self, restore_id: str, problem: str) -> None:
        """Lines of another version, or the rest of what is over: somebody may find out what they were."""
        path = self._spool.aside / f"{restore_id}.lines.json"
        try:
            replace_file(path, json.dumps(self.journaled[restore_id]).encode())
        except OSError as failure:
            _log.error("daemon.not_resumed", restore_id=restore_id, problem=str(failure))
            return
        del self.journaled[restore_id]
        _log.error("daemon.lines_set_aside", restore_id=restore_id, problem=problem, file=str(path))


def _discard(entry: Entry) -> bool:
    """Whether the file is gone of what was delivered. Else it is not to be taken for one without an end."""
    try:
        entry.discard()
    except OSError as problem:
        _log.error("spool.clearing_failed", restore_id=entry.restore_id, problem=str(problem))
        entry.release()
        return False
    return True


def brought_together(kept: Record | None, changes: Mapping[str, Any]) -> Record | None:
    """What a file and later lines say of a restore; raises MalformedError if the lines make no record.

    Lines that are older than the file are in it already.
    """
    if not changes or (kept is not None and count_of(changes, "revision") < kept.report.revision):
        return kept
    return Record.with_changes(kept, changes)
