"""About how large a JSON value is, without writing it down."""

from typing import Any, Final

from broker.core.shape import is_array, is_object

VALUE: Final = 16
"""Bytes that a value counts for at least: many small ones take longest."""


def weight(value: object, most: int) -> int:
    """About how many bytes a JSON value is; of one that is more than `most`, which is not read to its end, only that it
    is more.
    """
    found, waiting = VALUE, [value]
    while waiting and found <= most:
        one: Any = waiting.pop()
        if isinstance(one, str):
            found += len(one)
        elif is_object(one):
            found += len(one) * VALUE  # for what is in it, before any of it is looked at
            if found <= most:
                found += sum(map(len, one))
                waiting.extend(one.values())
        elif is_array(one):
            found += len(one) * VALUE
            if found <= most:
                waiting.extend(one)
    return found


def is_light(value: object, most: int) -> bool:
    """Whether a JSON value is about `most` bytes at most."""
    return weight(value, most) <= most
