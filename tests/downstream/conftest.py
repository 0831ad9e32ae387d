"""A broker behind its real HTTP server, in this process; its upstreams are scripted (tests/relay/fake.py)."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.app import Broker
from broker.cli.serving import metrics_of
from broker.downstream.door import Door
from broker.downstream.ending import usual_drain
from broker.downstream.guard import Guard
from broker.downstream.health import WELL, Health
from broker.downstream.http import Api
from broker.downstream.room import Room
from broker.downstream.server import bind, serve_http
from broker.downstream.vitals import Vitals
from broker.identity.identity import Identity
from broker.identity.resource import Resource
from tests.downstream.raw_http import TIMEOUT, Client
from tests.relay.fake import Fake, House, house, tool


@dataclass
class Front:
    """A running broker, and a client that speaks to it."""

    house: House
    client: Client

    @property
    def fake(self) -> Fake:
        return self.house.fakes["one"]


Start = Callable[..., AbstractAsyncContextManager[Front]]


NO_RESOURCE = Resource()


def nobody(broker: Broker) -> Identity:
    """No credential source: every caller is local."""
    return Identity(broker.clock, (), is_private=True)


@asynccontextmanager
async def serving(
    directory: Path,
    fakes: dict[str, Fake],
    guard: Guard | None = None,
    make_identity: Callable[[Broker], Identity] | None = None,
    resource: Resource = NO_RESOURCE,
    make_api: Callable[[Broker], Api] | None = None,
    room: Room | None = None,
    health: Health = WELL,
    vitals: Vitals | None = None,
    drain: Callable[[], float] = usual_drain,
    **more: Any,
) -> AsyncGenerator[Front, None]:
    async with house(directory, fakes, **more) as found, anyio.create_task_group() as tasks:
        listener = bind("127.0.0.1", 0)
        port = listener.getsockname()[1]
        ready = anyio.Event()
        identity = (make_identity or nobody)(found.broker)
        door = Door(guard or Guard(), identity, resource, found.broker.audit)
        api = None if make_api is None else make_api(found.broker)
        page = metrics_of(found.broker)
        serve = partial(serve_http, found.broker.engine, door, listener, ready.set, page, api, room)
        tasks.start_soon(partial(serve, health=health, vitals=vitals, drain=drain))
        with anyio.fail_after(TIMEOUT):
            await ready.wait()
        try:
            yield Front(found, Client(port))
        finally:
            found.broker.engine.closing.set()


MIRRORED = tool(
    "query",
    inputSchema={
        "type": "object",
        "properties": {
            "region": {"type": "string", "x-mcp-header": "Region"},
            "limit": {"type": "integer", "x-mcp-header": "Limit"},
        },
    },
)


def two_servers() -> dict[str, Fake]:
    one = Fake(
        tools=[tool("echo"), tool("slow"), tool("grüße"), MIRRORED],
        prompts=[{"name": "greet"}],
        resources=[{"uri": "file:///readme", "name": "readme"}],
    )
    return {"one": one, "two": Fake(tools=[tool("secret"), {**MIRRORED, "name": "hidden"}])}


@pytest.fixture(scope="module")
async def front(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Front, None]:
    """For tests that leave no trace: one broker for all of a module. `hidden` of server two is denied."""
    guard = Guard(["broker.example:8443", "internal.example"], ["https://app.example"])
    directory = tmp_path_factory.mktemp("front")
    async with serving(
        directory,
        two_servers(),
        guard,
        servers={"one": {}, "two": {"tools": {"deny": ["hidden"]}}, "off": {"enabled": False}},
        groups={"both": ["one", "two"]},
    ) as started:
        yield started


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """`async with start(fakes) as front`: a broker of the test's own."""
    return partial(serving, tmp_path)
