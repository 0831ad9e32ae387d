"""A link whose answers a test writes: for what is decided above the transports."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

import anyio
import anyio.lowlevel

from broker.errors import UpstreamUnavailable
from broker.upstream.link import Link
from broker.upstream.waiting import Waiting

Step: TypeAlias = dict[str, Any] | Exception | Callable[[dict[str, Any]], Any]
"""A result, an error to raise, or a function of the parameters that gives one of them (or waits first)."""


def error(code: int, data: Any = None, message: str = "no") -> dict[str, Any]:
    """A response with an error, as `Script` takes it."""
    return {"error": {"code": code, "message": message, "data": data}}


async def silence(params: dict[str, Any]) -> dict[str, Any]:
    await anyio.sleep_forever()
    raise AssertionError


class ScriptedLink(Link):
    """Answers each method with its next step, the last one again and again; a method without steps is unknown."""

    def __init__(self, script: Mapping[str, Step | list[Step]], upstream: str = "up") -> None:
        super().__init__(upstream)
        self.script = {method: list(steps) if isinstance(steps, list) else [steps] for method, steps in script.items()}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.told: list[str] = []
        self.closed = anyio.Event()
        self.may_close = anyio.Event()
        self.may_close.set()

    def count(self, method: str) -> int:
        return sum(asked == method for asked, _ in self.asked)

    def announce(self, what: str = "tools") -> None:
        self.on_event(f"notifications/{what}/list_changed", {})

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        self.told.append(method)

    async def _exchange(self, method: str, params: dict[str, Any], body: bytes, waiting: Waiting) -> dict[str, Any]:
        if self.lost is not None:
            raise UpstreamUnavailable(self.upstream, self.lost)
        self.asked.append((method, params))
        steps = self.script.get(method, [error(-32601)])
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        await anyio.lowlevel.checkpoint()
        answer = step(params) if callable(step) else step
        if isinstance(answer, Awaitable):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer if "error" in answer else {"result": answer}

    async def serve(self) -> None:
        await self.gone()

    async def aclose(self) -> None:
        self.lose("closed")
        await self.may_close.wait()
        self.closed.set()


INITIALIZED: dict[str, Any] = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"tools": {"listChanged": True}},
    "serverInfo": {"name": "fake", "version": "1"},
    "instructions": "hello",
}
DISCOVERED: dict[str, Any] = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "instructions": "hello",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "fake", "version": "2"}},
}


def tool(name: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}
