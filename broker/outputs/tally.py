"""What is counted of one server: how many of its results fit the schemas of its tools."""

from collections import Counter
from typing import Final

RESULTS: Final = ("matched", "mismatched", "bad_schema", "unchecked")
"""What a result of a tool with an `outputSchema` can be counted as: each is counted once."""
MAX_SAID: Final = 100
"""Lines of the log for one server: it may have thousands of tools, and other schemas every second."""


class Tally:
    """Of one server, as long as it is configured as it is."""

    __slots__ = ("_said", "counts", "due")

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """By one of `RESULTS`."""
        self.due = 0.0
        """When the next result may be looked at, by the broker's clock."""
        self._said: set[tuple[str, str, str]] = set()

    def is_new(self, tool: str, schema: str, result: str) -> bool:
        """Whether this is to be said: once for each tool, its schema (a digest) and what came of it."""
        key = (tool, schema, result)
        if key in self._said or len(self._said) >= MAX_SAID:
            return False
        self._said.add(key)
        return True
