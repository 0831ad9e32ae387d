"""Strict JSON: one parser for both directions, its limits, and what is refused.

What is refused is told in `core/strict.py`. Most texts need none of that: one with too few commas and brackets to pass
a bound, and that its own value is encoded to, byte for byte, can be read in one way only. A long text is read and
written in pieces (`core/pieces.py`), between which others may have their turn.
"""

import json
import re
from typing import Any, Final, cast

import orjson

from broker.core.pieces import SIZES, Steps, reading, writing
from broker.core.strict import Limits, Malformed, count_keys, judged, skeleton
from broker.core.weight import VALUE, is_light

__all__ = ["Limits", "Malformed", "Steps"]

FROM_CALLER: Final = Limits(size=4 * 1024 * 1024)
FROM_UPSTREAM: Final = Limits(size=16 * 1024 * 1024)

_TINY: Final = 4096
"""Bytes of a text in which counting is as fast as anything."""
_FEW: Final = 128
"""Values of which it makes no difference if some are none."""
_BRACKETS: Final = (b"{", b"[")
_SEPARATORS: Final = (b",", *_BRACKETS)
"""One stands before every value but the first."""


SHORT: Final = SIZES.least
"""Bytes of a text that is never long, so that most need not be asked."""
LONG: Final = 2 * 1024 * 1024
"""Bytes of a text that its value is written to in one go: 10 ms at the worst. To read it takes longer."""


class Long(dict[str, Any]):
    """An object that came in a text of more than `LONG` bytes, and so is written in steps (`encoding`)."""


def is_long(data: bytes) -> bool:
    """Whether a text takes more than a few milliseconds, so that it is to be read in steps (`decoding`)."""
    return len(data) > SHORT and (len(data) > SIZES.most or not _has_few(_SEPARATORS, data, SIZES.many))


def decode(data: bytes, limits: Limits) -> Any:
    """The value of a JSON text.

    Raises: Malformed.
    """
    size = len(data)
    if size > limits.size:
        raise Malformed(f"more than {limits.size} bytes")
    if size > SIZES.most:
        return all_at_once(reading(data, limits))
    if size > limits.nodes and not _has_few(_SEPARATORS, data, limits.nodes):
        return judged(data, limits)
    try:
        value = orjson.loads(data)
        # A key that came twice, and a number that would change, are not encoded to what they were.
        is_plain = orjson.dumps(value) == data
    except (ValueError, TypeError):
        return judged(data, limits)
    if not is_plain:
        return judged(data, limits, value)
    if size < _TINY:
        is_shallow = data.count(b"{") + data.count(b"[") <= limits.depth
    else:
        is_shallow = _is_shallow(data, limits.depth)
    if not is_shallow:
        count_keys(value, limits)
    return value


def decoding(data: bytes, limits: Limits) -> Steps[Any]:
    """`decode` in steps, between which others may have their turn. Raises: Malformed."""
    if len(data) > limits.size or not is_long(data):
        return decode(data, limits)
    return (yield from reading(data, limits))


def all_at_once(steps: Steps[Any]) -> Any:
    """What they come to, where nobody else has to have a turn."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


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


def decode_object(data: bytes, limits: Limits) -> dict[str, Any]:
    """The object of a JSON text: a JSON-RPC message is never anything else (batches are refused in every version).

    Raises: Malformed, also for any other value.
    """
    value = decode(data, limits)
    return value if value.__class__ is dict else _object(value)  # each function on the way of a call costs one of 200


def decoding_object(data: bytes, limits: Limits) -> Steps[dict[str, Any]]:
    """`decode_object` in steps, as `decoding`. The objects in it are `Long`, if the text is. Raises: Malformed."""
    message = _object((yield from decoding(data, limits)))
    yield
    if len(data) <= LONG:
        return message
    return {name: Long(one) if one.__class__ is dict else one for name, one in message.items()}


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


def encoding(value: Any) -> Steps[bytes]:
    """`encode` in steps, between which others may have their turn. Raises: Malformed."""
    return writing(value, encode)


def is_longer(value: Any, most: int) -> bool:
    """Whether a value takes more than `most` bytes. Of one that is much larger, only so much is looked at. Raises:
    Malformed.
    """
    # A value takes two bytes at least, so what weighs more than that is longer.
    return not is_light(value, most * VALUE // 2) or len(encode(value)) > most


def count_values(text: bytes) -> int:
    """How many values a text has that `encode` made, as `Limits.nodes` counts them: an empty container is two.

    While there are few, commas and brackets of its strings count as values too: most definitions are told in no time.
    """
    marks = sum(text.count(mark) for mark in _SEPARATORS)
    return 1 + (marks if marks <= _FEW else skeleton(text, Limits(len(text), nodes=len(text))).count(b","))


_ID_AT_START = re.compile(rb'\A\s*\{[^{}\[\]]{0,100}?"id"\s*:\s*([0-9]{1,18})\s*[,}]')
_ID_AT_END = re.compile(rb'[,{]\s*"id"\s*:\s*([0-9]{1,18})\s*(?:,\s*"jsonrpc"\s*:\s*"2.0"\s*)?\}\s*\Z')


def readable_id(data: bytes) -> int | None:
    """The integer id that a refused message most likely answers, so that this one call can fail at once (F-12).

    A guess, good enough because it is only ever compared with the ids that are in flight on the same link: a
    lying peer can fail its own calls, which it can do anyway.
    """
    match = _ID_AT_START.search(data[:256]) or _ID_AT_END.search(data[-256:])
    return int(match.group(1)) if match else None


ID_TYPES: Final = frozenset({int, str})
"""Spec: 2026-07-28 basic, "Requests": an id is a string or integer, never null. A bool is no integer here (SP-26)."""


def is_request_id(value: object) -> bool:
    """Whether it may be one."""
    return type(value) in ID_TYPES


def _fragment(value: object) -> Any:
    """A pre-encoded part (`orjson.Fragment`) on the slow path of `encode`."""
    if isinstance(value, orjson.Fragment):
        return json.loads(orjson.dumps(value))
    raise TypeError(type(value).__name__)
