"""Host and Origin: whether a request may come from where it says it does (DNS rebinding; SP-01, I-02, I-09).

Both are parsed whole and compared whole. A prefix match would let `127.0.0.1:8787/admin?` through.
"""

import re
from collections.abc import Iterable
from typing import Final

_HOST = re.compile(r"(?P<name>[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN = re.compile(rf"(?P<scheme>https?)://(?P<host>{_HOST.pattern})")
MAX_GOOD: Final = 100
"""Good `Host` values that are remembered, in all their spellings; any further one is looked at each time."""
LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Guard:
    """What is allowed besides loopback names: `hosts` as host or host:port, `origins` as scheme://host[:port].

    `public_url`, which is an origin, is both.
    """

    def __init__(self, hosts: Iterable[str] = (), origins: Iterable[str] = (), public_url: str | None = None) -> None:
        public = [] if public_url is None else [public_url]
        self._hosts = frozenset(host.lower() for host in (*hosts, *(url.partition("://")[2] for url in public)))
        self._good: set[str | None] = set()
        """Values that were looked at before."""
        self._origins = frozenset(origin.lower() for origin in (*origins, *public))

    def allows_host(self, value: str | None) -> bool:
        """Whether a `Host` header names us."""
        if value in self._good:
            return True
        match = _HOST.fullmatch(value or "")
        if match is None or value is None:
            return False
        name = match["name"].lower()
        is_good = name in LOOPBACK or name in self._hosts or value.lower() in self._hosts
        if is_good and len(self._good) < MAX_GOOD:
            self._good.add(value)
        return is_good

    def allows_origin(self, value: str | None) -> bool:
        """Whether an `Origin` header may speak to us; without one it is no browser."""
        if value is None:
            return True
        match = _ORIGIN.fullmatch(value)
        return match is not None and (match["name"].lower() in LOOPBACK or value.lower() in self._origins)
