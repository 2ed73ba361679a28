"""The reference control plane in a process of its own, as the real one is, with one restore in it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import ProxyHandler, Request, build_opener

if TYPE_CHECKING:
    from collections.abc import Iterator

PROJECT, TOKEN = "benchmark", "benchmark-token"


class ControlPlane:
    """A control plane that was started."""

    def __init__(self, url: str, directory: Path, token_file: Path) -> None:
        self.url = url
        self.directory = directory
        self.token_file = token_file
        self._restores = f"{url}/v2/{PROJECT}/restores"
        self._opener = build_opener(ProxyHandler({}))  # what is on this machine is behind no proxy
        request = {"backup_id": "benchmark", "destination_agent_id": "benchmark"}
        self.restore_id: str = self._call(self._restores, request)["id"]

    @property
    def restore_url(self) -> str:
        return f"{self._restores}/{self.restore_id}"

    def document(self) -> Any:
        return self._call(self.restore_url)

    def patches(self) -> int:
        history = self._call(f"{self.url}/faults/history?restore_id={self.restore_id}")
        return sum(request["method"] == "PATCH" and request["applied"] for request in history)

    def _call(self, url: str, body: object = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"X-Auth-Token": TOKEN, "Content-Type": "application/json"}
        with self._opener.open(Request(url, data, headers)) as answer:
            return json.load(answer)


@contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """A control plane for as long as the block lasts; it keeps its data in a directory that goes then."""
    with tempfile.TemporaryDirectory(prefix="agent-reporter-benchmark-") as name:
        directory = Path(name)
        token_file = directory / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(TOKEN)
        options: list[str | Path] = [
            "--listen",
            "127.0.0.1:0",
            "--data",
            directory / "data",
            "--token-file",
            token_file,
        ]
        command = [sys.executable, "-m", "agent_reporter.reference", *options, "--faults"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                url = process.stdout.readline().decode().split()[-1]
                yield ControlPlane(url, directory, token_file)
            finally:
                process.terminate()
