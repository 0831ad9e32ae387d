"""A configuration becomes values: names, rules, texts, places; and a catalog before anything is started."""

from pathlib import Path
from typing import Any

import pytest

from broker.app import Broker
from broker.clock import FakeClock
from broker.compiled import catalog_directory, naming_of, policy_of, state_directory, texts_of
from broker.config import Loaded, load
from broker.core.caller import LOCAL
from broker.core.catalog import Entry
from broker.core.policy import Permit, decide
from broker.core.request import Kind
from broker.generation import Generation
from broker.relay.notify import Hub
from tests.relay.fake import Fake, house, tool, write_config


def loaded(directory: Path, servers: dict[str, Any], **more: Any) -> Loaded:
    return load(write_config(directory, servers, **more), {})


def test_disabled_servers_keep_their_names_reserved(tmp_path: Path) -> None:
    servers = {"bare": {"prefix": ""}, "off": {"enabled": False}, "other": {"prefix": "word"}}
    config = loaded(tmp_path, servers).config
    naming = naming_of(config)
    bare, off, other = naming.mounts
    assert [mount.key for mount in naming.mounts] == ["bare", "off", "other"]
    assert naming.publish_name(bare, "off__x") is None and naming.publish_uri(bare, "off+x:y") is None
    assert naming.publish_name(bare, "other__x") == "other__x", "the key is no prefix any more"
    assert naming.publish_name(other, "x") == "word__x" and naming.publish_name(off, "x") == "off__x"


def test_a_longer_limit_of_names_is_taken_from_the_file(tmp_path: Path) -> None:
    naming = naming_of(loaded(tmp_path, {"one": {}}, naming={"max_length": 64}).config)
    assert naming.publish_name(naming.mounts[0], "x" * 59) == "one__" + "x" * 59


def test_the_rules_of_the_file_decide_and_views_are_servers_and_groups(tmp_path: Path) -> None:
    servers = {
        "one": {"tools": {"allow": ["get_*"], "deny": ["get_secret"]}, "resources": {"deny": ["file:///etc/*"]}},
        "two": {"prompts": {"allow": []}},
    }
    policy = policy_of(loaded(tmp_path, servers, groups={"both": ["one", "two"], "solo": ["two"]}).config)

    def may(kind: Kind, server: str, own: str, view: str = "") -> bool:
        entry = Entry(kind, f"{server}__{own}", server, own, {"name": own})
        return isinstance(decide(policy, LOCAL, view, entry), Permit)

    assert (
        may(Kind.TOOL, "one", "get_x") and not may(Kind.TOOL, "one", "get_secret") and not may(Kind.TOOL, "one", "put")
    )
    assert not may(Kind.RESOURCE, "one", "file:///etc/passwd") and may(Kind.RESOURCE, "one", "file:///srv")
    assert not may(Kind.TEMPLATE, "one", "file:///etc/{x}"), "templates by the rules for resources"
    assert may(Kind.TOOL, "two", "any") and not may(Kind.PROMPT, "two", "any")
    assert may(Kind.TOOL, "two", "any", "both") and may(Kind.TOOL, "two", "any", "solo")
    assert not may(Kind.TOOL, "one", "get_x", "solo") and not may(Kind.TOOL, "one", "get_x", "nobody")
    assert {"one", "two", "both", "solo"} == set(policy.views) and not policy.has_view("")


def test_the_texts_of_the_file(tmp_path: Path) -> None:
    servers = {
        "own": {},
        "none": {"instructions": "none"},
        "text": {"instructions": {"text": "mine"}, "instructions_max": 7},
    }
    texts = texts_of(loaded(tmp_path, servers, broker={"instructions": "Hello", "instructions_max": 99}).config)
    assert (texts.preamble, texts.limit) == ("Hello", 99)
    assert texts.replacements == {"own": None, "none": "", "text": "mine"}
    assert texts.limits == {"own": 8192, "none": 8192, "text": 7}


def test_the_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = loaded(tmp_path, {}).config
    assert state_directory(config) == tmp_path / "state" and catalog_directory(config) == tmp_path / "state" / "catalog"
    usual = loaded(tmp_path, {}, broker={"state_dir": None}).config
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg"))
    assert state_directory(usual) == tmp_path / "xdg" / "mcp-broker"
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert state_directory(usual) == tmp_path / "home" / ".local" / "state" / "mcp-broker"
    tilde = loaded(tmp_path, {}, broker={"state_dir": "~/broker"}).config
    assert state_directory(tilde) == tmp_path / "home" / "broker"


def test_building_starts_nothing_and_writes_nothing(tmp_path: Path) -> None:
    generation = Generation.build(loaded(tmp_path, {"one": {}, "off": {"enabled": False}}), FakeClock(), Hub())
    assert list(generation.pool.upstreams) == ["one"] and generation.shown("", LOCAL) == ("one",)
    assert not generation.pool.upstreams["one"].is_ready and list(generation.catalog.entries(Kind.TOOL)) == []
    assert not (tmp_path / "state").exists()


async def test_a_snapshot_gives_a_catalog_before_anything_is_started(tmp_path: Path) -> None:
    fakes = {"one": Fake(tools=[tool("echo"), tool("b.c")], instructions="Use `echo`.")}
    async with house(tmp_path, fakes) as place:
        public = [entry.public for entry in place.broker.generation.catalog.entries(Kind.TOOL)]
        path = place.broker.loaded.path
    again = Broker(load(path, {}), clock=FakeClock())
    assert [entry.public for entry in again.generation.catalog.entries(Kind.TOOL)] == public
    greeting = await again.engine.router.greeting("", LOCAL)
    assert greeting == {"capabilities": {"tools": {"listChanged": True}}, "instructions": "Use `one__echo`."}
    assert again.generation.hidden() == frozenset()


async def test_a_changed_definition_is_another_server_and_has_no_snapshot(tmp_path: Path) -> None:
    async with house(tmp_path, {"one": Fake()}):
        pass
    changed = Broker(loaded(tmp_path, {"one": {"url": "http://127.0.0.1:2/other"}}), clock=FakeClock())
    assert list(changed.generation.catalog.entries(Kind.TOOL)) == []


async def test_what_is_configured_to_be_hidden_is_hidden_until_it_is_up(tmp_path: Path) -> None:
    servers = {"one": {"when_down": "hide"}}
    async with house(tmp_path, {"one": Fake()}, servers=servers) as place:
        assert place.broker.generation.hidden() == frozenset()
        path = place.broker.loaded.path
    again = Broker(load(path, {}), clock=FakeClock())
    assert again.generation.hidden() == {"one"}


@pytest.mark.parametrize("isolation", ["shared", "caller", "session"])
def test_a_configuration_is_built_before_any_event_loop_runs(tmp_path: Path, isolation: str) -> None:
    made = Generation.build(loaded(tmp_path, {"one": {"isolation": isolation}}), FakeClock(), Hub())
    assert list(made.pool.isolated) == ([] if isolation == "shared" else ["one"])
