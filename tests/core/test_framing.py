"""Lines of a byte stream: however it is cut into chunks, they are the same."""

import time
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.framing import LineSplitter, LineTooLong, split_lines


def lines_of(chunks: list[bytes], limit: int = 1000) -> list[bytes] | None:
    """None if a line is too long: the stream is of no use then."""
    splitter = LineSplitter(limit)
    try:
        return [line for chunk in chunks for line in splitter.feed(chunk)]
    except LineTooLong:
        return None


CHUNKS = st.lists(st.text(alphabet="ab\n\r", max_size=8).map(str.encode), max_size=12)


@given(CHUNKS)
def test_any_cut_of_a_stream_gives_the_same_lines(chunks: list[bytes]) -> None:
    assert lines_of(chunks) == b"".join(chunks).split(b"\n")[:-1]


@given(CHUNKS, st.integers(0, 10))
def test_any_cut_of_a_stream_meets_the_same_limit(chunks: list[bytes], limit: int) -> None:
    lines = b"".join(chunks).split(b"\n")
    fits = all(len(line) <= limit for line in lines)
    assert lines_of(chunks, limit) == (lines[:-1] if fits else None)


@given(st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=8))
def test_what_is_written_as_lines_is_what_is_read(lines: list[bytes]) -> None:
    assert lines_of([line + b"\n" for line in lines]) == lines


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_a_line_that_does_not_end_is_not_held(size: int) -> None:
    splitter = LineSplitter(10)
    stream = b"0123456789\n" * 3 + b"0123456789x"
    lines: list[bytes] = []
    with pytest.raises(LineTooLong, match="10 bytes"):
        for start in range(0, len(stream), size):
            lines += splitter.feed(stream[start : start + size])
    assert set(lines) <= {b"0123456789"}


def test_lines_that_come_whole_are_as_those_that_come_in_pieces() -> None:
    splitter = LineSplitter(10)
    assert splitter.feed(b"one\ntwo\r\n\n") == [b"one", b"two\r", b""]
    assert (
        splitter.feed(b"th") == [] and splitter.feed(b"ree\n") == [b"three"] and splitter.feed(b"four\n") == [b"four"]
    )


@given(st.lists(st.binary(max_size=5) | st.integers(0, 600).map(lambda size: b"x" * size), max_size=12))
@example([])
@example([b""])
@example([b"", b""])
@example([b"x" * 1000])
@example([b"x" * 1000, b"", b"x"])
@example([b""] * 64)
@example([b"x"] * 65)
@example([b"x" * 1000] * 66)
def test_long_lines_and_short_ones_are_split_alike(lines: list[bytes]) -> None:
    data = b"\n".join(lines)
    assert split_lines(data) == data.split(b"\n")


def test_many_short_lines_are_all_there_and_so_is_what_follows_them() -> None:
    assert split_lines(b"a\n" * 100 + b"b") == [b"a"] * 100 + [b"b"]


def test_a_long_line_costs_less_than_to_compare_its_bytes_one_by_one() -> None:
    data = b"x" * 4_000_000 + b"\n"

    def spent(split: Callable[[], list[bytes]]) -> float:
        begun = time.thread_time()
        split()
        return time.thread_time() - begun

    assert any(2 * spent(lambda: split_lines(data)) < spent(lambda: data.split(b"\n")) for _ in range(20))
