"""What turns bytes of others into values. Each takes any bytes, and lets nothing out but what it says it raises."""

import asyncio
import base64
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from broker.config import ConfigError, load
from broker.core import wire
from broker.core.eventstream import EventParser, TooLong
from broker.core.framing import LineSplitter, LineTooLong
from broker.core.headers import decoded, encoded
from tests.fuzz.test_answers import cut, outcome_of

SMALL: Final = wire.Limits(size=2000, depth=8, nodes=100, digits=20)


def json_edge(data: bytes) -> None:
    """`core/wire.py`: what is accepted is encoded to the same value again."""
    wire.readable_id(data)
    for limits in (wire.FROM_CALLER, SMALL):
        try:
            value = wire.decode(data, limits)
        except wire.Malformed:
            continue
        assert wire.decode(wire.encode(value), wire.FROM_UPSTREAM) == value


def event_stream(data: bytes) -> None:
    """`core/eventstream.py`: the same events in one piece and byte by byte."""
    found: list[Any] = []
    for pieces in ([data], [data[at : at + 1] for at in range(len(data))]):
        parser = EventParser(500)
        try:
            found.append([event for piece in pieces for event in parser.feed(piece)])
        except TooLong:
            found.append(None)
    assert found[0] == found[1]


def lines(data: bytes) -> None:
    """`core/framing.py`."""
    splitter = LineSplitter(100)
    try:
        for at in range(0, len(data), 7):
            splitter.feed(data[at : at + 7])
    except LineTooLong:
        pass


def header(data: bytes) -> None:
    """`core/headers.py`: as it is, and as what says that it is encoded, which chance does not find."""
    text = data.decode("latin-1")
    assert decoded(encoded(text)) == text
    wrapped = f"=?base64?{text}?="
    meant = decoded(wrapped)
    assert meant in (None, wrapped) or base64.b64encode(str(meant).encode()).decode() == text


def answer(data: bytes) -> None:
    """`upstream/httpwire.py`: the first two bytes say where it is cut."""
    asyncio.run(outcome_of(cut(data[2:], list(data[:2])), None))


def configuration(data: bytes) -> None:
    """`config/load.py`: problems or a configuration."""
    with tempfile.TemporaryDirectory() as directory:
        for name in ("servers.yaml", "mcp.json"):
            path = Path(directory, name)
            path.write_bytes(data)
            try:
                load(path, {})
            except ConfigError as error:
                assert error.problems


EDGES: Final[dict[str, Callable[[bytes], None]]] = {
    "json": json_edge,
    "events": event_stream,
    "lines": lines,
    "header": header,
    "answer": answer,
    "configuration": configuration,
}
