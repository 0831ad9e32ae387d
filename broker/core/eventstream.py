"""Server-sent events, both ways: an incremental, bounded parser, and frames.

Spec: HTML Living Standard 9.2 "Server-sent events"; 2025-11-25 basic/transports.
"""

from codecs import BOM_UTF8
from dataclasses import dataclass
from typing import Final

from broker.core.framing import split_lines

KEEPALIVE: Final = b": keep-alive\n\n"
"""A comment: it says nothing, and keeps proxies from closing a silent connection."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `event` is "message" unless the stream names another; `retry` is in milliseconds."""

    data: bytes
    event: str = "message"
    id: str | None = None
    retry: int | None = None


class TooLong(ValueError):
    """An event passed the size limit before it ended (F-57, F-13)."""


class EventParser:
    """Feed bytes, get events. Holds at most `limit` bytes of an unfinished one, as they came, line ends aside."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tail = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._event = "message"
        self._id: str | None = None
        self._retry: int | None = None
        self._started = False
        self._after_cr = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that `chunk` completes.

        Raises: TooLong.
        """
        if not chunk:
            return []
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        # A CR at the very end may be half of a CRLF: its line ends now, the LF that may follow is skipped.
        self._after_cr = chunk.endswith(b"\r")
        if b"\r" in chunk:
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        head, newline, rest = chunk.partition(b"\n")
        self._tail += head
        if not newline:
            self._check(self._tail)
            return []
        lines = [self._tail, *split_lines(rest)]
        self._tail = bytearray(lines.pop())
        events = [event for line in lines if (event := self._line(line)) is not None]
        self._check(self._tail)
        return events

    def _check(self, line: bytes | bytearray) -> None:
        if len(line) + self._size > self._limit:
            raise TooLong(f"an event of more than {self._limit} bytes")

    def _line(self, line: bytes | bytearray) -> Event | None:
        self._check(line)
        if not self._started:
            self._started = True
            line = line.removeprefix(BOM_UTF8)
        if not line:
            return self._dispatch()
        colon = line.find(b":")
        name, value = (line, b"") if colon < 0 else (line[:colon], _from(line, colon + 1))
        match name:
            case b"data":
                self._data.append(value)
                self._size += len(line)
            case b"event":
                self._event = value.decode("utf-8", "replace")
            case b"id" if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
            case b"retry" if value.isdigit() and len(value) <= 12:
                self._retry = int(value)
            case _:
                pass  # a comment, or a field that nobody defined
        return None

    def _dispatch(self) -> Event | None:
        """An empty line ends an event. One without data is only of use for its id or retry."""
        data, event, retry = b"\n".join(self._data), self._event, self._retry
        has_data = bool(self._data)
        self._data, self._size, self._event, self._retry = [], 0, "message", None
        if not has_data and retry is None:
            return None
        return Event(data, event or "message", self._id, retry)


def _from(line: bytes | bytearray, start: int) -> bytes:
    """A field's value, that a blank may stand before. It is copied once: the line may be of 16 MiB."""
    start += line[start : start + 1] == b" "
    return line[start:] if isinstance(line, bytes) else bytes(memoryview(line)[start:])


def frame(data: bytes, *, event: str = "message", id: str | None = None) -> bytes:
    """One event as bytes. `data` has no newline (`wire.encode` never writes one)."""
    if id is None:
        return b"event: %b\ndata: %b\n\n" % (event.encode(), data)
    return b"event: %b\nid: %b\ndata: %b\n\n" % (event.encode(), id.encode(), data)
