"""A broker that says what it holds: `python -m tests.soak.served <arguments of mcp-broker>`.

Each line on stdin is the name of a file, into which the figures are written. They are counted from the live objects,
so that nothing in the broker has to know of it.
"""

import asyncio
import gc
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

from broker.cli import main
from broker.downstream.session import LegacySession, Sessions
from broker.relay.parking import Parking
from broker.upstream.link import Link
from tests.e2e.brokers import children


def figures() -> dict[str, int]:
    gc.collect()
    found: list[Any] = gc.get_objects()
    links = [one for one in found if isinstance(one, Link)]
    tasks = [one for one in found if isinstance(one, asyncio.Task) and not one.done()]
    return {
        "parked": sum(len(one._parked) for one in found if isinstance(one, Parking)),
        "sessions": sum(len(one) for one in found if isinstance(one, Sessions)),
        "in flight": sum(len(one.in_flight) for one in found if isinstance(one, LegacySession)),
        "calls on links": sum(len(link._calls) for link in links),
        "questions on links": sum(len(link._questions) for link in links),
        "abandoned on links": sum(len(link._abandoned) for link in links),
        "tasks": len(tasks),
        "children": len(children(os.getpid())),
        "descriptors": len(os.listdir("/proc/self/fd")),
        "resident KiB": int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024,
    }


def watch() -> None:
    for line in sys.stdin:
        file = Path(line.strip())
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(figures()), encoding="utf-8")
        partial.replace(file)


if __name__ == "__main__":
    threading.Thread(target=watch, daemon=True).start()
    main()
