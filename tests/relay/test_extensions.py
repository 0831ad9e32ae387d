"""Methods and notifications of extensions: to the one server that shares one with the caller, and by the rules."""

from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from broker.core.caller import LOCAL, Caller
from broker.core.era import Version
from broker.core.questions import Question
from broker.core.request import Request
from broker.errors import BrokerError
from broker.relay.notify import Subscriber
from broker.upstream.lease import Asker
from broker.upstream.peer import Peer
from tests.relay.fake import LEGACY, MODERN, TIMEOUT, Asked, Fake, House, Json, answering, house, tool

KNOWS: Json = {"extensions": {"a/x": {}}}
ERAS = (LEGACY, MODERN)


def server(version: Version = LEGACY, **more: Any) -> Fake:
    return Fake(version, **{"capabilities": dict(KNOWS), **more})


def with_secrets(version: Version) -> Fake:
    return server(
        version,
        tools=[tool("open"), tool("secret")],
        prompts=[{"name": "greet"}],
        resources=[{"uri": "a:open", "name": "o"}, {"uri": "a:secret", "name": "s"}],
        templates=[],
    )


async def code_of(place: House, method: str, params: Json | None = None, **more: Any) -> int:
    with pytest.raises(BrokerError) as caught:
        await place.ask(method, params, **more)
    return caught.value.code


@pytest.mark.parametrize("caller", ERAS)
@pytest.mark.parametrize("upstream", ERAS)
async def test_a_method_goes_to_the_one_visible_server_that_shares_an_extension(
    tmp_path: Path, caller: Version, upstream: Version
) -> None:
    fakes = {"one": server(upstream), "two": Fake(upstream), "three": server(upstream)}
    fakes["one"].answers["x/do"] = answering({"n": 1})
    hides: Json = {"three": {"tools": {"allow": []}}}
    known: Json = {"version": caller, "capabilities": KNOWS}
    async with house(tmp_path, fakes, servers=hides) as place:
        found = await place.ask("x/do", {"v": [1, None]}, **known)
        assert found["n"] == 1
        sent = {name: value for name, value in fakes["one"].asked[0].params.items() if name != "_meta"}
        assert sent == {"v": [1, None]}
        assert await code_of(place, "x/do", version=caller) == -32601, "the caller did not declare it"
        for other in ({"extensions": {"b/y": {}}}, {"experimental": {"a/x": {}}}):
            assert await code_of(place, "x/do", version=caller, capabilities=other) == -32601
        assert await code_of(place, "x/do", view="two", **known) == -32601
        assert await code_of(place, "x/do", view="three", **known) == -32601, "it is hidden whole"
        assert await code_of(place, "x/do", caller=Caller("nobody"), **known) == -32601
        assert await code_of(place, "roots/list", **known) == -32601, "what the core knows is no extension's"
        assert len(fakes["one"].asked) == 1 and not fakes["two"].asked and not fakes["three"].asked


async def test_with_several_servers_nobody_is_meant(tmp_path: Path) -> None:
    fakes = {"one": server(), "two": server()}
    async with house(tmp_path, fakes) as place:
        assert await code_of(place, "x/do", capabilities=KNOWS) == -32601
        await place.ask("x/do", capabilities=KNOWS, view="two")
        assert not fakes["one"].asked and len(fakes["two"].asked) == 1


@pytest.mark.parametrize("version", ERAS)
async def test_names_and_uris_are_the_servers_own_and_rules_hold(tmp_path: Path, version: Version) -> None:
    one = with_secrets(version)
    rules: Json = {"one": {"tools": {"deny": ["secret"]}, "resources": {"deny": ["a:secret"]}}}
    async with house(tmp_path, {"one": one, "two": Fake()}, servers=rules) as place:
        known: Json = {"capabilities": KNOWS, "version": version}
        for given, own in (
            ({"name": "one__open", "uri": "one+a:open"}, {"name": "open", "uri": "a:open"}),
            ({"name": "open", "uri": "a:open"}, {"name": "open", "uri": "a:open"}),
            ({"ref": {"name": "one__greet"}, "name": 1}, {"ref": {"name": "greet"}, "name": 1}),
        ):
            await place.ask("x/do", given, **known)
            assert {name: one.asked[-1].params.get(name) for name in own} == own
        for denied in (
            {"name": "secret"},
            {"name": "one__secret"},
            {"uri": "a:secret"},
            {"uri": "one+a:secret"},
            {"ref": {"uri": "a:secret"}},
            {"taskId": "one.t"},
        ):
            before = len(one.asked)
            assert await code_of(place, "x/do", denied, **known) in (-32602, -32002)
            assert len(one.asked) == before, denied


@pytest.mark.parametrize("version", ERAS)
async def test_what_the_broker_does_not_know_passes_where_nothing_is_hidden(tmp_path: Path, version: Version) -> None:
    one = with_secrets(version)
    given: Json = {"uri": "https://example.com/", "name": "whatever", "ref": {"name": "other"}}
    async with house(tmp_path, {"one": one, "two": Fake()}) as place:
        await place.ask("x/do", given, capabilities=KNOWS, version=version)
        assert {name: one.asked[-1].params.get(name) for name in given} == given


@pytest.mark.parametrize("version", ERAS)
async def test_I13_what_is_hidden_sounds_like_what_no_server_has(tmp_path: Path, version: Version) -> None:
    one = with_secrets(version)
    hides: Json = {"allow": [{"tools": ["one__open"]}, {"resources": ["one+a:open"]}]}
    asking: Json = {"capabilities": KNOWS, "version": version, "caller": Caller("key:ann", "acme")}
    async with house(tmp_path, {"one": one, "two": Fake()}, organizations={"acme": hides}) as place:
        for form in ({"name": "X"}, {"name": "one__X"}, {"uri": "a:X"}, {"uri": "one+a:X"}, {"ref": {"name": "X"}}):
            said: set[str] = set()
            for word in ("secret", "nothing"):
                with pytest.raises(BrokerError) as caught:
                    await place.ask("x/do", filled_in(form, word), **asking)
                said.add(str(caught.value.to_json()).replace(word, "X"))
            assert len(said) == 1, said
        assert one.asked == []
        await place.ask("x/do", {"name": "open", "uri": "a:open"}, **asking)
        assert len(one.asked) == 1


def filled_in(value: Any, word: str) -> Any:
    if isinstance(value, dict):
        return {name: filled_in(inner, word) for name, inner in value.items()}
    return value.replace("X", word)


async def test_what_the_broker_knows_in_a_result_is_published(tmp_path: Path) -> None:
    one = with_secrets(LEGACY)
    one.answers["x/do"] = answering(
        {
            "uri": "a:open",
            "tools": [{"name": "open"}, {"name": "unknown"}, 1],
            "resources": [{"uri": "a:open"}],
            "resourceTemplates": [{"uriTemplate": "a:{x}"}],
            "contents": [{"uri": "a:open"}],
            "messages": [{"content": {"type": "resource_link", "uri": "a:open"}}],
            "content": [{"type": "resource_link", "uri": "a:open"}],
            "_meta": {"ui": {"resourceUri": "ui://x"}},
        }
    )
    async with house(tmp_path, {"one": one}) as place:
        link = {"type": "resource_link", "uri": "one+a:open"}
        assert await place.ask("x/do", capabilities=KNOWS) == {
            "uri": "one+a:open",
            "tools": [{"name": "one__open"}, {"name": "unknown"}, 1],
            "resources": [{"uri": "one+a:open"}],
            "resourceTemplates": [{"uriTemplate": "one+a:{x}"}],
            "contents": [{"uri": "one+a:open"}],
            "messages": [{"content": link}],
            "content": [link],
            "_meta": {"ui": {"resourceUri": "ui://one+x"}},
        }


async def test_kinds_of_results_that_an_extension_adds_pass_where_both_sides_know_it(tmp_path: Path) -> None:
    one = server(MODERN)
    one.answers["echo"] = answering({"resultType": "a/kind", "v": 1})
    async with house(tmp_path, {"one": one}) as place:
        call = {"name": "one__echo"}
        assert (await place.ask("tools/call", call, version=MODERN, capabilities=KNOWS))["resultType"] == "a/kind"
        assert await code_of(place, "tools/call", call, version=MODERN) == -32603
        assert await code_of(place, "tools/call", call, version=LEGACY, capabilities=KNOWS) == -32603
        one.answers["echo"] = answering({"resultType": "task", "taskId": "t"})
        assert await code_of(place, "tools/call", call, version=MODERN, capabilities=KNOWS) == -32603


async def test_a_notification_belongs_to_its_call_or_goes_to_who_knows_the_extension(tmp_path: Path) -> None:
    one = server()
    said: Json = {"uri": "a:b", "_meta": {"kept": 1, "progressToken": 1}}

    async def speak(asked: Asked) -> Json:
        asked.waiting.notice("notifications/x/said", dict(said))
        return {"content": []}

    one.answers["echo"] = speak
    async with house(tmp_path, {"one": one}) as place:
        heard: dict[str, list[Any]] = {"knows": [], "not": [], "nobody": [], "modern": [], "call": []}
        hub = place.broker.engine.hub
        for name, caller, capabilities, session in (
            ("knows", LOCAL, KNOWS, "s"),
            ("not", LOCAL, {}, "t"),
            ("nobody", Caller("nobody"), KNOWS, "u"),
            ("modern", LOCAL, KNOWS, ""),
        ):
            deliver = lambda method, params, name=name: heard[name].append((method, params))  # noqa: E731
            hub.add(Subscriber(caller, "", deliver, session=session, capabilities=capabilities))
        expected = ("notifications/x/said", {"uri": "one+a:b", "_meta": {"kept": 1}})

        def emit(method: str, params: Json) -> None:
            heard["call"].append((method, params))

        await place.ask("tools/call", {"name": "one__echo"}, emit=emit, capabilities=KNOWS)
        assert heard["call"] == [expected] and not heard["knows"], "it is the call's"
        await place.ask("tools/call", {"name": "one__echo"}, emit=emit)
        assert heard["call"] == [expected], "its caller does not know the extension"
        assert one.link is not None
        one.link._unsolicited("notifications/x/said", dict(said))
        assert heard == {"knows": [expected], "not": [], "nobody": [], "modern": [], "call": [expected]}
        for _ in range(1000):
            one.link._unsolicited("notifications/x/said", dict(said))
        assert len(heard["knows"]) <= 100, "bounded like log messages"


async def test_a_callers_notification_goes_to_the_server_that_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, told, heard = with_secrets(LEGACY), [], anyio.Event()
    rules: Json = {"one": {"tools": {"deny": ["secret"]}}}
    async with house(tmp_path, {"one": one, "two": Fake()}, servers=rules) as place:

        async def notify(method: str, params: Any = None) -> None:
            told.append((method, params))
            heard.set()

        monkeypatch.setattr(one.link, "notify", notify)
        router = place.broker.engine.router
        for method, params, declared in (
            ("notifications/x/hello", {"name": "one__open"}, {}),
            ("notifications/x/hello", {"name": "one__secret"}, KNOWS),
            ("notifications/progress", {"progress": 1}, KNOWS),
            ("notifications/x/hello", {"name": "one__open"}, KNOWS),
        ):
            router.note(Request(method, params, LEGACY), LOCAL, Asker(LOCAL.principal, "", declared))
        with anyio.fail_after(TIMEOUT):
            await heard.wait()
        assert told == [("notifications/x/hello", {"name": "open"})]


async def test_a_page_of_mcp_apps_calls_its_tool_by_the_name_that_it_knows(tmp_path: Path) -> None:
    page: Json = {"_meta": {"ui": {"resourceUri": "ui://clock"}}}
    fakes = {
        "one": Fake(tools=[tool("show", **page), tool("plain"), tool("both", **page)]),
        "two": Fake(tools=[tool("both", **page), tool("show")]),
    }
    async with house(tmp_path, fakes) as place:
        place.guest("bob")
        await place.ask("tools/call", {"name": "show"})
        assert [asked.params["name"] for asked in fakes["one"].asked] == ["show"] and not fakes["two"].asked
        unknown = await code_of(place, "tools/call", {"name": "never"})
        for name in ("plain", "both"):
            assert await code_of(place, "tools/call", {"name": name}) == unknown
        assert await code_of(place, "tools/call", {"name": "show"}, caller=Caller("nobody")) == unknown
        assert await code_of(place, "tools/call", {"name": "show"}, view="two") == unknown
        await place.ask("tools/call", {"name": "both"}, view="two")
        assert fakes["two"].asked[-1].params["name"] == "both", "of those that are visible there is one"


async def test_a_server_that_is_hidden_while_it_is_down_is_announced_when_it_goes_and_comes(tmp_path: Path) -> None:
    fakes = {"one": Fake(), "two": Fake()}
    async with house(tmp_path, fakes, servers={"one": {"when_down": "hide"}}) as place:
        told: dict[str, list[str]] = {"sees": [], "nothing": []}
        changed = anyio.Event()

        def deliver(method: str, params: Json) -> None:
            told["sees"].append(method)
            changed.set()

        hub = place.broker.engine.hub
        hub.add(Subscriber(LOCAL, "", deliver))
        hub.add(Subscriber(LOCAL, "two", lambda method, params: told["nothing"].append(method)))
        link = fakes["one"].link
        assert link is not None
        link.lose("it went")
        with anyio.fail_after(TIMEOUT):
            await changed.wait()
            assert told["sees"] == ["notifications/tools/list_changed"]
            assert all(not one["name"].startswith("one") for one in (await place.ask("tools/list"))["tools"])
            changed = anyio.Event()
            while len(told["sees"]) < 2:
                place.clock.advance(1.0)
                await anyio.lowlevel.checkpoint()
        assert any(one["name"].startswith("one") for one in (await place.ask("tools/list"))["tools"])
        assert not told["nothing"]


class _Replies:
    """A legacy caller's side: what it was asked, and what it says."""

    def __init__(self, answer: Json) -> None:
        self.answer = answer
        self.asked: list[Question] = []

    async def ask(self, question: Question) -> Json:
        self.asked.append(question)
        return self.answer


async def ask_beyond(asked: Asked) -> Json:
    return {"content": [], "vendor": await asked.ask("x/ask", {"uri": "a:open", "name": "open", "v": [1, None]})}


async def test_a_request_of_an_extension_reaches_the_caller_of_its_call_and_the_answer_has_the_servers_names(
    tmp_path: Path,
) -> None:
    fake = with_secrets(LEGACY)
    fake.answers["open"] = ask_beyond
    deny: Json = {"one": {"tools": {"deny": ["secret"]}}}
    async with house(tmp_path, {"one": fake}, servers=deny) as place:

        async def call(answer: Json, **more: Any) -> tuple[Json, _Replies]:
            replies = _Replies(answer)
            known = {"capabilities": KNOWS, "channel": replies, **more}
            return (await place.ask("tools/call", {"name": "one__open"}, **known))["vendor"], replies

        assert fake.link is not None
        fake.link.peer = Peer(LEGACY, capabilities=KNOWS)
        heard, replies = await call({"uri": "one+a:open", "name": "one__open", "n": 1})
        assert heard["result"] == {"uri": "a:open", "name": "open", "n": 1}
        assert replies.asked == [Question("x/ask", {"uri": "one+a:open", "name": "open", "v": [1, None]})]
        for answer in ({"name": "one__secret"}, {"name": "secret"}):
            assert (await call(answer))[0]["error"]["code"] == -32602, "what the caller may not use goes no further"
        for more in ({"capabilities": {}}, {"capabilities": {"extensions": {"b/y": {}}}}, {"version": MODERN}):
            heard, replies = await call({}, **more)
            assert heard["error"]["code"] == -32601 and not replies.asked, more


async def test_a_request_of_an_extension_that_no_call_or_no_side_owns_is_a_method_that_nobody_has(
    tmp_path: Path,
) -> None:
    fake = with_secrets(LEGACY)
    async with house(tmp_path, {"one": fake}, servers={"one": {"isolation": "caller"}}) as place:
        await place.ask("tools/call", {"name": "one__open"}, capabilities=KNOWS, session="s")
        link = fake.links[-1]
        for method, capabilities in (("x/ask", KNOWS), ("x/ask", {}), ("tools/call", KNOWS)):
            link.peer = Peer(LEGACY, capabilities=capabilities)
            message: Json = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {}}
            answer = await link._answer_question(message, None)
            assert answer is not None and b"-32601" in answer
