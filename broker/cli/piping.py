"""`mcp-broker stdio`: the broker for hosts that launch it, until the host closes the pipe.

Apart from `serving.py`: the HTTP front, and what it needs to know whom it serves, take time to load, and a host waits.
"""

import logging
import os
import sys
from pathlib import Path

import anyio

from broker.app import Broker, run, run_async
from broker.cli.begin import begin_to_serve, read_config, warn
from broker.cli.exits import OK
from broker.cli.reloading import serve_reloads
from broker.downstream.stdio import StdioFront
from broker.reload import Reloads

log = logging.getLogger(__name__)


def stdio(config: Path | None, level: str, *, logs_json: bool = False) -> int:
    """The exit code. Raises: Stop."""
    begin_to_serve(level, as_json=logs_json)
    loaded = read_config(config)
    warn(loaded)
    if sys.stdin.isatty():
        log.warning("waiting for an MCP host to speak on stdin: this command is for hosts; Ctrl-C ends it")

    async def front(broker: Broker) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve_reloads, Reloads(broker, os.environ))
            await StdioFront(broker.engine, broker.caller.learn, lambda: broker.drain).serve()
            tasks.cancel_scope.cancel()

    broker = Broker(loaded, waits_for_caller=True)
    run_async(lambda: run(broker, front))
    return OK
