"""The sources that must not get through, those that must keep working, and what may become of each."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from broker.guardrails.source import Source

HERE = Path(__file__).resolve().parent
CANARY = "canary-7f3a91"
"""Planted in the broker's environment: no guardrail may ever say it."""
ALLOW = "\ndef check(ctx):\n    return {'action': 'allow'}\n"
CONTEXT: dict[str, Any] = {
    "phase": "request",
    "method": "tools/call",
    "server": "fs",
    "kind": "tools",
    "name": "fs__write",
    "tool": "fs__write",
    "args": {"path": "/tmp/x", "list": [1, 2], "secret": "arg-canary"},
    "caller": {"principal": "local", "organization": "acme", "team": "dev", "key": "ci"},
}

STRICTER = {"reject": {"reject"}, "runtime_error": {"reject", "denied"}, "bounded": {"reject", "denied"}}
"""By `expect`: what may become of a source. To refuse earlier what was to be denied later is as good.

A source of the category `state` may also be answered: what matters is that nothing of it outlives the call.
"""
FAST = {"generator_chain_deep"}
"""Sources that some versions of Python run to their end well within the bounds (3.13: no recursion in C): so be it."""


@dataclass(frozen=True)
class Attack:
    name: str
    category: str
    expect: str
    code: str

    @property
    def has_entry(self) -> bool:
        return "def check(" in self.code

    @property
    def may_be(self) -> set[str]:
        is_harmless = self.name in FAST or (self.category == "state" and self.expect == "bounded")
        return STRICTER[self.expect] | ({"answered"} if is_harmless else set())

    def variants(self) -> Iterator[tuple[str, str]]:
        """As it is; and, where it has no `check`, with one that allows: after its statements, and around them."""
        yield "as it is", self.code
        if self.has_entry or self.name == "no_entry_point":
            return
        yield "module", self.code + ALLOW
        if len(self.code) < 10_000:
            lines = "".join(f"    {line}\n" for line in self.code.split("\n"))
            yield "function", f"def check(ctx):\n{lines}    return {{'action': 'allow'}}\n"


def attacks() -> list[Attack]:
    found: list[Attack] = []
    for row in yaml.safe_load((HERE / "attacks/escapes.yaml").read_text(encoding="utf-8")):
        # The generators are ours: expressions over literals.
        code = row["code"] if row.get("code") is not None else eval(row["code_gen"], {"__builtins__": {}})
        found.append(Attack(row["name"], row["category"], row["expect"], code))
    return found


def controls() -> list[dict[str, Any]]:
    return yaml.safe_load((HERE / "attacks/controls.yaml").read_text(encoding="utf-8"))


def source(text: str, name: str = "tested", **more: Any) -> Source:
    data = text.encode("utf-8", "surrogatepass")
    return Source(name, data, hashlib.sha256(data).hexdigest(), **more)
