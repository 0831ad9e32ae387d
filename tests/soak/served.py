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
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from broker.cli import main
from broker.downstream.session import LegacySession, Sessions
from broker.generation import Generation
from broker.guardrails.pool import Pool
from broker.in_use import InUse
from broker.relay.exchange import Exchange
from broker.relay.notify import Hub
from broker.relay.parking import Parking
from broker.upstream.isolated import Isolated
from broker.upstream.link import Link
from broker.upstream.slots import Slot
from broker.usage.gate import Gate
from broker.usage.pocket import Pocket
from tests.e2e.brokers import children

T = TypeVar("T")


def figures() -> dict[str, int]:
    gc.collect()
    found: dict[type, list[Any]] = defaultdict(list)
    for one in gc.get_objects():
        found[type(one)].append(one)

    def of(kind: type[T], count: Callable[[T], int]) -> int:
        return sum(count(one) for cls, those in found.items() if issubclass(cls, kind) for one in those)

    guards = of(Pool, lambda pool: len(pool.pids()))
    return {
        "parked": of(Parking, lambda one: len(one._parked)),
        "sessions": of(Sessions, len),
        "in flight": of(LegacySession, lambda one: len(one.in_flight)),
        "exchanges": of(Exchange, lambda _: 1),
        "streams": of(Hub, len),
        "places before gates": of(Gate, lambda gate: gate.running + gate.waiting),
        "reserved of budgets": of(Pocket, lambda one: one.purse.reserved + len(one.needs)),
        "in use": of(InUse, lambda one: one.count),
        "links of callers": of(Isolated, len),
        "leases of links": of(Slot, lambda slot: slot.leases),
        "calls on links": of(Link, lambda link: len(link._in_flight.calls())),
        "questions on links": of(Link, lambda link: len(link._questions)),
        "abandoned on links": of(Link, lambda link: len(link._abandoned)),
        "generations": of(Generation, lambda _: 1),
        "waiting guardrails": of(Pool, lambda pool: len(pool._waiting)),
        "guardrail processes": guards,
        "tasks": of(asyncio.Task, lambda task: not task.done()),
        "children": len(children(os.getpid())) - guards,
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
