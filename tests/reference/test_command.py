"""The server as a process of its own."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import TYPE_CHECKING

import aiohttp
import pytest

from agent_reporter.reference.command import split_address

if TYPE_CHECKING:
    from pathlib import Path

COMMAND = (sys.executable, "-m", "agent_reporter.reference")


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *COMMAND, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_says_where_it_listens_and_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    token, script = tmp_path / "token", tmp_path / "faults.json"
    token.write_text("the-token\n")
    script.write_text(json.dumps([{"answer": {"status": 503}}]))
    options = ("--data", str(tmp_path / "data"), "--token-file", str(token), "--fault-script", str(script))
    process = await start("--listen", "127.0.0.1:0", *options)
    assert process.stdout is not None
    line = (await process.stdout.readline()).decode()
    assert line.startswith("listening on http://127.0.0.1:")
    url = line.split()[-1] + "/v2/110011/restores/any"
    async with aiohttp.ClientSession(headers={"X-Auth-Token": "the-token"}) as session:
        for status in (503, 404):
            async with session.get(url) as answer:
                assert answer.status == status
        process.send_signal(number)
        out, err = await process.communicate()
    assert process.returncode == 0
    assert (out, err) == (b"", b"")


async def test_it_warns_when_others_can_listen_in(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the-token")
    options = ("--data", str(tmp_path / "data"), "--token-file", str(tmp_path / "token"))
    process = await start("--listen", "0.0.0.0:0", *options)
    assert process.stdout is not None
    await process.stdout.readline()
    process.terminate()
    _, err = await process.communicate()
    assert b"plain HTTP" in err


@pytest.mark.parametrize(
    ("listen", "script"), [("nowhere", "[]"), ("127.0.0.1:0", "[{}]"), ("127.0.0.1:0", "no json")]
)
async def test_it_says_why_it_cannot_serve(tmp_path: Path, listen: str, script: str) -> None:
    (tmp_path / "token").write_text("the-token")
    (tmp_path / "faults.json").write_text(script)
    options = ("--data", str(tmp_path / "data"), "--token-file", str(tmp_path / "token"))
    process = await start("--listen", listen, *options, "--fault-script", str(tmp_path / "faults.json"))
    _, err = await process.communicate()
    assert process.returncode == 2
    assert err.startswith(b"reference: cannot serve: ")
    assert err.count(b"\n") == 1


def test_an_address_is_a_host_and_a_port() -> None:
    assert split_address("127.0.0.1:8080") == ("127.0.0.1", 8080)
    assert split_address("[::1]:0") == ("::1", 0)
    for wrong in ("8080", ":8080", "host:", "host:http", "host:65536"):
        with pytest.raises(ValueError, match="is not HOST:PORT"):
            split_address(wrong)
