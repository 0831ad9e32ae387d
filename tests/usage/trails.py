"""Files of records that nobody has lived: for the index, where what a record says does not matter."""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from broker.core.caller import Caller
from broker.usage.records import CallRecord, DiscoveryRecord, Mark, Record, view_line

Filled = TypeVar("Filled", bound=CallRecord)
BEGAN = 1_790_000_000.0


def file_name(number: int, began: float = BEGAN) -> str:
    return f"{datetime.fromtimestamp(began, UTC):%Y%m%dT%H%M%SZ}-{number:08x}-0001.jsonl"


def call_of(who: Caller, **more: Any) -> CallRecord:
    """The record of a call."""
    return filled(CallRecord(who), **more)


def filled(record: Filled, **more: Any) -> Filled:
    """With what every call has, and more."""
    for name, one in ({"front": "http", "era": "2026-07-28", "method": "tools/call"} | more).items():
        setattr(record, name, one)
    return record


def call(
    principal: str, tool: str, *, at: float, server: str = "one", outcome: str = "done", team: str = "data"
) -> Record:
    who = Caller(principal, "acme", team, principal.removeprefix("key:"))
    record = call_of(who)
    record.public, record.own, record.kind = f"{server}__{tool}", tool, "tools"
    record.server, record.rule, record.time, record.seq = server, "org:acme/allow/0", at, 1
    record.outcome, record.code = outcome, 1001 if outcome == "error" else 0  # type: ignore[assignment]
    return record


def discovery(principal: str, mark: Mark, *, at: float, view: str = "", method: str = "tools/list") -> Record:
    record = DiscoveryRecord(Caller(principal, "acme", "data", ""), "http", "2026-07-28", method, mark, view)
    record.time, record.seq = at, 1
    return record


def write(path: Path, records: Iterable[Record]) -> None:
    """A file as a broker would leave it: what a view holds is said once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said: set[str] = set()
    with path.open("ab") as file:
        for record in records:
            if isinstance(record, DiscoveryRecord) and record.mark.hash not in said:
                said.add(record.mark.hash)
                file.write(view_line(record.mark))
            file.write(record.line())
