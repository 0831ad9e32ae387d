"""Strict JSON: one parser for both directions, its limits, and what is refused.

What is judged must be what is sent on, so a text that two parsers could read differently is refused, never
repaired: duplicate keys (I-11), NaN and infinities (F-32), lone surrogates (F-33), invalid UTF-8 (F-12). An integer
beyond 64 bits is kept exactly up to `Limits.digits`. The bounds are checked on the *skeleton* of the text (what is
left without its strings), which costs a few passes in C, before anything is built from it: a hostile text of 16 MiB
must not become five million objects first.

Most texts need none of that: one with too few commas and brackets to pass a bound, and that its own value is encoded
to, byte for byte, can be read in one way only. A long text is judged by its skeleton: where few strings hold most of
it, which is what makes an answer long, that is found without reading them, and nothing is encoded.
"""

import json
import re
from collections.abc import Generator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeAlias, TypeVar, cast

import orjson


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one message may be."""

    size: int
    """Bytes. More would be held in memory for every message in flight."""
    depth: int = 64
    """Nested arrays and objects. Deeper ones overflow the stack of somebody's recursive reader (F-30)."""
    nodes: int = 200_000
    """Values in all. Each costs about 60 bytes and 50 ns, so this is 12 MB and 10 ms (F-77)."""
    digits: int = 64
    """Digits of one number. Longer ones take quadratic time to convert (F-31)."""


FROM_CALLER: Final = Limits(size=4 * 1024 * 1024)
FROM_UPSTREAM: Final = Limits(size=16 * 1024 * 1024)


class Malformed(ValueError):
    """The text is refused. The message says why, in words that quote nothing of it."""


_SHAPE: Final = bytes.maketrans(b"123456789[{", b"000000000,,")
"""Every digit is 0 and whatever begins another value is a comma: runs are found by a search, values by a count."""
_SLICE: Final = 2 * 1024 * 1024
"""Bytes of a long text in which escapes are looked for in one step: 8 ms, where it holds nothing else."""
LONG: Final = 1024 * 1024
"""Bytes of a text whose skeleton costs less than to encode its value."""
_STRINGS: Final = 1024
"""Strings that are stepped over one by one in search of a skeleton: more are cut out all at once."""
_SLASHES: Final = 64
"""Backslashes before a quote that are counted."""
_SHORT: Final = 4096
"""Bytes of a text in which counting is as fast as anything."""
_FEW: Final = 128
"""Values of which it makes no difference if some are none."""
_BRACKETS: Final = (b"{", b"[")
_SEPARATORS: Final = (b",", *_BRACKETS)
"""One stands before every value but the first."""
_INT64_DIGITS = 19
_BOM = b"\xef\xbb\xbf"


T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]
"""What comes to a value in steps."""


def decode(data: bytes, limits: Limits) -> Any:
    """The value of a JSON text.

    Raises: Malformed.
    """
    if len(data) > limits.size:
        raise Malformed(f"more than {limits.size} bytes")
    if len(data) <= limits.nodes or (len(data) < LONG and _has_few(_SEPARATORS, data, limits.nodes)):
        try:
            value = orjson.loads(data)
            # A key that came twice, and a number that would change, are not encoded to what they were.
            is_plain = orjson.dumps(value) == data
        except (ValueError, TypeError):
            return _judged(data, limits)
        if is_plain:
            if len(data) >= _SHORT:
                is_shallow = _is_shallow(data, limits.depth)
            else:
                is_shallow = data.count(b"{") + data.count(b"[") <= limits.depth
            if not is_shallow:
                _count_keys(value, limits)
            return value
        return _judged(data, limits, value)
    return _judged(data, limits)


def decoding(data: bytes, limits: Limits) -> Steps[Any]:
    """`decode` in steps, between which others may have their turn: a long text takes several passes.

    Raises: Malformed.
    """
    if len(data) < LONG or len(data) > limits.size or len(data) <= limits.nodes:
        return decode(data, limits)
    value = yield from _judging(data, limits)
    return value


def _whole(steps: Steps[T]) -> T:
    """All of them at once."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return cast(T, end.value)


def _has_few(marks: tuple[bytes, ...], data: bytes, limit: int) -> bool:
    """Whether there are at most `limit` of these bytes in a text, wherever they stand."""
    # How much shorter it is without them tells how many there are, in a tenth of the time that counting takes.
    return sum(len(data) - len(data.replace(mark, b"", limit + 1)) for mark in marks) <= limit


def _is_shallow(data: bytes, limit: int) -> bool:
    """Whether a long text has too few brackets, wherever they stand, to be nested deeper than `limit`."""
    # Most long texts are one long string, or many values: either is found out before a count has come far.
    for bracket in _BRACKETS:
        at = data.find(bracket)
        while at >= 0:
            if limit == 0:
                return False
            limit -= 1
            at = data.find(bracket, at + 1)
    return True


def _judged(data: bytes, limits: Limits, value: Any = None) -> Any:
    """The value of a text that may be anything; `value` is what orjson made of it, if it has. Raises: Malformed."""
    return _whole(_judging(data, limits, value))


def _judging(data: bytes, limits: Limits, value: Any = None) -> Steps[Any]:
    """The same in steps."""
    skeleton = yield from _skeleton_in_steps(data, limits)
    yield
    if b"0" * (limits.digits + 1) in skeleton:
        raise Malformed(f"a number of more than {limits.digits} digits")
    try:
        if value is None:
            value = orjson.loads(data)
        if b"0" * _INT64_DIGITS in skeleton:
            # orjson turns an integer beyond 64 bits into a float, silently: the standard library keeps it.
            value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(_reason(error)) from None
    if _count_keys(value, limits) != skeleton.count(b":"):  # fewer keys parsed than colons written
        raise Malformed("an object has the same key twice")
    return value


def decode_object(data: bytes, limits: Limits) -> dict[str, Any]:
    """The object of a JSON text: a JSON-RPC message is never anything else (batches are refused in every version).

    Raises: Malformed, also for any other value.
    """
    return _object(decode(data, limits))


def decoding_object(data: bytes, limits: Limits) -> Steps[dict[str, Any]]:
    """`decode_object` in steps, as `decoding`. Raises: Malformed."""
    value = yield from decoding(data, limits)
    yield
    return _object(value)


def _object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise Malformed("not a JSON object")
    return cast(dict[str, Any], value)


def encode(value: Any) -> bytes:
    """Compact UTF-8 JSON. It never contains a newline, so it is a frame of stdio and of an event stream as it is.

    A NaN would become null: none gets past `decode`, and nothing here computes one.

    Raises: Malformed, if the value holds what JSON cannot (a lone surrogate, a set, a circle).
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=_fragment)
            return text.encode()
        except (ValueError, TypeError, RecursionError) as error:
            raise Malformed(f"not JSON: {type(error).__name__}") from None


def count_values(text: bytes) -> int:
    """How many values a text has that `encode` made, as `Limits.nodes` counts them: an empty container is two.

    While there are few, commas and brackets of its strings count as values too: most definitions are told in no time.
    """
    marks = sum(text.count(mark) for mark in _SEPARATORS)
    return 1 + (marks if marks <= _FEW else _skeleton(text, Limits(len(text), nodes=len(text))).count(b","))


def without_bom(data: bytes) -> bytes:
    """`data` less one byte order mark: some Windows programs begin their output with one (F-11)."""
    return data.removeprefix(_BOM)


_ID_AT_START = re.compile(rb'\A\s*\{[^{}\[\]]{0,100}?"id"\s*:\s*([0-9]{1,18})\s*[,}]')
_ID_AT_END = re.compile(rb'[,{]\s*"id"\s*:\s*([0-9]{1,18})\s*(?:,\s*"jsonrpc"\s*:\s*"2.0"\s*)?\}\s*\Z')


def readable_id(data: bytes) -> int | None:
    """The integer id that a refused message most likely answers, so that this one call can fail at once (F-12).

    A guess, good enough because it is only ever compared with the ids that are in flight on the same link: a
    lying peer can fail its own calls, which it can do anyway.
    """
    match = _ID_AT_START.search(data[:256]) or _ID_AT_END.search(data[-256:])
    return int(match.group(1)) if match else None


def is_request_id(value: object) -> bool:
    """Spec: 2026-07-28 basic, "Requests": a string or integer, never null. A bool is no integer here (SP-26)."""
    return type(value) is int or type(value) is str


def _fragment(value: object) -> Any:
    """A pre-encoded part (`orjson.Fragment`) on the slow path of `encode`."""
    if isinstance(value, orjson.Fragment):
        return json.loads(orjson.dumps(value))
    raise TypeError(type(value).__name__)


def _reason(error: Exception) -> str:
    """Why a parser refused, without its quote of the text."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return error.msg if isinstance(error, json.JSONDecodeError) else "not JSON"


def _skeleton(data: bytes, limits: Limits) -> bytes:
    """The `_SHAPE` of a JSON text: of all that is outside its strings. Meaningless if it is not JSON."""
    return _whole(_skeleton_in_steps(data, limits))


def _skeleton_in_steps(data: bytes, limits: Limits) -> Steps[bytes]:
    pieces = _between_few_strings(data)
    if pieces is None:
        pieces = yield from _between_strings(data, limits)
    skeleton = b"".join(pieces).translate(_SHAPE)
    if skeleton.count(b",") > limits.nodes:
        raise Malformed(f"more than {limits.nodes} values")
    return skeleton


def _between_few_strings(data: bytes) -> list[bytes] | None:
    """What of a JSON text is outside its strings; None, if they are too many to be stepped over one by one."""
    pieces: list[bytes] = []
    end = -1
    left = _STRINGS
    begin = data.find(b'"')
    while begin >= 0:
        pieces.append(data[end + 1 : begin])
        is_open, end = True, begin
        while is_open:
            after, end = end + 1, data.find(b'"', end + 1)
            left -= 1
            if end < 0:
                return pieces  # no JSON
            before = data[max(after, end - _SLASHES) : end]
            slashes = len(before) - len(before.rstrip(b"\\"))
            if left == 0 or slashes == _SLASHES:
                return None
            is_open = slashes % 2 == 1
        begin = data.find(b'"', end + 1)
    pieces.append(data[end + 1 :])
    return pieces


def _between_strings(data: bytes, limits: Limits) -> Steps[list[bytes]]:
    """The same of any text. Raises: Malformed, if it has more strings than values are allowed."""
    bare = data
    if b"\\" in bare:
        # Blanks of the same length: twice as fast as cutting escapes out, where a string holds nothing else.
        bare = yield from _blanked(bare, b"\\\\")
        bare = yield from _blanked(bare, b'\\"')
    pieces = bare.split(b'"', 4 * limits.nodes + 1)
    if len(pieces) > 4 * limits.nodes + 1:
        raise Malformed(f"more than {limits.nodes} values")
    return pieces[::2]


def _blanked(data: bytes, pair: bytes) -> Steps[bytes]:
    """Blanks in place of each pair that begins with a backslash, `_SLICE` bytes a step."""
    pieces: list[bytes] = []
    begin = 0
    while begin < len(data):
        end = begin + _SLICE
        piece = data[begin:end]
        if (len(piece) - len(piece.rstrip(b"\\"))) % 2:  # the first half of a pair
            end += 1
            piece = data[begin:end]
        pieces.append(piece.replace(pair, b"  "))
        begin = end
        yield
    return b"".join(pieces)


def _count_keys(value: Any, limits: Limits) -> int:
    """The keys of all objects in a value. Raises: Malformed, if it is nested deeper than the limit."""
    keys = 0
    depth = 0
    containers: list[Any] = [value] if value.__class__ is dict or value.__class__ is list else []
    while containers:
        depth += 1
        if depth > limits.depth:
            raise Malformed(f"nested deeper than {limits.depth}")
        keys += sum([len(node) for node in containers if node.__class__ is dict])
        # All children of a level in one go: a comprehension for each container costs more than what is in most of them.
        children = chain.from_iterable([node.values() if node.__class__ is dict else node for node in containers])
        containers = [child for child in children if child.__class__ is dict or child.__class__ is list]
    return keys
