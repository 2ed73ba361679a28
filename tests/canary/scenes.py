"""What is played with the canaries in it: real processes, each failure there is, and what comes out of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

from agent_reporter.reference.accounts import Accounts, AgentAccount, UserAccount
from agent_reporter.reference.server import AGENT, PROJECT
from tests.bombs.bombs import Call
from tests.bombs.play import Kind, Scene, open_scene
from tests.canary.echoes import ECHOES
from tests.canary.places import Harvest, watched_processes
from tests.canary.secrets import API_KEY, PASSWORD, TOKEN, Canary

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.bombs.bombs import Bomb
    from tests.bombs.control_plane import Hostile

ACCOUNTS = Accounts(
    [AgentAccount(PROJECT, AGENT, PASSWORD.value)], [UserAccount(PROJECT, "jo", API_KEY.value)]
)
SIGNED_WITH = b"x-auth-token: "
BURST_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Way:
    """A way to sign in, by the settings that it takes and the secret that is in its file."""

    name: str
    canary: Canary
    setting: str

    def settings(self, secret: Path, url: str) -> dict[str, object]:
        identity = {"identity_endpoint": url, "identity_username": "jo"} if self.canary is API_KEY else {}
        return {"agent_password_file": None, **identity, self.setting: secret}


WAYS = (
    Way("token file", TOKEN, "token_file"),
    Way("password", PASSWORD, "agent_password_file"),
    Way("API key", API_KEY, "identity_api_key_file"),
)


async def echoed(
    directory: Path, kind: Kind, way: Way, *, level: str, form: str, echoes: Sequence[Bomb] = ECHOES
) -> tuple[Harvest, list[Canary]]:
    """A long life of one agent, that is given every answer that repeats a secret, at every call.

    Returns also the tokens that it was issued.
    """
    harvest = Harvest()
    metrics = directory / "metrics.prom"
    spools = [directory / "spool", directory / "daemon-spool"]
    async with (
        open_scene(
            directory,
            kind,
            accounts=ACCOUNTS,
            token=TOKEN.value,
            password=way.canary.value,
            settings_of=lambda url: way.settings(directory / "password", url),
            log_level=level,
            log_format=form,
            metrics_file=metrics,
        ) as scene,
        watched_processes(harvest),
    ):
        calls = [call for call in Call if way.canary is not TOKEN or call is not Call.SIGN_IN]
        for call in calls:
            for echo in echoes:
                await _throw(scene, echo, call, harvest, spools)
                if kind is Kind.DAEMON:
                    await _ask_daemon(scene.socket, harvest)
        await _crash(scene)
        note_requests(scene.hostile, harvest)
        issued = _issued(scene.hostile)
    for name in ("engine", "daemon"):
        with suppress(FileNotFoundError):
            harvest.add("log on stderr", name, (directory / f"{name}.log").read_bytes())
    if metrics.exists():
        harvest.add("metrics", "file", metrics.read_bytes())
    logs = {directory / "engine.log", directory / "daemon.log", metrics}
    for spool in spools:
        harvest.add_files("spool, after SIGKILL", spool)
    harvest.add_files(
        "other files", directory, {directory / "password", directory / "control-plane", *logs, *spools}
    )
    return harvest, issued


async def _throw(scene: Scene, echo: Bomb, call: Call, harvest: Harvest, spools: Sequence[Path]) -> None:
    restore_id = scene.reference.start_restore()
    scene.hostile.arm(echo, call, 2)
    await scene.engine.ask("begin", restore_id)
    with suppress(TimeoutError):
        await scene.hostile.wait_for_bursts(1, BURST_WITHIN)
    await scene.engine.ask("end", restore_id)
    for spool in spools:
        harvest.add_files("spool", spool)


async def _ask_daemon(path: Path, harvest: Harvest) -> None:
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(path))) as session,
        session.get(f"http://localhost/v2/{PROJECT}/restores") as answer,
    ):
        harvest.add("answers of the daemon", "list", await answer.read())


async def _crash(scene: Scene) -> None:
    """Kill whoever reports in the middle of a restore that cannot be delivered."""
    echo = next(echo for echo in ECHOES if echo.name == "500 with the request")
    scene.hostile.arm(echo, Call.PATCH, 10_000)
    await scene.engine.ask("begin", scene.reference.start_restore())
    with suppress(TimeoutError):
        await scene.hostile.wait_for_bursts(2, BURST_WITHIN)
    scene.measured.kill()
    scene.engine.kill()


def note_requests(front: Hostile, harvest: Harvest) -> None:
    """What the control plane was told, but for what it is signed with; and all that another origin was told."""
    for head, body in front.requests:
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(SIGNED_WITH)]
        harvest.add("heads of requests", "heads", b"\n".join(lines))
        if b"/tokens" not in head.partition(b"\r\n")[0]:
            harvest.add("bodies of requests", "bodies", body)
    for asked in front.asked_elsewhere:
        harvest.add("another origin", "requests", asked)


def _issued(front: Hostile) -> list[Canary]:
    """The tokens that were got by signing in."""
    tokens = {
        line[len(SIGNED_WITH) :].decode()
        for head, _ in front.requests
        for line in head.split(b"\r\n")
        if line.lower().startswith(SIGNED_WITH)
    }
    return [Canary("token that was issued", token) for token in sorted(tokens - {TOKEN.value})]
