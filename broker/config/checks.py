"""What concerns more than one value: owners of names, members of groups, pairs of settings that exclude each other.

Pure, and over `ServerFacts` in place of models, so that it also runs on a file whose models cannot be built: its
findings stand beside those of single values.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from broker.config.document import Finding, Path, shown

MODERN: str = "2026-07-28"
"""The protocol version that the old SSE transport cannot carry, since that transport is a session."""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the checks read of one server. prefix: None if it has none of its own."""

    prefix: str | None = None
    protocol: str | None = None
    transport: str | None = None
    headers: tuple[str, ...] = ()


CALLERS: tuple[str, ...] = ("organizations", "teams", "keys")
"""Selectors over who asks."""


@dataclass(frozen=True, slots=True)
class SelectorFacts:
    """What the checks read of one guardrail. callers: which of `CALLERS` it has."""

    phases: Sequence[object] = ()
    servers: Sequence[object] = ()
    kinds: Sequence[object] = ()
    callers: Sequence[str] = ()


def conflicts(servers: Mapping[str, ServerFacts], groups: Mapping[str, Sequence[object]]) -> list[Finding]:
    """groups: the members by group name; what is no text among them is somebody else's finding."""
    return [
        *_two_owners(servers, groups),
        *_second_without_prefix(servers),
        *(finding for name, members in groups.items() for finding in _members(name, members, servers)),
        *(finding for key, facts in servers.items() for finding in _pairs(key, facts)),
    ]


def _two_owners(servers: Mapping[str, ServerFacts], groups: Iterable[str]) -> list[Finding]:
    found: list[Finding] = []
    owners = {key: f'the key of server "{shown(key)}"' for key in servers}

    def claim(name: str, owner: str, path: Path, remedy: str) -> None:
        if name in owners:
            message = f'two owners of the name "{shown(name)}": {owner} and {owners[name]}'
            found.append(Finding(path, message, remedy))
        else:
            owners[name] = owner

    for key, facts in servers.items():
        if facts.prefix and facts.prefix != key:
            owner = f'the prefix of server "{shown(key)}"'
            claim(facts.prefix, owner, ("servers", key, "prefix"), "Choose another prefix, or leave it out.")
    for name in groups:
        claim(name, f'the group "{shown(name)}"', ("groups", name), "Rename the group.")
    return found


def _second_without_prefix(servers: Mapping[str, ServerFacts]) -> list[Finding]:
    bare = [key for key, facts in servers.items() if facts.prefix == ""]
    return [
        Finding(
            ("servers", key, "prefix"),
            f'two servers without a prefix: "{shown(key)}" and "{shown(bare[0])}"',
            "Give one of them a prefix, or leave prefix out.",
        )
        for key in bare[1:]
    ]


def _members(group: str, members: Sequence[object], servers: Iterable[str]) -> list[Finding]:
    if not members:
        return [Finding(("groups", group), "a group without members", "Name a server, or remove the group.")]
    found: list[Finding] = []
    seen: set[object] = set()
    for index, member in enumerate(members):
        path: Path = ("groups", group, index)
        if not isinstance(member, str):
            continue
        if member in seen:
            found.append(Finding(path, f'"{shown(member)}" is already in this group', "Remove one of them."))
        elif member not in servers:
            found.append(Finding(path, f'there is no server "{shown(member)}"', did_you_mean(member, servers)))
        seen.add(member)
    return found


def _pairs(key: str, facts: ServerFacts) -> list[Finding]:
    found: list[Finding] = []
    if facts.transport == "sse" and facts.protocol == MODERN:
        found.append(
            Finding(
                ("servers", key, "protocol"),
                f"the sse transport cannot carry protocol {MODERN}",
                "Use transport: http, or an earlier protocol.",
            )
        )
    seen: set[str] = set()
    for name in facts.headers:
        if name.lower() in seen:
            message = "this header is given twice (case does not matter)"
            found.append(Finding(("servers", key, "headers", name), message, "Remove one of them."))
        seen.add(name.lower())
    return found


def misdirected(guardrails: Mapping[str, SelectorFacts], servers: Iterable[str]) -> list[Finding]:
    """Guardrails that could never judge what they name: a check that looks as if it were there must not be missing."""
    found: list[Finding] = []
    known = tuple(servers)
    for name, facts in guardrails.items():
        for index, key in enumerate(facts.servers):
            if isinstance(key, str) and key not in known:
                message, remedy = f'there is no server "{shown(key)}"', did_you_mean(key, known)
                found.append(Finding(("guardrails", name, "servers", index), message, remedy))
        if "definition" in facts.phases:
            message = "definitions are judged when they are discovered, for all callers alike"
            remedy = "Make two guardrails of it, or leave this out."
            found += [Finding(("guardrails", name, word), message, remedy) for word in facts.callers]
        elif "instructions" in facts.kinds:
            where = ("guardrails", name, "kinds", list(facts.kinds).index("instructions"))
            found.append(Finding(where, "instructions are judged as definitions", "Add definition to phases."))
    return found


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A question with the nearest known word, "" if none is near."""
    near = difflib.get_close_matches(word[:64], sorted(known), n=1)
    return f'Did you mean "{shown(near[0])}"?' if near else ""
