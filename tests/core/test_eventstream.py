"""Server-sent events: however a stream is cut into chunks, it says the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.eventstream import KEEPALIVE, Event, EventParser, TooLong, frame

LIMIT = 4096

LINES = st.sampled_from(
    [
        b"data: x",
        b"data:y",
        b"data:  z",
        b"data",
        b"data:",
        b"event: ping",
        b"event:",
        b"event",
        b"id: 7",
        b"id:",
        b"id: a\0b",
        b"retry: 10",
        b"retry: x",
        b"retry:",
        b": comment",
        b":",
        b"",
        b"",
        b"",
        b"\xef\xbb\xbfdata: b",
        b"unknown: 1",
        b"data: \xff\xc3",
        b"event: \xff",
        b"DATA: x",
        b" data: x",
        b"data :x",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])
STREAMS = st.tuples(
    st.sampled_from([b"", b"\xef\xbb\xbf"]), st.lists(st.tuples(LINES, ENDS).map(b"".join), max_size=12).map(b"".join)
).map(b"".join)


def chunks_of(data: bytes, draw: st.DataObject) -> list[bytes]:
    """`data` cut at any places; some chunks are empty."""
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=len(data) + 2)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def events_of(chunks: list[bytes], limit: int = LIMIT) -> list[Event] | None:
    """None if an event is too long: the stream is of no use then."""
    parser = EventParser(limit)
    try:
        return [event for chunk in chunks for event in parser.feed(chunk)]
    except TooLong:
        return None


def parse(data: bytes) -> list[Event]:
    return EventParser(LIMIT).feed(data)


@given(STREAMS, st.data())
def test_any_cut_of_a_stream_gives_the_same_events(stream: bytes, data: st.DataObject) -> None:
    assert events_of(chunks_of(stream, data)) == parse(stream)


@given(STREAMS | st.binary(max_size=60), st.integers(0, 40), st.data())
def test_any_cut_of_a_stream_meets_the_same_limit(stream: bytes, limit: int, data: st.DataObject) -> None:
    assert events_of(chunks_of(stream, data), limit) == events_of([stream], limit)


@given(STREAMS)
def test_all_ends_of_lines_are_the_same(stream: bytes) -> None:
    unix = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    assert parse(stream) == parse(unix) == parse(unix.replace(b"\n", b"\r\n")) == parse(unix.replace(b"\n", b"\r"))


TEXTS = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]), max_size=10)


@given(
    st.lists(
        st.tuples(TEXTS.map(str.encode), TEXTS.filter(bool), st.none() | TEXTS),
        max_size=5,
    ),
    st.data(),
)
def test_what_is_framed_is_what_is_parsed(sent: list[tuple[bytes, str, str | None]], data: st.DataObject) -> None:
    stream = KEEPALIVE.join([b"", *(frame(text, event=event, id=id) for text, event, id in sent), b""])
    last: str | None = None
    expected: list[Event] = []
    for text, event, id in sent:
        last = id if id is not None else last
        expected.append(Event(text, event, last))
    assert events_of(chunks_of(stream, data)) == expected


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data: a\ndata: b\n\n", [Event(b"a\nb")]),
        (b"data:a\ndata\ndata: \n\n", [Event(b"a\n\n")]),
        (b"data:  a\n\n", [Event(b" a")]),
        (b"data\n\n", [Event(b"")]),
        (b"id: 1\ndata:\n\ndata: x\n\n", [Event(b"", id="1"), Event(b"x", id="1")]),
        (b"id: 1\n\ndata: x\n\n", [Event(b"x", id="1")]),
        (b"id: 1\ndata: x\n\nid\ndata: y\n\n", [Event(b"x", id="1"), Event(b"y", id="")]),
        (b"id: a\0b\ndata: x\n\n", [Event(b"x")]),
        (b"event: ping\ndata: x\n\ndata: y\n\n", [Event(b"x", "ping"), Event(b"y")]),
        (b"event: ping\nevent\ndata: x\n\n", [Event(b"x")]),
        (b"event: ping\n\n", []),
        (b"retry: 10\n\n", [Event(b"", retry=10)]),
        (b"retry: 10\ndata: x\n\ndata: y\n\n", [Event(b"x", retry=10), Event(b"y")]),
        (b"retry: -1\nretry: 1.5\nretry: 1e3\nretry: \xc2\xb2\nretry: 9999999999999\ndata: x\n\n", [Event(b"x")]),
        (b": comment\n\n:\n\n", []),
        (b"data: x", []),
        (b"data: x\n", []),
        (b"data: \xff\n\n", [Event(b"\xff")]),
        (b"event: \xff\ndata: x\n\n", [Event(b"x", "\ufffd")]),
        (b"\xef\xbb\xbfdata: x\n\n", [Event(b"x")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: x\n\n", []),
        (b"\n\xef\xbb\xbfdata: x\n\n", []),
        (b"", []),
    ],
)
def test_a_stream_says_what_the_standard_makes_of_it(stream: bytes, expected: list[Event]) -> None:
    assert parse(stream) == expected


@pytest.mark.parametrize(
    "stream",
    [
        b"x" * 101,
        b"data: " + b"x" * 95,
        b":" + b"x" * 100 + b"\n",
        b"data: " + b"x" * 60 + b"\ndata: " + b"x" * 60,
        b"data\n" * 26,
        b"id: " + b"x" * 97 + b"\n\n",
        b"data: x\n\n" + b"y" * 101,
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_an_event_that_does_not_end_is_not_held(stream: bytes, size: int) -> None:
    parser = EventParser(100)
    with pytest.raises(TooLong, match="100 bytes"):
        for start in range(0, len(stream), size):
            parser.feed(stream[start : start + size])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_limit_is_one_of_each_event_not_of_the_stream(size: int) -> None:
    stream = (b"data: " + b"x" * 40 + b"\ndata: " + b"y" * 48 + b"\n\n: comment\n\n") * 20
    chunks = [stream[start : start + size] for start in range(0, len(stream), size)]
    assert events_of(chunks, 100) == [Event(b"x" * 40 + b"\n" + b"y" * 48)] * 20


def test_a_stream_that_comes_byte_by_byte_is_read_as_it_was_sent() -> None:
    stream = frame(b"a") + frame(b"b", event="ping", id="7")
    assert events_of([b"", *(stream[at : at + 1] for at in range(len(stream)))]) == [
        Event(b"a"),
        Event(b"b", "ping", "7"),
    ]


def test_half_an_ending_of_a_line_waits_for_the_other_half() -> None:
    assert events_of([b"data: a\r", b"\n\r", b"\n"]) == [Event(b"a")]
