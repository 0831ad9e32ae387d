"""Fixtures for hostile upstreams; the machinery is in harness.py, puppet.py and web.py."""

import gc
import json
import sys
from collections.abc import Callable, Generator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from broker.clock import Clock
from tests.hostile.harness import (
    LoopWatch,
    Running,
    all_children,
    broker_over,
    children,
    command,
    descriptors,
    inherited,
)
from tests.peers import ROOT

BrokerOf = Callable[..., AbstractAsyncContextManager[Running]]
Puppet = Callable[..., dict[str, Any]]
SPARE = 3
"""Descriptors of the test's own event loop, which ends after this."""


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


@pytest.fixture
def loop_watch() -> Generator[LoopWatch, None, None]:
    watch = LoopWatch()
    with watch.watching():
        yield watch


@pytest.fixture(autouse=True)
def nothing_is_left() -> Generator[None, None, None]:
    """After each test: no process of ours is left, not even a zombie, and no descriptor.

    The collector looks only at what the test has made: what was there before it (thousands of tests that were
    collected, every module) would take it longer than most of these tests take.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    inherited.clear()
    inherited.update(all_children())
    before = descriptors()
    gc.freeze()
    yield
    assert children() == {}
    gc.collect()  # what pytest keeps of a test, an event loop of its own among it
    gc.unfreeze()
    assert descriptors() <= before + SPARE
