"""What a child says on stderr, as it is quoted: whole lines, and no secret that arrived in two parts."""

import logging
from typing import Any

import pytest

from broker.config import Secret
from broker.secrecy import MAX_QUOTED
from broker.upstream.stdio import StdioDuplex

CANARY = "canary-7f3a9c"


def quoted(*chunks: bytes) -> bytes:
    """What is left to be quoted after these chunks."""
    nobody: Any = None
    duplex, begun = StdioDuplex("one", nobody), b""
    for chunk in chunks:
        begun = duplex._quote(begun + chunk)
    return begun


def test_a_secret_that_arrives_in_two_parts_is_quoted_in_none(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "broker")
    Secret(CANARY).reveal()
    assert quoted(b"first\nlog in with canary-", b"7f3a9c\nand", b" more") == b"and more"
    assert [one.getMessage() for one in caplog.records] == ["one: stderr: first", "one: stderr: log in with ********"]


def test_a_line_that_does_not_end_is_quoted_once_it_is_long(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "broker")
    assert quoted(b"x" * (MAX_QUOTED - 1)) == b"x" * (MAX_QUOTED - 1) and not caplog.records
    assert quoted(b"x" * MAX_QUOTED) == b"" and len(caplog.records) == 1
