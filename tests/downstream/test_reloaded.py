"""I-08 over a reload: what a key has open ends when the file has it no more; the others hear what has changed."""

from pathlib import Path
from typing import Any

from broker.app import Broker
from broker.clock import FakeClock
from broker.config import Loaded, Secret
from broker.downstream.vigil import RECHECK
from broker.identity.assembly import change_of, identity_of
from broker.identity.identity import Identity
from broker.identity.keys import ENTROPY, hash_of, mint
from broker.identity.supplies import Supplies
from broker.reload import Reloads
from tests.downstream.conftest import serving
from tests.downstream.desk import bearer
from tests.downstream.raw_http import Connection, modern, modern_headers
from tests.downstream.test_vigil import until_over
from tests.identity.issuer import NOW
from tests.relay.fake import Fake, write_config

SECRET = "s" * 40
KEYS = {name: mint(letter * ENTROPY).text.reveal() for name, letter in (("ours", b"o"), ("theirs", b"t"))}


def settings(*keys: str) -> dict[str, Any]:
    hashes = {name: {"hash": hash_of(KEYS[name], Secret(SECRET))} for name in keys}
    acme = {"allow": [{"servers": ["*"]}], "teams": {"data": {"keys": hashes}}}
    return {"identity": {"key_secret": SECRET}, "organizations": {"acme": acme}}


async def test_I08_a_stream_ends_when_its_key_is_taken_out_of_the_file_and_another_goes_on(tmp_path: Path) -> None:
    made: list[Identity] = []

    def supplies(broker: Broker) -> Supplies:
        return Supplies(broker.clock, broker.engine.router, lambda: broker.loaded.config.identity.key_secret)

    def identity(broker: Broker) -> Identity:
        made.append(identity_of(broker.loaded.config.identity, supplies(broker), is_private=True))
        return made[0]

    fakes = {"one": Fake(), "two": Fake()}
    clock = FakeClock(NOW)
    async with serving(tmp_path, fakes, make_identity=identity, clock=clock, **settings("ours", "theirs")) as front:
        broker = front.house.broker

        def prepare(loaded: Loaded) -> Any:
            return change_of(made[0], broker.loaded.config.identity, loaded.config.identity, supplies(broker))

        async def listen(connection: Connection, name: str) -> None:
            body = modern("subscriptions/listen", {"notifications": {"toolsListChanged": True}})
            headers = [*bearer(KEYS[name]), *modern_headers(body)]
            await connection.send(front.client.request("POST", "/mcp", body, headers))
            assert (await connection.head()).status == 200
            assert (await connection.next_message())["method"] == "notifications/subscriptions/acknowledged"

        async with front.client.connection() as ours, front.client.connection() as theirs:
            await listen(ours, "ours")
            await listen(theirs, "theirs")
            write_config(tmp_path, {"one": {}}, **settings("theirs"))
            assert await Reloads(broker, {}, prepare).reload()
            clock.advance(RECHECK)
            assert b"result" not in await until_over(ours)
            assert (await theirs.next_message())["method"] == "notifications/tools/list_changed"
