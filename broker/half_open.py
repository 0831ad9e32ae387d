"""A peer that vanished (its power, its network) never closes: the kernel is told to find out, within seconds.

Without this a call, a stream or a slot that hangs on such a connection would wait for as long as the system does: two
hours on most (F-53).
"""

import socket
from typing import Final

QUIET: Final = 20
"""Seconds without a byte after which the peer is asked whether it is there."""
ASK_EVERY: Final = 10
"""Seconds between two such questions."""
UNANSWERED: Final = 3
"""Questions without an answer that end a connection."""
GONE_AFTER: Final = QUIET + ASK_EVERY * UNANSWERED
"""Seconds at most until a connection to nobody breaks, whether it was idle or had something on its way."""

_OPTIONS: Final = {
    "TCP_KEEPIDLE": QUIET,
    "TCP_KEEPALIVE": QUIET,  # what macOS calls the same
    "TCP_KEEPINTVL": ASK_EVERY,
    "TCP_KEEPCNT": UNANSWERED,
    "TCP_USER_TIMEOUT": GONE_AFTER * 1000,  # what was sent and is not acknowledged; milliseconds
}


def notice_half_open(connection: socket.socket) -> None:
    """Let the kernel break a TCP connection whose peer is gone. A system that lacks an option keeps its own value."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _OPTIONS.items():
        option = getattr(socket, name, None)
        if option is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
