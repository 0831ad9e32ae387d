"""SP-28: "no bypass because the handshake is gone": where credentials are asked for, each request needs one."""

from collections.abc import AsyncGenerator

import pytest

from broker.app import Broker
from broker.identity.admission import Admission
from broker.identity.credential import Credential
from broker.identity.identity import Identity
from tests.downstream.conftest import Front, serving, two_servers
from tests.downstream.raw_http import message, modern, modern_headers


class NobodysKey:
    """A credential source that admits nobody here."""

    is_source = True

    async def admit(self, credential: Credential) -> tuple[Admission, float] | None:
        return None

    def retire(self) -> None:
        pass


def guarded(broker: Broker) -> Identity:
    return Identity(broker.clock, (NobodysKey(),), is_private=True)


@pytest.fixture(scope="module")
async def closed(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Front, None]:
    async with serving(tmp_path_factory.mktemp("closed"), two_servers(), make_identity=guarded) as started:
        yield started


HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}}
MODERN = {
    "server/discover": None,
    "tools/list": None,
    "tools/call": {"name": "one__echo", "arguments": {}},
    "prompts/get": {"name": "one__greet"},
    "resources/read": {"uri": "one+file:///readme"},
    "subscriptions/listen": {"notifications": {}},
}


@pytest.mark.parametrize("credential", [[], [("Authorization", "Bearer nobodys")]], ids=["none", "a bad one"])
@pytest.mark.parametrize("method", MODERN)
async def test_SP28_a_modern_request_without_a_credential_is_401_and_no_upstream_hears_of_it(
    closed: Front, method: str, credential: list[tuple[str, str]]
) -> None:
    before = len(closed.fake.asked)
    body = modern(method, MODERN[method])
    reply = await closed.client.post(body, [*modern_headers(body), *credential])
    assert reply.status == 401 and reply.header("www-authenticate") is not None
    assert len(closed.fake.asked) == before


@pytest.mark.parametrize("path", ["/mcp", "/mcp/one", "/sse", "/messages?session=x"])
@pytest.mark.parametrize("verb", ["POST", "GET", "DELETE"])
async def test_SP28_no_way_in_asks_for_less(closed: Front, path: str, verb: str) -> None:
    body = message("initialize", HELLO) if verb == "POST" else None
    for headers in ([], [("Mcp-Session-Id", "x")]):
        reply = await closed.client.raw(closed.client.request(verb, path, body, headers))
        assert reply.status == 401, (verb, path, headers)
