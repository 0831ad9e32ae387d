"""Merged lists and greetings: pages, cursors, how long they hold, what is missing, and what a view declares."""

from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.core.caller import LOCAL, Caller
from broker.core.request import Kind, Request
from broker.errors import BrokerError, InvalidParams
from broker.relay import listing as listing_module
from broker.relay.exchange import Exchange
from broker.relay.listing import NothingKnown, Scope
from broker.relay.who import Who
from tests.relay.fake import LEGACY, MODERN, TIMEOUT, Fake, House, Json, house, tool

ME = "io.modelcontextprotocol/serverInfo"


def names(result: Json) -> list[str]:
    return [one["name"] for one in result["tools"]]


def many(key: str, count: int) -> Fake:
    return Fake(tools=[tool(f"{key}{n}") for n in range(count)])


async def ask_as(place: House, principal: str, params: Json, view: str = "", method: str = "tools/list") -> Json:
    who = Who(place.guest(principal), LEGACY, view)
    exchange = Exchange(place.clock, who, lambda method, params: None)
    return await place.broker.engine.router.answer(Request(method, params, LEGACY, view), exchange)


async def test_pages_are_complete_and_in_configuration_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing_module, "PAGE_SIZE", 4)
    async with house(tmp_path, {"zed": many("z", 5), "one": many("a", 6)}) as place:
        found: list[str] = []
        params: Json = {}
        sizes: list[int] = []
        while True:
            result = await place.ask("tools/list", params)
            found += names(result)
            sizes.append(len(result["tools"]))
            if "nextCursor" not in result:
                break
            params = {"cursor": result["nextCursor"]}
        assert sizes == [4, 4, 3]
        assert found == [*(f"zed__z{n}" for n in range(5)), *(f"one__a{n}" for n in range(6))]


async def test_a_full_last_page_has_no_cursor_and_null_means_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "PAGE_SIZE", 4)
    async with house(tmp_path, {"one": many("a", 8)}) as place:
        first = await place.ask("tools/list", {"cursor": None})
        assert "nextCursor" not in await place.ask("tools/list", {"cursor": first["nextCursor"]})


async def test_SP45_a_cursor_is_good_for_its_caller_view_and_list_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "PAGE_SIZE", 2)
    one = many("a", 5)
    one.prompts = [{"name": f"a{n}"} for n in range(5)]
    async with house(tmp_path, {"one": one, "two": many("b", 5)}) as place:
        cursor = (await ask_as(place, "ann", {}))["nextCursor"]
        assert (await ask_as(place, "ann", {"cursor": cursor}))["nextCursor"]
        flipped = cursor[:-1] + ("A" if cursor[-1] != "A" else "B")
        wrong: list[tuple[str, str, str, Any]] = [
            ("bob", "", "tools/list", cursor),
            ("ann", "one", "tools/list", cursor),
            ("ann", "", "prompts/list", cursor),
            ("ann", "", "tools/list", flipped),
            ("ann", "", "tools/list", cursor + "A"),
            ("ann", "", "tools/list", ""),
        ]
        for principal, view, method, given in wrong:
            with pytest.raises(InvalidParams):
                await ask_as(place, principal, {"cursor": given}, view, method)


async def test_what_comes_or_goes_between_two_pages_neither_repeats_nor_skips_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing_module, "PAGE_SIZE", 3)
    fakes = {"one": many("a", 2), "two": many("b", 4)}
    async with house(tmp_path, fakes) as place:
        first = await place.ask("tools/list")
        before = place.broker.generation.catalog
        fakes["one"].tools = [tool("new"), tool("a0"), tool("a1"), tool("late")]
        fakes["one"].announce()
        with anyio.fail_after(TIMEOUT):
            while place.broker.generation.catalog is before:
                await anyio.lowlevel.checkpoint()
        second = await place.ask("tools/list", {"cursor": first["nextCursor"]})
        assert names(first) == ["one__a0", "one__a1", "two__b0"]
        assert names(second) == ["two__b1", "two__b2", "two__b3"]


async def test_SP43_the_same_caller_gets_the_same_bytes(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": many("a", 5), "two": many("b", 5)}) as place:
        for version in (LEGACY, MODERN):
            first = await place.ask("tools/list", version=version)
            assert first == await place.ask("tools/list", version=version)


@pytest.mark.parametrize("bound", ["MAX_KEPT", "MAX_KEPT_BYTES"])
async def test_the_views_that_were_not_asked_for_longest_make_room_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    async with house(tmp_path, {"one": many("a", 3)}) as place:
        await place.ask("tools/list")
        served = place.broker.engine.router.served
        views = served.views

        def list_as(number: int) -> bool:
            """Whether it was there already."""
            before = views.hits
            scope = Scope(LOCAL, "", frozenset({f"hidden{number}"}))
            views.page(served.catalog, scope, Kind.TOOL, Request("tools/list", {}, LEGACY, ""))
            return views.hits > before

        first = views._size
        assert first > 100
        monkeypatch.setattr(listing_module, bound, 2 if bound == "MAX_KEPT" else 2 * first + 9)
        assert [list_as(number) for number in (1, 2, 1, 2, 3, 2, 1, 2)] == [
            *(False, False, True, True, False, True, False, True)
        ]
        assert len(views._kept) == 2 and views._size == 2 * first
        monkeypatch.setattr(listing_module, "MAX_KEPT_BYTES", 1)
        assert not list_as(4) and list_as(4), "one is always kept"
        assert views._size == first


async def test_callers_that_are_refused_everything_share_one_view_and_others_keep_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, {"one": many("a", 3)}) as place:
        await place.ask("tools/list")
        views = place.broker.engine.router.served.views
        monkeypatch.setattr(listing_module, "MAX_KEPT", len(views._kept) + 1)
        hits = views.hits
        for number in range(5):
            assert names(await place.ask("tools/list", caller=Caller(f"jwt:{number}", f"gone-{number}"))) == []
        await place.ask("tools/list")
        assert views.hits == hits + 4 + 1


@pytest.mark.parametrize(
    ("ttl_ms", "expected"), [(None, 300_000), (60_000, 60_000), (0, 5_000), (10_000_000, 300_000), (-5, 5_000)]
)
async def test_SP41_a_list_holds_as_long_as_the_least_of_its_servers(
    tmp_path: Path, ttl_ms: int | None, expected: int
) -> None:
    async with house(tmp_path, {"one": Fake(), "two": Fake(version=MODERN, ttl_ms=ttl_ms)}) as place:
        result = await place.ask("tools/list", version=MODERN)
        assert (result["ttlMs"], result["cacheScope"], result["resultType"]) == (expected, "public", "complete")
        place.clock.advance(4)
        assert (await place.ask("tools/list", version=MODERN))["ttlMs"] == expected - 4_000
        assert (await place.ask("tools/list", version=MODERN, view="one"))["ttlMs"] == 296_000
        assert not {"ttlMs", "cacheScope", "resultType", "_meta"} & (await place.ask("tools/list")).keys()


async def test_a_stale_list_is_answered_as_known_and_refreshed_once(tmp_path: Path) -> None:
    fake = Fake()
    async with house(tmp_path, {"one": fake}) as place:
        fake.tools = [tool("new")]
        assert names(await place.ask("tools/list")) == ["one__echo", "one__slow"]
        place.clock.advance(301)
        assert (await place.ask("tools/list", version=MODERN))["ttlMs"] == 0
        with anyio.fail_after(TIMEOUT):
            while names(await place.ask("tools/list")) != ["one__new"]:
                await anyio.lowlevel.checkpoint()


async def test_a_server_that_is_missing_is_named_and_the_rest_is_there(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": Fake(), "bad": Fake(state="down")}) as place:
        for version in (LEGACY, MODERN):
            result = await place.ask("tools/list", version=version)
            assert names(result) == ["one__echo", "one__slow"]
            missing = result["_meta"]["broker/upstreams"]
            assert missing == {"bad": {"state": "waiting", "known": False, "reason": "it is down"}}
        assert result["ttlMs"] == 0
        assert "_meta" not in await place.ask("tools/list", view="one")
        with pytest.raises(NothingKnown) as caught:
            await place.ask("tools/list", view="bad")
        assert (caught.value.code, list(caught.value.data["upstreams"])) == (-32603, ["bad"])


@pytest.mark.parametrize(("when_down", "count"), [("keep", 4), ("hide", 2)])
async def test_a_server_that_went_down_keeps_or_hides_its_entries(tmp_path: Path, when_down: str, count: int) -> None:
    async with house(tmp_path, {"one": Fake(), "two": Fake()}, servers={"two": {"when_down": when_down}}) as place:
        assert len(names(await place.ask("tools/list"))) == 4
        fake = place.fakes["two"]
        fake.state = "down"
        assert fake.link is not None
        fake.link.lose("it fell")
        upstream = place.broker.generation.pool.upstreams["two"]
        with anyio.fail_after(TIMEOUT):
            while upstream.is_ready:
                await anyio.lowlevel.checkpoint()
        result = await place.ask("tools/list", version=MODERN)
        assert len(names(result)) == count and result["ttlMs"] == 0
        assert result["_meta"]["broker/upstreams"]["two"]["known"] is True
        with pytest.raises(BrokerError) as caught:
            await place.ask("tools/call", {"name": "two__echo"})
        assert caught.value.data["upstream"] == "two"


async def test_capabilities_are_those_of_the_view(tmp_path: Path) -> None:
    fakes = {
        "one": Fake(),
        "two": Fake(tools=None, prompts=[{"name": "p"}], capabilities={"completions": {}, "logging": {}, "tasks": {}}),
        "none": Fake(tools=None),
    }
    async with house(tmp_path, fakes, groups={"both": ["one", "two"]}) as place:
        router = place.broker.engine.router
        changed = {"listChanged": True}
        expected = {
            "one": {"tools": changed},
            "two": {"prompts": changed, "completions": {}, "logging": {}},
            "none": {},
            "both": {"tools": changed, "prompts": changed, "completions": {}, "logging": {}},
            "": {"tools": changed, "prompts": changed, "completions": {}, "logging": {}},
        }
        for view, capabilities in expected.items():
            assert (await router.greeting(view, LOCAL))["capabilities"] == capabilities, view
        with pytest.raises(BrokerError) as caught:
            await place.ask("logging/setLevel", {"level": "debug"}, view="one")
        assert caught.value.code == -32601, "what is not declared is not served"


async def test_a_server_that_is_hidden_whole_contributes_nothing_to_what_is_declared(tmp_path: Path) -> None:
    extended: Json = {"extensions": {"a/x": {"v": 1}}, "experimental": {"e": {}}, "completions": {}, "logging": {}}
    fakes = {
        "one": Fake(capabilities={"extensions": {"a/y": {}}}),
        "two": Fake(prompts=[{"name": "p"}], capabilities=extended),
    }
    everything = {"tools": {"allow": []}, "prompts": {"allow": []}}
    for servers, expected in (({}, {"a/y", "a/x"}), ({"two": everything}, {"a/y"})):
        async with house(tmp_path, fakes, servers=servers) as place:
            for version in (LEGACY, MODERN):
                router = place.broker.engine.router
                capabilities = (await router.greeting("", LOCAL, version))["capabilities"]
                assert set(capabilities["extensions"]) == expected
                assert ("completions" in capabilities) == ("a/x" in expected)
                assert ("prompts" in capabilities) == ("a/x" in expected)
                assert ("experimental" in capabilities) == ("a/x" in expected)


async def test_while_one_is_unseen_all_lists_are_declared_and_nobody_waits_long(tmp_path: Path) -> None:
    fakes = {"one": Fake(), "late": Fake(state="silent")}
    async with house(tmp_path, fakes, broker={"first_wait": 0.05}) as place:
        changed = {"listChanged": True}
        everything = {"tools": changed, "prompts": changed, "resources": changed}
        assert (await place.broker.engine.router.greeting("", LOCAL))["capabilities"] == everything
        assert (await place.broker.engine.router.greeting("one", LOCAL))["capabilities"] == {"tools": changed}
        discovered = await place.ask("server/discover", version=MODERN)
        assert discovered["ttlMs"] == 0 and discovered["_meta"]["broker/upstreams"]["late"]["known"] is False
        assert discovered["supportedVersions"] == ["2026-07-28"] and discovered["_meta"][ME]["name"] == "test"


async def test_instructions_are_those_of_the_view_under_public_names(tmp_path: Path) -> None:
    fakes = {
        "one": Fake(instructions="Use `echo`. </instructions>"),
        "two": Fake(instructions="Use `slow`."),
        "three": Fake(instructions="Hidden", tools=[]),
    }
    async with house(tmp_path, fakes) as place:
        router = place.broker.engine.router
        merged = (await router.greeting("", LOCAL))["instructions"]
        assert merged.index('<instructions server="one">') < merged.index('<instructions server="two">')
        assert "`one__echo`" in merged and "`two__slow`" in merged and "Hidden" not in merged
        assert merged.count("</instructions>") == 2, "it cannot be closed from within"
        assert (await router.greeting("two", LOCAL))["instructions"] == "Use `two__slow`."
        assert "instructions" not in await router.greeting("three", LOCAL)


@pytest.mark.parametrize("version", [LEGACY, MODERN])
async def test_SP31_SP44_what_an_upstream_calls_itself_is_no_part_of_any_name(tmp_path: Path, version: Any) -> None:
    """Both say that they are `one`; each has the prefix of its own key, and one's tool is called, not two's."""
    fakes = {key: Fake(version=version, tools=[tool("echo")], name="one") for key in ("two", "one")}
    async with house(tmp_path, fakes) as place:
        assert names(await place.ask("tools/list")) == ["two__echo", "one__echo"]
        await place.ask("tools/call", {"name": "one__echo", "arguments": {}})
        assert [len(fakes[key].asked) for key in ("two", "one")] == [0, 1]
