"""No secret comes out of an agent: a few scenes of `python -m tests.canary`, and that the search finds any."""

from __future__ import annotations

import base64
import html
import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest

from tests.bombs.play import Kind
from tests.canary.__main__ import OF_AGENT, OF_ENGINE, judge
from tests.canary.commands import RUN_OUTPUT, commanded, mistaken
from tests.canary.echoes import ECHOES
from tests.canary.places import Harvest
from tests.canary.scenes import WAYS, echoed
from tests.canary.secrets import PASSPHRASE, TOKEN, Canary

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("canary", [*OF_AGENT, *OF_ENGINE], ids=lambda canary: canary.name)
@pytest.mark.parametrize(
    "form",
    [
        str,
        repr,
        json.dumps,
        lambda text: json.dumps(json.dumps(text)),
        lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
        lambda text: quote(text, safe=""),
        html.escape,
        lambda text: text.encode().hex(),
        lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
        lambda text: text[: len(text) // 2],
        lambda text: text[len(text) // 2 :],
        lambda text: f"{text[:9]}\n    {text[9:]}",
        lambda text: json.dumps(f"{text[:9]}\n{text[9:]}"),
    ],
)
def test_a_secret_is_found_in_whatever_form(canary: Canary, form: object) -> None:
    assert callable(form)
    assert canary.found_in(f"before {form(canary.value)} behind".encode())


def test_what_holds_no_secret_is_no_hit() -> None:
    text = json.dumps({"message": "HTTP 401: the token [concealed] is not valid", "password": None})
    assert not any(canary.found_in(text.encode() * 100) for canary in (*OF_AGENT, *OF_ENGINE))


def test_a_secret_of_an_engine_may_be_where_its_user_put_it_and_nowhere_else() -> None:
    harvest = Harvest()
    for place in ("/proc/PID/environ", "/proc/PID/cmdline", RUN_OUTPUT):
        harvest.add(place, "it", PASSPHRASE.value.encode())
    assert not judge(harvest)
    harvest.add("/proc/PID/environ", "it", TOKEN.value.encode())
    harvest.add("spool", "it", PASSPHRASE.value.encode())
    assert {(hit.place, hit.canary) for hit in judge(harvest)} == {
        ("/proc/PID/environ", TOKEN.name),
        ("spool", PASSPHRASE.name),
    }


@pytest.mark.parametrize(
    ("way", "name"),
    [
        ("token file", "500 with the request"),
        ("password", "500 with the secret"),
        ("password", "secret cut in the middle"),
        ("password", "secret as JSON in JSON"),
    ],
)
async def test_what_repeats_a_secret_is_kept_without_it(tmp_path: Path, way: str, name: str) -> None:
    chosen = next(each for each in WAYS if each.name == way)
    echoes = [echo for echo in ECHOES if echo.name == name]
    harvest, issued = await echoed(tmp_path, Kind.LIBRARY, chosen, level="debug", form="json", echoes=echoes)
    assert harvest.bytes_of("log on stderr")
    assert harvest.bytes_of("spool")
    assert harvest.bytes_of("/proc/PID/environ")
    assert not judge(harvest, issued)


async def test_what_an_engine_prints_is_reported_without_the_passwords_of_its_urls(tmp_path: Path) -> None:
    harvest = await commanded(
        tmp_path, level="debug", form="journal", engines=["restic", "mytool"], refused=False
    )
    assert harvest.bytes_of("journal")
    assert harvest.bytes_of("records of the control plane")
    assert not judge(harvest)


async def test_a_secret_in_the_wrong_place_is_not_said(tmp_path: Path) -> None:
    wrong = ["token in the settings file", "password in the endpoint", "broken settings file"]
    assert not judge(await mistaken(tmp_path, level="debug", form="text", among=wrong))
