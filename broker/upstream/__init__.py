"""The side of the MCP servers: transports, links, and what keeps each of them alive."""
