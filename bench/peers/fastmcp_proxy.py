"""FastMCP's proxy in front of one MCP server. It runs in an environment of its own (.venv-peers), see `make peers`.

`--connected ERA` builds the proxy on a client that is connected once, for all callers; without it the proxy is what
FastMCP's documentation shows, `create_proxy(url)`, which connects for each request. Answers are JSON, which is its
quicker form, and nothing is written to a log.
"""

import argparse
import asyncio

from fastmcp import Client
from fastmcp.server import create_proxy


async def serve(upstream: str, port: int, connected: str | None) -> None:
    """Until it is killed, on loopback."""
    options = {
        **{"transport": "http", "host": "127.0.0.1", "port": port, "path": "/mcp", "json_response": True},
        **{
            "show_banner": False,
            "log_level": "error",
            "uvicorn_config": {"access_log": False, "timeout_keep_alive": 600},
        },
    }
    if connected is None:
        await create_proxy(upstream, name="peer").run_async(**options)
        return
    async with Client(upstream, mode=connected) as client:
        await create_proxy(client, name="peer").run_async(**options)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upstream", required=True, help="the URL of the server")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connected", metavar="ERA", help="a protocol version, or `legacy`")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.upstream, arguments.port, arguments.connected))


if __name__ == "__main__":
    main()
