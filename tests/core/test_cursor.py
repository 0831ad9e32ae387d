"""Cursors: what is sealed for one scope opens there, and nowhere else (SP-45)."""

import base64

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from broker.core.cursor import seal, unseal

KEY = b"k" * 32
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(TEXTS, TEXTS)
def test_a_cursor_opens_in_its_scope(scope: str, last: str) -> None:
    cursor = seal(KEY, scope, last)
    assert unseal(KEY, scope, cursor) == last
    assert cursor.isascii() and cursor.replace("-", "").replace("_", "").isalnum()


@given(TEXTS, TEXTS, TEXTS)
def test_a_cursor_opens_in_no_other_scope_and_under_no_other_key(scope: str, other: str, last: str) -> None:
    assume(scope != other)
    assert unseal(KEY, other, seal(KEY, scope, last)) is None
    assert unseal(b"j" * 32, scope, seal(KEY, scope, last)) is None


@given(TEXTS, TEXTS, st.integers(0, 100))
def test_scope_and_entry_cannot_be_shifted_into_each_other(scope: str, last: str, place: int) -> None:
    text = scope + last
    place %= len(text) + 1
    assume(place != len(scope))
    assert unseal(KEY, text[:place], seal(KEY, scope, last)) is None


@given(TEXTS, st.integers(0, 10_000), st.integers(0, 6))
def test_a_cursor_with_any_bit_changed_is_none(last: str, place: int, bit: int) -> None:
    cursor = seal(KEY, "scope", last)
    place %= len(cursor)
    changed = cursor[:place] + chr(ord(cursor[place]) ^ (1 << bit)) + cursor[place + 1 :]
    assert unseal(KEY, "scope", changed) is None


@given(TEXTS, st.integers(0, 10_000), st.integers(0, 7))
def test_the_bytes_of_a_cursor_with_any_bit_changed_are_none(last: str, place: int, bit: int) -> None:
    cursor = seal(KEY, "scope", last)
    raw = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    raw[place % len(raw)] ^= 1 << bit
    assert unseal(KEY, "scope", base64.urlsafe_b64encode(raw).decode().rstrip("=")) is None


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_what_nobody_sealed_opens_nowhere(cursor: str) -> None:
    assert unseal(KEY, "scope", cursor) is None


@pytest.mark.parametrize("cursor", [None, 1, True, [], {}, b"bytes", "", "=", "a", "\ud800", "é", "a" * 1_000_000])
def test_what_is_no_cursor_is_refused_without_a_fuss(cursor: object) -> None:
    assert unseal(KEY, "scope", cursor) is None


@pytest.mark.parametrize("last", ["", "a", "ab", "abc"])
def test_there_is_one_spelling_of_a_cursor(last: str) -> None:
    cursor = seal(KEY, "scope", last)
    standard = cursor.replace("-", "+").replace("_", "/")
    for other in (cursor + "=", cursor + "==", cursor + "A", cursor + "\n", " " + cursor, cursor[:-1]):
        assert unseal(KEY, "scope", other) is None
    assert unseal(KEY, "scope", standard) == (last if standard == cursor else None)
