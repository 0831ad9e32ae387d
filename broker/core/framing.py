"""Messages on a byte stream: one a line, bounded. Spec: 2026-07-28 basic/transports/stdio."""


class LineTooLong(ValueError):
    """A line passed the limit before it ended (F-13, F-82)."""


class LineSplitter:
    """Feed chunks, get lines without their ends; holds at most `limit` bytes of an unfinished one."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._tail = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that `chunk` completes.

        Raises: LineTooLong.
        """
        size = len(self._tail) + len(chunk)
        if not self._tail and chunk.endswith(b"\n"):  # whole lines, as most chunks are: nothing is put together
            lines = chunk.split(b"\n")
            lines.pop()
        else:
            head, newline, rest = chunk.partition(b"\n")
            self._tail += head
            lines = list[bytes]()
            if newline:
                lines = [bytes(self._tail), *rest.split(b"\n")]
                self._tail = bytearray(lines.pop())
        if size > self._limit and (len(self._tail) > self._limit or any(len(line) > self._limit for line in lines)):
            raise LineTooLong(f"a line of more than {self._limit} bytes")
        return lines
