"""Fixtures for hostile upstreams; the machinery is in harness.py, cost.py, puppet.py and web.py."""

import json
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

import broker.identity.issuers
import broker.outbound.fetch
import broker.upstream.tlswire  # noqa: F401 - a program loads what its configuration needs before it serves
from broker.clock import Clock
from tests.hostile.cost import bounded
from tests.hostile.harness import Running, broker_over, command
from tests.peers import ROOT

BrokerOf = Callable[..., AbstractAsyncContextManager[Running]]
Puppet = Callable[..., dict[str, Any]]


@pytest.fixture
def broker_of(tmp_path: Path) -> BrokerOf:
    """A broker over these servers and `good`: `async with broker_of({"bad": {...}}) as run`."""

    def start(servers: dict[str, Any], clock: Clock | None = None, **settings: Any) -> Any:
        return broker_over(tmp_path, servers, clock, **settings)

    return start


@pytest.fixture
def puppet(tmp_path: Path) -> Puppet:
    """A server of a configuration that does what its script says; `settings` are the server's own."""

    def script(script: dict[str, Any], **settings: Any) -> dict[str, Any]:
        path = tmp_path / f"script-{len(list(tmp_path.glob('script-*')))}.json"
        path.write_text(json.dumps(script), encoding="utf-8")
        return command([sys.executable, "-S", str(ROOT / "tests/hostile/puppet.py"), str(path)], **settings)

    return script


@pytest.fixture(autouse=True)
def costs_are_bounded(request: pytest.FixtureRequest) -> Generator[None, None, None]:
    """Every test here; one that needs more says why: `@pytest.mark.costs("why", callback=0.1)`."""
    mark: pytest.Mark | None = request.node.get_closest_marker("costs")
    with bounded(**mark.kwargs if mark else {}):
        yield
