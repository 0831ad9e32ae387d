"""An ASGI application behind our own HTTP server: for pages and APIs, which are not on the hot path."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final
from urllib.parse import unquote

from broker.downstream.web import Http

Message = MutableMapping[str, Any]
Application = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
MAX_BODY: Final = 1024 * 1024
"""Bytes of a body; the application gets it whole."""


async def serve_asgi(application: Application, http: Http) -> None:
    """Let an application answer a request. Raises: BodyRefused, Disconnected, and what the application raises."""
    body = await http.body(MAX_BODY)
    await application(_scope(http), _Receive(http, body), _Send(http))


def _scope(http: Http) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": http.method,
        "scheme": "http",
        "path": unquote(http.path),
        "raw_path": http.path.encode("latin-1"),
        "query_string": http.query,
        "root_path": "",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in http.headers.lines],
        "client": (http.peer, 0),
        "server": None,
    }


class _Receive:
    """The body in one message, then the end of the connection."""

    def __init__(self, http: Http, body: bytes) -> None:
        self._http = http
        self._body: bytes | None = body

    async def __call__(self) -> Message:
        if self._body is None:
            await self._http.gone()
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


class _Send:
    """A response that is whole with its first part is sent whole."""

    def __init__(self, http: Http) -> None:
        self._http = http
        self._status = 0
        self._headers: tuple[tuple[bytes, bytes], ...] = ()

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            self._headers = tuple((bytes(name), bytes(value)) for name, value in message.get("headers", ()))
            return
        body, more = bytes(message.get("body", b"")), bool(message.get("more_body", False))
        if not self._http.has_begun:
            if not more:
                without_length = tuple(pair for pair in self._headers if pair[0].lower() != b"content-length")
                return await self._http.respond(self._status, body, without_length)
            await self._http.start(self._status, self._headers)
        await self._http.write(body, more=more)
