"""`mcp-broker serve`: the broker over HTTP, until somebody ends it."""

import logging
from pathlib import Path

from broker.app import Broker, run, run_async
from broker.cli.begin import begin, read_config, warn
from broker.cli.exits import BAD_INPUT, FAILED, OK, Stop
from broker.cli.screen import count, line
from broker.config import Loaded
from broker.downstream.door import Door
from broker.downstream.guard import Guard
from broker.downstream.server import bind, is_loopback, serve_http
from broker.identity.identity import Identity

log = logging.getLogger(__name__)


def serve(config: Path | None, host: str, port: int, level: str) -> int:
    """The exit code. Raises: Stop."""
    begin(level)
    if not is_loopback(host):
        raise Stop(
            f"--host {line(host)} is refused: no credential source is configured, so everybody who reaches that "
            "address could use every server. Use --host 127.0.0.1, and a tunnel or an authenticating proxy.",
            BAD_INPUT,
        )
    loaded = read_config(config)
    try:
        listener = bind(host, port)
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise Stop(
            f"cannot listen on {host}:{port}: {why}. Choose another --port, or 0 for a free one.", FAILED
        ) from None
    settings = loaded.config.server
    guard = Guard(settings.allowed_hosts, settings.allowed_origins)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}/mcp"

    async def front(broker: Broker) -> None:
        door = Door(guard, Identity(broker.clock, (), is_private=is_loopback(host)))
        await serve_http(broker.engine, door, listener, lambda: _announce(loaded, url))

    broker = Broker(loaded)
    run_async(lambda: run(broker, front))
    log.info("stopped")
    return OK


def _announce(loaded: Loaded, url: str) -> None:
    # Said at every level: with --port 0 nobody else knows the port.
    log.setLevel(logging.INFO)
    enabled = sum(server.enabled for server in loaded.config.servers.values())
    log.info("serving %s: %s on %s", line(loaded.config.broker.name), count(enabled, "server"), url)
    log.warning("no credential source is configured: every caller is 'local' and may use all of it")
    warn(loaded)
