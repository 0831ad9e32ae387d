"""A stdio server as people write them, with the SDK: what its start costs is what hosts wait for."""

from mcp.server import MCPServer

server = MCPServer("sdk")


@server.tool()
def echo(text: str) -> str:
    """Say it again."""
    return text


if __name__ == "__main__":
    server.run()
