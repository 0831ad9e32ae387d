"""What is revealed once is not said again: in foreign texts, and in the errors of upstreams."""

from typing import Any

import pytest

from broker.config import Secret, Sources, expand
from broker.core.era import RELATED_TASK
from broker.core.redaction import MASK
from broker.errors import (
    MAX_FOREIGN_TEXT,
    URL_ELICITATION_REQUIRED,
    BrokerError,
    InvalidParams,
    MalformedAnswer,
    UpstreamAnsweredError,
    UpstreamUnavailable,
)
from broker.secrecy import (
    LEFT_OUT,
    MAX_ERROR_DATA,
    MAX_ERROR_TEXT,
    MAX_QUOTED,
    MAX_REPORT,
    REACH,
    foreign,
    of_upstream,
    scrubbed,
    scrubbed_report,
)
from tests.calls import measured

CANARY = "canary-7f3a9c"
TOKEN = "ghp_" + "a1B2" * 9


def test_a_secret_is_hidden_from_the_moment_it_is_revealed() -> None:
    secret = Secret(CANARY)
    assert scrubbed(CANARY) == CANARY
    assert secret.reveal() == CANARY
    assert scrubbed(f"no: {CANARY}!") == f"no: {MASK}!"


def test_of_a_text_with_references_what_they_brought_in_is_hidden_and_the_rest_is_not() -> None:
    sources = Sources({"TOKEN": CANARY, "HOME": "/home/ann-the-user"})
    expanded = expand("Bearer ${env:TOKEN}", sources)
    assert isinstance(expanded, Secret) and expanded.reveal() == f"Bearer {CANARY}"
    place = expand("${env:HOME}/things", sources)
    assert isinstance(place, Secret) and place.reveal() == "/home/ann-the-user/things"
    assert scrubbed(f"Bearer {CANARY} in /home/ann-the-user/things") == f"Bearer {MASK} in /home/ann-the-user/things"


def test_a_foreign_text_is_scrubbed_before_it_is_cut_and_escaped() -> None:
    Secret(f"{CANARY}\n{CANARY}").reveal()
    said = foreign("x" * (MAX_FOREIGN_TEXT - 10) + CANARY + "y" * 9)
    assert len(said) == MAX_FOREIGN_TEXT and "canary" not in said and said.endswith("…")
    assert foreign(f"\x1b {TOKEN}") == f"\\x1b {MASK}"


def test_an_upstreams_own_error_passes_scrubbed() -> None:
    Secret(CANARY).reveal()
    found = of_upstream(UpstreamAnsweredError(f"no: {CANARY}", {"why": [TOKEN], "n": 1}, code=1001))
    assert isinstance(found, UpstreamAnsweredError)
    assert found.to_json() == {"code": 1001, "message": f"no: {MASK}", "data": {"why": [MASK], "n": 1}}


def test_an_upstreams_own_error_is_capped() -> None:
    found = of_upstream(UpstreamAnsweredError("x" * (MAX_ERROR_TEXT + 1), ["y" * MAX_ERROR_DATA], code=1))
    assert len(found.message) == MAX_ERROR_TEXT and found.message.endswith("…")
    assert found.data == {"omitted": f"the data of this error is larger than {MAX_ERROR_DATA} bytes"}
    assert of_upstream(UpstreamAnsweredError("x", "y" * (MAX_ERROR_DATA - 2))).data == "y" * (MAX_ERROR_DATA - 2)


def test_a_url_that_a_caller_must_open_keeps_its_token_but_no_secret_of_ours() -> None:
    Secret(CANARY).reveal()
    url = f"https://login.example/?token=abcdef&state={TOKEN}"
    data = {"elicitations": [{"url": url}, {"url": CANARY}]}
    found = of_upstream(UpstreamAnsweredError("open it", data, code=URL_ELICITATION_REQUIRED))
    assert found.data == {"elicitations": [{"url": url}, {"url": MASK}]}


@pytest.mark.parametrize("kind", [UpstreamUnavailable, MalformedAnswer])
def test_what_is_said_of_an_upstream_is_scrubbed(kind: Any) -> None:
    Secret(CANARY).reveal()
    found = of_upstream(kind("one", f"it said {CANARY}"))
    assert MASK in found.message and CANARY not in str(found.to_json())
    assert found.code == BrokerError.code and found.data["upstream"] == "one"


def test_what_a_caller_said_itself_is_told_back_as_it_was() -> None:
    """A mask in its own words would tell it that it has guessed a secret."""
    Secret(CANARY).reveal()
    error = InvalidParams(f"no {CANARY}")
    assert of_upstream(error) is error


LARGE = 12 * 1024 * 1024


def test_I40_whatever_its_size_an_upstreams_error_holds_nobody() -> None:
    for number in range(100):
        Secret(f"secret-of-somebody-{number:03}").reveal()
    with measured() as spent:
        found = of_upstream(UpstreamAnsweredError("m" * LARGE, ["d"] * (LARGE // 4), code=1))
        assert len(found.message) == MAX_ERROR_TEXT and "omitted" in found.data
        assert len(foreign("secret " * (LARGE // 7))) == MAX_FOREIGN_TEXT
    assert spent.seconds < 1


@pytest.mark.parametrize("before", [MAX_ERROR_TEXT, MAX_ERROR_TEXT + 2 * REACH - 10, MAX_ERROR_TEXT + 2 * REACH - 40])
def test_of_a_long_message_no_half_of_a_secret_is_told_even_where_others_made_it_short(before: int) -> None:
    Secret(CANARY).reveal()
    filled = f"{TOKEN} " * (before // (len(TOKEN) + 1) + 1)
    said = of_upstream(UpstreamAnsweredError(f"{filled[:before]} {CANARY} {TOKEN} " + "x" * LARGE)).message
    assert "canary" not in said and "a1B2" not in said and len(said) <= MAX_ERROR_TEXT


@pytest.mark.parametrize("data", ["small", "x" * MAX_REPORT])
def test_a_report_of_any_size_says_which_task_it_belongs_to(data: str) -> None:
    Secret(CANARY).reveal()
    ident = CANARY * 20
    found = scrubbed_report({"data": data, "taskId": ident, "_meta": {RELATED_TASK: {"taskId": ident}}})
    assert found["taskId"] == ident and found["_meta"] == {RELATED_TASK: {"taskId": ident}}
    assert scrubbed_report({"taskId": [CANARY], "_meta": {RELATED_TASK: {"taskId": [CANARY]}, "a": CANARY}}) == {
        "taskId": [MASK],
        "_meta": {RELATED_TASK: {"taskId": [MASK]}, "a": MASK},
    }


def test_a_large_report_is_told_in_short() -> None:
    Secret(CANARY).reveal()
    said = {"level": "info", "logger": CANARY, "data": ["x" * MAX_REPORT], "_meta": {"a": 1}, "progress": 0.5}
    found = scrubbed_report(said)
    assert found == {"level": "info", "logger": MASK, "data": LEFT_OUT, "progress": 0.5}
    assert scrubbed_report({"data": "x" * 9, "message": CANARY, "taskId": CANARY}) == {
        "data": "x" * 9,
        "message": MASK,
        "taskId": CANARY,
    }
    assert scrubbed_report({"message": "short", "other": "x" * MAX_REPORT}) == {"message": "short"}


def test_what_is_quoted_of_an_upstream_is_more_than_is_told_however_wide_its_characters_are() -> None:
    assert MAX_QUOTED > 4 * (MAX_FOREIGN_TEXT + 2 * REACH)
