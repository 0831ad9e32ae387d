"""`python -m broker` is `mcp-broker`."""

from broker.cli import main

if __name__ == "__main__":
    main()
