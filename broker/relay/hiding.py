"""`redact: results`: what a server answers, without secrets."""

from collections.abc import Mapping
from typing import Any, Final

from broker.core import wire
from broker.secrecy import scrubbed_json
from broker.threads import in_thread

MACHINERY: Final = frozenset({"resultType", "task", "taskId", "inputRequests", "nextCursor", "ttlMs", "cacheScope"})
"""Members of results that are no text for anybody: with a mask in them they would mean something else."""
AT_ONCE: Final = 256 * 1024
"""Bytes of a result, encoded, that are looked through where they are; for a larger one a thread does it, so that nobody
else is held."""


async def scrubbed_result(result: dict[str, Any]) -> dict[str, Any]:
    """The result with every secret hidden."""
    if not wire.is_longer(result, AT_ONCE):
        return _scrubbed(result)
    hidden = await in_thread(_scrubbed, result)
    return wire.Long(hidden) if isinstance(result, wire.Long) else hidden


def _scrubbed(result: Mapping[str, Any]) -> dict[str, Any]:
    names = [name for name in result if name not in MACHINERY]
    hidden = dict(zip(names, scrubbed_json([result[name] for name in names]), strict=True))
    return {name: hidden.get(name, one) for name, one in result.items()}
