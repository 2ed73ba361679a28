"""The reference control plane as a process: what it knows can be seen, and it can be taken away."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROJECT = "110011"
TOKEN = "the-token-of-the-package-test"
AWAY = {"match": {"method": "PATCH"}, "for_seconds": 600, "answer": {"status": 503}}
"""A control plane that takes no reports."""


class ControlPlane:
    """The reference control plane, outside the guest."""

    def __init__(self, folder: Path) -> None:
        (folder / "token").write_text(TOKEN)
        command = [sys.executable, "-m", "agent_reporter.cli.main", "reference", "--listen", "127.0.0.1:0"]
        command += ["--data", str(folder / "data"), "--token-file", str(folder / "token"), "--faults"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().split()[-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """One request, with its answer's document; raises OSError for a refusal."""
        request = urllib.request.Request(self.url + path, method=method, headers={"X-Auth-Token": TOKEN})
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=10) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def start_restore(self) -> str:
        """Have a restore started, and return its id."""
        document = self.ask(
            "POST", f"/v2/{PROJECT}/restores", {"backup_id": "b", "destination_agent_id": "a"}
        )
        return str(document.get("id") or document["restore_id"])

    def record(self, restore_id: str) -> dict[str, Any]:
        """What it knows of a restore."""
        return dict(self.ask("GET", f"/v2/{PROJECT}/restores/{restore_id}"))

    @contextmanager
    def away(self) -> Iterator[None]:
        """For a while, it takes no reports."""
        self.ask("POST", "/faults", [AWAY])
        yield
        self.ask("DELETE", "/faults")
