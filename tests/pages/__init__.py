"""Pages of docs/ that are made of the code: `python -m tests.pages` writes them, a test holds them to it."""
