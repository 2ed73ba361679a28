"""The control plane: the reference's own judge, over a store in memory, with the peculiarities of a plan."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, cast

from agent_reporter.reference import events
from agent_reporter.reference.exchange import Answer, Call, RefusedError, json_answer, refusal
from agent_reporter.reference.judge import Judge, Rules, change_state
from agent_reporter.reference.patches import Spelling, State
from agent_reporter.reference.restores import Request
from agent_reporter.reference.store import EventPage

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent_reporter.reference.accounts import Gate
    from agent_reporter.reference.events import Event, Page
    from agent_reporter.reference.restores import Happening, Restore
    from agent_reporter.reference.store import Scope, Store
    from tests.simulation.plan import Plan

PROJECT: Final = "110011"
AGENT: Final = "agent-1"
ORIGIN: Final = "http://127.0.0.1:8080"
EVENT_LIFETIME: Final = 60.0


class MemoryStore:
    """What the judge remembers."""

    def __init__(self, now: Callable[[], float]) -> None:
        self.restores: dict[str, Restore] = {}
        self._now = now
        self._events: list[Event] = []
        self._number = 0

    def restore(self, project_id: str, restore_id: str) -> Restore | None:
        restore = self.restores.get(restore_id)
        return restore if restore is not None and restore.project_id == project_id else None

    def put_restore(self, restore: Restore) -> None:
        self.restores[restore.id] = restore

    def put_event(self, restore: Restore, happening: Happening) -> None:
        self._number += 1
        self._events.append(
            events.Event(
                sequence=self._number,
                id=f"event-{self._number}",
                time=self._now(),
                kind=happening.kind,
                project_id=restore.project_id,
                agent_id=restore.request.agent_id,
                restore_id=restore.id,
                details=happening.details,
            )
        )

    def events(self, scope: Scope, page: Page) -> EventPage:
        oldest = self._now() - EVENT_LIFETIME
        self._events = [event for event in self._events if event.time > oldest]
        after = next((event.sequence for event in self._events if event.id == page.marker), 0)
        found = [
            event
            for event in self._events
            if event.sequence > after and scope.restore_id in {None, event.restore_id}
        ]
        following = events.page_before(page, found[page.limit - 1].id) if len(found) > page.limit else None
        return EventPage(found[: page.limit], following, None)


class Door:
    """Who may come in: whoever has a token of these."""

    def __init__(self) -> None:
        self.good = "canary-token-0"
        self._number = 0

    def replace(self) -> str:
        """The token that was good is not any more; this one is."""
        self._number += 1
        self.good = f"canary-token-{self._number}"
        return self.good

    def admit(self, token: str | None, _project_id: str) -> None:
        if token != self.good:
            # Some quote what they were asked with.
            raise RefusedError(401, f"The token {token} is not good.")

    def sign_in_agent(self, _project_id: str, _document: Any) -> dict[str, Any]:
        return {"token": {"id": self.good, "expires": None}}


class ControlPlane:
    """Answers requests, and tells of every patch that it carried out."""

    def __init__(self, plan: Plan, now: Callable[[], float]) -> None:
        self.door = Door()
        self._plan = plan
        self._store = MemoryStore(now)
        rules = Rules(Spelling(plan.spelling), plan.strict)
        self._judge = Judge(cast("Store", self._store), cast("Gate", self.door), rules)

    def begin(self, restore_id: str) -> None:
        """A restore is started."""
        request = Request(backup_id="backup", agent_id=AGENT)
        self._judge.begin(PROJECT, request, restore_id=restore_id)

    def restore(self, restore_id: str) -> Restore:
        """What is known of a restore."""
        return self._store.restores[restore_id]

    def ask_stop(self, restore_id: str) -> bool:
        """Somebody asks for a stop; False if the restore has ended."""
        return self._set(restore_id, State.STOP_REQUESTED)

    def end(self, restore_id: str, state: str) -> bool:
        """Somebody else reports an end; False if there is one."""
        return self._set(restore_id, State(state))

    def answer(self, call: Call) -> Answer:
        """What the reference answers."""
        try:
            return self._answer(call.method, call.path.strip("/").split("/")[1:], call)
        except RefusedError as problem:
            return refusal(problem)

    def _answer(self, method: str, where: list[str], call: Call) -> Answer:
        project_id, *where = where
        names = {"project_id": project_id, "restore_id": where[1], "agent_id": where[1]}
        call = replace(call, names=names)
        match method, where:
            case "PATCH", ["restores", _]:
                return self._judge.update_restore(call)
            case "GET", ["restores", _]:
                self._serve(self._plan.reads)
                return self._judge.read_restore(call)
            case "GET", [whose, _, "events"]:
                self._serve(self._plan.events)
                of_agent = whose == "agents"
                return self._judge.agent_events(call) if of_agent else self._judge.restore_events(call)
            case _:
                return json_answer(200, self.door.sign_in_agent("", None))

    @staticmethod
    def _serve(status: int) -> None:
        if status != 200:
            raise RefusedError(status, "That is not served here.")

    def _set(self, restore_id: str, state: State) -> bool:
        try:
            self._judge.change(self.restore(restore_id), change_state(state))
        except RefusedError:
            return False
        return True
