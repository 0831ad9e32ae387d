"""How often bad credentials came, by address and in all: guessing is slowed down, and costs no more than a look (F-80).

Who was verified before is not concerned: an attacker behind the same proxy must not lock the others out.
"""

import ipaddress
from collections import OrderedDict
from typing import Final

from broker.clock import Clock

WINDOW: Final = 60.0
"""Seconds over which failures are counted."""
PER_ADDRESS: Final = 60
"""Failures of one address in a window: more than a host that tries a stale key again and again."""
IN_ALL: Final = 1000
"""Failures in a window in all, so that many addresses are no way around the bound of one."""
MAX_ADDRESSES: Final = 10_000
"""Addresses that are remembered; the one that failed longest ago makes room. Without it they would fill the memory."""


class Failures:
    """See the module."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._all = (0.0, 0)

    def __len__(self) -> int:
        return len(self._windows)

    def wait(self, peer: str) -> float:
        """Seconds until an unknown credential from there is looked at again; 0: now."""
        if not self._all[1]:
            return 0.0
        now = self._clock.now()
        return max(
            _left(self._windows.get(network_of(peer)), PER_ADDRESS, now),
            _left(self._all, IN_ALL, now),
        )

    def note(self, peer: str) -> None:
        """A bad credential came from there."""
        now = self._clock.now()
        self._all = _counted(self._all, now)
        network = network_of(peer)
        self._windows[network] = _counted(self._windows.get(network), now)
        self._windows.move_to_end(network)
        while len(self._windows) > MAX_ADDRESSES:
            self._windows.popitem(last=False)


def _counted(window: tuple[float, int] | None, now: float) -> tuple[float, int]:
    if window is None or now - window[0] >= WINDOW:
        return now, 1
    return window[0], window[1] + 1


def _left(window: tuple[float, int] | None, limit: int, now: float) -> float:
    if window is None or window[1] < limit:
        return 0.0
    return max(0.0, window[0] + WINDOW - now)


def network_of(peer: str) -> str:
    """An IPv4 address; of IPv6 the /64, of which one machine has as many addresses as it likes."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
