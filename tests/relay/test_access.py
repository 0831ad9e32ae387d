"""One decision on every method: what a caller may not use is nowhere, what it may not do with these arguments is said,
and another policy is in force with the next request.
"""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.config import OrganizationSettings, directory_of
from broker.core.caller import LOCAL, Caller
from broker.core.catalog import Entry
from broker.core.directory import Directory, Merger
from broker.core.era import Version
from broker.core.policy import Permit, decide
from broker.core.request import KIND_OF_LIST, LISTS, Kind, Request
from broker.errors import BrokerError, InvalidParams, Refused, UpstreamUnavailable
from broker.relay import listing as listing_module
from broker.relay.notify import LIST_CHANGED, UPDATED, Subscriber, Watches
from broker.upstream.lease import Asker
from tests.core.access import ARGUMENTS, CALLERS, OWN, directories
from tests.relay.fake import LEGACY, MODERN, TIMEOUT, Fake, Gate, House, Json, answering, house, tool
from tests.relay.test_parking import Person, answers, parked
from tests.relay.test_router import ASKS, filled, refusal, whole

READ = {"contents": [{"uri": "file:///a", "text": "x"}], "ttlMs": 9000, "cacheScope": "public"}
VERSIONS = (LEGACY, MODERN)
ANN = Caller("key:ann", "acme", "data")
BOB = Caller("key:bob", "acme", "web")
CI = Caller("key:ci", "acme", "data", "ci")


def served(version: Version) -> Fake:
    return Fake(
        version=version,
        tools=[tool(own) for own in OWN[Kind.TOOL]],
        prompts=[{"name": own} for own in OWN[Kind.PROMPT]],
        resources=[{"uri": own, "name": own} for own in OWN[Kind.RESOURCE]],
        templates=[{"uriTemplate": own, "name": own} for own in OWN[Kind.TEMPLATE]],
        answers={"prompts/get": answering({"messages": []}), "resources/read": answering({"contents": []})},
    )


def asking(entry: Entry, arguments: Any) -> tuple[str, Json]:
    """The request that uses an entry; a template is used through its completion."""
    match entry.kind:
        case Kind.TOOL:
            return "tools/call", {"name": entry.public, "arguments": arguments}
        case Kind.PROMPT:
            return "prompts/get", {"name": entry.public}
        case Kind.RESOURCE:
            return "resources/read", {"uri": entry.public}
        case _:
            reference = {"type": "ref/resource", "uri": entry.public}
            return "completion/complete", {"ref": reference, "argument": {"name": "x", "value": ""}}


async def outcome(place: House, entry: Entry, arguments: Any, caller: Caller, version: Version) -> str:
    """done, refused or unknown."""
    method, params = asking(entry, arguments)
    try:
        result = await place.ask(method, params, version=version, caller=caller)
    except BrokerError as error:
        assert (error.code in (-32602, -32002) and "nknown" in error.message) or "not found" in error.message
        return "unknown"
    return "refused" if result.get("isError") else "done"


async def listed(place: House, caller: Caller, version: Version) -> dict[Kind, list[str]]:
    return {
        kind: [
            one[LISTS[kind].name_key]
            for one in (await place.ask(method, version=version, caller=caller))[LISTS[kind].member]
        ]
        for method, kind in KIND_OF_LIST.items()
    }


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(directories(), st.sampled_from([one for one in CALLERS if one.organization]), st.sampled_from(VERSIONS))
def test_an_entry_is_listed_iff_some_call_of_it_could_be_permitted(
    directory: Directory, caller: Caller, version: Version
) -> None:
    async def compare() -> None:
        fakes = {"one": served(LEGACY), "two": served(MODERN)}
        with TemporaryDirectory() as tmp:
            async with house(Path(tmp), fakes) as place:
                place.broker.generation.adopt(directory)
                await compare_all(place, caller, version)

    anyio.run(compare)


async def compare_all(place: House, caller: Caller, version: Version) -> None:
    generation = place.broker.generation
    seen = await listed(place, caller, version)
    for kind in Kind:
        for entry in generation.catalog.entries(kind):
            tries = ARGUMENTS if kind is Kind.TOOL else [{}]
            passing = [one for one in tries if isinstance(decide(generation.policy, caller, "", entry, one), Permit)]
            assert (entry.public in seen[kind]) is bool(passing)
            assert await outcome(place, entry, passing[0] if passing else tries[0], caller, version) == (
                "done" if passing else "unknown"
            )
            failing = next((one for one in tries if one not in passing), None)
            if passing and failing is not None:
                assert await outcome(place, entry, failing, caller, version) == "refused"


def acme(data: Json, web: Json | None = None, **more: Any) -> Json:
    """The section `organizations` with two teams."""
    return {"acme": {"allow": [{"servers": ["*"]}], "teams": {"data": data, "web": web or {}}, **more}}


ONLY_ONE = acme({"allow": [{"servers": ["one"]}]})


@pytest.mark.parametrize(("method", "params"), ASKS)
async def test_I15_what_a_caller_may_not_use_is_unknown_byte_for_byte_and_by_the_same_path(
    tmp_path: Path, method: str, params: Json
) -> None:
    """Hidden by its team, of a server that is hidden and was never seen, or not there at all: nobody is asked."""
    fakes = {"one": whole(), "two": whole(), "silent": Fake(state="silent")}
    slow = {"silent": {"connect_timeout": 300}}  # whoever waits for it, waits longer than `ask` lets anybody
    async with house(tmp_path, fakes, servers=slow, organizations=ONLY_ONE, broker={"first_wait": 300}) as place:
        for version in VERSIONS:
            answers = [
                (await refusal(place, method, filled(key, params), version=version, caller=ANN), key)
                for key in ("two", "silent", "nobody")
            ]
            plain = {str(answer).replace(f"{key}__", "KEY__").replace(f"{key}+", "KEY+") for answer, key in answers}
            assert len(plain) == 1, plain
            await place.ask(method, filled("one", params), version=version, caller=ANN)
        assert place.fakes["two"].asked == [] and len(place.fakes["one"].asked) == 2


async def test_no_list_greeting_or_error_names_a_server_of_which_a_caller_sees_nothing(tmp_path: Path) -> None:
    hidden = Fake(instructions="SECRET", capabilities={"logging": {}}, prompts=[{"name": "SECRET"}])
    fakes = {"one": Fake(instructions="Use echo."), "two": hidden, "bad": Fake(state="down")}
    async with house(tmp_path, fakes, organizations=ONLY_ONE, groups={"both": ["two", "bad"]}) as place:
        for version in VERSIONS:
            texts = [str(await place.ask(method, version=version, caller=ANN)) for method in KIND_OF_LIST]
            texts.append(str(await place.broker.engine.router.greeting("", ANN, version)))
            for text in texts:
                assert not any(word in text for word in ("SECRET", "two", "bad", "broker/upstreams", "logging"))
            assert "bad" in str(await place.ask("tools/list", version=version)), "the local user is told"
        result = await place.ask("tools/list", version=MODERN, caller=ANN)
        assert (result["ttlMs"], result["cacheScope"]) == (300_000, "private")
        assert (await refusal(place, "logging/setLevel", {"level": "debug"}, caller=ANN))[0] == -32601
        router = place.broker.engine.router
        seen = [view for view in ("", "one", "two", "bad", "both", "nobody") if router.has_view(view, ANN)]
        assert seen == ["", "one"], "a view that shows nothing is one that does not exist"
        assert all(router.has_view(view, LOCAL) for view in ("two", "bad", "both")) and not router.has_view("x", LOCAL)
        router.roots_changed("", ANN, "")


async def test_instructions_give_no_public_name_to_what_a_caller_may_not_use(tmp_path: Path) -> None:
    fakes = {"one": Fake(instructions="Use `echo`, then `slow`.", tools=[tool("echo"), tool("slow")])}
    only_echo = acme({"allow": [{"tools": ["one__echo"]}]})
    async with house(tmp_path, fakes, organizations=only_echo) as place:
        router = place.broker.engine.router
        assert (await router.greeting("", ANN))["instructions"] == "Use `one__echo`, then `slow`."
        assert (await router.greeting("", LOCAL))["instructions"] == "Use `one__echo`, then `one__slow`."


async def test_who_may_see_nothing_gets_empty_lists_and_is_not_told_that_anything_is_missing(tmp_path: Path) -> None:
    fakes = {"one": Fake(), "bad": Fake(state="down")}
    nobody = [Caller("x", "gone"), Caller("x"), Caller("x", "acme", "data", "gone")]
    async with house(tmp_path, fakes, organizations=acme({})) as place:
        for caller in nobody:
            assert await listed(place, caller, MODERN) == {kind: [] for kind in Kind}
            assert await place.broker.engine.router.greeting("", caller) == {"capabilities": {}}


async def test_an_unseen_server_is_waited_for_by_who_may_see_it_once_it_is_seen(tmp_path: Path) -> None:
    organizations = acme({"allow": [{"tools": ["bad__*"]}]}, {"allow": [{"prompts": ["bad__*"]}, {"servers": ["one"]}]})
    fakes = {"one": Fake(), "bad": Fake(state="down")}
    async with house(tmp_path, fakes, organizations=organizations, broker={"first_wait": 0.05}) as place:
        with pytest.raises(UpstreamUnavailable):
            await place.ask("tools/call", {"name": "bad__x"}, caller=ANN)
        assert await refusal(place, "tools/call", {"name": "bad__x"}, caller=BOB) == (
            -32602,
            "Unknown tool: bad__x",
            None,
        )
        assert "bad" in str(await place.ask("tools/list", caller=BOB)), "it may have prompts for them"


CONDITIONAL = acme(
    {"allow": [{"servers": ["one"]}], "deny": [{"tools": ["*"], "when": {"args.db": {"not_in": ["test"]}}}]}
)


async def test_a_refused_call_says_which_argument_and_which_rule_in_both_eras(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": Fake(), "two": Fake()}, organizations=CONDITIONAL) as place:
        text = "one__echo is not permitted with this 'db': rule team:acme/data/deny/0 refuses it"
        for version in VERSIONS:
            for arguments in ({"db": "prod"}, {}, {"db": 1}, None):
                params = {"name": "one__echo"} | ({} if arguments == {} else {"arguments": arguments})
                result = await place.ask("tools/call", params, version=version, caller=ANN)
                assert result["content"] == [{"type": "text", "text": text}] and result["isError"] is True
                assert ("resultType" in result) is (version == MODERN)
            assert not (
                await place.ask("tools/call", {"name": "one__echo", "arguments": {"db": "test"}}, caller=ANN)
            ).get("isError")
            code, message, _ = await refusal(place, "tools/call", {"name": "two__echo", "arguments": {}}, caller=ANN)
            assert (code, message) == (-32602, "Unknown tool: two__echo")
        assert len(place.fakes["one"].asked) == 2
    refused = Refused("one__echo", "db", "team:acme/data/deny/0")
    assert (refused.code, refused.data) == (4030, {"argument": "db", "rule": "team:acme/data/deny/0"})


async def test_SP41_F41_what_a_server_calls_public_is_private_where_callers_differ(tmp_path: Path) -> None:
    fake = Fake(
        version=MODERN, resources=[{"uri": "file:///a", "name": "a"}], answers={"resources/read": answering(READ)}
    )
    for organizations, scope in (({}, "public"), (acme({}), "private")):
        async with house(tmp_path, {"one": fake}, organizations=organizations) as place:
            for method, params in (
                ("resources/read", {"uri": "one+file:///a"}),
                ("tools/list", {}),
                ("server/discover", {}),
            ):
                assert (await place.ask(method, params, version=MODERN))["cacheScope"] == scope, method


# -- another policy ----------------------------------------------------------------------------------------------------


def told_to(place: House, caller: Caller, view: str = "") -> Counter[str]:
    told = Counter[str]()
    place.broker.engine.hub.add(Subscriber(caller, view, lambda method, params: told.update([method])))
    return told


def stored_directory(data: Json) -> Directory:
    """What a store would load: an organization of its own, with one team."""
    settings = OrganizationSettings.model_validate({"allow": [{"servers": ["*"]}], "teams": {"data": data}})
    return directory_of({"stored": settings})


async def test_a_new_policy_is_in_force_at_once_and_who_sees_another_list_is_told(tmp_path: Path) -> None:
    fakes = {"one": Fake(prompts=[{"name": "p"}]), "two": Fake()}
    async with house(tmp_path, fakes, organizations=acme({})) as place:
        generation = place.broker.generation
        stored = Caller("key:s", "stored", "data")
        told = {who: told_to(place, who) for who in (LOCAL, ANN, stored)}
        assert (await listed(place, stored, LEGACY))[Kind.TOOL] == []
        assert generation.adopt(stored_directory({"allow": [{"tools": ["one__*"]}]})) == ()
        assert (await listed(place, stored, LEGACY))[Kind.TOOL] == ["one__echo", "one__slow"]
        assert told[stored] == {LIST_CHANGED[Kind.TOOL]: 1} and not told[ANN] and not told[LOCAL]
        assert (
            generation.adopt(stored_directory({"allow": [{"tools": ["one__*"]}], "deny": [{"servers": ["two"]}]})) == ()
        )
        assert told[stored] == {LIST_CHANGED[Kind.TOOL]: 1}, "nothing of the list is another"
        generation.adopt(stored_directory({"allow": [{"tools": ["one__echo"]}, {"prompts": ["*"]}]}))
        assert told[stored] == {LIST_CHANGED[Kind.TOOL]: 2, LIST_CHANGED[Kind.PROMPT]: 1}
        with pytest.raises(BrokerError):
            await place.ask("tools/call", {"name": "one__slow"}, caller=stored)
        generation.adopt(Directory())
        assert (await listed(place, stored, MODERN))[Kind.TOOL] == []


async def test_a_broken_swap_keeps_the_old_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path, {"one": Fake()}, organizations=acme({})) as place:
        generation = place.broker.generation
        before = generation.policy, generation.views

        def fail(*of: object) -> None:
            raise ValueError("a row that is none")

        monkeypatch.setattr(Merger, "merge", fail)
        told = told_to(place, ANN)
        with pytest.raises(ValueError, match="a row that is none"):
            generation.adopt(Directory())
        assert (generation.policy, generation.views) == before and not told
        assert (await listed(place, ANN, LEGACY))[Kind.TOOL] == ["one__echo", "one__slow"]


async def test_what_of_the_database_is_not_in_force_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with house(tmp_path, {"one": Fake()}, organizations=acme({})) as place:
        twice = Directory({"acme": stored_directory({}).organizations["stored"]})
        assert "organization acme is defined in the file" in place.broker.generation.adopt(twice)[0]
        assert "organization acme is defined in the file" in caplog.text


async def test_a_cursor_of_another_view_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "PAGE_SIZE", 2)
    fakes = {"one": Fake(tools=[tool(f"t{n}") for n in range(6)])}
    async with house(tmp_path, fakes, organizations=acme({})) as place:
        ann, stored = ANN, Caller("key:s", "stored", "data")
        place.broker.generation.adopt(stored_directory({"allow": [{"servers": ["one"]}]}))
        cursors = {who: (await place.ask("tools/list", caller=who))["nextCursor"] for who in (ann, stored)}
        place.broker.generation.adopt(
            stored_directory({"allow": [{"servers": ["one"]}], "deny": [{"tools": ["one__t5"]}]})
        )
        assert (await place.ask("tools/list", {"cursor": cursors[ann]}, caller=ann))["tools"], "nothing of it changed"
        with pytest.raises(InvalidParams):
            await place.ask("tools/list", {"cursor": cursors[stored]}, caller=stored)


async def test_SP38_changes_of_a_resource_that_may_no_longer_be_read_are_not_told(tmp_path: Path) -> None:
    fake = Fake(
        resources=[{"uri": "file:///a", "name": "a"}],
        capabilities={"resources": {"subscribe": True, "listChanged": True}},
        answers={"resources/subscribe": answering({}), "resources/unsubscribe": answering({})},
    )
    async with house(tmp_path, {"one": fake}) as place:
        generation, router = place.broker.generation, place.broker.engine.router
        generation.adopt(stored_directory({}))
        stored, told, watches = Caller("key:s", "stored", "data"), Counter[str](), Watches()
        place.broker.engine.hub.add(Subscriber(stored, "", lambda method, params: told.update([method]), watches))
        request = Request("resources/subscribe", {"uri": "one+file:///a"}, LEGACY)
        await router.watch("one+file:///a", request, stored, Asker(stored.principal, ""), watches)

        def change() -> None:
            assert fake.link is not None
            fake.link.on_event("notifications/resources/updated", {"uri": "file:///a"})

        change()
        assert told[UPDATED] == 1
        generation.adopt(stored_directory({"deny": [{"resources": ["*"]}]}))
        change()
        assert told[UPDATED] == 1 and len(watches) == 1
        with pytest.raises(BrokerError):
            await router.unwatch("one+file:///a", request, stored, watches)
        assert len(watches) == 0, "it is given back, whatever the answer"
        with anyio.fail_after(TIMEOUT):
            await fake.until(lambda: any(one.method == "resources/unsubscribe" for one in fake.asked))


async def test_the_retry_of_a_parked_call_is_decided_again(tmp_path: Path) -> None:
    async with parked(tmp_path) as (local, fake):
        generation = local.place.broker.generation
        generation.adopt(stored_directory({}))
        person = Person(local.place, Caller("key:s", "stored", "data"))
        first = await person.call()
        generation.adopt(stored_directory({"deny": [{"tools": ["one__echo"]}]}))
        retry = {"requestState": first["requestState"], "inputResponses": answers(first)}
        assert await person.refused(**retry) == {"code": -32602, "message": "Unknown tool: one__echo"}
        generation.adopt(stored_directory({}))
        assert (await person.call(**retry))["resultType"] == "complete", "the state was not spent"
        assert len(fake.asked) == 1


@pytest.mark.parametrize("version", VERSIONS)
async def test_a_call_that_waited_for_a_place_meets_the_rules_of_the_moment_it_is_sent(
    tmp_path: Path, version: Version
) -> None:
    gate = Gate()
    fake = Fake(tools=[tool("a"), tool("b")], answers={"a": gate})
    limits = {"one": {"limits": {"concurrency": 1}}}
    async with house(tmp_path, {"one": fake}, servers=limits) as place, anyio.create_task_group() as tasks:

        def adopt(*denied: str) -> None:
            settings: Json = {"allow": [{"servers": ["*"]}], "deny": [{"tools": [one]} for one in denied]}
            place.broker.generation.adopt(directory_of({"acme": OrganizationSettings.model_validate(settings)}, ()))

        said: list[str] = []

        async def call(own: str) -> None:
            try:
                params = {"name": f"one__{own}", "arguments": {}}
                await place.ask("tools/call", params, version=version, caller=Caller("key:x", "acme"))
                said.append(own)
            except BrokerError as error:
                said.append(error.message)

        adopt()
        tasks.start_soon(call, "a")
        await fake.until(lambda: len(fake.asked) == 1)
        tasks.start_soon(call, "b")
        await anyio.wait_all_tasks_blocked()
        adopt("one__b")
        gate.opened.set()
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(BrokerError) as unknown:
            await place.ask("tools/call", {"name": "one__c"}, version=version, caller=Caller("key:x", "acme"))
        assert said == ["a", unknown.value.message.replace("one__c", "one__b")] and len(fake.asked) == 1
