"""What a child says on stderr, as it is quoted: whole lines, and no secret that arrived in two parts."""

import logging
from typing import Any

import pytest

from broker.config import Secret
from broker.secrecy import MAX_QUOTED
from broker.upstream.stdio import STDERR_KEPT, StdioDuplex

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


def test_a_line_is_quoted_when_it_ends_and_of_a_long_one_its_beginning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "broker")
    Secret(CANARY).reveal()
    long = b"begins " + b"x" * MAX_QUOTED
    assert quoted(long) == long[:MAX_QUOTED] and not caplog.records
    # A secret of which one part is in what nobody quotes any more.
    assert quoted(long + b"canary-", b"7f3a9c and on\n", b"next\n") == b""
    (first, second) = [one.getMessage() for one in caplog.records]
    assert first.startswith("one: stderr: begins xxx") and second == "one: stderr: next"


def test_half_a_secret_is_not_quoted_where_what_is_looked_at_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "broker")
    Secret(CANARY).reveal()
    # What is hidden makes room for what follows it.
    key = b"-----BEGIN PRIVATE KEY-----%b-----END PRIVATE KEY-----"
    assert quoted(key % (b"A" * (MAX_QUOTED - 6 - len(key) + 2)) + CANARY.encode() + b"\n") == b""
    (quote,) = [one.getMessage() for one in caplog.records]
    assert "canary" not in quote


def logged(*chunks: bytes) -> StdioDuplex:
    """Of a child that has logged these."""
    nobody: Any = None
    duplex = StdioDuplex("one", nobody)
    for chunk in chunks:
        duplex._on_log(chunk)
    return duplex


LONG_AGO = b"x" * 100 + CANARY[:6].encode()


def test_of_a_line_whose_beginning_was_not_kept_the_end_is_not_told() -> None:
    Secret(CANARY).reveal()
    duplex = logged(LONG_AGO, CANARY[6:].encode() + b"y" * STDERR_KEPT + b"\nlast\n")
    assert duplex.last_words() == ("last",) and duplex.stderr_tail() == "last"


def test_of_a_line_that_is_longer_than_what_is_kept_the_end_is_told_from_where_no_secret_can_end() -> None:
    Secret(CANARY).reveal()
    duplex = logged(LONG_AGO, CANARY[6:].encode() + b"y" * (STDERR_KEPT - 20))
    duplex._on_log(b"y" * 20)
    assert duplex.stderr_tail().startswith("yyy") and len(duplex.last_words()) == 1


def test_what_was_kept_whole_is_told_whole() -> None:
    assert logged(b"first\n", b"second", b" half\n\n").last_words() == ("first", "second half")
