"""Fixtures for every test. The machinery is in tests/peers.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import peers as _peers


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The broker runs on asyncio; async tests need no marker (`anyio_mode = "auto"`)."""
    return "asyncio"


@pytest.fixture
def free_port() -> int:
    return _peers.free_port()


@pytest.fixture
def peers(tmp_path: Path) -> Iterator[_peers.Peers]:
    """Starts the servers of tests/servers as real processes; whatever it started is killed after the test."""
    directory = tmp_path / "peers"
    directory.mkdir()
    started = _peers.Peers(directory)
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="session")
def node() -> str:
    """The node executable; skips without it, fails with BROKER_REQUIRE_NODE=1."""
    return _peers.require_node()


@pytest.fixture(scope="session")
def everything(node: str) -> list[str]:
    """The stdio command of @modelcontextprotocol/server-everything; `peers.start_everything()` serves it over HTTP."""
    return [node, str(_peers.require_everything()), "stdio"]


@pytest.fixture(scope="session")
def sdk1_python() -> Path:
    """The interpreter of .venv-sdk1, which has `mcp<2`: run tests/sdk1/client.py with it."""
    return _peers.require_sdk1()
