"""How many connections the file descriptors of this process allow (F-78): each takes one, and so do servers.

The operating system gives a process a soft limit that is often low, and a hard one up to which it may raise it itself.
"""

import logging
from typing import Any, Final

from broker.config import Config, HttpServer, Server
from broker.downstream.room import MAX_CONNECTIONS, Bounds
from broker.upstream.httpwire import MAX_CONNECTIONS as MAX_OF_URL

try:
    import resource
except ImportError:  # Windows
    _resource: Any = None
else:
    _resource = resource

log = logging.getLogger(__name__)

OWN: Final = 128
"""Descriptors for everything else: store, records, logs, guardrails, look-ups of names."""
OF_COMMAND: Final = 8
"""Descriptors of one process: its pipes, and what it takes to start and to watch it."""
FEW: Final = 500
"""Connections that are worth a warning where nobody has asked for a number: any fewer are soon in use."""


def bounds_of(config: Config) -> Bounds:
    """How many connections there may be. Raises the soft limit if that is needed, and says if it is not enough."""
    settings = config.server
    wanted = settings.max_connections or MAX_CONNECTIONS
    beside = OWN + sum(map(_of_server, config.servers.values()))
    files = _allow(wanted + beside)
    total = wanted if files is None else fitting(wanted, beside, files)
    if total < wanted and (settings.max_connections is not None or total < FEW):
        log.warning(
            "at most %d connections are let in at once, not %d: this process may have %d files open, and its servers "
            "need some of them. Raise the hard limit (ulimit -Hn, LimitNOFILE=) to %d, or set server.max_connections.",
            *(total, wanted, files, wanted + beside),
        )
    return Bounds(total, settings.max_connections_per_caller, settings.max_connections_per_address)


def fitting(wanted: int, beside: int, files: int) -> int:
    """Of `wanted` connections those that fit into `files` descriptors, of which at most half are kept for the rest."""
    return max(1, min(wanted, files - min(beside, files // 2)))


def _of_server(server: Server) -> int:
    """Descriptors that one server may take, at most."""
    one = MAX_OF_URL if isinstance(server, HttpServer) else OF_COMMAND
    return one if server.isolation == "shared" else one * (1 + server.isolation_max)


def _allow(needed: int) -> int | None:
    """How many descriptors there may be, once the soft limit is raised to what is needed; None: there is no limit.

    No further than that: programs that the broker starts inherit it, and some count up to it.
    """
    if _resource is None:
        return None
    soft, hard = _resource.getrlimit(_resource.RLIMIT_NOFILE)
    unlimited = _resource.RLIM_INFINITY
    if soft == unlimited or soft >= needed:
        return None if soft == unlimited else int(soft)
    raised = needed if hard == unlimited else min(needed, hard)
    try:
        _resource.setrlimit(_resource.RLIMIT_NOFILE, (raised, hard))
    except (OSError, ValueError) as error:  # macOS has a limit of its own below the hard one
        log.debug("the limit of open files stays at %d: %s", soft, error)
        return int(soft)
    return int(raised)
