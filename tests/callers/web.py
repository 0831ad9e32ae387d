"""The callers over HTTP: `Web` on streamable HTTP in both eras, `OldWeb` on HTTP+SSE."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import anyio

from tests.callers.caller import LEGACY, MODERN, NAMED, Caller, Duplex, Json
from tests.callers.http import Response, http


class Web(Caller):
    """A caller over streamable HTTP. A cancelled `exchange` closes its connection."""

    def __init__(self, url: str, era: str) -> None:
        super().__init__(era)
        self.url = url
        self.session: str | None = None
        self.credential: dict[str, str] = {}
        """Headers of every request."""
        self.status = 0
        """Of the last response."""
        self.on_head: Callable[[Response], None] = lambda response: None

    def headers(self, method: str, params: Json | None = None) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        headers |= self.credential
        if self.is_modern:
            headers |= {"MCP-Protocol-Version": MODERN, "Mcp-Method": method}
            name = (params or {}).get(NAMED.get(method, ""))
            return headers | ({"Mcp-Name": name} if isinstance(name, str) else {})
        if self.session is not None:
            headers |= {"Mcp-Session-Id": self.session, "MCP-Protocol-Version": LEGACY}
        return headers

    async def exchange(self, method: str, params: Json | None, *, ident: int | str | None = None) -> bytes:
        ident = self.next_id() if ident is None else ident
        return await self.post(self.request(method, params, ident), self.headers(method, params))

    async def post(self, body: bytes, headers: dict[str, str]) -> bytes:
        """One POST with exactly this body; the bytes of the response message, empty if there is none.

        A stream is read to its end: there must be no second response on it.
        """
        answers: list[bytes] = []
        async with http("POST", self.url, headers, body) as response:
            self.status = response.status
            self.session = response.headers.get("mcp-session-id", self.session)
            self.on_head(response)
            async for data in response.messages():
                message = json.loads(data)
                if "method" in message:
                    self.on_message(message)
                else:
                    answers.append(data)
        assert len(answers) <= 1, answers
        if answers or response.status == 202:
            return answers[0] if answers else b""
        raise ConnectionError(f"HTTP {response.status} without a response")

    async def put(self, message: Json) -> None:
        answer = await self.post(json.dumps(message).encode(), self.headers(message.get("method", "")))
        assert answer == b"", answer

    async def cancel(self, ident: int | str, request: "asyncio.Task[Any]") -> None:
        if self.is_modern:
            request.cancel()
        else:
            await super().cancel(ident, request)

    async def delete(self) -> int:
        """End the session; the HTTP status."""
        async with http("DELETE", self.url, self.headers("")) as response:
            return response.status

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None, None]:
        """The GET stream of a legacy session."""
        headers = {**self.headers("", None), "Accept": "text/event-stream"}
        async with http("GET", self.url, headers) as response:
            assert response.status == 200, response.status

            async def read() -> None:
                async for data in response.messages():
                    self.on_message(json.loads(data))

            reading = asyncio.create_task(read())
            try:
                yield
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading


class OldWeb(Duplex):
    """A caller over HTTP+SSE."""

    def __init__(self, url: str) -> None:
        super().__init__("legacy")
        self.url = url
        self.credential: dict[str, str] = {}
        self.endpoint = anyio.Event()
        self._to = ""

    async def send(self, data: bytes) -> None:
        await self.endpoint.wait()
        headers = {"Content-Type": "application/json", **self.credential}
        async with http("POST", self._to, headers, data) as response:
            assert response.status == 202, response.status

    async def read(self, response: Response) -> None:
        where = urlsplit(self.url)
        async for event, data in response.events():
            if event == b"endpoint":
                self._to = f"{where.scheme}://{where.netloc}{data.decode()}"
                self.endpoint.set()
            else:
                self.on_bytes(data)
        self.on_end()


AnyOldWeb = TypeVar("AnyOldWeb", bound=OldWeb)


@asynccontextmanager
async def streamed(caller: AnyOldWeb) -> AsyncGenerator[AnyOldWeb, None]:
    """Open the stream of a caller and say hello."""
    async with http("GET", caller.url, {"Accept": "text/event-stream", **caller.credential}) as response:
        reading = asyncio.create_task(caller.read(response))
        try:
            yield await caller.greet()
        finally:
            reading.cancel()
            with suppress(asyncio.CancelledError):
                await reading


@asynccontextmanager
async def old_web(url: str) -> AsyncGenerator[OldWeb, None]:
    """A caller over HTTP+SSE."""
    async with streamed(OldWeb(url)) as caller:
        yield caller
