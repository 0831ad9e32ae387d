"""A broker in this process, in front of hostile upstreams that are processes and sockets of their own.

`Running` asks as a caller would; cost.py measures what a fault cost us.
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml

from broker.app import Broker
from broker.clock import Clock, SystemClock
from broker.config import load
from broker.core.caller import LOCAL
from broker.core.era import LATEST_LEGACY, Version
from broker.downstream.engine import Who, ignore_emit
from broker.downstream.message import Incoming
from broker.relay.exchange import Emit
from broker.upstream.pipe import PipeLink
from broker.upstream.stdio import StdioDuplex
from broker.upstream.supervise import Upstream
from tests.hostile.cost import apart
from tests.patience import PATIENCE
from tests.peers import ROOT

BOUND = PATIENCE
"""Seconds for one test: a bound, not an expectation."""
AT_ONCE = 15
"""Seconds in which an answer must come whose cause is known, also on a busy machine; the call's own time-out is far
beyond."""
needs_proc = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux")


class HastyClock(SystemClock):
    """Real time, but nobody waits long: back-off and spacing pass in a moment."""

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(min(seconds, 0.02))


@dataclass
class Running:
    """A live broker, and a caller of it."""

    broker: Broker

    def upstream(self, key: str) -> Upstream:
        return self.broker.generation.pool.upstreams[key]

    def pid(self, key: str) -> int:
        """The process id of a stdio upstream that is ready."""
        link = self.upstream(key).link()
        assert isinstance(link, PipeLink) and isinstance(link._duplex, StdioDuplex)
        return link._duplex.pid

    def pending(self, key: str) -> int:
        """How many calls wait on a pipe."""
        link = self.upstream(key).link()
        assert isinstance(link, PipeLink)
        return len(link._in_flight.requests)

    async def ask(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        emit: Emit = ignore_emit,
        version: Version = LATEST_LEGACY,
    ) -> dict[str, Any]:
        """The response message to a request."""
        answer = await self.broker.engine.answer(Incoming(1, method, dict(params or {})), Who(LOCAL, version), emit)
        with apart():
            return json.loads(answer.body)

    async def message(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The response message to a call."""
        return await self.ask("tools/call", {"name": name, "arguments": arguments})

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The result of a call that must succeed."""
        message = await self.message(name, **arguments)
        assert "result" in message, message
        return message["result"]

    async def text(self, name: str, **arguments: Any) -> str:
        return (await self.call(name, **arguments))["content"][0]["text"]

    async def refused(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The error of a call that must fail, and at once."""
        with anyio.fail_after(AT_ONCE):
            message = await self.message(name, **arguments)
        assert "error" in message, message
        error = message["error"]
        assert error["data"]["upstream"] == name.partition("__")[0]
        return error

    async def tools(self) -> list[str]:
        return [tool["name"] for tool in (await self.ask("tools/list"))["result"]["tools"]]

    def is_ready(self, key: str) -> bool:
        upstream = self.upstream(key)
        return upstream.is_ready and upstream.listing is not None and upstream.trouble is None

    async def ready(self, *keys: str) -> None:
        """Wait until these can be called, after a restart too."""
        await until(lambda: all(self.is_ready(key) for key in keys))

    async def trouble(self, key: str) -> str:
        """Wait until its first attempt has ended; why it failed."""
        await until(lambda: self.upstream(key).first_try.is_set())
        return self.upstream(key).trouble or ""

    async def innocent(self, *keys: str) -> None:
        """`good`, and whoever else is named, still answer."""
        for key in ("good", *keys):
            await self.ready(key)
            with anyio.fail_after(AT_ONCE):
                assert await self.text(f"{key}__ok", text="x") == "ok x"


@asynccontextmanager
async def broker_over(
    directory: Path,
    servers: Mapping[str, Any],
    clock: Clock | None = None,
    metrics: str = "off",
    bound: float = BOUND,
    **settings: Any,
) -> AsyncGenerator[Running, None]:
    """A broker over these servers, with `good` beside them: the innocent one. `metrics`: who may read them; `bound`:
    seconds for all of it.
    """
    good = {"command": sys.executable, "args": [str(ROOT / "tests/servers/raw.py")]}
    config = {
        "broker": {"state_dir": str(directory / "state"), "first_wait": 0, **settings},
        "servers": {"good": good, **servers},
        "metrics": {"access": metrics},
    }
    path = directory / "servers.yaml"
    with apart():  # as the command does it, before there is a loop
        path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        broker = Broker(load(path, {}), clock=clock)
    faults: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(str(context)))
    with anyio.fail_after(bound):
        async with broker.running():
            yield Running(broker)
    assert faults == []


def command(argv: list[str], **more: Any) -> dict[str, Any]:
    """A stdio server of a configuration."""
    return {"command": argv[0], "args": argv[1:], **more}


def raw(*fault: Any, **more: Any) -> dict[str, Any]:
    """tests/servers/raw.py with a fault, as a server of a configuration."""
    script = str(ROOT / "tests/servers/raw.py")
    return command([sys.executable, "-S", script, "--fault", *map(str, fault or ("none",))], **more)


QUICK = r"""
while read -r line; do
  id=${line#*'"id":'}; id=${id%%[,\}]*}
  case $line in
    *'"initialize"'*)
      hello='{"protocolVersion":"2025-11-25","capabilities":{"tools":{}},"serverInfo":{"name":"sh","version":"1"}}'
      result=$hello ;;
    *'"tools/list"'*)
      schema='"inputSchema":{"type":"object"}'
      result='{"tools":[{"name":"ok",'$schema'},{"name":"boom",'$schema'}]}' ;;
    *'"boom"'*) exit 1 ;;
    *'"tools/call"'*) result='{"content":[{"type":"text","text":"ok"}]}' ;;
    *'"id":'*) printf '{"jsonrpc":"2.0","id":%s,"error":{"code":-32601,"message":"no"}}\n' "$id"; continue ;;
    *) continue ;;
  esac
  printf '{"jsonrpc":"2.0","id":%s,"result":%s}\n' "$id" "$result"
done
"""


def quick() -> dict[str, Any]:
    """A server that a shell starts in a millisecond, as a server of a configuration; `boom` ends it."""
    return command(["/bin/sh", "-c", QUICK.replace("${", "$${")])


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for what another process does: there is no event that it could set."""
    with anyio.fail_after(BOUND):
        while not is_true():  # noqa: ASYNC110
            await anyio.sleep(0.01)


def exists(*pids: int) -> bool:
    """Whether any of them is in the process table, as a zombie too."""
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


def rewrite(server: dict[str, Any], script: dict[str, Any]) -> None:
    """Another script for a puppet, from its next start on."""
    Path(server["args"][-1]).write_text(json.dumps(script), encoding="utf-8")
