"""Fixtures for every test. The machinery is in tests/peers.py."""

import gc
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from broker import secrecy
from broker.core.redaction import KnownSecrets
from tests import peers as _peers

# How long an example takes says how busy the machine is; what must be cheap is counted, or its CPU is measured.
settings.register_profile(
    "any machine",
    parent=settings.get_profile(settings.get_current_profile_name()),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")

Tell = Callable[[str, str], None]
"""A title, and a text that is shown under it at the end of the run, whether tests passed or not."""
_TOLD = pytest.StashKey[dict[str, str]]()


LONG = ("conformance", "soak", "fidelity", "cli", "e2e", "workers", "hostile", "guardrails", "servers", "upstream")
"""Directories whose files take long, the longest first. With several processes (`--dist loadfile`) a file is one
process's, and one that takes a minute must not begin when the others have nothing left to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: places.get(item.path.parent.name, len(places)))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist gives what was told to the process that prints."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["told"] = session.config.stash.get(_TOLD, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash.setdefault(_TOLD, {}).update(getattr(node, "workeroutput", {}).get("told", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for title, text in config.stash.get(_TOLD, {}).items():
        terminalreporter.section(title)
        terminalreporter.write_line(text)


@pytest.fixture(scope="session")
def tell(pytestconfig: pytest.Config) -> Tell:
    """For tests whose figures are worth reading also when they are good."""
    told = pytestconfig.stash.setdefault(_TOLD, {})
    return told.__setitem__


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The broker runs on asyncio; async tests need no marker (`anyio_mode = "auto"`)."""
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_is_secret_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process must not say, it never says again: a secret of one test is none of the next."""
    monkeypatch.setattr(secrecy, "_known", KnownSecrets())


@pytest.fixture(autouse=True)
def logs_are_as_before() -> Iterator[None]:
    """A command that runs in this process sets up its logs: those of one test are none of the next."""
    root, ours = logging.getLogger(), logging.getLogger("broker")
    before = root.handlers[:], root.level, ours.level, logging.raiseExceptions
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])
    logging.raiseExceptions = before[3]


@pytest.fixture(autouse=True)
def garbage_is_collected() -> Iterator[None]:
    """A command that runs in this process turns the collector off while it loads; one that fails leaves it so."""
    gc.enable()
    yield
    gc.enable()


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
