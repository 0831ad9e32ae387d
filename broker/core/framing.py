"""Messages on a byte stream: one a line, bounded. Spec: 2026-07-28 basic/transports/stdio."""


class LineTooLong(ValueError):
    """A line passed the limit before it ended (F-13, F-82)."""


class LineSplitter:
    """Feed chunks, get lines without their ends; holds at most `limit` bytes of an unfinished one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes.

        Raises: LineTooLong.
        """
        head, newline, rest = chunk.partition(b"\n")
        self._parts.append(head)
        self._size += len(head)
        self._check()
        if not newline:
            return []
        lines = [b"".join(self._parts), *rest.split(b"\n")]
        tail = lines.pop()
        self._parts, self._size = [tail], len(tail)
        self._check()
        return lines

    def _check(self) -> None:
        if self._size > self._limit:
            raise LineTooLong(f"a line of more than {self._limit} bytes")
