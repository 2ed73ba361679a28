from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from agent_reporter import logs
from agent_reporter.logs import CONCEALED, KEPT_SECRETS, conceal, get_logger, redact
from tests.builders import Heard, listening, python

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def heard() -> Iterator[Heard]:
    with listening() as ears:
        yield ears


def test_a_library_says_nothing_unless_its_host_wants_to_hear_it() -> None:
    said = python(
        "from agent_reporter.logs import get_logger\nget_logger(restore_id='r-1').error('job.misuse')"
    )
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "")


def test_a_library_does_not_load_what_only_commands_need() -> None:
    said = python(
        "import sys, agent_reporter, agent_reporter.logs\nprint('agent_reporter.log_output' in sys.modules)"
    )
    assert said.stdout == "False\n"


def test_an_event_carries_its_name_its_level_its_time_and_what_is_bound(heard: Heard) -> None:
    get_logger(restore_id="r-1").warning("delivery.failed", attempt=3)
    (event,) = heard.events
    assert event.pop("timestamp").endswith("Z")
    assert event == {"event": "delivery.failed", "level": "warning", "restore_id": "r-1", "attempt": 3}


def test_an_exception_goes_along_as_text(heard: Heard) -> None:
    try:
        raise ValueError("broken")  # noqa: TRY301 - what is caught is what is logged
    except ValueError:
        get_logger().exception("reporter.loop_failed")
    assert heard.events[0]["exception"].endswith("ValueError: broken")


class Holder:
    def __init__(self, secret: str) -> None:
        self.secret = secret

    def __repr__(self) -> str:
        return f"Holder({self.secret})"


@pytest.mark.parametrize(
    "value",
    [
        "before s3cret after",
        ValueError("s3cret"),
        ["s3cret"],
        {"headers": {"X-Auth-Token": "s3cret"}},
        b"s3cret",
        ("a", ("s3cret",)),
        Holder("s3cret"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_secret_is_taken_out_of_every_kind_of_value(heard: Heard, value: Any) -> None:
    conceal("s3cret")
    get_logger(bound=value).error("an.event", problem=value)
    assert "s3cret" not in str(heard)
    assert CONCEALED in heard.events[0]["problem"]
    assert CONCEALED in heard.events[0]["bound"]


def test_a_secret_is_taken_out_of_the_name_of_an_event_and_of_tracebacks(heard: Heard) -> None:
    conceal("s3cret")
    try:
        raise ValueError("the token s3cret was refused")  # noqa: TRY301 - as above
    except ValueError:
        get_logger().exception("s3cret")
    assert "s3cret" not in str(heard)
    assert heard.events[0]["event"] == CONCEALED


def test_numbers_and_nothing_stay_what_they_are(heard: Heard) -> None:
    conceal("1")
    get_logger().error("an.event", count=1, ratio=1.5, flag=True, nothing=None)
    event = heard.events[0]
    assert (event["count"], event["ratio"], event["flag"], event["nothing"]) == (1, 1.5, True, None)


def test_an_empty_secret_conceals_nothing() -> None:
    conceal("")
    assert redact("text") == "text"


def test_several_secrets_are_all_taken_out() -> None:
    for secret in ("one-secret", "another-secret"):
        conceal(secret)
    assert redact("one-secret, another-secret") == f"{CONCEALED}, {CONCEALED}"


def test_what_can_be_no_secret_of_ours_does_no_harm() -> None:
    conceal("\ud800")
    assert redact("a\ud800b") == f"a{CONCEALED}b"


def test_of_secrets_that_change_for_years_those_are_kept_out_that_are_of_use() -> None:
    conceal("the password")
    for number in range(3 * KEPT_SECRETS):
        conceal(f"token-{number}-")
        if number % 100 == 0:
            conceal("the password")
    newest = f"token-{3 * KEPT_SECRETS - 1}-"
    assert redact(f"the password, {newest}") == f"{CONCEALED}, {CONCEALED}"
    assert len(logs._secrets) == KEPT_SECRETS


@pytest.mark.parametrize(
    "shown",
    [
        json.dumps('p"q/\\ä'),
        json.dumps(json.dumps('p"q/\\ä')),
        "https://host/?password=p%22q%2F%5C%C3%A4&x=1",
        base64.b64encode('p"q/\\ä'.encode()).decode(),
        repr('p"q/\\ä'.encode()),
        repr("it's: p\"q/\\ä".encode()),
    ],
)
def test_a_secret_is_taken_out_in_every_form_that_it_takes_in_texts(shown: str) -> None:
    conceal('p"q/\\ä')
    assert CONCEALED in redact(shown)


@pytest.mark.parametrize("beside", ["", "'", '"', "'\""])
@pytest.mark.parametrize("secret", ["it's", 'so"called', "back\\slash", "all'of\"them\\"])
def test_a_secret_is_taken_out_of_what_python_quotes(secret: str, beside: str) -> None:
    conceal(secret)
    for quoted in (repr(beside + secret), repr((beside + secret).encode())):
        assert CONCEALED in redact(quoted)


@pytest.mark.parametrize("number", range(8))
def test_nothing_is_left_of_a_secret_that_begins_with_another_one(number: int) -> None:
    conceal(f"password{number}")
    conceal(f"password{number}-of-the-agent")
    assert "agent" not in redact(f"password{number}-of-the-agent")


def test_a_secret_may_be_added_while_another_thread_takes_secrets_out() -> None:
    class Slow(str):
        __slots__ = ()

        def replace(self, *_: Any) -> Slow:  # it stands for a switch of threads
            conceal("another")
            return self

    conceal("one")
    assert redact(Slow("text")) == "text"


def test_many_threads_may_log_and_conceal_at_once(heard: Heard) -> None:
    problems: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(200):
                conceal(f"secret-{number}-{turn}-")
                get_logger().error("an.event", problem=f"secret-{number}-{turn}-")
        except RuntimeError as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert {event["problem"] for event in heard.events} == {CONCEALED}
