"""A scripted upstream behind the real `Link` contract, and a whole broker around it, without a process or a socket.

`FakeLink` is a `Link` like any other: the broker shakes hands with it, discovers it and calls it; only what carries
the bytes is not there. Every message is encoded and decoded on its way, so nothing is shared by accident.
"""

import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from broker.app import Broker
from broker.clock import Clock, FakeClock
from broker.config import load
from broker.core import wire
from broker.core.caller import LOCAL, Caller
from broker.core.directory import Directory, Organization
from broker.core.era import LATEST_LEGACY, LATEST_MODERN, Version, is_modern
from broker.core.grants import Rule, organization_level
from broker.core.match import Pattern
from broker.core.request import LISTS, Kind, Request
from broker.downstream.message import Incoming
from broker.errors import UpstreamUnavailable
from broker.guardrails.chain import GuardrailRecord
from broker.relay.backchannel import BackChannel
from broker.relay.exchange import Exchange
from broker.relay.who import Who
from broker.upstream import connect
from broker.upstream.link import Link
from broker.upstream.waiting import Waiting
from broker.usage.trail import NO_TRAIL, NoTrail, Trail
from tests.patience import PATIENCE

TIMEOUT = PATIENCE
"""Seconds for anything that must happen: a bound, not an expectation."""

Json = dict[str, Any]
Answer = Callable[["Asked"], Awaitable[Json]]


class Refuse(Exception):
    """Answer with this JSON-RPC error."""

    def __init__(self, code: int, data: Any = None, message: str = "said the upstream") -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({} if data is None else {"data": data})


@dataclass
class Asked:
    """One request that reached an upstream."""

    method: str
    params: Json
    waiting: Waiting
    link: "FakeLink"

    async def ask(self, method: str, params: Json | None = None) -> Json:
        """Ask the caller something on the stream of this call, as a legacy upstream does; its response message."""
        message = {"jsonrpc": "2.0", "id": self.link.next_question(), "method": method, "params": params or {}}
        answer = await self.link._answer_question(message, self.waiting)
        assert answer is not None
        found = wire.decode_object(answer, wire.FROM_CALLER)
        assert found["id"] == message["id"]
        return found

    def progress(self, value: float, **more: Any) -> None:
        """Report progress, if the broker asked for it, as a real upstream would: with its token."""
        token = self.params.get("_meta", {}).get("progressToken")
        if token is not None:
            self.waiting.notice("notifications/progress", {"progressToken": token, "progress": value, **more})


def tool(name: str, **more: Any) -> Json:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


@dataclass
class Fake:
    """One upstream. Change its fields while it runs; `announce` says that a list has changed."""

    version: Version = LATEST_LEGACY
    tools: list[Json] | None = field(default_factory=lambda: [tool("echo"), tool("slow")])
    prompts: list[Json] | None = None
    resources: list[Json] | None = None
    templates: list[Json] | None = None
    capabilities: Json = field(default_factory=dict[str, Any])
    name: str = "fake"
    """What it says that it is."""
    instructions: str | None = None
    ttl_ms: int | None = None
    state: str = "up"
    """up; down: cannot be opened; silent: does not open until told."""
    answers: dict[str, Answer] = field(default_factory=dict[str, Answer])
    """By tool name, or by method."""
    asked: list[Asked] = field(default_factory=list[Asked])
    """Calls, without handshakes and lists."""
    agree: Callable[[Json], Json] = lambda asked: asked
    """What it acknowledges of a `subscriptions/listen`."""
    cancelled: list[str] = field(default_factory=list[str])
    changed: anyio.Event = field(default_factory=anyio.Event)
    """Set at each call and each cancellation; `until` renews it."""
    link: "FakeLink | None" = None
    """The latest; `links` are all, and `declared_to` is what each was told in a legacy handshake."""
    links: list["FakeLink"] = field(default_factory=list["FakeLink"])
    declared_to: list[Json] = field(default_factory=list[Json])

    def lists(self) -> dict[Kind, list[Json]]:
        every = {
            Kind.TOOL: self.tools,
            Kind.PROMPT: self.prompts,
            Kind.RESOURCE: self.resources,
            Kind.TEMPLATE: self.templates,
        }
        return {kind: items for kind, items in every.items() if items is not None}

    def declared(self) -> Json:
        words = {"templates" if kind is None else str(kind) for kind in self.lists()}
        found = {"resources" if word == "templates" else word: {"listChanged": True} for word in words}
        return {**found, **self.capabilities}

    def announce(self, word: str = "tools") -> None:
        assert self.link is not None
        self.link.on_event(f"notifications/{word}/list_changed", {})

    async def until(self, is_true: Callable[[], bool]) -> None:
        with anyio.fail_after(TIMEOUT):
            while not is_true():
                self.changed = anyio.Event()
                await self.changed.wait()

    async def handle(self, asked: Asked) -> Json:
        listed = next((kind for kind in Kind if LISTS[kind].method == asked.method), None)
        if asked.method == "initialize" and not is_modern(self.version):
            self.declared_to.append(asked.params["capabilities"])
            return self._greet({"protocolVersion": self.version, "serverInfo": {"name": self.name, "version": "1"}})
        if asked.method == "server/discover" and is_modern(self.version):
            info = {"io.modelcontextprotocol/serverInfo": {"name": self.name, "version": "1"}}
            return self._greet({"supportedVersions": [self.version], "resultType": "complete", "_meta": info})
        if listed is not None and listed in self.lists():
            found: Json = {LISTS[listed].member: self.lists()[listed]}
            return found if self.ttl_ms is None else {**found, "ttlMs": self.ttl_ms, "cacheScope": "public"}
        if asked.method == "subscriptions/listen":
            agreed = self.agree(asked.params["notifications"])
            asked.waiting.notice("notifications/subscriptions/acknowledged", {"notifications": agreed})
            await anyio.sleep_forever()
        if asked.method in ("server/discover", "initialize"):
            raise Refuse(-32601)
        self.asked.append(asked)
        self.changed.set()
        name = str(asked.params.get("name", ""))
        answer = self.answers.get(name) or self.answers.get(asked.method)
        if answer is not None:
            return await answer(asked)
        return {"content": [{"type": "text", "text": json.dumps(asked.params.get("arguments", {}))}]}

    def _greet(self, result: Json) -> Json:
        greeting = {**result, "capabilities": self.declared()}
        return greeting if self.instructions is None else {**greeting, "instructions": self.instructions}


class FakeLink(Link):
    """See the module."""

    def __init__(self, upstream: str, fake: Fake) -> None:
        super().__init__(upstream)
        self.fake = fake
        self._asked = 0
        fake.link = self
        fake.links.append(self)
        self.told: list[str] = []

    def next_question(self) -> int:
        self._asked += 1
        return self._asked

    async def _exchange(self, method: str, params: Json, body: bytes, waiting: Waiting) -> Json:
        asked = Asked(method, wire.decode_object(wire.encode(params), wire.FROM_UPSTREAM), waiting, self)
        try:
            answer = await self._answer(asked)
            return wire.decode_object(wire.encode({"jsonrpc": "2.0", "id": waiting.id, **answer}), wire.FROM_UPSTREAM)
        except anyio.get_cancelled_exc_class():
            if self.lost is None:
                self.fake.cancelled.append(str(params.get("name", method)))
                self.fake.changed.set()
            raise

    async def _answer(self, asked: Asked) -> Json:
        try:
            return {"result": await self.fake.handle(asked)}
        except Refuse as refusal:
            return {"error": refusal.error}

    async def notify(self, method: str, params: Mapping[str, Any] | None = None) -> None:
        self.told.append(method)
        self.fake.changed.set()

    async def serve(self) -> None:
        self.listening.set()
        await self.gone()

    async def aclose(self) -> None:
        self.lose("closed")


class Gate:
    """A call that waits until the test lets it go on."""

    def __init__(self, result: Json | None = None) -> None:
        self.reached, self.opened = anyio.Event(), anyio.Event()
        self.result = result or {"content": [{"type": "text", "text": "done"}]}

    async def __call__(self, asked: Asked) -> Json:
        self.reached.set()
        await self.opened.wait()
        return self.result


def answering(result: Json) -> Answer:
    async def answer(asked: Asked) -> Json:
        return result

    return answer


def refusing(code: int, data: Any = None) -> Answer:
    async def answer(asked: Asked) -> Json:
        raise Refuse(code, data)

    return answer


def write_config(directory: Path, servers: Mapping[str, Any], **more: Any) -> Path:
    """A configuration of servers that are never really opened."""
    broker = {"name": "test", "state_dir": str(directory / "state"), "first_wait": 0.5, **more.pop("broker", {})}
    every = {key: {"url": f"http://127.0.0.1:1/{key}", **extra} for key, extra in servers.items()}
    path = directory / "servers.json"
    path.write_text(json.dumps({"broker": broker, "servers": every, **more}), encoding="utf-8")
    return path


class Judgements(NoTrail):
    """A trail that keeps what guardrails have said."""

    def __init__(self) -> None:
        self.found: list[GuardrailRecord] = []

    def judged(self, judgement: GuardrailRecord) -> None:
        self.found.append(judgement)


GUESTS = Directory({"guests": Organization("guests", organization_level("guests", (Rule((Pattern("*"),)),)))})


@dataclass
class House:
    """A running broker and the fakes behind it."""

    broker: Broker
    fakes: dict[str, Fake]
    clock: FakeClock
    trail: Trail = NO_TRAIL
    """Of every request that is asked here."""

    async def ask(
        self,
        method: str,
        params: Json | None = None,
        *,
        version: Version = LATEST_LEGACY,
        view: str = "",
        emit: Callable[[str, Json], None] = lambda method, params: None,
        caller: Caller = LOCAL,
        capabilities: Json | None = None,
        channel: BackChannel | None = None,
        log_level: str | None = None,
        session: str = "",
    ) -> Json:
        """What a front would do with a judged request; the result as it goes over the wire."""
        who = Who(caller, version, view, capabilities or {}, log_level, session=session)
        token = Incoming(1, method, params or {}).progress_token
        exchange = Exchange(self.clock, who, emit, channel, token, self.trail)
        with anyio.fail_after(TIMEOUT):
            request = Request(method, params or {}, version, view)
            result = await self.broker.engine.router.answer(request, exchange)
        return wire.decode_object(wire.encode(result), wire.FROM_UPSTREAM)

    def guest(self, principal: str) -> Caller:
        """Somebody else than LOCAL, who may use everything."""
        self.broker.generation.adopt(GUESTS)
        return Caller(principal, "guests")

    async def ready(self) -> None:
        """All that are up have been discovered."""
        with anyio.fail_after(TIMEOUT):
            for key, upstream in self.broker.generation.pool.upstreams.items():
                if self.fakes[key].state == "up":
                    await upstream.first_try.wait()
                    assert upstream.is_ready, upstream


@asynccontextmanager
async def house(
    directory: Path,
    fakes: dict[str, Fake],
    *,
    servers: Mapping[str, Any] | None = None,
    clock: Clock | None = None,
    **more: Any,
) -> AsyncGenerator[House, None]:
    """A broker in front of `fakes`, discovered. `servers` adds settings to each; `more` are sections of the file."""

    async def open_fake(key: str, server: object, timeout: float) -> Link:
        fake = fakes[key]
        if fake.state == "down":
            raise UpstreamUnavailable(key, "it is down")
        if fake.state == "silent":
            await anyio.sleep_forever()
        return FakeLink(key, fake)

    settings = {key: {} for key in fakes} | dict(servers or {})
    loaded = load(write_config(directory, settings, **more), {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connect, "open_link", open_fake)
        broker = Broker(loaded, clock=clock or FakeClock())
        async with broker.running():
            found = House(broker, fakes, cast(FakeClock, broker.clock))
            await found.ready()
            yield found


MODERN, LEGACY = LATEST_MODERN, LATEST_LEGACY
