"""One JSON text, read in one go: its bounds, and what is refused in it. Everybody else asks `core/wire.py`.

What is judged must be what is sent on, so a text that two parsers could read differently is refused, never
repaired: duplicate keys (I-11), NaN and infinities (F-32), lone surrogates (F-33), invalid UTF-8 (F-12). An integer
beyond 64 bits is kept exactly up to `Limits.digits`. The bounds are checked on the *skeleton* of the text (what is
left without its strings), which costs a few passes in C, before anything is built from it: a hostile text of 16 MiB
must not become five million objects first.
"""

import json
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

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


class Malformed(ValueError):
    """The text is refused. The message says why, in words that quote nothing of it."""


_SHAPE: Final = bytes.maketrans(b"123456789[{", b"000000000,,")
"""Every digit is 0 and whatever begins another value is a comma: runs are found by a search, values by a count."""
_STRINGS: Final = 1024
"""Strings that are stepped over one by one in search of a skeleton: more are cut out all at once."""
_SLASHES: Final = 64
"""Backslashes before a quote that are counted."""
_INT64_DIGITS = 19


def judged(data: bytes, limits: Limits, value: Any = None) -> Any:
    """The value of a text that may be anything; `value` is what orjson made of it, if it has. Raises: Malformed."""
    shape = skeleton(data, limits)
    return read(data, shape, limits, shape.count(b":"), value)


def read(data: bytes, shape: bytes, limits: Limits, keys: int, value: Any = None) -> Any:
    """The value of a text, of whose skeleton this is the shape, and that has so many keys. Raises: Malformed."""
    refuse_digits(shape, limits)
    try:
        if value is None:
            value = orjson.loads(data)
        if b"0" * _INT64_DIGITS in shape:
            # orjson turns an integer beyond 64 bits into a float, silently: the standard library keeps it.
            value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Malformed(_reason(error)) from None
    if count_keys(value, limits) != keys:  # fewer keys parsed than colons written
        raise Malformed("an object has the same key twice")
    return value


def refuse_digits(shape: bytes, limits: Limits) -> None:
    """Raises: Malformed, for a number that is too long."""
    if b"0" * (limits.digits + 1) in shape:
        raise Malformed(f"a number of more than {limits.digits} digits")


def _reason(error: Exception) -> str:
    """Why a parser refused, without its quote of the text."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return error.msg if isinstance(error, json.JSONDecodeError) else "not JSON"


def skeleton(data: bytes, limits: Limits) -> bytes:
    """The shape of all that is outside the strings of a JSON text. Meaningless if it is not JSON. Raises: Malformed."""
    pieces = _between_few_strings(data)
    if pieces is None:
        pieces = _between_strings(data, limits)
    shape = shape_of(b"".join(pieces))
    if shape.count(b",") > limits.nodes:
        raise Malformed(f"more than {limits.nodes} values")
    return shape


def shape_of(outside: bytes) -> bytes:
    """The shape of what is outside of strings. It has as many commas as values begin in it, the first one aside."""
    return outside.translate(_SHAPE)


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


def _between_strings(data: bytes, limits: Limits) -> list[bytes]:
    """The same of any text. Raises: Malformed, if it has more strings than values are allowed."""
    pieces = blanked(data).split(b'"', 4 * limits.nodes + 1)
    if len(pieces) > 4 * limits.nodes + 1:
        raise Malformed(f"more than {limits.nodes} values")
    return pieces[::2]


def blanked(data: bytes) -> bytes:
    """The text with blanks in place of each escaped backslash and quote: what quotes are left begin and end strings,
    what backslashes are left begin escapes.
    """
    if b"\\" not in data:
        return data
    # Blanks of the same length: twice as fast as cutting escapes out, where a string holds nothing else.
    return data.replace(b"\\\\", b"  ").replace(b'\\"', b"  ")


def count_keys(value: Any, limits: Limits) -> int:
    """The keys of all objects in a value. Raises: Malformed, if it is nested deeper than the limit."""
    keys = 0
    depth = 0
    containers: list[Any] = [value] if value.__class__ is dict or value.__class__ is list else []
    while containers:
        depth += 1
        if depth > limits.depth:
            raise Malformed(f"nested deeper than {limits.depth}")
        full = [node for node in containers if node]
        keys += sum([len(node) for node in full if node.__class__ is dict])
        # All children of a level in one go: a comprehension for each container costs more than what is in most of them.
        children = chain.from_iterable([node.values() if node.__class__ is dict else node for node in full])
        containers = [child for child in children if child.__class__ is dict or child.__class__ is list]
    return keys
