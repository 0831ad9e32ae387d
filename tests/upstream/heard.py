"""What a child says, for tests that wait for some of it."""

import asyncio

from broker.upstream.source import Source


class Heard:
    """All that a source brings."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._data = bytearray()
        self._more = asyncio.Event()
        source.read(self._take)

    def _take(self, data: bytes) -> None:
        self._data += data
        self._more.set()

    async def exactly(self, count: int) -> bytes:
        """The next bytes, so many of them."""
        while len(self._data) < count:
            self._more.clear()
            await self._more.wait()
        return self._cut(count)

    async def line(self) -> bytes:
        """The next line, with its end."""
        while b"\n" not in self._data:
            self._more.clear()
            await self._more.wait()
        return self._cut(self._data.index(b"\n") + 1)

    async def rest(self) -> bytes:
        """All until the end."""
        await self._source.ended.wait()
        return self._cut(len(self._data))

    def _cut(self, count: int) -> bytes:
        data = bytes(self._data[:count])
        del self._data[:count]
        return data
