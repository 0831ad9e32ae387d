"""The names that things have for a caller, and what a row of the matrix runs."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from tests.fidelity.caller import Asked

Json = dict[str, Any]
Pair = tuple[str, str]
"""Eras of caller and upstream."""
LEGACY, MODERN = "legacy", "modern"


@dataclass(frozen=True)
class Names:
    """Own names of the upstream's things as this caller has them; `key` is empty when it is asked directly."""

    key: str = ""
    tools: tuple[tuple[str, str], ...] = ()

    def name(self, own: str) -> str:
        return dict(self.tools).get(own, f"{self.key}__{own}" if self.key else own)

    def uri(self, own: str) -> str:
        if not self.key or own.startswith("http"):
            return own
        return f"ui://{self.key}+{own.removeprefix('ui://')}" if own.startswith("ui://") else f"{self.key}+{own}"


Run = Callable[[Asked, Names], Awaitable[Json]]
