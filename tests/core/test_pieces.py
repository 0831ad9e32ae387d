"""A long text in pieces is read, refused and written as in one go, wherever it is cut."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.pieces import Sizes, reading, writing
from broker.core.strict import Limits, Malformed, judged
from broker.core.wire import all_at_once, encode, encoding, is_longer
from tests.core.test_wire import TOKENS, same

LIMITS = Limits(size=2**20, depth=8, nodes=300, digits=30)
SIZES = st.sampled_from([Sizes(64, 64, 10), Sizes(128, 64, 4), Sizes(256, 64, 8)])
CHARACTERS = st.sampled_from([*'a"\\\n\x01\u00e9\u6f22\U0001f600,:{]\x7f'])
TEXTS = st.builds(lambda text, times: text * times, st.text(CHARACTERS, max_size=9), st.integers(1, 50))
VALUES: st.SearchStrategy[Any] = st.recursive(
    TEXTS | st.none() | st.integers(-(10**25), 10**25),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(CHARACTERS, max_size=2), inner, max_size=6),
    max_leaves=25,
)
BYTES = st.sampled_from([b"", b"1", b"\0", b'"', b"\\", b"}", b",", b":", b"\xff"])
TOO_LONG = b'"' + b"x" * 300 + b'"'


def outcome(data: bytes, sizes: Sizes | None) -> str:
    """The value, or that there is none."""
    try:
        return repr(judged(data, LIMITS) if sizes is None else all_at_once(reading(data, LIMITS, sizes)))
    except Malformed:
        return "refused"


def refusal(data: bytes) -> str:
    with pytest.raises(Malformed) as refused:
        all_at_once(reading(data, LIMITS, Sizes(64, 64, 10)))
    return str(refused.value)


@given(VALUES, SIZES, st.booleans(), st.sampled_from([None, 0, 3]))
def test_any_spelling_of_a_value_is_read_in_pieces_as_in_one_go(
    value: Any, sizes: Sizes, ascii_only: bool, indent: int | None
) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert outcome(data, sizes) == outcome(data, None)


@given(VALUES, SIZES, st.integers(0, 2**60), BYTES)
def test_a_broken_text_is_refused_in_pieces_as_in_one_go(value: Any, sizes: Sizes, place: int, byte: bytes) -> None:
    data = encode({"jsonrpc": "2.0", "id": 1, "result": value})
    place %= len(data)
    broken = data[:place] + byte + data[place + 1 :]
    found, expected = outcome(broken, sizes), outcome(broken, None)
    assert found == expected or (found == "refused" and "a key is too long" in refusal(broken))


@given(st.lists(TOKENS | st.just(TOO_LONG) | st.just(b" " * 100), max_size=8).map(b"".join), SIZES)
@example(TOO_LONG, Sizes(64, 64, 10))
@example(b"[" + TOO_LONG + b".5]", Sizes(64, 64, 10))
@example(b"[" + TOO_LONG + TOO_LONG + b"]", Sizes(64, 64, 10))
@example(TOO_LONG + b",1", Sizes(64, 64, 10))
@example(b"[" + TOO_LONG + b"}", Sizes(64, 64, 10))
@example(b"[[" + TOO_LONG + b"]", Sizes(64, 64, 10))
@example(b"[1" + b" " * 500 + b"2]", Sizes(64, 64, 10))
@example(b"1" + b" " * 500, Sizes(64, 64, 10))
def test_what_is_no_json_is_refused_in_pieces_too(data: bytes, sizes: Sizes) -> None:
    found, expected = outcome(data, sizes), outcome(data, None)
    assert found == expected or (found == "refused" and "a key is too long" in refusal(data))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a":%b,"b":1,"c":%b,"a":2}' % (TOO_LONG, TOO_LONG), "twice"),
        (b'{"a":[%b,{"b":1,"c":%b,"\\u0062":2}]}' % (TOO_LONG, TOO_LONG), "twice"),
        (b'{"\\u0000":1,"a":%b,"\\u0000":2}' % TOO_LONG, "twice"),
        (b'{"a":%b,"\\u0000":2,"\\u0000":2}' % TOO_LONG, "twice"),
        (b'{"a":1,%b:2}' % TOO_LONG, "key is too long"),
        (b"[%b,%b]" % (TOO_LONG, b"1" * 31), "more than 30 digits"),
        (b"[%b,%b]" % (TOO_LONG, b"1" * 500), "more than 30 digits"),
        (b"[%b1]" % (b"1," * 301), "more than 300 values"),
        (b"[%b%b%b]" % (b"1," * 40, b"[" * 8, b"]" * 8), "deeper than 8"),
        (b"[%b%b" % (b"1," * 40, b"[" * 300), "deeper than 8|not JSON"),
        (b"[" + b'"' * 500, "not JSON"),
        (b"", "not JSON"),
        (b'"' + b"x" * 300, "not JSON"),
        (b'{"a" ' + b'  "b"   :   ' * 100, "."),
    ],
    ids=lambda value: ascii(value[:20]),
)
def test_a_refusal_says_why(data: bytes, why: str) -> None:
    found = refusal(data)
    assert any(one in found for one in why.split("|")) or why == ".", found


@given(VALUES, st.sampled_from([32, 64, 1000]))
def test_what_is_written_in_pieces_is_what_is_written_in_one_go(value: Any, most: int) -> None:
    assert all_at_once(writing(value, encode, most)) == encode(value)


def test_many_members_are_written_in_pieces() -> None:
    for value in ([{"a": n} for n in range(2000)], {f"k{n}": [n] * 9 for n in range(2000)}, ["x" * 99] * 700 + [2**70]):
        steps = writing(value, encode, 4096)
        assert sum(1 for _ in steps) > 5
        assert all_at_once(writing(value, encode, 4096)) == encode(value)


def test_any_key_of_what_is_cut_is_read() -> None:
    for name in ("\0", "\0\0", "", "k" * 40, "k" * 60, "\U0001f600" * 10):
        for before in range(60, 70):
            value = {"a": "x" * before, name: {name: [0] * 50, "z": ["y" * 300]}, "b": "z" * 300, "0" + name: 1}
            data = encode(value)
            assert all_at_once(reading(data, Limits(2**20), Sizes(64, 64, 10))) == value


def test_what_has_every_key_that_could_stand_for_what_came_before_is_refused() -> None:
    keys = b",".join(b'"%b":1' % (b"\\u0000" * n) for n in range(1, 9))
    with pytest.raises(Malformed, match="NULs"):
        all_at_once(reading(b'{"a":"%b",%b}' % (b"x" * 600, keys), LIMITS, Sizes(512, 512, 10)))


@pytest.mark.parametrize(
    "text", [b'["%b",[,"%b"]]', b'{"a":"%b","b":{ ,"c":"%b"}}', b'[{"a":"%b"},[[\n],[\n\t,"%b"]]]', b'[%b{,"a":"%b"}]']
)
def test_nothing_may_be_left_out_before_a_comma_wherever_the_cut_is(text: bytes) -> None:
    for before in range(80):
        broken = text % (b" " * before, b"x" * 90)
        assert outcome(broken, Sizes(64, 64, 10)) == "refused"


def test_a_number_beyond_64_bits_is_kept_in_any_piece() -> None:
    value = ["x" * 300, 2**64, "y" * 300, -(2**70), {"z": 2**99}]
    assert same(all_at_once(reading(encode(value), Limits(2**20), Sizes(64, 64, 10))), value)


SMALL = Sizes(64, 64, 10)
WORDS = b'"xxxxxxxxxxxx",' * 12


@pytest.mark.parametrize(
    "value",
    [
        {"a": 1, "k" * 60: [2] * 9, "z": 3},
        ["a" * 10 + "\U0001f600" * 50, 1],
        ["a\u00e9\u6f22" * 50, 1],
        [[["x" * 12] * 8, "y" * 200], {"z": ["w" * 12] * 8}],
    ],
    ids=["a long key", "pairs of escapes", "characters of several bytes", "nested"],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_what_is_cut_anywhere_is_put_together_again(value: Any, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert all_at_once(reading(data, LIMITS, SMALL)) == value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"[" * 9 + WORDS + b"1" + b"]" * 9, "nested deeper than 8"),
        (b"[" + WORDS + b"[" * 9 + b"1" + b"]" * 9 + b",1]", "nested deeper than 8"),
        (b"[" + WORDS + b"1}", "not JSON"),
        (b"[" + WORDS + b"[1}, 2]]", "not JSON"),
    ],
)
def test_what_is_too_deep_or_closed_by_another_bracket_is_refused_in_pieces(data: bytes, why: str) -> None:
    assert refusal(data) == why


@pytest.mark.parametrize(
    "data", [b"[" + b'"",' * 700 + b"1]", b"[" + b'"\\"",' * 700 + b"1]", b"[" + b"[1]," * 700 + b"1]"]
)
def test_too_many_values_are_refused_before_any_is_made(data: bytes) -> None:
    with pytest.raises(Malformed, match="more than 300 values"):
        judged(data, LIMITS)


@pytest.mark.parametrize("value", ["x" * 200, [1] * 2000, {"k": ["x" * 300, *([2] * 1500)]}])
def test_what_is_written_in_steps_is_what_is_written_in_one_go(value: Any) -> None:
    steps = writing(value, encode, 9_000 if isinstance(value, list) else 64)
    assert len(list(steps)) > 1
    assert all_at_once(writing(value, encode, 64)) == all_at_once(encoding(value)) == encode(value)


def test_whether_a_value_is_longer_is_said_of_its_text() -> None:
    assert [is_longer(value, 100) for value in ("x" * 98, "x" * 99, ["x" * 40] * 2, [1] * 10_000)] == [
        *(False, True, False, True)
    ]
