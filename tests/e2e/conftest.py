"""Brokers as processes, and the one world that the matrix shares."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.brokers import Brokers
from tests.e2e.world import World
from tests.peers import Peers


@pytest.fixture
def brokers(tmp_path: Path) -> Iterator[Brokers]:
    """Starts brokers; whatever it started is ended after the test."""
    directory = tmp_path / "brokers"
    directory.mkdir()
    started = Brokers(directory)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="session")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """A broker in front of every kind of upstream. Async, so that all tests share the loop of its pipes."""
    peers = Peers(tmp_path_factory.mktemp("world-peers"))
    brokers = Brokers(tmp_path_factory.mktemp("world-brokers"))
    try:
        started = World.start(peers, brokers)
        async with started.pipes:
            yield started
    finally:
        brokers.close()
        peers.close()
