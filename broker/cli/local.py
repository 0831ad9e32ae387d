"""A broker inside one command, asked the way a modern caller asks: what is shown is what a caller gets."""

import json
from collections.abc import Collection
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

import anyio

from broker.admin.insight import seen
from broker.app import Broker
from broker.config import Loaded
from broker.core import wire
from broker.core.caller import LOCAL, Caller
from broker.core.era import LATEST_MODERN, META_CLIENT_CAPABILITIES, META_CLIENT_INFO, META_PROGRESS, META_VERSION
from broker.core.instructions import estimate_tokens
from broker.core.request import LISTS, Kind
from broker.downstream.engine import Who, ignore_emit
from broker.downstream.message import Incoming
from broker.relay.exchange import Emit
from broker.upstream.supervise import Upstream

ME: Final = {"name": "mcp-broker-cli", "version": "1"}


class Refused(Exception):
    """A JSON-RPC error: `error` has its code, message and data."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error.get("message", ""))
        self.error = error


class Local:
    """See the module. `only`: the servers to start, None for all; names do not depend on it."""

    def __init__(self, loaded: Loaded, only: Collection[str] | None = None) -> None:
        self.caller: Caller = LOCAL
        """Who asks."""
        self.broker = Broker(narrowed(loaded, only), has_one_caller=True)
        self.generation = self.broker.generation

    def running(self) -> AbstractAsyncContextManager[Broker]:
        """The servers run while this is entered."""
        return self.broker.running()

    @property
    def upstreams(self) -> dict[str, Upstream]:
        """Those that are started."""
        return dict(self.generation.pool.upstreams)

    async def ask(
        self, method: str, params: dict[str, Any], emit: Emit = ignore_emit, view: str = ""
    ) -> dict[str, Any]:
        """The result of a request.

        Raises: Refused.
        """
        envelope = {META_VERSION: LATEST_MODERN, META_CLIENT_INFO: ME, META_CLIENT_CAPABILITIES: {}, META_PROGRESS: 1}
        incoming = Incoming(1, method, {**params, "_meta": envelope})
        answer = await self.broker.engine.answer(incoming, Who(self.caller, LATEST_MODERN, view, front="cli"), emit)
        response = json.loads(answer.body)
        if "error" in response:
            raise Refused(response["error"])
        return response["result"]

    async def items(self, kind: Kind, view: str = "") -> list[dict[str, Any]]:
        """All pages of a list.

        Raises: Refused.
        """
        listed, found, cursor = LISTS[kind], list[dict[str, Any]](), None
        while True:
            page = await self.ask(listed.method, {} if cursor is None else {"cursor": cursor}, view=view)
            found += page[listed.member]
            cursor = page.get("nextCursor")
            if cursor is None:
                return found

    async def tokens(self, items: Collection[dict[str, Any]], server: str) -> int:
        """About what a server costs a model: its definitions and its instructions."""
        found = await seen(self.generation, self.caller, server)  # looked at, not asked for: no discovery of the caller
        return estimate_tokens(sum(len(wire.encode(item)) for item in items) + len(found.instructions or ""))


def narrowed(loaded: Loaded, only: Collection[str] | None) -> Loaded:
    """The same configuration with the other servers switched off, and with lists that wait for nobody: whoever asks
    here has waited already."""
    config = loaded.config
    servers = {
        key: server.model_copy(update={"start": "eager", "idle_stop": None})
        if only is None or key in only
        else server.model_copy(update={"enabled": False})
        for key, server in config.servers.items()
    }
    patient = config.broker.model_copy(update={"first_wait": 0.0})
    return replace(loaded, config=config.model_copy(update={"servers": MappingProxyType(servers), "broker": patient}))


async def settled(upstream: Upstream, patience: float) -> str:
    """`ready`, `failed` or `connecting`, once the first attempt has ended or `patience` (seconds) has."""
    with anyio.move_on_after(patience):
        await upstream.first_try.wait()
    if upstream.is_ready and upstream.first_try.is_set():
        return "ready"
    return "failed" if upstream.first_try.is_set() else "connecting"


def patience_of(local: Local, wait: float | None) -> float:
    """Seconds to wait for the slowest server."""
    return (
        wait if wait is not None else max((one.server.connect_timeout for one in local.upstreams.values()), default=0)
    )
