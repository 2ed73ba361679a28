"""`demo`: real restores against a control plane on this machine, in half a minute, leaving nothing behind.

One restore runs through, one is stopped in the middle, one meets an outage of the control plane. At the end
a table shows what the control plane knows of each; the exit status is 0 only if every record is right.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from agent_reporter.cli.demo_engines import RATE_KIB, DemoEngine, is_same, make_data, prepare_engine
from agent_reporter.cli.main import FAILED
from agent_reporter.cli.wording import amount
from agent_reporter.reference import ReferenceServer
from agent_reporter.reference.server import PROJECT

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Coroutine

TOKEN = "demo-token"  # noqa: S105 - it opens a control plane that lasts as long as the demo
OUTAGE_SECONDS = 2.0

_console = Console()


@dataclass(frozen=True, slots=True)
class Scene:
    """One restore of the demo: what is told of it, what happens meanwhile, and what has to come of it."""

    title: str
    meanwhile: Callable[[ReferenceServer, str], Coroutine[Any, Any, None]]
    expected_state: str
    is_complete: bool
    rate_kib: int = RATE_KIB


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """The demo has no options."""


def run(_args: argparse.Namespace) -> int:
    """Show it, and return 0 if every record is right."""
    with tempfile.TemporaryDirectory(prefix="agent-reporter-demo-") as directory:
        is_right = asyncio.run(_show(Path(directory)))
    _console.print("Every record is right." if is_right else "[red]Not every record is right.")
    return 0 if is_right else FAILED


async def _show(directory: Path) -> bool:
    environment = _environment(directory)
    settings_file = directory / "settings.toml"  # in place of the machine's own
    await asyncio.to_thread(settings_file.touch)
    source = await asyncio.to_thread(make_data, directory / "data")
    engine = await prepare_engine(directory, source)
    _console.print(f"Restoring {amount(engine.bytes)} in {engine.files} files with {engine.name}.\n")
    async with ReferenceServer(directory / "control-plane", token=TOKEN) as server:
        environment["AGENT_REPORTER_ENDPOINT"] = server.url
        rows = []
        for number, scene in enumerate(SCENES):
            _console.print(f"[bold]{number + 1}. {scene.title}")
            target = directory / f"target-{number}"
            restore_id = server.start_restore(total_bytes=engine.bytes)
            meanwhile = asyncio.create_task(scene.meanwhile(server, restore_id))
            options = ["--restore-id", restore_id, "--config", str(settings_file)]
            await _restore(engine, engine.command(options, target, scene.rate_kib), environment)
            meanwhile.cancel()
            await asyncio.gather(meanwhile, return_exceptions=True)
            problems = await asyncio.to_thread(_judge, server.document(restore_id), scene, engine, target)
            problems += _judge_history(server.history(restore_id))
            rows.append((scene, server.document(restore_id), server.history(restore_id), problems))
    _console.print(_table(rows))
    return not any(problems for *_, problems in rows)


async def _run_through(_server: ReferenceServer, _restore_id: str) -> None:
    """Nothing happens."""


async def _ask_for_stop(server: ReferenceServer, restore_id: str) -> None:
    await server.wait_until(lambda: server.document(restore_id)["bytes_restored"] > 0, within=30)
    server.request_stop(restore_id)
    _console.print("   The control plane was asked for a stop.")


async def _fail_for_a_while(server: ReferenceServer, restore_id: str) -> None:
    await server.wait_until(lambda: server.document(restore_id)["state"] == "in_progress", within=30)
    server.add_fault(
        {"status": 503, "headers": {"Retry-After": "1"}}, for_seconds=OUTAGE_SECONDS, method="PATCH"
    )
    _console.print(f"   The control plane answers 503 for {OUTAGE_SECONDS:g} seconds.")


SCENES = (
    Scene("A restore runs through.", _run_through, "completed", is_complete=True),
    Scene(
        "A stop is asked for in the middle.",
        _ask_for_stop,
        "stopped",
        is_complete=False,
        rate_kib=RATE_KIB * 2 // 3,
    ),
    Scene("The control plane is away for a while.", _fail_for_a_while, "completed", is_complete=True),
)


def _environment(directory: Path) -> dict[str, str]:
    """An environment in which nothing of this machine's own settings counts."""
    token_file = directory / "token"
    token_file.touch(mode=0o600)
    token_file.write_text(TOKEN)
    own = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_REPORTER_")}
    return own | {
        "AGENT_REPORTER_PROJECT_ID": PROJECT,
        "AGENT_REPORTER_TOKEN_FILE": str(token_file),
        "AGENT_REPORTER_SPOOL_DIR": str(directory / "spool"),
        "AGENT_REPORTER_REPORT_INTERVAL": "0.5",
        "AGENT_REPORTER_STOP_POLL_INTERVAL": "0.5",
    }


async def _restore(engine: DemoEngine, command: list[str], environment: dict[str, str]) -> None:
    # On a terminal the progress bar shows; elsewhere what the engine prints is of no interest.
    output = None if sys.stdout.isatty() else asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment | engine.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
    )
    try:
        await process.wait()
    except BaseException:
        process.terminate()
        await process.wait()
        raise


def _judge(document: dict[str, Any], scene: Scene, engine: DemoEngine, target: Path) -> list[str]:
    """What is not as it has to be in the record of a restore."""
    problems = []
    if document["state"] != scene.expected_state:
        problems.append(f"{document['state']} instead of {scene.expected_state}")
    counted = (document["files_restored"], document["bytes_restored"])
    if scene.is_complete:
        if counted != (engine.files, engine.bytes):
            problems.append(f"{counted} instead of {(engine.files, engine.bytes)} files and bytes")
        if not is_same(engine.source, engine.restored(target)):
            problems.append("what was restored differs from the data")
    elif counted[1] >= engine.bytes:
        problems.append("it was not stopped in the middle")
    if document["errors"]["count"]:
        problems.append(f"{document['errors']['count']} errors")
    return problems


def _judge_history(history: list[dict[str, Any]]) -> list[str]:
    """Whether a counter ever went down in what the control plane took."""
    highest = 0
    for patch in history:
        for operation in patch["body"] or []:
            if patch["applied"] and operation["path"] == "/bytes-restored":
                if operation["value"] < highest:
                    return ["a counter went down"]
                highest = operation["value"]
    return []


def _table(rows: list[tuple[Scene, dict[str, Any], list[dict[str, Any]], list[str]]]) -> Table:
    table = Table(
        "",
        "state",
        "files",
        "bytes",
        "errors",
        "patches",
        "refused",
        "right",
        title="What the control plane knows",
    )
    for number, (_, document, history, problems) in enumerate(rows, start=1):
        patches = [request for request in history if request["method"] == "PATCH"]
        table.add_row(
            str(number),
            document["state"],
            str(document["files_restored"]),
            amount(document["bytes_restored"]),
            str(document["errors"]["count"]),
            str(sum(patch["applied"] for patch in patches)),
            str(sum(not patch["applied"] for patch in patches)),
            "[red]" + "; ".join(problems) if problems else "yes",
        )
    return table
