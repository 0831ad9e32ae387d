"""What the relay needs of a live configuration (`generation.py` has it)."""

from collections.abc import Mapping
from typing import Any, Protocol

from broker.core.caller import Caller
from broker.core.catalog import Catalog
from broker.core.names import Naming
from broker.core.policy import Policy
from broker.guardrails.guards import Guards, NoGuards
from broker.relay.listing import Views
from broker.upstream.pool import Pool


class Served(Protocol):
    """See the module. Read at each step, never kept: the catalog in it is replaced while requests are in flight."""

    @property
    def catalog(self) -> Catalog:
        """The current one."""
        ...

    @property
    def naming(self) -> Naming:
        """Names of all configured servers."""
        ...

    @property
    def policy(self) -> Policy:
        """Compiled rules."""
        ...

    @property
    def views(self) -> Views:
        """Lists and instructions, per view."""
        ...

    @property
    def pool(self) -> Pool:
        """The upstreams."""
        ...

    @property
    def guards(self) -> Guards | NoGuards:
        """Operator-written checks."""
        ...

    @property
    def me(self) -> Mapping[str, Any]:
        """The broker's own `serverInfo`."""
        ...

    @property
    def first_wait(self) -> float:
        """Seconds that a server which was never seen is waited for."""
        ...

    @property
    def cache_scope(self) -> str:
        """`cacheScope` of lists."""
        ...

    def shown(self, view: str, caller: Caller) -> tuple[str, ...]:
        """The servers of a view of which the caller sees something, or may once they are seen, in configuration order.

        Of any other it must not learn that it exists: it is not waited for, not touched, not named.
        """
        ...

    def hidden(self) -> frozenset[str]:
        """Servers that are down, and configured to be hidden then."""
        ...
