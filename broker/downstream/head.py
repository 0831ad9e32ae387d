"""The head of a request: read once, and known again when the same bytes come a second time.

A caller that keeps its connection sends the same head with every request, or one of a few. What is found out from a
head alone stands with it, and is found out once.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Final

_COMMON: Final = (
    *("accept", "accept-encoding", "accept-language", "authorization", "connection", "content-length", "content-type"),
    *("host", "mcp-method", "mcp-name", "mcp-protocol-version", "mcp-session-id", "origin", "traceparent"),
    *("user-agent", "x-api-key"),
)
_NAMES: Final = {
    spelling.encode(): name
    for name in _COMMON
    for spelling in (name, name.title(), name.title().replace("Mcp-P", "MCP-P"))
}
"""Names that nearly every request has, in the spellings of most clients."""
_NOT_AT_A_GLANCE: Final = ("transfer-encoding", "expect", "upgrade")
"""Fields that say something about the bytes after them."""

RawHeaders = Iterable[tuple[bytes, bytes]]


class Headers(dict[str, str]):
    """Request headers by lower-case name, the first of several. A name that comes twice where one value counts is
    `duplicated`; `lines` are all of them, as they came.

    White space around a value is none of it (RFC 9110 5.5), whatever the parser below left there.
    """

    __slots__ = ("duplicated", "lines", "said")

    def __init__(self, raw: RawHeaders) -> None:
        self.lines = [
            (_NAMES.get(name) or name.decode("latin-1").lower(), value.strip(b" \t").decode("latin-1"))
            for name, value in raw
        ]
        super().__init__(self.lines)
        self.said: object = None
        """What they repeat of a message (`envelope.Said`), once that was asked for."""
        self.duplicated: frozenset[str] = frozenset()
        if len(self) < len(self.lines):
            self.update(reversed(self.lines))
            counts = Counter(name for name, _ in self.lines)
            self.duplicated = frozenset(name for name, count in counts.items() if count > 1)


class Head:
    """One head. Never changed, but for what is noted of it.

    method, path, query: as they were sent, never decoded. may_go_on: the caller keeps the connection; is_old: it speaks
    HTTP/1.0. The length of the body is not part of it: the same head may come with another one.
    """

    __slots__ = ("headers", "is_fit", "is_old", "mark", "may_go_on", "method", "path", "query", "site")

    def __init__(
        self,
        method: str,
        path: str,
        query: bytes = b"",
        headers: RawHeaders = (),
        *,
        may_go_on: bool = True,
        is_old: bool = False,
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = Headers(headers)
        self.may_go_on = may_go_on
        self.is_old = is_old
        self.mark: bytes | None = None
        """Of its credential (`identity.credential.mark_of`), once that was asked for."""
        self.site: object = None
        """The guard that has found nothing wrong with where it was sent to, and from which page."""
        self.is_fit = False
        """Whether it was seen to promise JSON, and to take what answers come in."""

    @property
    def says_only_length(self) -> bool:
        """Whether nothing but one `content-length` says where its body ends, and the connection goes on after it."""
        headers = self.headers
        return (
            self.may_go_on
            and not self.is_old
            and not headers.duplicated
            and "content-length" in headers
            and not any(name in headers for name in _NOT_AT_A_GLANCE)
            and headers.get("connection", "keep-alive").lower() == "keep-alive"
        )


class KnownHeads:
    """The last few heads of one connection, by their bytes. What is not the same to the last byte, but for the digits
    of its length, is not known.

    The body's length is taken from the bytes at hand, at the place where the parser has found it in the same ones.
    """

    __slots__ = ("_heads",)

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}

    def __len__(self) -> int:
        return len(self._heads)

    def find(self, data: bytes) -> "Found":
        """The head, if it is known and `data` is one whole request that says the length of its body, with nothing after
        it. If it is that and not known, there is a key to `learn` it by.
        """
        head, blank, body = data.partition(b"\r\n\r\n")
        before, name, rest = head.partition(b"\r\ncontent-length: ")
        if not name:
            before, name, rest = head.partition(b"\r\nContent-Length: ")
        digits, line, after = rest.partition(b"\r\n")
        if not blank or len(digits) > MAX_DIGITS or not digits.isdigit() or len(body) != int(digits):
            return NO_HEAD
        key = before + name + line + after
        return key, self._heads.get(key), body

    def learn(self, key: bytes, head: Head) -> None:
        """What was found under `key` is `head`, as the parser has read it."""
        if len(key) > MAX_KNOWN_HEAD or len(head.headers.lines) > MAX_KNOWN_FIELDS or not head.says_only_length:
            return
        if len(self._heads) >= MAX_KNOWN:
            del self._heads[next(iter(self._heads))]
        self._heads[key] = head

    def forget(self) -> None:
        """The connection rests: they hold its credential, and memory."""
        self._heads.clear()


Found = tuple[bytes, Head | None, bytes]
"""Of the bytes of a request: its head less the digits of its length, the key to know it again; that head, read; and the
body."""
NO_HEAD: Final[Found] = (b"", None, b"")
MAX_KNOWN: Final = 8
"""Heads that a connection keeps, until it rests: a caller has about one for each tool that it calls."""
MAX_KNOWN_HEAD: Final = 4096
"""Bytes of a head that is kept."""
MAX_KNOWN_FIELDS: Final = 64
"""Fields of a head that is kept: short ones take twenty times their bytes."""
MAX_DIGITS: Final = 9
"""Of a length that is read at a glance."""


def size_of_head(url: bytes, fields: RawHeaders) -> int:
    """Bytes of one, about."""
    return len(url) + sum(len(name) + len(value) + 4 for name, value in fields)
