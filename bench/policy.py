"""What limits, budgets and a guardrail cost: the same call without and with them, in turns, in one run."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bench.gateways import ERAS, READY_TIMEOUT, Field, http_server
from bench.load import Ask, Callers, WrongAnswer
from bench.report import Table, milliseconds, number, ratio
from bench.throughput import SIZES, Effort, Target, compare
from broker.config import Secret
from broker.identity.keys import ENTROPY, hash_of, mint

TITLE: Final = "Limits, budgets and a guardrail"
BARE: Final = "no policy"
LIMITED: Final = "limits and budgets"
GUARDED: Final = "one guardrail"
CALLERS: Final = 16
_SECRET: Final = "a secret for the keys of a benchmark"
_CHECK: Final = "def check(ctx):\n    return {'action': 'allow'}\n"
_MANY: Final = 1_000_000_000
"""More than any benchmark reaches."""


def _place(digest: str, limits: dict[str, Any] | None) -> dict[str, Any]:
    """An organization with a team and a key; `limits` at each of these levels."""
    more: dict[str, Any] = {} if limits is None else {"limits": limits}
    teams = {"data": {"keys": {"ci": {"hash": digest, **more}}, **more}}
    return {"acme": {"allow": [{"servers": ["*"]}], "teams": teams, **more}}


def configurations(directory: Path, digest: str, server: Mapping[str, Any]) -> dict[str, tuple[Any, dict[str, Any]]]:
    """The server and the further sections of the file, by label: they differ in what is measured only."""
    same = {"identity": {"key_secret": _SECRET}, "audit": {"enabled": False}}
    level = {"rate": f"{_MANY}/minute", "budget": {"day": _MANY}}
    narrow = {"concurrency": 1000, "per_caller": {"rate": f"{_MANY}/minute"}}
    check = directory / "check.py"
    check.write_text(_CHECK)
    guardrail = {"file": str(check), "phases": ["request"], "timeout": 5}
    return {
        BARE: ({**server}, {**same, "organizations": _place(digest, None)}),
        LIMITED: ({**server, "limits": narrow, "cost": 1}, {**same, "organizations": _place(digest, level)}),
        GUARDED: ({**server}, {**same, "organizations": _place(digest, None), "guardrails": {"pass": guardrail}}),
    }


async def _answering(port: int, key: str) -> None:
    """Wait until it has budgets from the store, and warm workers. Raises: WrongAnswer, if that takes too long."""
    until = time.monotonic() + READY_TIMEOUT
    while True:
        callers = await Callers.over_http(port, Ask.echo("web__echo", SIZES["small"]), ERAS["modern"], 1, [key])
        try:
            await callers.measure(0.01)
            return
        except WrongAnswer:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(0.2)
        finally:
            callers.close()


async def policy_table(field: Field, eras: Mapping[str, str], effort: Effort, step: Callable[[str], None]) -> Table:
    """A row for each era with and without."""
    text = mint(os.urandom(ENTROPY)).text.reveal()
    upstream = http_server(await field.upstream(), ERAS["modern"])
    made = configurations(field.fresh("policy"), hash_of(text, Secret(_SECRET)), upstream)
    brokers = {label: await field.serve({"web": one}, 1, more=more, key=text) for label, (one, more) in made.items()}
    for _, port in brokers.values():
        await _answering(port, text)
    table = Table(
        TITLE,
        ("caller", "callers", "broker", "p50 ms", "p99 ms", "calls/s", "of the first", "CPU ms/call"),
        f"`{LIMITED}`: a rate and a budget for organization, team and key, a rate for each caller at the server, and a "
        f"cap for the server. `{GUARDED}`: of arguments, in a process of its own. All three have one key.",
    )
    for name, era in eras.items():
        step(f"policy: {name} callers")

        def to(port: int, era: str = era) -> Callable[[], Awaitable[Callers]]:
            return lambda: Callers.over_http(port, Ask.echo("web__echo", SIZES["small"]), era, CALLERS, [text])

        measured = await compare(
            [Target(label, to(port), process.pid) for label, (process, port) in brokers.items()], effort
        )
        for label, one in measured.items():
            share = "" if label == BARE else ratio(one.share(measured[BARE]))
            cpu = milliseconds(one.cpu_per_call) if one.cpu_per_call else ""
            table.add(
                name, str(CALLERS), label, milliseconds(one.p50), milliseconds(one.p99), number(one.rate), share, cpu
            )
        facts = {"case": f"policy, {name}", "caller": name, "callers": CALLERS}
        table.keep({**facts, **{label: one.values() for label, one in measured.items()}})
    return table
