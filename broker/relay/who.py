"""Who asks, as a front has found it out: made for a request, or once for a session."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.core.caller import Caller
from broker.core.era import Version
from broker.relay.watches import Watches
from broker.upstream.lease import Asker


def never() -> bool:
    """Of a caller that has no credential that could end."""
    return False


@dataclass(slots=True)
class Who:
    """Who asks, in which version, through which view; what it can be asked, and from which level on it reads logs.

    Never changed.
    """

    caller: Caller
    version: Version
    view: str = ""
    capabilities: Mapping[str, Any] = field(default_factory=dict[str, Any])
    log_level: str | None = None
    """The least that it wants to read, None for nothing."""
    watches: Watches | None = None
    """Where a legacy session keeps its subscriptions."""
    session: str = ""
    """The session, or the pipe, that all this belongs to; "" for a request that stands alone."""
    front: str = "http"
    """By which it came, as the audit has it."""
    is_gone: Callable[[], bool] = never
    """Whether the caller is not admitted any more, whatever credential it brings."""

    @property
    def asker(self) -> Asker:
        """As upstream links know it."""
        return Asker(self.caller.principal, self.session, self.capabilities)
