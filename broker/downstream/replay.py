"""Streams of a legacy session, kept for a caller whose connection breaks: it comes back with the last id it has seen.

Spec: 2025-11-25 basic/transports, "Resumability and Redelivery". Ids are one cursor for each stream, so what belongs to
another stream, or to another session, can never be asked for.
"""

from collections import OrderedDict, deque
from typing import Final

import anyio

from broker.core.eventstream import frame

RETRY: Final = 1000
"""Milliseconds after which a caller whose connection broke should come back."""
MAX_STREAMS: Final = 32
"""Streams kept for one session; of those that have ended the oldest go first."""
MAX_EVENTS: Final = 256
"""Events kept of one stream. A caller that has missed more gets what there is."""
MAX_BYTES: Final = 4 * 1024 * 1024
"""Bytes kept of one stream, its last event aside."""

KEPT: Final = 300.0
"""Seconds for which a stream that has ended is kept. Callers come back at once; without this, all that a session was
told last would be held for as long as it is open."""


class EventLog:
    """One stream: its events under their ids, from the first that is kept to the last."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._events: deque[tuple[int, bytes]] = deque()
        self._count = 0
        self._size = 0
        self._changed = anyio.Event()
        self.is_over = False
        """Whether its response was the last event."""
        self.over_since: float | None = None
        """When that was first seen by `Replay.forget`."""

    def priming(self) -> bytes:
        """The first event: an id to come back with, and when."""
        return f"id: {self._key}-0\nretry: {RETRY}\ndata: \n\n".encode()

    def add(self, message: bytes) -> bytes:
        """Keep a message; the event that carries it."""
        self._count += 1
        event = frame(message, id=f"{self._key}-{self._count}")
        self._events.append((self._count, event))
        self._size += len(event)
        while len(self._events) > MAX_EVENTS or (self._size > MAX_BYTES and len(self._events) > 1):
            self._size -= len(self._events.popleft()[1])
        self._changed.set()
        return event

    def end(self) -> None:
        """The response has been added."""
        self.is_over = True
        self._changed.set()

    def after(self, seen: int) -> tuple[bytes, int]:
        """What came after the event number `seen`, and the number of the last one."""
        self._changed = anyio.Event()
        return b"".join(event for number, event in self._events if number > seen), self._count

    async def more(self) -> None:
        """Wait until something was added since `after`."""
        await self._changed.wait()


class Replay:
    """The streams of one session."""

    def __init__(self) -> None:
        self._logs: OrderedDict[str, EventLog] = OrderedDict()
        self._opened = 0

    def open(self) -> EventLog:
        """A new stream."""
        self._opened += 1
        key = f"s{self._opened}"
        self._logs[key] = log = EventLog(key)
        ended = [old for old, kept in self._logs.items() if kept.is_over]
        for old in ended[: max(0, len(self._logs) - MAX_STREAMS)]:
            del self._logs[old]
        return log

    def find(self, last_event_id: str) -> tuple[EventLog, int] | None:
        """The stream of an event id, and the event's number; None for an id that this session was never given."""
        key, dash, number = last_event_id.rpartition("-")
        log = self._logs.get(key)
        if log is None or not dash or not number.isdecimal() or len(number) > 9:
            return None
        return log, int(number)

    def forget(self, now: float) -> None:
        """Streams that have ended are let go in time. To be called now and then; `now`: seconds."""
        for key, log in tuple(self._logs.items()):
            if not log.is_over:
                continue
            if log.over_since is None:
                log.over_since = now
            elif now - log.over_since >= KEPT:
                del self._logs[key]
