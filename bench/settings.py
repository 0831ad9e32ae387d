"""What stands in the file of a broker that is measured: the parts of it that cost something, one by one or all."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from broker.config import Secret
from broker.identity.keys import ENTROPY, hash_of, mint

KEYS: Final = 1000
TEAMS: Final = 50
RULES: Final = 200
MANY: Final = 1_000_000_000
"""A limit that no benchmark reaches."""
KEY_SECRET: Final = "a secret for the keys of a benchmark"
_LEVEL: Final = {"rate": f"{MANY}/minute", "budget": {"day": MANY}}
_SERVER: Final = {"limits": {"concurrency": 1000, "per_caller": {"rate": f"{MANY}/minute"}}, "cost": 1}
_CHECK: Final = "def check(ctx):\n    return {'action': 'allow'}\n"


@dataclass(frozen=True, slots=True)
class Parts:
    """Which parts are on; without `identity` there are neither keys nor rules."""

    identity: bool = False
    limits: bool = False
    """A rate and a budget for the organization, its teams and keys; a rate for each caller and a cap at servers."""
    audit: bool = False
    usage: bool = False
    guardrail: bool = False


NOTHING: Final = Parts()
EVERYTHING: Final = Parts(identity=True, limits=True, audit=True, usage=True)
"""All that is not the operator's own code, which a guardrail is."""
EVERYTHING_NOTE: Final = (
    f"{KEYS} keys in {TEAMS} teams with {RULES} rules, callers with keys of different teams, rates and budgets at "
    "every level, a cap and rates at the server, a record of every call, and its usage"
)


@dataclass(frozen=True, slots=True)
class Setting:
    """Sections of the file, and the keys of callers, which belong to different teams one after the other."""

    sections: dict[str, Any]
    keys: list[str]


def setting(servers: dict[str, Any], parts: Parts, directory: Path, keys: int = KEYS) -> Setting:
    """A file with these servers and parts; what else it needs is put into `directory`."""
    if parts.limits:
        servers = {name: {**server, **_SERVER} for name, server in servers.items()}
    sections: dict[str, Any] = {"servers": servers}
    texts: list[str] = []
    if parts.identity:
        organization, texts = organization_of(keys, _LEVEL if parts.limits else None)
        sections |= {"identity": {"key_secret": KEY_SECRET}, "organizations": {"acme": organization}}
    sections |= {"audit": {"enabled": parts.audit}, "usage": {"enabled": parts.usage}}
    if parts.guardrail:
        check = directory / "check.py"
        check.write_text(_CHECK)
        sections["guardrails"] = {"pass": {"file": str(check), "phases": ["request"], "timeout": 5}}
    return Setting(sections, texts)


def organization_of(keys: int, limits: dict[str, Any] | None) -> tuple[dict[str, Any], list[str]]:
    """An organization with so many keys in `TEAMS` teams, and `RULES` rules in all of it; the keys.

    One rule that every caller meets is about an argument, so that it is judged with every call.
    """
    more: dict[str, Any] = {} if limits is None else {"limits": limits}
    texts: list[str] = []
    teams: dict[str, Any] = {}
    for team in range(TEAMS):
        deny = [
            {"tools": [f"*__hidden{team}*"]},
            {"tools": ["*__echo"], "when": {"args.text": {"prefix": "forbidden"}}},
        ]
        teams[f"t{team}"] = {"allow": [{"servers": ["*"]}], "deny": deny, "keys": {}, **more}
    for number in range(keys):
        text = mint(os.urandom(ENTROPY)).text.reveal()
        texts.append(text)
        teams[f"t{number % TEAMS}"]["keys"][f"k{number}"] = {"hash": hash_of(text, Secret(KEY_SECRET)), **more}
    deny = [{"tools": [f"*__secret{rule}*"]} for rule in range(RULES - 3 * TEAMS - 1)]
    return {"allow": [{"servers": ["*"]}], "deny": deny, "teams": teams, **more}, texts
