"""What the audit says of a call and of a list: one record of each, with who, what, by which rule, and how it ended."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest

from broker.admin.journal import AuditJournal, Deed
from broker.admin.journal import Unrecorded as NotRecorded
from broker.core.caller import Caller, Role
from broker.core.era import LATEST_LEGACY, LATEST_MODERN
from broker.downstream.engine import Who
from broker.usage.audit import LineAudit
from broker.usage.lookup import find, who_saw
from broker.usage.meter import Counts
from broker.usage.question import Question
from tests.relay.fake import Fake, Json, Refuse, answering, house, tool
from tests.usage.audited import ANN, BOB, TRACE, ask, audited, call, kept, records, until


async def test_SP56_every_call_allowed_or_not_has_one_record(tmp_path: Path) -> None:
    async with audited(tmp_path) as place:
        answer = await ask(place, *call("one__echo", text="hello"))
        await ask(place, *call("one__drop"))
        await ask(place, *call("one__nothing"))
        await ask(place, *call("one__query", db="x"))
    done, hidden, unknown, refused = records(tmp_path)
    assert done["outcome"] == "done" and done["rule"].startswith("org:acme/allow/0")
    assert (done["principal"], done["organization"], done["team"]) == ("key:ann", "acme", "data")
    assert (done["public"], done["own"], done["server"], done["kind"]) == ("one__echo", "echo", "one", "tools")
    assert (done["front"], done["era"], done["trace"]) == ("http", LATEST_MODERN, TRACE)
    assert done["request_bytes"] > 100 and done["result_bytes"] > len(json.dumps(answer["result"])) / 2
    assert done["ms"] > 0 and len(done["policy"]) == 16
    assert (hidden["outcome"], hidden["rule"]) == ("denied", "team:acme/data/deny/0")
    assert (unknown["outcome"], unknown["rule"]) == ("denied", "unknown")
    assert (refused["outcome"], refused["rule"]) == ("denied", "team:acme/data/deny/1")
    assert [one["seq"] for one in (done, hidden, unknown, refused)] == [1, 2, 3, 4]


async def test_arguments_and_results_are_recorded_only_as_the_configuration_names_them(tmp_path: Path) -> None:
    allowed = {"one__query": {"db": "plain", "sql": "hash", "token": "mask", "where.id": "plain"}}
    fake = Fake(tools=[tool("query")], answers={"query": answering({"content": [], "structuredContent": {"n": 3}})})
    async with audited(tmp_path, fake, {"arguments": allowed, "results": {"one__query": {"n": "plain"}}}) as place:
        for _ in range(2):
            await ask(
                place, *call("one__query", db="prod", sql="SELECT 1", token="hunter2", where={"id": 4}, other="secret")
            )
    first, second = records(tmp_path)
    shown = first["arguments"]
    assert (shown["db"], shown["token"], shown["where.id"]) == ("prod", "***", 4)
    assert shown["sql"] == second["arguments"]["sql"] and len(shown["sql"]) == 64
    assert first["results"] == {"n": 3}
    assert not any(word in str(records(tmp_path)) for word in ("hunter2", "SELECT", "secret", "other"))


async def test_failed_timed_out_and_unavailable_calls_have_exactly_one_outcome(tmp_path: Path) -> None:
    async def fail(_: Any) -> Json:
        raise Refuse(1001)

    fake = Fake(
        tools=[tool("bad"), tool("broken")],
        answers={"bad": fail, "broken": answering({"content": [], "isError": True})},
    )
    async with audited(tmp_path, fake) as place:
        await ask(place, *call("one__bad"))
        await ask(place, *call("one__broken"))
        await ask(place, "no/such/method")
        await ask(place, "ping", version=LATEST_LEGACY)
    assert [(one["method"], one["outcome"], one.get("code")) for one in records(tmp_path)] == [
        ("tools/call", "error", 1001),
        ("tools/call", "failed", None),
        ("no/such/method", "error", -32601),
    ]


async def test_a_call_that_takes_too_long_has_exactly_one_outcome(tmp_path: Path) -> None:
    async def wait(_: Any) -> Json:
        await anyio.sleep_forever()
        return {}

    fake = Fake(tools=[tool("slow")], answers={"slow": wait})
    async with audited(tmp_path, fake, servers={"one": {"timeout": 0.05}}) as place:
        answer = await ask(place, *call("one__slow"))
    (one,) = records(tmp_path)
    assert (one["outcome"], one["code"], one["server"]) == ("timed-out", answer["error"]["code"], "one")
    assert one["ms"] >= 50 and "result_bytes" not in one


async def test_a_cancelled_call_has_exactly_one_outcome(tmp_path: Path) -> None:
    async def wait(_: Any) -> Json:
        await anyio.sleep_forever()
        return {}

    async with audited(tmp_path, Fake(tools=[tool("slow")], answers={"slow": wait})) as place:
        fake = place.fakes["one"]
        async with anyio.create_task_group() as tasks:

            async def run() -> None:
                await ask(place, *call("one__slow"))

            tasks.start_soon(run)
            await fake.until(lambda: len(fake.asked) == 1)
            tasks.cancel_scope.cancel()
    assert [one["outcome"] for one in records(tmp_path)] == ["cancelled"]


async def test_every_list_and_greeting_says_what_was_shown_to_whom(tmp_path: Path) -> None:
    async with audited(tmp_path) as place:
        await ask(place, "tools/list")
        await ask(place, "tools/list")
        await ask(place, "tools/list", caller=BOB)
        await ask(place, "server/discover", caller=BOB)
        await place.broker.engine.initialize({}, Who(ANN, LATEST_LEGACY, "one"))
        await ask(place, *call("one__echo"))
    shown = records(tmp_path, "discovery")
    assert [(one["principal"], one["method"], one["size"], one.get("view", "")) for one in shown] == [
        ("key:ann", "tools/list", 3, ""),
        ("key:ann", "tools/list", 3, ""),
        ("key:bob", "tools/list", 1, ""),
        ("key:bob", "server/discover", 1, ""),
        ("key:ann", "initialize", 3, "one"),
    ]
    views = {one["hash"]: one["names"] for one in records(tmp_path, "view")}
    assert len(records(tmp_path, "view")) == len(views) == len({one["hash"] for one in shown})
    assert views[shown[2]["hash"]] == ["one__echo"]
    assert views[shown[0]["hash"]] == ["one__echo", "one__query", "one__slow"]


async def test_who_could_see_a_tool_is_one_question(tmp_path: Path) -> None:
    async with audited(tmp_path) as place:
        await ask(place, "tools/list")
        await ask(place, "tools/list", caller=BOB)
    where = kept(tmp_path)
    assert [one.principal for one in who_saw(where, "one__echo", Question())] == ["key:ann", "key:bob"]
    assert [one.principal for one in who_saw(where, "one__query", Question())] == ["key:ann"]
    assert who_saw(where, "one__drop", Question()) == [] == who_saw(where, "one__echo", Question(until=1.0))


async def test_the_hash_of_a_view_changes_with_a_definition(tmp_path: Path) -> None:
    async with audited(tmp_path) as place:
        await ask(place, "tools/list")
        fake = place.fakes["one"]
        fake.tools = [tool(name, description="other") for name in ("echo", "slow", "drop", "query")]
        before = place.broker.generation.catalog
        fake.announce()
        await until(lambda: place.broker.generation.catalog is not before)
        await ask(place, "tools/list")
    first, second = records(tmp_path, "discovery")
    assert first["hash"] != second["hash"] and first["size"] == second["size"]


async def test_required_a_call_is_made_only_after_its_decision_is_written(tmp_path: Path) -> None:
    seen: list[Json] = []

    async def look(_: Any) -> Json:
        seen.extend(records(tmp_path))
        return {"content": []}

    async with audited(tmp_path, Fake(tools=[tool("echo")], answers={"echo": look}), {"required": True}) as place:
        await ask(place, *call("one__echo"))
    assert [one["outcome"] for one in seen] == ["permitted"]
    before, after = records(tmp_path)
    assert (before["outcome"], after["outcome"]) == ("permitted", "done") and before["call"] == after["call"]


async def test_F92_required_without_a_disk_no_call_is_made_and_lists_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept(tmp_path).parent.mkdir(parents=True)
    kept(tmp_path).write_text("in the way")
    async with audited(tmp_path, audit={"required": True}) as place:
        answer = await ask(place, *call("one__echo"))
        assert answer["error"]["code"] == 5030 and "audit" in answer["error"]["message"]
        assert place.fakes["one"].asked == []
        assert (await ask(place, "tools/list"))["result"]["tools"]
        kept(tmp_path).unlink()
        audit = place.broker.audit
        assert isinstance(audit, LineAudit)
        await until(lambda: not audit.book.writer.is_failing)
        assert "result" in await ask(place, *call("one__echo"))
    assert [record.levelname for record in caplog.records if "audit" in record.name or "usage" in record.name] == [
        "ERROR",
        "WARNING",
    ]


async def test_administration_is_recorded_and_what_cannot_be_recorded_is_not_done(tmp_path: Path) -> None:
    boss = Caller("key:boss", "acme", role=Role.ORG_ADMIN)
    async with audited(tmp_path, audit={"required": True}) as place:
        journal = AuditJournal(place.broker.audit)
        await journal.record(Deed(boss, "key.rotate", "key:abc", "refused", "no role"))
        audit = place.broker.audit
        assert isinstance(audit, LineAudit)
        audit.book.writer.is_failing = True
        with pytest.raises(NotRecorded):
            await journal.record(Deed(boss, "key.rotate", "key:abc", "done"))
    (first, *_) = records(tmp_path, "admin")
    assert (first["principal"], first["action"], first["outcome"], first["why"]) == (
        "key:boss",
        "key.rotate",
        "refused",
        "no role",
    )


async def test_refused_credentials_are_recorded_and_a_flood_of_them_is_counted(tmp_path: Path) -> None:
    async with audited(tmp_path) as place:
        for _ in range(500):
            place.broker.audit.admitted_not("192.0.2.1", 401, "Unauthorized")
    found = records(tmp_path, "auth")
    assert len(found) == 60 and (found[0]["peer"], found[0]["code"]) == ("192.0.2.1", 401)


async def test_records_are_found_by_what_is_asked_for(tmp_path: Path) -> None:
    async with audited(tmp_path) as place:
        await ask(place, *call("one__echo"))
        await ask(place, *call("one__echo"), caller=BOB)
        await ask(place, *call("one__drop"))
    where = kept(tmp_path)

    def who(**asked: Any) -> list[str]:
        return [one["principal"] for one in find(where, Question(**asked), 10)]

    assert who() == ["key:ann", "key:bob", "key:ann"]
    assert who(caller="key:b*") == who(team="acme/web") == who(team="web") == ["key:bob"]
    assert who(tool="one__drop") == who(outcome="denied") == who(rule="team:acme/data/deny/*") == ["key:ann"]
    assert who(server="one", tool="*echo") == ["key:ann", "key:bob"]
    assert who(organization="other") == who(until=1.0) == who(event="admin") == []
    assert [one["seq"] for one in find(where, Question(), 1)] == [3]


async def test_a_bare_local_broker_records_nothing(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": Fake()}) as place:
        await place.ask("tools/call", {"name": "one__echo", "arguments": {}})
    assert records(tmp_path, "discovery") == records(tmp_path) == []


async def test_a_call_beyond_a_limit_has_one_record_and_one_count_with_the_limit_as_its_rule(tmp_path: Path) -> None:
    limited = {"one": {"limits": {"rate": "1/minute"}}}
    fake = Fake(resources=[{"uri": "a:b", "name": "r"}], templates=[])
    async with audited(tmp_path, fake, {"required": True}, servers=limited, metrics={"access": "public"}) as place:
        await ask(place, *call("one__echo"))
        await ask(place, *call("one__echo"))
        refused = await ask(place, "resources/read", {"uri": "one+a:b"})
        assert refused["error"]["code"] == 4290, refused
        assert isinstance(place.broker.meter, Counts)
        counted = {labels[2:]: number for labels, number in place.broker.meter.calls.items() if "limit:" in labels[0]}
        assert counted == {("tools", "limited"): 1, ("resources", "limited"): 1}
    made = [(one["method"], one["outcome"], one.get("code", 0)) for one in records(tmp_path)]
    assert made == [
        ("tools/call", "permitted", 0),
        ("tools/call", "done", 0),
        ("tools/call", "limited", 0),
        ("resources/read", "limited", 4290),
    ]
