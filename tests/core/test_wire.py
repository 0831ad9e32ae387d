"""Strict JSON: what is refused, that the rest is exact, and what comes back on the wire."""

import json
import math
import re
from typing import Any

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.strict import _STRINGS
from broker.core.wire import (
    FROM_CALLER,
    FROM_UPSTREAM,
    Limits,
    Malformed,
    count_values,
    decode,
    decode_object,
    decoding_object,
    encode,
    is_request_id,
    readable_id,
)

SMALL = Limits(size=4096, depth=6, nodes=40, digits=30)

STRINGS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ['"', "\\", '\\"', '\\\\"', "a:b,{[", "\x00\n\r\u2028", "1" * 70, "\u00e9\U0001f600"]
)
INTEGERS = st.integers(min_value=-(10**30) + 1, max_value=10**30 - 1) | st.sampled_from(
    [2**53 + 1, 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, -(10**19) + 1]
)
SCALARS = st.none() | st.booleans() | INTEGERS | st.floats(allow_nan=False, allow_infinity=False) | STRINGS
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(STRINGS, inner, max_size=4), max_leaves=12
)
TOKENS = st.lists(
    st.sampled_from(
        [
            *b'{}[],:" \n\t0123456789.-+eE\\/truefalsn',
            b'"a"',
            b'"b"',
            b'"a":1',
            b'{"a":1}',
            b"[]",
            b"1e5",
            b"1e999",
            b"NaN",
            b"-Infinity",
            b"null",
            b"true",
            b'"\\ud800"',
            b'"\\ud83d\\ude00"',
            b'"\\u0061"',
            b"\xff",
            b"\xef\xbb\xbf",
            b"\xc3\xa9",
            b"1" * 19,
            b"1" * 31,
        ]
    ).map(lambda token: bytes([token]) if isinstance(token, int) else token),
    max_size=14,
).map(b"".join)


def orjson_bytes(value: Any) -> bytes:
    """Its shortest spelling, with integers beyond 64 bits as floats."""
    return orjson.dumps(json.loads(encode(value), parse_int=float))


class Twice(ValueError):
    pass


def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(members)) < len(members):
        raise Twice
    return dict(members)


def no_constant(name: str) -> Any:
    raise ValueError(name)


def values_in(value: Any) -> list[Any]:
    below = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return [value, *(inner for child in below for inner in values_in(child))]


def depth_of(value: Any) -> int:
    below = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if below is None else 1 + max(map(depth_of, below), default=0)


def texts_in(value: Any) -> list[str]:
    found = [inner for inner in values_in(value) if isinstance(inner, str)]
    return found + [key for inner in values_in(value) if isinstance(inner, dict) for key in inner]


def reference(data: bytes) -> Any:
    """The value by the standard library, with what is refused by rule; no limits but depth and digits."""
    value = json.loads(data.decode("utf-8"), object_pairs_hook=pairs, parse_constant=no_constant)
    "".join(texts_in(value)).encode()
    numbers = [inner for inner in values_in(value) if isinstance(inner, (int, float))]
    if not all(math.isfinite(number) for number in numbers) or depth_of(value) > SMALL.depth:
        raise ValueError
    return value


def same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: 1 is not 1.0 and not true."""
    return repr(one) == repr(other)


@given(TOKENS)
@example(b'{"a":1,"\\u0061":2}')
@example(b'[{"a":{"b":1,"b":1}}]')
@example(b'{"a:b":"c:d"}')
@example(b'["\\\\",":\\"",{"\\\\\\"":1}]')
@example(b'"\\ud800"')
@example(b"1e999")
@example(b"-0")
@example(b"1" * 20 + b"0" + b"1" * 18)
@example(b"")
def test_what_is_accepted_is_what_the_standard_library_reads_less_what_is_refused(data: bytes) -> None:
    try:
        expected = reference(data)
    except ValueError:
        with pytest.raises(Malformed):
            decode(data, SMALL)
        return
    if b"1" * 31 in data and not texts_in(expected):
        with pytest.raises(Malformed, match="digits"):
            decode(data, SMALL)
        return
    try:
        value = decode(data, SMALL)
    except Malformed as error:
        assert "digits" in str(error) and re.search(rb"[0-9.eE+-]{31}", data)
    else:
        assert same(value, expected) or data.strip() in (b"-0", b"-0.0") or value == expected


@given(VALUES)
def test_what_is_encoded_comes_back_exactly(value: Any) -> None:
    data = encode(value)
    assert b"\n" not in data and b"\r" not in data
    assert same(decode(data, FROM_UPSTREAM), value)
    assert same(json.loads(data), value)


@given(VALUES, st.booleans(), st.sampled_from([None, 0, 2]))
def test_any_spelling_of_a_value_reads_the_same(value: Any, ascii_only: bool, indent: int | None) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    decoded = decode(data, FROM_UPSTREAM)
    assert same(decoded, value)
    assert same(decode(encode(decoded), FROM_UPSTREAM), value)


def outcome(data: bytes) -> str:
    """The value, or why there is none; in other than our own words a parser may say it in several ways."""
    try:
        return repr(decode(data, SMALL))
    except Malformed as error:
        return str(error) if any(word in str(error) for word in ("than", "twice")) else "not JSON"


@given(VALUES.map(orjson_bytes) | TOKENS)
@example(b'{"a":1,"a":1}')
@example(b"[0.1,1e21,-0.0,1e-7]")
@example(b"[" * 6 + b"]" * 6)
@example(b"[" * 7 + b"]" * 7)
@example(b"[{},{},{},{},{},{}]")
@example(b"[" + b"1," * 38 + b"1]")
@example(b"[" + b"1," * 39 + b"1]")
@example(b'["' + b"1" * 31 + b'"]')
@example(b'["' + b"x" * 60 + b'"]')
def test_the_shortest_spelling_is_judged_like_any_other(data: bytes) -> None:
    # A blank at the end makes it another spelling: only the shortest one is ever read the short way.
    assert outcome(data) == outcome(data + b" ")


@given(VALUES.map(orjson_bytes) | TOKENS)
@example(b'["' + b"\\" * 62 + b'",1]')
@example(b'["' + b"\\" * 63 + b'":' + b"1" * 31 + b'"]')
@example(b'["' + b"\\" * 64 + b'",' + b"1" * 31 + b"]")
@example(b'["' + b"\\" * 65 + b'":' + b"1" * 31 + b'"]')
@example(b'[{"a":1,"a":"' + b"\\" * 65 + b'":"}]')
def test_a_text_of_many_strings_is_judged_as_one_of_few(data: bytes) -> None:
    # So many strings, empty ones, that none is stepped over; the text stands after them.
    many = b"[" + b'"",' * _STRINGS
    few = b"[" + b"0," * _STRINGS
    limits = Limits(size=2**20, nodes=2 * _STRINGS, digits=30)

    def judged(head: bytes) -> Any:
        try:
            return repr(decode(head + data + b" ]", limits)[_STRINGS:])
        except Malformed as error:
            return str(error) if "twice" in str(error) or "digits" in str(error) else "not JSON"

    assert judged(many) == judged(few)


LONG = b"x" * 2**20
"""With it a text is judged as a long one is."""


@pytest.mark.parametrize("spare", [0, _STRINGS], ids=["few strings", "many strings"])
def test_a_long_text_is_refused_for_what_a_short_one_is(spare: int) -> None:
    def long(rest: bytes) -> bytes:
        return b'["%b",%b%b]' % (LONG, b'"",' * spare, rest)

    assert decode(long(b'{"a":1,"b":"\\\\\\"{"}'), FROM_UPSTREAM)[-1] == {"a": 1, "b": '\\"{'}
    assert decode(long(b"123456789012345678901234"), FROM_UPSTREAM)[-1] == 123456789012345678901234
    assert depth_of(decode(long(b"[" * 63 + b"]" * 63), FROM_UPSTREAM)) == 64
    for rest, why in (
        (b'{"a":1,"b":2,"a":3}', "twice"),
        (b'{"a":1,"\\u0061":3}', "twice"),
        (b"[" * 64 + b"]" * 64, "deeper than 64"),
        (b"1" * 65, "more than 64 digits"),
        (b"1," * 200_000 + b"1", "more than 200000 values"),
        (b'"', "."),
        (b'"\\"', "."),
        (b"NaN", "."),
        (b'"\\ud800"', "."),
    ):
        with pytest.raises(Malformed, match=why):
            decode(long(rest), FROM_UPSTREAM)


@given(st.binary(max_size=60) | TOKENS)
def test_bytes_are_read_or_refused_and_nothing_else_happens(data: bytes) -> None:
    readable_id(data)
    for limits in (FROM_CALLER, SMALL, Limits(size=10, depth=1, nodes=1, digits=1)):
        try:
            decode(data, limits)
        except Malformed as error:
            assert str(error).isprintable()


@given(VALUES, st.integers(0, 2**60), st.sampled_from([b"1", b"\0", b'"', b"\\", b"}", b":", b"\xff"]))
def test_a_broken_text_is_read_as_the_standard_library_reads_it(value: Any, place: int, byte: bytes) -> None:
    data = encode({"jsonrpc": "2.0", "id": 1, "result": value})
    place %= len(data)
    broken = data[:place] + byte + data[place + 1 :]
    try:
        decoded = decode(broken, FROM_UPSTREAM)
    except Malformed:
        return
    assert decoded == json.loads(broken, object_pairs_hook=pairs, parse_constant=no_constant)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b'{"a":1,"a":1}', "twice"),
        (b'{"x":[{"a":{"b":1,"c":2,"b":3}}]}', "twice"),
        (b'{"name":1,"na\\u006de":2}', "twice"),
        (b'{"":1,"":2}', "twice"),
        (b'{"a":11111111111111111111,"a":1}', "twice"),
        (b"NaN", "."),
        (b'{"a":[Infinity]}', "."),
        (b"[-Infinity]", "."),
        (b"1e999", "."),
        (b'{"a":11111111111111111111,"b":1e999}', "."),
        (b'"\\ud800"', "."),
        (b'{"\\udc00\\ud800":1}', "."),
        (b'"\xed\xa0\x80"', "."),
        (b'"\xff"', "."),
        (b"\xef\xbb\xbf{}", "."),
        ('{"a":1}'.encode("utf-16"), "."),
        (b'"a\nb"', "."),
        (b'"\\x"', "."),
        (b"01", "."),
        (b"[1,]", "."),
        (b"{'a':1}", "."),
        (b"{} {}", "."),
        (b"// x\n{}", "."),
        (b"1" * 65, "more than 64 digits"),
        (b"[0." + b"1" * 65 + b"]", "more than 64 digits"),
        (b"1e" + b"0" * 65, "more than 64 digits"),
        (b"[" * 100_000, "nested|values|JSON|depth|recursion"),
        (b'["' + b"x" * 5000 + b'",' + b"[" * 64 + b"]" * 64 + b"]", "deeper than 64"),
        (b"[" * 65 + b"]" * 65, "deeper than 64"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
        (b"[" * 2000 + b"]" * 2000, "."),
        (b"[" * 1010 + b"1" * 20 + b"]" * 1010, "nested"),
        (b"[" + b"1," * 200_001 + b"1]", "more than 200000 values"),
        (b"[" + b'"",' * 500_001 + b'""]', "more than 200000 values"),
        (b" " * (4 * 1024 * 1024 + 1), "more than 4194304 bytes"),
    ],
    ids=lambda value: ascii(value[:20]),
)
def test_what_two_parsers_could_read_differently_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(Malformed, match=why):
        decode(data, FROM_CALLER)


def test_limits_are_met_exactly() -> None:
    assert depth_of(decode(b"[" * 64 + b"]" * 64, FROM_CALLER)) == 64
    assert depth_of(decode(b"[" * 64 + b"1" + b"]" * 64, FROM_CALLER)) == 64
    assert decode(b"1" * 64, FROM_CALLER) == int("1" * 64)
    assert decode(b"-" + b"9" * 64, FROM_CALLER) == -int("9" * 64)
    assert len(decode(b"[" + b"1," * 199_998 + b"1]", FROM_CALLER)) == 199_999
    assert decode(b'"' + b"1" * 100 + b'"', FROM_CALLER) == "1" * 100
    assert decode(b'"' + b"[" * 300_000 + b'"', FROM_CALLER) == "[" * 300_000
    padded = b" " * (FROM_CALLER.size - 1) + b"1"
    assert decode(padded, FROM_CALLER) == 1


@given(st.lists(st.none() | st.just([]) | st.just({}), max_size=60))
def test_the_count_of_values_is_bounded_within_a_factor_of_two(value: list[Any]) -> None:
    count = len(value) + 1
    try:
        decode(encode(value), SMALL)
    except Malformed:
        assert 2 * count > SMALL.nodes
    else:
        assert count <= SMALL.nodes + 1


def test_an_object_is_asked_for_and_nothing_else_given() -> None:
    assert decode_object(b'{"a":1}', FROM_CALLER) == {"a": 1}
    for data in (b"[]", b'[{"a":1}]', b"1", b'"a"', b"null"):
        with pytest.raises(Malformed, match="not a JSON object"):
            decode_object(data, FROM_CALLER)


def test_a_refusal_quotes_nothing_of_the_text() -> None:
    for data in (b'{"secret": hunter2}', b'"hunter2\xff"', b'{"hunter2":1,"hunter2":2}', b"hunter2", b'"hunter2'):
        with pytest.raises(Malformed) as refused:
            decode(data, FROM_CALLER)
        assert "hunter2" not in str(refused.value)
        assert refused.value.__suppress_context__ or refused.value.__context__ is None


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    ["\ud800", {"\udc00": 1}, {1, 2}, [2**64, {"a": b"bytes"}], [2**64, math.nan], object(), circle(), deep(100_000)],
    ids=["surrogate", "key", "set", "bytes", "nan", "object", "circle", "deep"],
)
def test_what_json_cannot_hold_is_not_sent(value: Any) -> None:
    with pytest.raises(Malformed, match="not JSON"):
        encode(value)


def test_a_part_that_is_already_encoded_goes_out_as_it_is() -> None:
    part = orjson.Fragment(b'[1,{"a":"\xc3\xa9"}]')
    assert encode({"tools": part}) == b'{"tools":[1,{"a":"\xc3\xa9"}]}'
    assert encode({"tools": part, "n": 2**64}) == b'{"tools":[1,{"a":"\xc3\xa9"}],"n":18446744073709551616}'


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"jsonrpc":"2.0","id":7,"result":{"x":NaN}}', 7),
        (b'{"id": 7 , "result":', 7),
        (b'\n {"id":0}', 0),
        (b'{"result":{"x":"\xff"},"id":7}', 7),
        (b'{"result":{"id":9,"x":NaN},"id":7,"jsonrpc":"2.0"}', 7),
        (b'{"result":{"x":NaN}, "id" : 7, "jsonrpc" : "2.0" }\r\n', 7),
        (b'{"result":' + b"[" * 1_000_000 + b']},"id":7}', 7),
        (b'{"jsonrpc":"2.0","id":7,"result":"' + b"x" * 1_000_000, 7),
        (b'{"id":"7","result":NaN}', None),
        (b'{"id":7.5,"result":NaN}', None),
        (b'{"id":-7,"result":NaN}', None),
        (b'{"id":' + b"1" * 30 + b',"result":NaN}', None),
        (b'{"result":{"id":9},"x":NaN}', None),
        (b'{"method":"x","params":{"id":9}}', None),
        (b"", None),
        (b"Traceback (most recent call last):", None),
    ],
)
def test_a_refused_message_may_still_say_what_it_answers(data: bytes, expected: int | None) -> None:
    assert readable_id(data) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0, True), (-1, True), ("", True), ("a", True), (True, False), (None, False), (1.0, False)]
)
def test_an_id_is_a_string_or_an_integer(value: object, expected: bool) -> None:
    assert is_request_id(value) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 1),
        ([[]] * 1000, 2001),
        ([{"a": 1}] * 1000, 2001),
        (["a,b[{"] * 1000, 1001),
        ("," * 1000, 1),
        (["\\", '"', '\\"'] * 500, 1501),
    ],
)
def test_values_are_counted_exactly_where_there_are_many(value: Any, expected: int) -> None:
    assert count_values(encode(value)) == expected


def test_where_there_are_few_values_commas_of_a_text_may_count_as_such() -> None:
    assert count_values(encode({"description": "one, two"})) == 3


DECODED_LONG = ['{"a": [1, "b"]}', '{"a": "' + '\\"' * len(LONG) + '"}', '{"a": ["' + "b" * len(LONG) + '"]}']


@pytest.mark.parametrize("text", DECODED_LONG, ids=["short", "escapes", "plain"])
def test_what_is_decoded_in_steps_is_what_is_decoded_at_once(text: str) -> None:
    data = text.encode()
    steps, taken = decoding_object(data, FROM_UPSTREAM), 0
    with pytest.raises(StopIteration) as end:
        while True:
            next(steps)
            taken += 1
    assert end.value.value == decode_object(data, FROM_UPSTREAM)
    assert (taken > 1) is (len(data) >= len(LONG))


REFUSED_LONG = ["[]", '["' + "b" * len(LONG) + '"]', '{"a": 1, "a": "' + "b" * len(LONG) + '"}', "{" + " " * len(LONG)]


@pytest.mark.parametrize("text", REFUSED_LONG, ids=["a list", "a long list", "a key twice", "no end"])
def test_what_is_refused_in_steps_is_what_is_refused_at_once(text: str) -> None:
    reasons: list[str] = []
    for decoded in (decode_object, lambda *given: list(decoding_object(*given))):
        with pytest.raises(Malformed) as refused:
            decoded(text.encode(), FROM_UPSTREAM)
        reasons.append(str(refused.value))
    assert reasons[0] == reasons[1]
