"""Messages over the HTTP+SSE transport of 2024-11-05: one event stream in, one POST for each message out.

Spec: 2024-11-05 basic/transports, "HTTP with SSE".
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Final

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from broker.core.eventstream import Event
from broker.errors import UpstreamUnavailable
from broker.turns import in_turns
from broker.upstream.httpwire import RequestHead
from broker.upstream.pipe import Gone
from broker.upstream.source import Take
from broker.upstream.web import Refused, WebClient, origin, resolve

MAX_POSTS: Final = 256
"""Messages without an answer (cancellations, refusals) that may wait to be sent; more are dropped."""
_JSON: Final = {"Content-Type": "application/json"}
_STREAM: Final = {"Accept": "text/event-stream"}


class SseDuplex:
    """See the module; implements `Duplex`."""

    def __init__(self, client: WebClient, endpoint: str, events: AsyncIterator[Event], held: ExitStack) -> None:
        self._client = client
        self._head = RequestHead("POST", endpoint, _JSON)
        self._events = events
        self._held = held
        self._outbox: tuple[MemoryObjectSendStream[bytes], MemoryObjectReceiveStream[bytes]] = (
            anyio.create_memory_object_stream[bytes](MAX_POSTS)
        )

    @classmethod
    async def open(cls, client: WebClient) -> "SseDuplex":
        """Open the stream and wait for its `endpoint`.

        Raises: UpstreamUnavailable; an endpoint on another origin is refused, since headers with credentials would
        go there (SP-05).
        """
        with ExitStack() as held:
            response = held.enter_context(await client.send(RequestHead("GET", client.url, _STREAM)))
            if response.head.status != 200:
                raise await client.refusal(response)
            if response.head.media != "text/event-stream":
                raise UpstreamUnavailable(client.upstream, "it does not answer with an event stream")
            events = client.events(response)
            async for event in events:
                if event.event == "endpoint":
                    endpoint = resolve(client.url, event.data.decode("utf-8", "replace"))
                    if origin(endpoint) != origin(client.url):
                        raise UpstreamUnavailable(client.upstream, "its endpoint is on another origin")
                    return cls(client, endpoint, events, held.pop_all())
            raise UpstreamUnavailable(client.upstream, "the event stream ended before its endpoint")

    async def send(self, message: bytes) -> None:
        """See `Duplex`."""
        try:
            with await self._client.send(self._head, message) as response:
                if response.head.status in (404, 410):
                    raise Gone((await self._client.refusal(response)).why)
                if not 200 <= response.head.status < 300:
                    raise await self._client.refusal(response)
        except Refused:
            raise
        except UpstreamUnavailable as error:
            raise Gone(error.why) from None

    def post(self, message: bytes) -> None:
        """See `Duplex`."""
        try:
            self._outbox[0].send_nowait(message)
        except (anyio.WouldBlock, anyio.ClosedResourceError, anyio.BrokenResourceError):
            return

    async def serve(self, take: Take) -> None:
        """See `Duplex`. What was posted goes out in order, one at a time."""
        why = ""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._send_posts)
            why = await self._read(take)
            tasks.cancel_scope.cancel()
        raise Gone(why)

    async def _read(self, take: Take) -> str:
        """Hand on the messages of the stream; why it ended."""
        try:
            async for event in self._events:
                if event.event == "message" and event.data:
                    steps = take(event.data)
                    if steps is not None:
                        await in_turns(steps)
        except UpstreamUnavailable as error:
            return error.why
        return "the event stream ended"

    async def _send_posts(self) -> None:
        with contextlib.suppress(anyio.ClosedResourceError):
            async for message in self._outbox[1]:
                await self._send_anyhow(message)

    async def _send_anyhow(self, message: bytes) -> None:
        try:
            await self.send(message)
        except (Gone, UpstreamUnavailable):
            return  # nobody waits for it; the reader finds out if the connection is gone

    async def aclose(self) -> None:
        """See `Duplex`."""
        self._outbox[0].close()
        self._outbox[1].close()
        self._held.close()
        await self._client.aclose()
