"""What identity, rules and the audit cost: the same call with and without them, in turns, in one run."""

import os
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from bench.gateways import ERAS, Field, http_server
from bench.load import Ask, Callers
from bench.report import Table, milliseconds, number, ratio
from bench.throughput import SIZES, Effort, Target, compare
from broker.config import Secret
from broker.identity.keys import ENTROPY, hash_of, mint

TITLE: Final = "Identity, rules and audit"
BARE: Final = "without identity"
FULL: Final = "with all of it"
CALLERS: Final = 16
KEYS: Final = 1000
TEAMS: Final = 50
RULES: Final = 200
_SECRET: Final = "a secret for the keys of a benchmark"


def sections() -> tuple[dict[str, Any], list[str]]:
    """An organization with all its keys and rules, and an audit, as sections of the file; and the keys."""
    texts: list[str] = []
    teams: dict[str, Any] = {}
    for team in range(TEAMS):
        keys: dict[str, Any] = {}
        for key in range(KEYS // TEAMS):
            text = mint(os.urandom(ENTROPY)).text.reveal()
            texts.append(text)
            keys[f"k{key}"] = {"hash": hash_of(text, Secret(_SECRET))}
        deny = [{"tools": [f"web__hidden{team}_{rule}*"]} for rule in range(RULES // TEAMS - 1)]
        teams[f"t{team}"] = {"allow": [{"servers": ["web"]}], "deny": deny, "keys": keys}
    organizations = {"acme": {"allow": [{"servers": ["*"]}], "teams": teams}}
    identity = {"key_secret": _SECRET}
    # Usage belongs to budgets, and is measured with them (policy.py).
    off = {"enabled": False}
    return {"organizations": organizations, "identity": identity, "audit": {"enabled": True}, "usage": off}, texts


async def access_table(field: Field, eras: Mapping[str, str], effort: Effort, step: Callable[[str], None]) -> Table:
    """A row for each era with and without."""
    upstream = {"web": http_server(await field.upstream(), ERAS["modern"])}
    more, keys = sections()
    bare, bare_port = await field.serve(upstream, 1)
    full, full_port = await field.serve(upstream, 1, more=more, key=keys[0])
    spread = keys[:: KEYS // CALLERS][:CALLERS]
    table = Table(
        TITLE,
        ("caller", "callers", "broker", "p50 ms", "p99 ms", "calls/s", "of the first", "CPU ms/call"),
        f"`{FULL}`: {KEYS} keys in {TEAMS} teams with {RULES} rules, callers with keys of different teams, and a "
        "record of every call. One call of an echo tool, modern HTTP upstream.",
    )
    for name, era in eras.items():
        step(f"access: {name} callers")
        # A session of the legacy era is its caller's: there all callers come with one key.
        given = spread if name == "modern" else spread[:1]

        def to(port: int, keys: list[str], era: str = era) -> Callable[[], Awaitable[Callers]]:
            return lambda: Callers.over_http(port, Ask.echo("web__echo", SIZES["small"]), era, CALLERS, keys)

        measured = await compare(
            [Target(BARE, to(bare_port, []), bare.pid), Target(FULL, to(full_port, given), full.pid)], effort
        )
        for label, one in measured.items():
            share = "" if label == BARE else ratio(one.share(measured[BARE]))
            cpu = milliseconds(one.cpu_per_call) if one.cpu_per_call else ""
            table.add(
                name, str(CALLERS), label, milliseconds(one.p50), milliseconds(one.p99), number(one.rate), share, cpu
            )
        facts = {"case": f"access, {name}", "caller": name, "callers": CALLERS}
        table.keep({**facts, **{label: one.values() for label, one in measured.items()}})
    return table
