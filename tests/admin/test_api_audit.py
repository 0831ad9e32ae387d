"""`/api/v1/audit`: what the command shows, for administrators of everything, and for nobody else."""

from pathlib import Path

import pytest

from broker.usage.records import Mark
from tests.admin.test_api import ORDER, World, world
from tests.usage.trails import BEGAN, call, discovery, file_name, write

__all__ = ["world"]

VIEW = Mark("h1", ("one__drop", "one__echo"), {})


@pytest.fixture(scope="module")
async def recorded(world: World) -> World:
    await world.ensure()
    kept = Path(world.front.house.broker.loaded.config.broker.state_dir or "") / "audit"
    write(
        kept / file_name(1),
        [
            discovery("key:ann", VIEW, at=BEGAN),
            call("key:ann", "echo", at=BEGAN + 1),
            call("key:bob", "drop", at=BEGAN + 2, outcome="denied"),
            call("key:bob", "echo", at=BEGAN + 3),
        ],
    )
    return world


@pytest.mark.parametrize("path", ["/audit", "/audit/who-saw?name=one__echo"])
async def test_records_are_for_administrators_of_everything(recorded: World, path: str) -> None:
    for who in ORDER:
        reply = await recorded.ask(who, "GET", path)
        assert reply.status == (200 if who == "admin" else 403), (who, reply.body)
        assert who == "admin" or b"one__" not in reply.body


async def test_records_are_found_as_the_command_finds_them(recorded: World) -> None:
    async def principals(query: str) -> list[str]:
        return [one["principal"] for one in (await recorded.ask("admin", "GET", f"/audit?{query}")).json["items"]]

    assert await principals("event=call") == ["key:ann", "key:bob", "key:bob"]
    assert await principals("caller=key:b*&outcome=denied") == ["key:bob"]
    assert await principals(f"event=call&since={BEGAN + 2}&limit=1") == ["key:bob"]
    assert await principals(f"until={BEGAN + 1:.0f}") == ["key:ann"]
    (seen,) = (await recorded.ask("admin", "GET", "/audit/who-saw?name=one__drop")).json["seen"]
    assert (seen["principal"], seen["methods"], seen["times"]) == ("key:ann", ["tools/list"], 1)
    assert (await recorded.ask("admin", "GET", f"/audit/who-saw?name=one__drop&since={BEGAN + 1}")).json["seen"] == []


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=many", "since=soon", "until=nan", "colour=red"])
async def test_a_question_that_cannot_be_read_is_refused(recorded: World, query: str) -> None:
    reply = await recorded.ask("admin", "GET", f"/audit?{query}")
    assert (reply.status, reply.json["error"]["code"]) == (400, "invalid")
    assert query.partition("=")[0] in reply.json["error"]["message"]
