"""A caller without any SDK: what it sends and what it gets are the very bytes.

`Caller` is what all of them have in common; tests/callers/pipe.py has the one on the pipe of a command, web.py those on
streamable HTTP and on HTTP+SSE. Each speaks either era, where its transport has both.
"""

import asyncio
import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

import anyio

from tests.e2e.brokers import TIMEOUT, Json

MODERN, LEGACY = "2026-07-28", "2025-11-25"
META = "io.modelcontextprotocol/"
CAPABILITIES = f"{META}clientCapabilities"
CLIENT = {"name": "caller", "version": "1"}
NAMED = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"} | dict.fromkeys(
    ("tasks/get", "tasks/update", "tasks/cancel"), "taskId"
)
"""By method: the parameter that the header `Mcp-Name` mirrors."""

Answer = Callable[[str, Json], Json]
"""From the method and the parameters of a question to the result. Raises: Rejected."""


def envelope(capabilities: Json) -> Json:
    """The `_meta` of every modern request."""
    return {f"{META}protocolVersion": MODERN, f"{META}clientInfo": CLIENT, CAPABILITIES: capabilities}


def greeting(capabilities: Json, version: str = LEGACY) -> Json:
    """The parameters of `initialize`."""
    return {"protocolVersion": version, "capabilities": capabilities, "clientInfo": CLIENT}


class Failed(Exception):
    """The answer was an error."""

    def __init__(self, error: Json) -> None:
        super().__init__(error)
        self.code: int = error["code"]
        self.message: str = error["message"]
        self.data: Any = error.get("data")


class Rejected(Exception):
    """Answer a question with this error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.error: Json = {"code": code, "message": message}


def _refuse(method: str, params: Json) -> Json:
    raise Rejected(-32601, f"Nobody answers {method}")


class Caller(ABC):
    """One caller. `notices` are all notifications that reached it, `questions` all requests, both in order."""

    def __init__(self, era: str) -> None:
        self.era = era
        self.capabilities: Json = {}
        self.greeting: Json = {}
        self.notices: list[Json] = []
        self.questions: list[Json] = []
        self.answer: Answer = _refuse
        self.released: anyio.Event | None = None
        """If set, answers wait for it."""
        self._stirred = anyio.Event()
        self._ids = itertools.count(1)
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def is_modern(self) -> bool:
        return self.era == "modern"

    def next_id(self) -> int:
        return next(self._ids)

    # --- what it asks ---

    async def greet(self) -> Self:
        """Say hello in the manner of the era."""
        if self.is_modern:
            self.greeting = await self.ask("server/discover")
        else:
            self.greeting = await self.ask("initialize", greeting(self.capabilities))
            await self.tell("notifications/initialized")
        return self

    def enveloped(self, params: Json | None) -> Json:
        """`params` as they go out."""
        if not self.is_modern:
            return params or {}
        return {**(params or {}), "_meta": {**(params or {}).get("_meta", {}), **envelope(self.capabilities)}}

    def request(self, method: str, params: Json | None, ident: int | str) -> bytes:
        message = {"jsonrpc": "2.0", "id": ident, "method": method, "params": self.enveloped(params)}
        return json.dumps(message).encode()

    async def ask(self, method: str, params: Json | None = None, *, ident: int | str | None = None) -> Json:
        """The result. Raises: Failed."""
        with anyio.fail_after(TIMEOUT):
            answer = json.loads(await self.exchange(method, params, ident=ident))
        if "error" in answer:
            raise Failed(answer["error"])
        return answer["result"]

    async def call(self, name: str, arguments: Json | None = None, **more: Any) -> Json:
        """The result of tools/call."""
        meta = {"_meta": more.pop("meta")} if "meta" in more else {}
        return await self.ask("tools/call", {"name": name, "arguments": arguments or {}, **meta}, **more)

    async def talk(self, method: str, params: Json) -> Json:
        """A request to its final result, with all questions answered. Raises: Failed."""
        result = await self.ask(method, params)
        while result.get("resultType") == "input_required":
            answers = {key: await self._consider(one) for key, one in result.get("inputRequests", {}).items()}
            state = {"requestState": result["requestState"]} if "requestState" in result else {}
            result = await self.ask(method, {**params, "inputResponses": answers, **state})
        return result

    async def pages(self, kind: str) -> list[Json]:
        """The results of a list to its end: tools, prompts, resources or resourceTemplates."""
        method = "resources/templates/list" if kind == "resourceTemplates" else f"{kind}/list"
        found = [await self.ask(method)]
        while (cursor := found[-1].get("nextCursor")) is not None:
            found.append(await self.ask(method, {"cursor": cursor}))
        return found

    async def list(self, kind: str) -> list[Json]:
        """A list to its end."""
        return [item for page in await self.pages(kind) for item in page[kind]]

    async def cancel(self, ident: int | str, request: "asyncio.Task[Any]") -> None:
        """Take a request back in the manner of the era and the transport."""
        await self.tell("notifications/cancelled", {"requestId": ident, "reason": "because"})

    # --- what it hears ---

    async def heard(self, method: str, count: int = 1) -> None:
        """Wait until `count` notifications of that method have come."""
        await self._until(lambda: self.count(method) >= count)

    async def asked(self, count: int = 1) -> None:
        """Wait until it has been asked so often."""
        await self._until(lambda: len(self.questions) >= count)

    def count(self, method: str) -> int:
        return sum(notice["method"] == method for notice in self.notices)

    async def _until(self, is_true: Callable[[], bool]) -> None:
        with anyio.fail_after(TIMEOUT):
            while not is_true():
                self._stirred = anyio.Event()
                await self._stirred.wait()

    def on_message(self, message: Json) -> None:
        """A notification or a question."""
        if "id" not in message:
            self.on_notice(message)
            return
        task = asyncio.create_task(self._respond(message))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    def on_notice(self, notice: Json) -> None:
        self.notices.append(notice)
        self._stirred.set()

    async def _respond(self, question: Json) -> None:
        try:
            outcome: Json = {"result": await self._consider(question)}
        except Rejected as rejected:
            outcome = {"error": rejected.error}
        await self.put({"jsonrpc": "2.0", "id": question["id"], **outcome})

    async def _consider(self, question: Json) -> Json:
        self.questions.append(question)
        self._stirred.set()
        if self.released is not None:
            await self.released.wait()
        return self.answer(question["method"], question.get("params", {}))

    # --- what a transport does ---

    @abstractmethod
    async def exchange(self, method: str, params: Json | None, *, ident: int | str | None = None) -> bytes:
        """One request; the bytes of its response."""

    @abstractmethod
    async def put(self, message: Json) -> None:
        """Send a message as it is: a notification, or the answer to a question."""

    async def tell(self, method: str, params: Json | None = None) -> None:
        """One notification."""
        await self.put({"jsonrpc": "2.0", "method": method, "params": params or {}})


class Duplex(Caller):
    """One stream of messages for everything: responses find their request by id."""

    def __init__(self, era: str) -> None:
        super().__init__(era)
        self._waiting: dict[int | str, asyncio.Future[bytes]] = {}

    async def exchange(self, method: str, params: Json | None, *, ident: int | str | None = None) -> bytes:
        ident = self.next_id() if ident is None else ident
        answer = self._waiting[ident] = asyncio.get_running_loop().create_future()
        try:
            await self.send(self.request(method, params, ident))
            return await answer
        finally:
            self._waiting.pop(ident, None)

    async def put(self, message: Json) -> None:
        await self.send(json.dumps(message).encode())

    def on_bytes(self, data: bytes) -> None:
        """One message of the other side."""
        message = json.loads(data)
        if "method" in message:
            self.on_message(message)
        elif (waiter := self._waiting.get(message["id"])) is not None and not waiter.done():
            waiter.set_result(data)

    def on_end(self) -> None:
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(ConnectionError("the other side is gone"))

    @abstractmethod
    async def send(self, data: bytes) -> None:
        """One message."""
