"""What a request is for: the target in its first line, as path and query."""

from typing import Final

import httptools

COMMON: Final = {b"/mcp": ("/mcp", b"")}
"""What nearly every request is for: known at a glance."""


def split(target: bytes) -> tuple[str, bytes]:
    """Path and query of a request target: of a path, or of a whole URL, whose host counts for nothing (I-02)."""
    if target.startswith(b"/") and b"#" not in target:
        path, _, query = target.partition(b"?")
    else:
        try:
            url = httptools.parse_url(target)
        except httptools.HttpParserInvalidURLError:
            return "", b""
        path, query = url.path or b"", url.query or b""
    return path.decode("latin-1"), query
