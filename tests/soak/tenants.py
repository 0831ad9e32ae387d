"""Tenants that share a broker: several organizations, each with servers of its own whose every word carries its canary.

Callers of all of them ask everything of everybody, in random order, in both eras of streamable HTTP and over HTTP+SSE.
Every byte that reaches a caller is read: a canary of another organization is the end (I-42).
"""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from broker.core.directory import Directory, Organization, Source, Team
from broker.core.grants import Rule, organization_level, team_level
from broker.core.match import Pattern
from tests.downstream.desk import EVERYTHING, Desk, bearer, desk
from tests.downstream.raw_http import Client, Connection, message, modern, modern_headers, parse_events
from tests.relay.fake import Asked, Fake, Json, Refuse, tool

PATTERN = b"canary-of-"
SERVERS_EACH = 3
URI = "file:///notes"


@dataclass
class Findings:
    """What was asked, and what somebody got who should not."""

    asked: Counter[str] = field(default_factory=Counter[str])
    own: int = 0
    foreign: list[str] = field(default_factory=list[str])

    def read(self, tenant: int, where: str, data: bytes) -> None:
        self.asked[where] += 1
        for part in data.split(PATTERN)[1:]:
            if part.partition(b".")[0] == str(tenant).encode():
                self.own += 1
            else:
                self.foreign.append(f"tenant {tenant}, {where}: {data[:2000]!r}")

    def text(self) -> str:
        return f"{sum(self.asked.values())} answers, {self.own} own canaries, {len(self.foreign)} foreign ones"


def canary(tenant: int) -> str:
    return f"{PATTERN.decode()}{tenant}."


def upstream(tenant: int) -> Fake:
    word = canary(tenant)

    async def read(asked: Asked) -> Json:
        asked.progress(1, message=word)
        return {"content": [{"type": "text", "text": word}], "structuredContent": {"of": word}}

    async def fail(asked: Asked) -> Json:
        raise Refuse(-32000, {"of": word}, word)

    async def prompt(asked: Asked) -> Json:
        return {"messages": [{"role": "user", "content": {"type": "text", "text": word}}]}

    async def resource(asked: Asked) -> Json:
        return {"contents": [{"uri": URI, "text": word}]}

    async def complete(asked: Asked) -> Json:
        return {"completion": {"values": [word]}}

    return Fake(
        tools=[tool("read", description=word), tool("fail", title=word)],
        prompts=[{"name": "greet", "description": word, "arguments": [{"name": "x"}]}],
        resources=[{"uri": URI, "name": word}],
        templates=[{"uriTemplate": "file:///{name}", "name": word}],
        capabilities={"completions": {}},
        name=word,
        instructions=f"Say {word}",
        answers={
            "read": read,
            "fail": fail,
            "prompts/get": prompt,
            "resources/read": resource,
            "completion/complete": complete,
        },
    )


def asks(server: str) -> list[tuple[str, Json]]:
    """Everything that can be asked of a server, or of all."""
    argument = {"name": "x", "value": ""}
    return [
        ("tools/list", {}),
        ("prompts/list", {}),
        ("resources/list", {}),
        ("resources/templates/list", {}),
        ("tools/call", {"name": f"{server}__read", "arguments": {}, "_meta": {"progressToken": 1}}),
        ("tools/call", {"name": f"{server}__fail", "arguments": {}}),
        ("prompts/get", {"name": f"{server}__greet"}),
        ("resources/read", {"uri": f"{server}+{URI}"}),
        ("resources/read", {"uri": f"{server}+file:///other"}),
        ("completion/complete", {"ref": {"type": "ref/prompt", "name": f"{server}__greet"}, "argument": argument}),
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": f"{server}+{URI}"}, "argument": argument}),
        ("resources/subscribe", {"uri": f"{server}+{URI}"}),
        ("resources/unsubscribe", {"uri": f"{server}+{URI}"}),
        ("tasks/get", {"taskId": f"{server}.1"}),
        ("tools/list", {"cursor": "x"}),
    ]


def directory_of(found: Desk, tenants: int) -> Directory:
    organizations: dict[str, Organization] = {}
    for tenant in range(tenants):
        name = f"org{tenant}"
        own = {key.id: key for key in found.keys.values() if key.level.where.startswith(f"key:{name}/")}
        servers = tuple(Pattern(f"s{tenant}-{number}") for number in range(SERVERS_EACH))
        team = Team("data", team_level(name, "data", EVERYTHING), own, Source.DATABASE)
        level = organization_level(name, (Rule(servers=servers),))
        organizations[name] = Organization(name, level, {"data": team}, source=Source.DATABASE)
    return Directory(organizations)


async def soak(directory: Path, *, tenants: int, seconds: float, seed: int) -> Findings:
    """Run for so long; what was found."""
    findings = Findings()
    servers = [f"s{tenant}-{number}" for tenant in range(tenants) for number in range(SERVERS_EACH)]
    fakes = {server: upstream(int(server[1:].partition("-")[0])) for server in servers}
    async with desk(directory, fakes) as found:
        texts = [found.key(10 + tenant, f"org{tenant}") for tenant in range(tenants)]
        found.broker.generation.adopt(directory_of(found, tenants))
        end = time.monotonic() + seconds
        async with anyio.create_task_group() as tasks:
            for tenant, text in enumerate(texts):
                client = Client(found.front.client.port)
                client.base += bearer(text)
                for number, run in enumerate((_modern, _session, _sse)):
                    chance = random.Random(f"{seed} {tenant} {number}")
                    tasks.start_soon(run, _Asking(tenant, client, chance, servers, findings, end))
    return findings


@dataclass
class _Asking:
    tenant: int
    client: Client
    chance: random.Random
    servers: list[str]
    findings: Findings
    end: float

    @property
    def goes_on(self) -> bool:
        return time.monotonic() < self.end and not self.findings.foreign

    def next(self) -> tuple[str, Json]:
        return self.chance.choice(asks(self.chance.choice(self.servers)))

    def read(self, where: str, data: bytes) -> None:
        self.findings.read(self.tenant, where, data)


async def _modern(asking: _Asking) -> None:
    while asking.goes_on:
        method, params = asking.next()
        if asking.chance.random() < 0.1:
            method, params = "server/discover", {}
        body = modern(method, params)
        view = asking.chance.choice(("", "", f"/{asking.chance.choice(asking.servers)}"))
        headers = [] if method.startswith("tasks/") else modern_headers(body)
        reply = await asking.client.post(body, headers, f"/mcp{view}")
        asking.read(f"modern {method}", repr(reply.headers).encode() + reply.body)


async def _session(asking: _Asking) -> None:
    while asking.goes_on:
        session = await asking.client.open_session()
        asking.read("legacy initialize", repr(session.greeting).encode())
        for _ in range(asking.chance.randrange(1, 30)):
            if not asking.goes_on:
                break
            method, params = asking.next()
            reply = await session.ask(method, params)
            asking.read(f"legacy {method}", repr(reply.headers).encode() + reply.body)
        await session.delete()


async def _sse(asking: _Asking) -> None:
    async with asking.client.connection() as stream:
        await stream.send(asking.client.request("GET", "/sse"))
        await stream.head()
        [(_, endpoint)] = await stream.events()
        ident = 1
        method, params = "initialize", {"protocolVersion": "2024-11-05", "capabilities": {}}
        while True:
            await asking.client.post(message(method, params, ident), path=endpoint)
            await _until_answered(asking, stream, method, ident)
            if not asking.goes_on:
                return
            ident += 1
            method, params = asking.next()


async def _until_answered(asking: _Asking, stream: Connection, method: str, ident: int) -> None:
    while True:
        data = await stream.chunk()
        asking.read(f"sse {method}", data)
        if any(f'"id":{ident}' in text for _, text in parse_events(data)):
            return
