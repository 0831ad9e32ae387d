"""What must not be read in a text is not in it afterwards, and everything else is."""

import base64
import json
import random
import string
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core import redaction
from broker.core.redaction import (
    FEW,
    LONG,
    MASK,
    MAX_DEPTH,
    MAX_KNOWN,
    MIN_KNOWN,
    PIECE,
    KnownSecrets,
    in_json,
    spellings,
    without_shapes,
)
from tests.calls import measured

A43 = "Abcdefghijklmnopqrstuvwxyz-_0123456789abcde"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl"
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"

SHAPES = {
    "aws": "AKIA" + "IOSFODNN7EXAMPLE"[:16].replace("8", "A"),
    "github": "ghp_" + "a1B2" * 9,
    "github, fine-grained": "github_pat_" + "a1B2_" * 8,
    "gitlab": "glpat-" + "x9-_" * 5,
    "slack": "xoxb-" + "1234567890-abc",
    "slack app": "xapp-1-A111-222-abc",
    "slack hook": "hooks.slack.com/services/T000/B000/XXXXXXXX",
    "jwt": JWT,
    "jwt without a signature": JWT.rpartition(".")[0],
    "stripe": "sk_live_" + "a1B2" * 5,
    "openai": "sk-proj-" + "a1B2" * 8,
    "google": "AIza" + "a1B2c" * 7,
    "google oauth": "ya29." + "a1B2" * 6,
    "npm": "npm_" + "a1B2" * 9,
    "pypi": "pypi-" + "AgEIcHlwaS5vcmc",
    "huggingface": "hf_" + "aB" * 17,
    "sendgrid": "SG." + "a1B2" * 5 + "." + "a1B2" * 10,
    "digitalocean": "dop_v1_" + "a1b2" * 16,
    "vault": "hvs." + "a1B2" * 7,
    "pem": PEM,
    "pem that was cut off": PEM[:40],
}
SHAPES["pypi"] += "a1"

LABELLED = [
    (f"mcpb_abcdefghij23_{A43}", f"mcpb_abcdefghij23_{MASK}"),
    ("Authorization: Bearer x", f"Authorization: Bearer {MASK}"),
    ('{"Authorization": "Basic dTpw"}', f'{{"Authorization": "Basic {MASK}"}}'),
    ("authorization=abc", f"authorization={MASK}"),
    ("with bearer abcdefghijklmnop, twice", f"with bearer {MASK}, twice"),
    ("password: hunter2 was wrong", f"password: {MASK} was wrong"),
    ("DB_PASSWORD=hunter2 x", f"DB_PASSWORD={MASK} x"),
    ('{"client_secret":"hunter2","n":1}', f'{{"client_secret":"{MASK}","n":1}}'),
    ('\\"api_key\\": \\"hunter2\\"', f'\\"api_key\\": \\"{MASK}\\"'),
    ("https://x/y?access_token=abcd&z=1", f"https://x/y?access_token={MASK}&z=1"),
    ('"refreshToken" : "abcd"', f'"refreshToken" : "{MASK}"'),
    ("X-API-Key: abcd", f"X-API-Key: {MASK}"),
    ("postgres://ann:hunter2@db/x", f"postgres://{MASK}@db/x"),
]
HARMLESS = [
    "",
    "Unknown tool: one__echo",
    "Bearer authentication is required",
    "progress token: 5 of 10",
    "invalid credentials: no such user",
    "Secret key is missing: restore it",
    "https://example.com/a?b=c#d",
    "mailto:ann@example.com",
    "grüße, 你好 \ud800",
    "sk-short, ghp_short, AKIA",
    "a" * 64,
]


@pytest.mark.parametrize("kind", SHAPES)
def test_a_token_of_a_known_form_is_masked_wherever_it_stands(kind: str) -> None:
    secret = SHAPES[kind]
    assert without_shapes(secret) == MASK
    assert without_shapes(f"grüße '{secret}") == f"grüße '{MASK}"
    if not kind.startswith("pem that"):
        assert without_shapes(f"{secret}, and more") == f"{MASK}, and more"


@pytest.mark.parametrize(("text", "expected"), LABELLED)
def test_what_stands_behind_a_telling_word_is_masked_and_the_word_is_not(text: str, expected: str) -> None:
    assert without_shapes(text) == expected
    assert without_shapes(f"\ud800 {text}") == f"\ud800 {expected}"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_is_no_secret_is_left_alone(text: str) -> None:
    assert without_shapes(text) is text
    assert KnownSecrets(["canary-12345"]).scrubbed(text) == text


@given(st.text(st.characters(codec=None), max_size=200))
def test_any_text_can_be_scrubbed_and_a_scrubbed_one_stays_as_it_is(text: str) -> None:
    once = without_shapes(text)
    assert without_shapes(once) == once


SECRETS = st.text(st.characters(codec="utf-8"), min_size=MIN_KNOWN, max_size=30).filter(
    lambda text: len(text.strip()) >= MIN_KNOWN and len(text.splitlines()) == 1
)


@given(secret=SECRETS, before=st.text("xyz .,", max_size=5), after=st.text("xyz .,", max_size=5))
def test_a_known_secret_is_found_in_every_spelling(secret: str, before: str, after: str) -> None:
    known, bare = KnownSecrets([secret]), secret.strip()
    assert bare not in known.scrubbed(before + secret + after)
    for spelling in (
        quote(bare, safe=""),
        json.dumps(bare)[1:-1],
        json.dumps(bare, ensure_ascii=False)[1:-1],
        base64.b64encode(bare.encode()).decode(),
    ):
        assert spelling not in known.without(f"<{spelling}>")


SIGNS = "S3cr/t+k=y&<\"'é😀"


@pytest.mark.parametrize(
    "spelling",
    [
        '{"a":"S3cr\\/t+k=y&<\\"\'\\u00e9\\ud83d\\ude00"}',  # PHP
        '{"a":"S3cr/t+k=y\\u0026\\u003c\\"\'é😀"}',  # Go
        '{"a":"S3cr/t+k\\u003dy\\u0026\\u003c\\"\\u0027é😀"}',  # Gson
        '{"a":"S3cr/t\\u002Bk=y\\u0026\\u003C\\u0022\\u0027\\u00E9\\uD83D\\uDE00"}',  # .NET
        '{"a":"S3cr/t+k=y&<\\"\'\\u00E9\\uD83D\\uDE00"}',  # Jackson
        "?a=S3cr%2ft%2bk%3dy%26%3c%22%27%c3%a9%f0%9f%98%80&",  # .NET
        "?a=S3cr/t%2Bk%3Dy%26%3C%22%27%C3%A9%F0%9F%98%80&",  # Python
        "?a=S3cr%2Ft%2Bk%3Dy%26%3C%22'%C3%A9%F0%9F%98%80&",  # encodeURIComponent
        "/S3cr/t+k=y&%3C%22'%C3%A9%F0%9F%98%80/",  # encodeURI
    ],
)
def test_a_known_secret_is_found_as_common_writers_of_JSON_and_URLs_spell_it(spelling: str) -> None:
    assert KnownSecrets([SIGNS]).without(spelling).strip('{}"a:?=&/') == MASK


def test_a_known_secret_is_found_in_a_form_that_has_a_plus_for_each_blank() -> None:
    assert KnownSecrets(["two words & more"]).without("a=two+words+%26+more&b") == f"a={MASK}&b"


@pytest.mark.parametrize(
    "spelling",
    [
        "it%27s+%28all%29+%7E%2Amine%2A%21",  # PHP
        "it%27s+%28all%29+%7E*mine*%21",  # Java, URLSearchParams
        "it%27s+(all)+%7E*mine*!",  # .NET
        "it%27s+(all)+%7e*mine*!",
        "it%27s+%28all%29+~%2Amine%2A%21",  # Python, Go
    ],
)
def test_a_known_secret_is_found_as_common_writers_of_forms_spell_it(spelling: str) -> None:
    assert KnownSecrets(["it's (all) ~*mine*!"]).without(f"a={spelling}&b") == f"a={MASK}&b"


@pytest.mark.parametrize("ahead", ["", "a", "ab:", "user:"])
@pytest.mark.parametrize("behind", ["", "\n", "\r\n", ":more"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_known_secret_is_found_in_base64_whatever_is_around_it(
    ahead: str, behind: str, encode: Callable[[bytes], bytes]
) -> None:
    secret = "¿k9~>ÿÿ?x>z"
    spelling = encode(f"{ahead}{secret}{behind}".encode()).decode()
    for one in (spelling, spelling.rstrip("=")):
        found = KnownSecrets([secret]).without(one)
        assert MASK in found and len(found) <= len(MASK) + 4 + (len(ahead) + len(behind)) * 4 / 3


def test_the_beginning_of_a_long_secret_is_found_where_the_rest_was_cut_off() -> None:
    secret = "".join(f"{number:05}" for number in range(2000))
    known = KnownSecrets([secret])
    assert known.without(f"x {secret} y") == f"x {MASK} y"
    assert len(known.without(secret[:9000])) < LONG + 9 * len(MASK)


def test_a_long_secret_goes_before_one_that_is_part_of_it() -> None:
    known = KnownSecrets(["abcdefgh", "abcdefgh-ijklmnop"])
    assert known.without("x abcdefgh-ijklmnop abcdefgh y") == f"x {MASK} {MASK} y"


def test_a_secret_of_several_lines_is_found_line_by_line() -> None:
    assert KnownSecrets(["first-line-1\nsecond-line-2\n"]).without("a second-line-2 b") == f"a {MASK} b"


@pytest.mark.parametrize(
    ("value", "inner"),
    [("Bearer abcdefgh123", "abcdefgh123"), ("postgres://ann:hunter2-db@host/x", "hunter2-db")],
)
def test_what_is_secret_inside_of_a_value_is_found_alone(value: str, inner: str) -> None:
    assert KnownSecrets([value]).without(f"<{inner}>") == f"<{MASK}>"


@pytest.mark.parametrize("value", ["short", "        x       ", "http://[broken@host", "http://ann@host.example"])
def test_what_is_too_short_or_no_url_is_no_fault(value: str) -> None:
    known = KnownSecrets([value])
    assert known.without("a short text about x and ann") == "a short text about x and ann"


def test_what_its_shape_gives_away_needs_no_place_among_the_known() -> None:
    assert len(KnownSecrets([SHAPES["github"], PEM])) == 0
    assert len(KnownSecrets(["canary-12345"])) == len(set(spellings("canary-12345")))


def test_the_oldest_are_forgotten_and_one_that_is_learned_again_is_young() -> None:
    known = KnownSecrets(["canary-first-1", "canary-second"])
    known.learn("canary-first-1")
    for number in range(MAX_KNOWN // 4 - 1):
        known.learn(f"{number:08}-canary")
    assert len(known) == MAX_KNOWN
    assert known.without("canary-first-1") == MASK and known.without("canary-second") == "canary-second"


def scrub(text: str) -> str:
    return text.replace("canary", MASK)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": ["canary", 1, None, True]}, {"a": [MASK, 1, None, True]}),
        ({"canary": {"deep": "x canary"}}, {MASK: {"deep": f"x {MASK}"}}),
        ({"blob": "canary", "text": "canary"}, {"blob": "canary", "text": MASK}),
        ({"type": "image", "data": "canary"}, {"type": "image", "data": "canary"}),
        ({"type": "text", "data": "canary"}, {"type": "text", "data": MASK}),
        ({"blob": {"data": "canary"}}, {"blob": {"data": MASK}}),
    ],
)
def test_every_text_of_a_value_is_scrubbed_but_bytes_in_base64(value: Any, expected: Any) -> None:
    assert in_json(value, scrub) == expected


def test_a_value_without_secrets_is_the_same_object_and_one_that_is_too_deep_is_masked() -> None:
    value: Any = {"a": [1, {"b": "c"}], "d": None, "blob": "x"}
    assert in_json(value, scrub) is value
    deep: Any = ["canary", 1, None]
    for _ in range(MAX_DEPTH):
        deep = [deep]
    found = in_json(deep, scrub)
    for _ in range(MAX_DEPTH):
        (found,) = found
    assert found == MASK
    deep = {"a": "canary"}
    for _ in range(MAX_DEPTH):
        deep = {"b": deep}
    found = in_json(deep, scrub)
    for _ in range(MAX_DEPTH):
        found = found["b"]
    assert found == MASK


ENDS = ["password=", "Bearer ", "://a:", "b@c", PEM[:40], "\0", "word"]
PIECES = st.sampled_from([*SHAPES.values(), *(given for given, _ in LABELLED), *ENDS])
WORDS = st.lists(PIECES, max_size=4).map(" ".join) | st.lists(PIECES, max_size=3).map("".join)


@given(st.lists(WORDS, max_size=6), st.sampled_from(["", "word", "known-secret-1"]))
def test_texts_that_are_looked_at_together_become_what_each_becomes_alone(texts: list[str], known: str) -> None:
    secrets = KnownSecrets([known] if known else [])
    together = secrets.scrubbed_in([*texts, known])
    alone = [secrets.scrubbed(text) for text in [*texts, known]]
    # A NUL stays where nothing is hidden; else U+FFFD stands for it.
    assert [one.replace("\0", "\ufffd") for one in together] == [one.replace("\0", "\ufffd") for one in alone]


def test_a_secret_with_a_NUL_in_it_is_hidden_whichever_texts_are_around() -> None:
    secrets = KnownSecrets(["begin\0middle\0end"])
    assert secrets.scrubbed("x begin\0middle\0end y") == f"x {MASK} y"
    assert secrets.scrubbed_in(["begin", "begin\0middle\0end"]) == ["begin", MASK]
    assert secrets.without_in({"a": "password=begin\0middle\0end"}) == {"a": f"password={MASK}"}
    assert without_shapes("a\0b") == "a\0b" and without_shapes("\0password=hunter2\0x") == f"\ufffdpassword={MASK}"


@pytest.mark.parametrize("known", [0, 1, 200])
@pytest.mark.parametrize("length", [0, 1, 9, 5000])
def test_many_known_secrets_are_found_as_few_are_wherever_they_stand(known: int, length: int) -> None:
    texts = [f"secret-grüße-{number:04}" for number in range(known)]
    secrets = KnownSecrets(texts)
    assert (len(secrets) > FEW) is (known == 200)
    for text in texts[:20]:
        for shift in range(PIECE):
            around = "x" * (length + shift)
            assert secrets.without(around + text + "ä" + around) == around + MASK + "ä" + around
    for size in range(PIECE + 2):
        assert secrets.without("y" * size) == "y" * size


@pytest.mark.parametrize("more", [0, 200])
def test_of_two_secrets_that_begin_alike_the_longer_one_is_hidden_whole(more: int) -> None:
    secrets = KnownSecrets(["abcdefgh", "abcdefghijkl", *(f"secret-number-{number:04}" for number in range(more))])
    assert secrets.without("x abcdefghijkl abcdefgh") == f"x {MASK} {MASK}"


def test_a_text_takes_no_longer_the_more_secrets_are_known() -> None:
    drawn = random.Random(7)
    letters = string.ascii_letters + string.digits

    def took(known: int) -> float:
        secrets = KnownSecrets("".join(drawn.choices(letters, k=24)) for _ in range(known))
        text = "".join(drawn.choices(letters, k=256 * 1024))
        began = time.thread_time()
        assert secrets.without(text) == text
        return time.thread_time() - began

    assert took(MAX_KNOWN // 4) < 5 * took(FEW), "each is known in four spellings"


@pytest.mark.parametrize("text", ["x", "password", "word word"])
def test_many_small_texts_take_no_longer_than_one_large_one(text: str) -> None:
    secrets = KnownSecrets(f"secret-number-{number:04}" for number in range(400))
    value = [text] * 50_000
    with measured() as spent:
        assert secrets.scrubbed_in(value) is value
        assert secrets.scrubbed_in([*value, "secret-number-0007"])[-1] == MASK
    assert spent.seconds < 1


@pytest.mark.parametrize("piece", ["-----BEGIN PRIVATE KEY-----", "password", "eyJ", "://a:", "bearer ", "SG.a", "a"])
def test_a_text_that_almost_matches_all_the_time_is_scrubbed_by_an_engine_that_cannot_go_back(piece: str) -> None:
    for pattern in (redaction._TOKEN, redaction._PAIR, redaction._LOGIN):
        assert type(pattern).__module__.startswith("re2")
    assert len(without_shapes(piece * (1_000_000 // len(piece)))) <= 1_000_000
