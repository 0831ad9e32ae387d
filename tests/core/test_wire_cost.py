"""What 16 MiB of the worst that anybody may send cost, in CPU time of the thread that reads them (F-30, F-31, F-77)."""

import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from broker.core.wire import FROM_UPSTREAM, Malformed, decode

BUDGET = 0.15
"""Seconds on an idle machine of 2024: what the event loop may stand still for one hostile message."""
SLACK = 3
"""Times that a loaded machine or a coverage tracer may slow it down; what is not linear would take minutes."""


def fill(head: bytes, unit: bytes, tail: bytes) -> bytes:
    return head + unit * ((FROM_UPSTREAM.size - len(head) - len(tail)) // len(unit)) + tail


def numbers(one: bytes) -> bytes:
    """As many as are allowed: the bound on values refuses more."""
    return b"[" + b",".join([one] * 199_000) + b"]"


HOSTILE: dict[str, Callable[[], bytes]] = {
    "tiny strings": lambda: fill(b'[""', b',""', b"]"),
    "empty objects": lambda: fill(b"[{}", b",{}", b"]"),
    "empty objects without commas": lambda: fill(b"", b"{}", b""),
    "escaped quotes": lambda: fill(b'"', b'\\"', b'"'),
    "escaped backslashes": lambda: fill(b'"', b"\\\\", b'"'),
    "backslashes and quotes": lambda: fill(b'"', b'\\\\\\"', b'"'),
    "escaped newlines": lambda: fill(b'"', b"\\n", b'"'),
    "unicode escapes": lambda: fill(b'"', b"\\u00e9", b'"'),
    "brackets": lambda: fill(b"", b"[", b""),
    "nested objects": lambda: fill(b"", b'{"a":', b""),
    "one long number": lambda: fill(b"", b"1", b""),
    "numbers just short of long": lambda: fill(b"", b"1" * 18 + b" ", b""),
    "floats just short of long": lambda: numbers(b"1" * 18 + b"." + b"1" * 18 + b"e" + b"0" * 18),
    "integers of 64 digits": lambda: numbers(b"1" * 64),
    "blanks": lambda: fill(b"1", b" ", b""),
    "colons": lambda: fill(b"", b":", b""),
    "commas": lambda: fill(b"", b",", b""),
    "quotes": lambda: fill(b"", b'"', b""),
    "backslashes outside of strings": lambda: fill(b"", b"\\", b""),
    "bytes that are no UTF-8": lambda: fill(b'"', b"\xff", b'"'),
    "structure within a string": lambda: fill(b'"', b":,{[1", b'"'),
    "backslashes before a quote again and again": lambda: fill(b'"', b"\\" * 62 + b'\\"', b'"'),
    "one string after most others": lambda: fill(b"[" + b'"",' * 500 + b'"', b"x", b'"]'),
    "a long integer beside escapes": lambda: fill(b'[11111111111111111111,"', b'\\"', b'"]'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_of_16_mebibytes_is_handled_at_once(name: str) -> None:
    data = HOSTILE[name]()
    assert len(data) <= FROM_UPSTREAM.size
    spent = 0.0
    for _ in range(3):
        begun = time.thread_time()
        with suppress(Malformed):
            decode(data, FROM_UPSTREAM)
        spent = time.thread_time() - begun
        if spent < BUDGET:
            return
    assert spent < BUDGET * SLACK
