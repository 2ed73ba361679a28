"""The reference control plane: an independent judge of whatever reports restores to it.

It speaks the protocol of the reporter's control plane over plain HTTP, keeps what it was told in SQLite
over restarts, remembers every request that arrived and what it answered, and can be told to misbehave.
It shares no code with the rest of the package, so that a mistake there is not repeated here.

Tests use it in their own process::

    async with ReferenceServer(tmp_path, token="secret") as server:
        restore_id = server.start_restore()
        ...  # something reports to server.url
        assert server.document(restore_id)["state"] == "completed"

and everybody else as a command: ``agent-reporter reference --listen 127.0.0.1:8080 --data DIR
--token-file FILE``. `accounts` describes the file of agents and users that may sign in, `faults` the ways
in which the server can be made to misbehave.
"""

from agent_reporter.reference.accounts import Accounts, AgentAccount, UserAccount
from agent_reporter.reference.patches import Spelling
from agent_reporter.reference.server import ReferenceServer

__all__ = ["Accounts", "AgentAccount", "ReferenceServer", "Spelling", "UserAccount"]
