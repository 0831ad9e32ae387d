"""Sealed state: opens as it was given out, for whom and what it was made for, and in no other way."""

import base64
import string
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from broker.core.seal import NONCE_SIZE, Claims, Sealer, Unsealable, digest_of

KEY, OTHER = b"k" * 32, b"o" * 32
NONCE = b"n" * NONCE_SIZE
DIGEST = digest_of({"a": 1})
CLAIMS = Claims("alice", "one", "tools/call", "echo", DIGEST, DIGEST, 1000.0, "serial-1", inner="up", parked=None)
ALPHABET = string.ascii_letters + string.digits + "-_"


def refused(sealer: Sealer, text: object) -> str:
    with pytest.raises(Unsealable) as caught:
        sealer.unseal(text)
    return str(caught.value)


def raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text[3:] + "=" * (-len(text[3:]) % 4))


def written(data: bytes) -> str:
    return "b1." + base64.urlsafe_b64encode(data).decode().rstrip("=")


@given(st.text(), st.none() | st.text(), st.none() | st.text(), st.binary(min_size=NONCE_SIZE, max_size=NONCE_SIZE))
def test_SP60_a_state_comes_back_as_it_was_byte_for_byte(
    name: str, inner: str | None, parked: str | None, nonce: bytes
) -> None:
    claims = replace(CLAIMS, name=name, inner=inner, parked=parked)
    text = Sealer([KEY]).seal(claims, nonce)
    assert Sealer([KEY]).unseal(text) == claims
    assert set(text[3:]) <= set(ALPHABET), "it may stand in a header or a URL"


def test_a_state_shows_nothing_of_what_is_in_it() -> None:
    text = Sealer([KEY]).seal(replace(CLAIMS, inner="very secret"), NONCE)
    assert b"secret" not in raw(text) and b"alice" not in raw(text)


def test_SP57_any_bit_that_is_flipped_is_noticed() -> None:
    sealer = Sealer([KEY])
    text = sealer.seal(CLAIMS, NONCE)
    data = raw(text)
    for position in range(len(data)):
        for bit in range(8):
            changed = bytearray(data)
            changed[position] ^= 1 << bit
            refused(sealer, written(bytes(changed)))


def test_SP57_any_character_that_is_changed_is_noticed() -> None:
    """The last character has bits that mean nothing: they must be as they were, too."""
    sealer = Sealer([KEY])
    for inner in ("", "1", "22"):
        text = sealer.seal(replace(CLAIMS, inner=inner), NONCE)
        for position in (0, 1, 2, 3, 4, len(text) // 2, len(text) - 2, len(text) - 1):
            for other in ALPHABET:
                if other != text[position]:
                    refused(sealer, text[:position] + other + text[position + 1 :])


VARIANTS: dict[str, Callable[[str], str]] = {
    "padded": lambda text: text + "=" * (-len(text[3:]) % 4 or 4),
    "padded once": lambda text: text + "=",
    "a line break": lambda text: text + "\n",
    "a space before": lambda text: " " + text,
    "a line break inside": lambda text: text[:40] + "\n" + text[40:],
    "the standard alphabet": lambda text: text[:3] + text[3:].replace("-", "+").replace("_", "/"),
    "longer": lambda text: text + "A",
    "four longer": lambda text: text + "AAAA",
    "shorter": lambda text: text[:-1],
    "empty": lambda text: "",
    "prefix only": lambda text: "b1.",
    "no prefix": lambda text: text[3:],
    "another prefix": lambda text: "b2." + text[3:],
    "prefix twice": lambda text: "b1." + text,
    "not ASCII": lambda text: text[:-1] + "\u0430",
    "a surrogate": lambda text: text[:-1] + "\ud800",
    "key id only": lambda text: text[:9],
    "no box": lambda text: written(raw(text)[: 4 + NONCE_SIZE]),
    "half a nonce": lambda text: written(raw(text)[:10]),
    "huge": lambda text: "b1." + "A" * 100_000,
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS.keys())
def test_SP57_only_the_exact_text_opens(change: Callable[[str], str]) -> None:
    sealer = Sealer([KEY])
    claims = next(
        claims
        for claims in (replace(CLAIMS, inner=str(number)) for number in range(1000))
        if {"-", "_"} <= set(sealer.seal(claims, NONCE)[3:]) and len(sealer.seal(claims, NONCE)[3:]) % 4
    )
    text = sealer.seal(claims, NONCE)
    assert change(text) != text
    refused(sealer, change(text))
    assert sealer.unseal(text) == claims


@pytest.mark.parametrize("text", [None, 5, True, [], {}, b"b1.AAAA", 1.5], ids=repr)
def test_what_is_no_text_is_no_state(text: object) -> None:
    assert refused(Sealer([KEY]), text) == "not a state of ours"


@pytest.mark.parametrize("claim", ["principal", "server", "method", "name", "digest"])
def test_SP58_a_state_is_good_for_nothing_else(claim: str) -> None:
    state = Sealer([KEY]).unseal(Sealer([KEY]).seal(CLAIMS, NONCE))
    other: Any = replace(CLAIMS, **{claim: "another"})
    with pytest.raises(Unsealable, match=f"another {claim}"):
        state.refuse_other_use(other, 0.0)
    retry = replace(CLAIMS, expires=0.0, serial="", inner=None, parked="other")
    state.refuse_other_use(retry, 0.0)  # what only the state has is not compared


@pytest.mark.parametrize(("now", "is_good"), [(0.0, True), (999.99, True), (1000.0, False), (1e12, False)])
def test_SP58_a_state_expires(now: float, is_good: bool) -> None:
    if is_good:
        CLAIMS.refuse_other_use(CLAIMS, now)
        return
    with pytest.raises(Unsealable, match="expired"):
        CLAIMS.refuse_other_use(CLAIMS, now)


def test_the_digest_is_that_of_the_value_not_of_its_text() -> None:
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest_of(None) == digest_of({})
    assert digest_of({"n": 10**30}) != digest_of({"n": 10**30 + 1}), "integers of any size"
    different: list[dict[str, Any]] = [{}, {"a": 1}, {"a": "1"}, {"a": [1]}, {"a": True}, {"a": None}, {"b": 1}]
    assert len({digest_of(one) for one in different}) == len(different)


def test_a_ring_opens_what_any_of_its_keys_sealed_and_seals_with_the_first() -> None:
    old, new, ring = Sealer([OTHER]), Sealer([KEY]), Sealer([KEY, OTHER])
    assert ring.unseal(old.seal(CLAIMS, NONCE)) == CLAIMS
    assert new.unseal(ring.seal(CLAIMS, NONCE)) == CLAIMS
    assert refused(old, ring.seal(CLAIMS, NONCE)) == "an unknown key"
    assert refused(new, old.seal(CLAIMS, NONCE)) == "an unknown key"


def test_the_id_of_another_key_of_the_ring_opens_nothing() -> None:
    ring = Sealer([KEY, OTHER])
    mine, theirs = raw(ring.seal(CLAIMS, NONCE)), raw(Sealer([OTHER]).seal(CLAIMS, NONCE))
    assert refused(ring, written(theirs[:4] + mine[4:])) == "tampered with"


@pytest.mark.parametrize(
    "payload",
    [
        {**asdict(CLAIMS), "added": 1},
        {name: value for name, value in asdict(CLAIMS).items() if name != "serial"},
        [],
        5,
        "text",
        None,
    ],
    ids=["a claim more", "a claim less", "list", "number", "text", "null"],
)
def test_the_payload_of_another_version_is_unsealable(payload: Any) -> None:
    text = Sealer([KEY]).seal(CLAIMS, NONCE)
    key_id = raw(text)[:4]
    box = AESGCM(KEY).encrypt(NONCE, orjson.dumps(payload), b"b1." + key_id)
    assert refused(Sealer([KEY]), written(key_id + NONCE + box)) == "of another version"


def test_a_payload_that_is_no_json_is_unsealable() -> None:
    key_id = raw(Sealer([KEY]).seal(CLAIMS, NONCE))[:4]
    box = AESGCM(KEY).encrypt(NONCE, b"{", b"b1." + key_id)
    assert refused(Sealer([KEY]), written(key_id + NONCE + box)) == "of another version"


@given(st.text() | st.text(alphabet=ALPHABET).map(lambda body: "b1." + body))
def test_no_text_makes_it_raise_anything_else(text: str) -> None:
    refused(Sealer([KEY]), text)
