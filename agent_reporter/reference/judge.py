"""The operations of the API: each takes a request and gives its answer, or raises RefusedError.

Nothing here is asynchronous: `server` reads the requests, calls these, and writes the answers.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from agent_reporter.reference import checks, events, restores
from agent_reporter.reference.exchange import NO_CONTENT, Answer, Call, RefusedError, json_answer
from agent_reporter.reference.patches import CONTENT_TYPE, Spelling, State, read_patch
from agent_reporter.reference.store import Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from agent_reporter.reference.accounts import Gate
    from agent_reporter.reference.patches import Field
    from agent_reporter.reference.restores import Happening, Request, Restore
    from agent_reporter.reference.store import Store

_PRESENCE: Final = checks.object_of({"event": checks.one_of("startup", "shutdown")})


@dataclass(frozen=True, slots=True)
class Rules:
    """How the protocol is read: which spelling of the paths is taken, and whether strictly."""

    spelling: Spelling = Spelling.BOTH
    strict: bool = False


class Judge:
    """Answers requests from what `store` holds, for those whom `gate` admits."""

    def __init__(self, store: Store, gate: Gate, rules: Rules) -> None:
        self._store = store
        self._gate = gate
        self._rules = rules

    # Restores

    def start_restore(self, call: Call) -> Answer:
        """POST /v2/{project_id}/restores."""
        self._admit(call)
        request = restores.read_request(checks.read_json(call.whole_body()))
        restore = self.begin(call.names["project_id"], request)
        location = {"Location": restores.address(restore, call.origin)}
        return json_answer(201, restores.document(restore, call.origin), location)

    def begin(
        self,
        project_id: str,
        request: Request,
        *,
        restore_id: str | None = None,
        total_bytes: int | None = None,
    ) -> Restore:
        """Start a restore, and tell its agent."""
        restore = restores.Restore(
            id=restore_id or str(uuid.uuid4()),
            project_id=project_id,
            request_id=str(uuid.uuid4()),
            request=request,
            total_bytes=total_bytes,
        )
        self._keep(restore, restores.happenings_of_state(restore))
        return restore

    def read_restore(self, call: Call) -> Answer:
        """GET /v2/{project_id}/restores/{restore_id}."""
        return json_answer(200, restores.document(self._admitted_restore(call), call.origin))

    def read_errors(self, call: Call) -> Answer:
        """GET /v2/{project_id}/restores/{restore_id}/errors."""
        return json_answer(200, restores.errors_document(self._admitted_restore(call), call.origin))

    def update_restore(self, call: Call) -> Answer:
        """PATCH /v2/{project_id}/restores/{restore_id}."""
        restore = self._admitted_restore(call)
        content_type = call.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if content_type != CONTENT_TYPE:
            raise RefusedError(400, f"The content type of a patch is {CONTENT_TYPE}.")
        patch = checks.read_json(call.whole_body())
        self.change(restore, read_patch(patch, self._rules.spelling, strict=self._rules.strict))
        return NO_CONTENT

    def change(self, restore: Restore, changes: Mapping[Field, Any]) -> None:
        """Do what a patch says; raises RefusedError (409) if the restore has ended."""
        after = restores.patched(restore, changes, str(uuid.uuid4()))
        self._keep(after, restores.happenings(restore, after, changes))

    # Events

    def restore_events(self, call: Call) -> Answer:
        """GET /v2/{project_id}/restores/{restore_id}/events."""
        restore = self._admitted_restore(call)
        return self._events(call, Scope(restore.project_id, restore_id=restore.id))

    def agent_events(self, call: Call) -> Answer:
        """GET /v2/{project_id}/agents/{agent_id}/events. Any agent may be asked for."""
        self._admit(call)
        return self._events(call, Scope(call.names["project_id"], agent_id=call.names["agent_id"]))

    def note_presence(self, call: Call) -> Answer:
        """POST /v2/{project_id}/agents/{agent_id}/events: at startup, what is pending is told again."""
        self._admit(call)
        document = checks.read_json(call.whole_body())
        checks.insist(_PRESENCE, document, "The event")
        project_id, agent_id = call.names["project_id"], call.names["agent_id"]
        self._store.note_presence(project_id, agent_id, document["event"])
        if document["event"] == "startup":
            for restore in self._store.restores_in(project_id, agent_id, *restores.PENDING_STATES):
                self._tell(restore, restores.happenings_of_state(restore))
        return Answer(202)

    # Signing in

    def sign_in_agent(self, call: Call) -> Answer:
        """POST /v2/{project_id}/agents/tokens."""
        document = checks.read_json(call.whole_body())
        return json_answer(200, self._gate.sign_in_agent(call.names["project_id"], document))

    def sign_in_user(self, call: Call) -> Answer:
        """POST /v2.0/tokens, at the Identity service."""
        return json_answer(200, self._gate.sign_in_user(checks.read_json(call.whole_body()), call.origin))

    def _admit(self, call: Call) -> None:
        self._gate.admit(call.headers.get("X-Auth-Token"), call.names["project_id"])

    def _admitted_restore(self, call: Call) -> Restore:
        self._admit(call)
        restore = self._store.restore(call.names["project_id"], call.names["restore_id"])
        if restore is None:
            raise RefusedError(404, "There is no such restore.")
        return restore

    def _events(self, call: Call, scope: Scope) -> Answer:
        found = self._store.events(scope, events.read_page(call.query))
        url = call.origin + quote(call.path)
        beside = {"next": found.following, "previous": found.preceding}
        links = [events.link(rel, url, page) for rel, page in beside.items() if page is not None]
        return json_answer(
            200, {"events": [events.document(event, call.origin) for event in found.events], "links": links}
        )

    def _keep(self, restore: Restore, happened: Iterable[Happening]) -> None:
        self._store.put_restore(restore)
        self._tell(restore, happened)

    def _tell(self, restore: Restore, happened: Iterable[Happening]) -> None:
        for happening in happened:
            self._store.put_event(restore, happening)


def change_state(state: State) -> dict[Field, Any]:
    """The changes of a patch that holds nothing but a state."""
    return read_patch([{"op": "replace", "path": "/state", "value": state.value}])
