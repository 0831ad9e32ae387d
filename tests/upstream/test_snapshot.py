"""The last known listing, on disk."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

from broker.core.catalog import Cleaned, Dropped, Listing
from broker.core.era import LATEST_MODERN
from broker.core.request import Kind
from broker.upstream.snapshot import Snapshots
from tests.hostile.conftest import BrokerOf, Puppet
from tests.hostile.harness import raw, rewrite
from tests.upstream.fakes import tool

KEY = "f" * 64
LISTING = Listing(
    LATEST_MODERN,
    {"name": "x"},
    {"tools": {}},
    "hello \u2028",
    {Kind.TOOL: (tool("a", unknown={"kept": 2**70}),), Kind.RESOURCE: ({"uri": "a:b"},)},
    {Kind.TOOL: 1.5},
    (Dropped(Kind.TOOL, "b", "why"),),
    (Cleaned("tools", "a", "what"),),
)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    directory = tmp_path / "a" / "b"
    Snapshots(directory).save(KEY, LISTING)
    assert Snapshots(directory).load(KEY) == LISTING
    assert Snapshots(directory).load("0" * 64) is None
    assert [path.name for path in directory.iterdir()] == [f"{KEY}.json"]
    assert directory.stat().st_mode & 0o077 == 0


def changed(**changes: Any) -> bytes:
    document: dict[str, Any] = {"format": 2, "version": "2025-11-25", "info": {}, "capabilities": {}}
    document |= {"instructions": None, "items": {}, "ttl": {}, "dropped": [], "cleaned": [], **changes}
    return json.dumps({name: value for name, value in document.items() if value != "absent"}).encode()


CORRUPT: dict[str, bytes] = {
    "empty": b"",
    "half": changed()[:50],
    "not UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "a number": b"7",
    "deep": b"[" * 10_000,
    "another format": changed(format=1),
    "no format": changed(format="absent"),
    "an unknown version": changed(version="2099-01-01"),
    "no version": changed(version=None),
    "info is a number": changed(info=7),
    "info is a text": changed(info="abc"),
    "items is a list": changed(items=[1]),
    "items is null": changed(items=None),
    "an unknown kind": changed(items={"toys": []}),
    "an item that is a text": changed(items={"tools": ["x"]}),
    "an item without a name": changed(items={"tools": [{"inputSchema": {}}]}),
    "a tool without a schema": changed(items={"tools": [{"name": "a"}]}),
    "a tool whose schema is a list": changed(items={"tools": [{"name": "a", "inputSchema": []}]}),
    "tools is a number": changed(items={"tools": 7}),
    "ttl is a list": changed(ttl=[]),
    "ttl is a word": changed(ttl={"tools": "soon"}),
    "instructions is a number": changed(instructions=7),
    "dropped is a number": changed(dropped=7),
    "dropped is short": changed(dropped=[["tools"]]),
}


@pytest.mark.parametrize("case", list(CORRUPT))
async def test_a_snapshot_that_does_not_hold_is_as_good_as_none(
    broker_of: BrokerOf,
    tmp_path: Path,
    case: str,
) -> None:
    (tmp_path / f"{KEY}.json").write_bytes(CORRUPT[case])
    assert Snapshots(tmp_path).load(KEY) is None


async def test_a_broker_starts_over_a_corrupt_snapshot_and_replaces_it(
    broker_of: BrokerOf,
    tmp_path: Path,
) -> None:
    async with broker_of({"up": raw()}) as run:
        await run.innocent("up")
    catalog = tmp_path / "state" / "catalog"
    for path in catalog.iterdir():
        path.write_bytes(CORRUPT["a tool without a schema"])
    async with broker_of({"up": raw()}) as run:
        await run.innocent("up")
    assert all(b'"ok"' in path.read_bytes() for path in catalog.iterdir())


async def test_a_server_that_was_seen_is_listed_before_it_connects(
    broker_of: BrokerOf,
    puppet: Puppet,
) -> None:
    up = puppet({})
    async with broker_of({"up": up}) as run:
        await run.ready("up", "good")
    rewrite(up, {"start": [["hang", 0]]})
    async with broker_of({"up": up}) as run:
        assert await run.tools() == ["good__ok", "good__boom", "up__ok", "up__boom"]


def test_a_directory_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    snapshots = Snapshots(tmp_path / "file" / "below")
    assert snapshots.load(KEY) is None
    snapshots.save(KEY, LISTING)
    snapshots.save(KEY, LISTING)
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "set broker.state_dir" in record.getMessage()


async def test_a_broker_runs_without_a_state_directory(
    broker_of: BrokerOf,
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("", encoding="ascii")
    async with broker_of({"up": raw()}, state_dir=str(tmp_path / "file" / "below")) as run:
        await run.innocent("up")


def test_brokers_that_share_a_directory_never_see_half_a_file(tmp_path: Path) -> None:
    one, two = Snapshots(tmp_path), Snapshots(tmp_path)
    long = Listing(items={Kind.TOOL: tuple(tool(f"t{n}", title="x" * 100) for n in range(500))})
    one.save(KEY, LISTING)
    writers = [threading.Thread(target=lambda s=s, w=w: [s.save(KEY, w) for _ in range(50)]) for s, w in
               ((one, LISTING), (two, long))]  # fmt: skip
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        assert Snapshots(tmp_path).load(KEY) in (LISTING, long)
    for writer in writers:
        writer.join()
    assert len(list(tmp_path.iterdir())) == 1
